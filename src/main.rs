use std::process::ExitCode;

fn main() -> ExitCode {
    foreshock::cli::main()
}
