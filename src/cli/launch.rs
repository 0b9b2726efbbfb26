//! `foreshock launch`.

use anyhow::{Context, Result};
use clap::Args;

use super::run::{JobArgs, parse_processes, print_summary};
use super::{on_signals, processors};
use crate::launch::Launch;
use crate::logs;

/// Run the live job as several processes on this machine, and start them again when one dies.
///
/// Takes the options of `run`, and gives them to each process. Process p has its HTTP server at the configured port
/// + p. Ends at Ctrl-C or SIGTERM when all processes have ended in order; a second signal ends them at once.
#[derive(Args, Debug)]
pub struct LaunchArgs {
    #[command(flatten)]
    job: JobArgs,

    /// Processes to start.
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_processes)]
    processes: usize,
}

/// Runs the command.
pub fn launch(args: LaunchArgs) -> Result<()> {
    let config = args.job.config()?;
    logs::start(&config.log);
    // As they were given, number of processes included: `run` takes the same.
    let mut options: Vec<_> = std::env::args_os().skip(2).collect();
    if args.job.workers.is_none() {
        let each = (processors() / args.processes).max(1);
        options.extend(["--workers".into(), each.to_string().into()]);
    }
    let launch = Launch {
        program: std::env::current_exe().context("could not tell which program this is")?,
        options,
        processes: args.processes,
        config,
        stop: on_signals()?,
    };
    match launch.run()? {
        Some(summary) => print_summary(&summary, args.job.json),
        None => Ok(()),
    }
}
