//! The command line.

mod control;
mod demo;
mod lag;
mod launch;
mod replay;
mod run;
mod state;
mod table;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use foreshock_dataflows::batch::TimeRange;
use foreshock_dataflows::output_kind::OutputKind;
use foreshock_operators::decode::Format;
use foreshock_operators::time::{Time, parse_rfc3339};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::backtest::output::Destination;
use crate::backtest::{Backtest, ReadProgress};
use crate::config::{Config, Mode, check_config, environment};
use crate::documents::error::ConfigErrors;
use crate::documents::kind::is_address;
use crate::kafka::closing::await_closed;
use crate::launch::ProcessStaysDown;
use crate::live::failures;
use crate::logs;
use crate::misuse::Misuse;
use crate::recordings::input::RecordedInput;
use crate::recordings::sniff::Expected;
use crate::summary::print;

/// Done.
const DONE: u8 = 0;
/// The program met something it could not go on with.
const FAILED: u8 = 1;
/// The program was called or configured wrongly.
const MISUSED: u8 = 2;
/// The job has failed too often at one place; whoever starts it again and again shall not.
const STAYS_DOWN: u8 = 4;

/// How long clients may take to end before the process does.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// More workers than this are a slip of the finger.
const WORKERS_MAX: usize = 256;

/// Real-time market surveillance and volatility prediction.
#[derive(Parser, Debug)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::RunArgs),
    Launch(launch::LaunchArgs),
    Demo(demo::DemoArgs),
    Backtest(BacktestArgs),
    Replay(replay::ReplayArgs),
    Control(control::ControlArgs),
    Lag(lag::LagArgs),
    State(state::StateArgs),
    CheckConfig(CheckConfigArgs),
}

/// Run recorded feeds through the graph of a live job, as fast as the machine can.
///
/// Prints the account of the run: every message and row has one fate, and the fates add up.
#[derive(Args, Debug)]
struct BacktestArgs {
    /// Recorded files, merged as one log: JSON lines, plain or with a receive time before each, also as .zst and
    /// .gz; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,

    /// What the files hold; told from their first lines where left out: coinbase-exchange,
    /// coinbase-advanced-trade, binance, okx, canonical.
    #[arg(long, value_parser = parse_format)]
    format: Option<Format>,

    /// Whose messages they are, where the format has several: binance, binance-usdm, binance-coinm.
    #[arg(long, value_name = "NAME")]
    exchange: Option<String>,

    /// Worker threads; by default one for each processor. The output is the same for any number.
    #[arg(short, long, value_name = "N", value_parser = parse_workers)]
    workers: Option<usize>,

    /// Leave out rows before this event time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<Time>,

    /// Leave out rows at or after this event time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<Time>,

    /// What to write: a list of features, predictions, metrics, gaps, alerts, deadletter, scored; by default all
    /// but scored.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_file_kind, requires = "out")]
    emit: Vec<OutputKind>,

    /// Folder for the outputs, one file a kind; `-` writes a single kind to standard output. Without it only the
    /// summary is printed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Fail when a message or row was refused or late; the outputs are kept.
    #[arg(long)]
    strict: bool,

    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Check the configuration and print what is in force and where each value comes from.
#[derive(Args, Debug)]
struct CheckConfigArgs {
    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,

    /// The command that the configuration is meant for: some defaults depend on it.
    #[arg(long, value_name = "COMMAND", default_value = "run", value_parser = parse_mode)]
    command: Mode,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Launch(args) => launch::launch(args),
        Command::Demo(args) => demo::demo(args),
        Command::Backtest(args) => backtest(args),
        Command::Replay(args) => replay::replay(args),
        Command::Control(args) => control::control(args),
        Command::Lag(args) => lag::run(args),
        Command::State(args) => state::state(args),
        Command::CheckConfig(args) => check(&args),
    };
    let status = match done {
        Ok(()) => ExitCode::from(DONE),
        Err(error) => {
            // Nobody is left to tell when standard error is gone too.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            let is_misuse = error.is::<Misuse>() || error.is::<ConfigErrors>();
            let stays_down = error.is::<failures::StaysDown>().then_some(STAYS_DOWN);
            let as_child = error.downcast_ref::<ProcessStaysDown>().map(|down| down.status);
            ExitCode::from(stays_down.or(as_child).unwrap_or(if is_misuse { MISUSED } else { FAILED }))
        }
    };
    await_closed(ENDS_WITHIN);
    status
}

fn check(args: &CheckConfigArgs) -> Result<()> {
    let config = Config::load(&args.configs, environment(), args.command)?;
    let mut text = Vec::new();
    check_config(&config, &mut text)?;
    print(&text)
}

/// A flag that the first Ctrl-C or SIGTERM sets; the second ends the process. Others may set the flag too, and the
/// first signal after them is still the first.
fn on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and sets it.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(FAILED), asked.clone())
            .and_then(|_| signal_hook::flag::register(signal, asked.clone()))
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .context("could not listen for signals")?;
    }
    Ok(stop)
}

fn processors() -> usize {
    available_parallelism().map_or(1, |n| n.get())
}

fn backtest(args: BacktestArgs) -> Result<()> {
    let config = Config::load(&args.configs, environment(), Mode::Backtest)?;
    logs::start(&config.log);
    let (destination, kinds) = destination(&args)?;
    let range = TimeRange { from: args.from, to: args.to };
    if let (Some(from), Some(to)) = (range.from, range.to)
        && from >= to
    {
        bail!(Misuse("--from is not before --to: no row would be left".to_string()));
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).context("could not listen for signals")?;
    }
    let inputs: Vec<RecordedInput> = args.files.iter().map(|path| RecordedInput::named(path)).collect();
    if inputs.iter().filter(|input| **input == RecordedInput::Stdin).count() > 1 {
        bail!(Misuse("standard input can be read only once".to_string()));
    }
    let to_stdout = destination == Destination::Stdout;
    let (progress, bar) = progress();
    let run = Backtest {
        inputs,
        expected: Expected { format: args.format.or(config.input.format), exchange: args.exchange },
        workers: args.workers.unwrap_or_else(processors),
        range,
        kinds,
        destination,
        chunk_bytes: config.backtest.chunk_bytes,
        max_message_bytes: config.input.max_message_bytes,
        control: config.control,
        settings: config.settings,
        progress,
        interrupted,
    };
    let summary = run.run();
    bar.finish_and_clear();
    let summary = summary?;
    let text = if args.json { summary.to_json().to_string() } else { summary.to_string() };
    if to_stdout {
        writeln!(io::stderr(), "{text}").context("could not write to standard error")?;
    } else {
        print(format!("{text}\n").as_bytes())?;
    }
    let refused = summary.dead_letters();
    if args.strict && refused > 0 {
        bail!("{refused} messages or rows were refused or late, and --strict was given");
    }
    Ok(())
}

/// Where the outputs go and which there are.
fn destination(args: &BacktestArgs) -> Result<(Destination, Vec<OutputKind>)> {
    let mut kinds: Vec<OutputKind> = args.emit.clone();
    if kinds.is_empty() {
        kinds = OutputKind::of_files().filter(|kind| *kind != OutputKind::Scored).collect();
    }
    kinds.sort();
    kinds.dedup();
    let destination = match &args.out {
        None => return Ok((Destination::Nowhere, Vec::new())),
        Some(out) if out.as_os_str() == "-" && kinds.len() == 1 => Destination::Stdout,
        Some(out) if out.as_os_str() == "-" => {
            bail!(Misuse("--out - takes a single kind: name it with --emit".to_string()))
        }
        Some(out) => Destination::Folder(out.clone()),
    };
    Ok((destination, kinds))
}

/// A bar on standard error where that is a terminal.
fn progress() -> (ReadProgress, ProgressBar) {
    if !io::stderr().is_terminal() {
        return (Box::new(|_, _| {}), ProgressBar::hidden());
    }
    let bar = ProgressBar::no_length();
    let known = "{wide_bar} {bytes} of {total_bytes}, {eta} to go";
    if let Ok(style) = ProgressStyle::with_template(known) {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let progress = move |read, total: Option<u64>| {
        if let Some(total) = total {
            shown.set_length(total);
        }
        shown.set_position(read);
    };
    (Box::new(progress), bar)
}

fn parse_format(name: &str) -> Result<Format, String> {
    let known = Format::ALL.map(Format::name).join(", ");
    Format::parse(name).ok_or_else(|| format!("expected one of {known}"))
}

fn parse_file_kind(name: &str) -> Result<OutputKind, String> {
    match parse_kind(name)? {
        OutputKind::Control => Err("answers to control records go to a topic only: see run".to_owned()),
        kind => Ok(kind),
    }
}

fn parse_kind(name: &str) -> Result<OutputKind, String> {
    let known = OutputKind::ALL.map(OutputKind::name).join(", ");
    OutputKind::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| format!("expected one of {known}"))
}

fn parse_mode(name: &str) -> Result<Mode, String> {
    [Mode::Run, Mode::Backtest, Mode::Demo]
        .into_iter()
        .find(|mode| mode.name() == name)
        .ok_or_else(|| "expected one of run, backtest, demo".to_string())
}

fn parse_workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(workers) if (1..=WORKERS_MAX).contains(&workers) => Ok(workers),
        _ => Err(format!("expected a whole number from 1 to {WORKERS_MAX}")),
    }
}

fn parse_time(text: &str) -> Result<Time, String> {
    let time = parse_rfc3339(text).map(|(time, _)| time);
    time.ok_or_else(|| "expected a time like 2024-08-08T23:55:00Z".to_string())
}

fn parse_brokers(text: &str) -> Result<String, String> {
    let expected = "expected addresses host:port with commas between them";
    if text.split(',').all(is_address) { Ok(text.to_owned()) } else { Err(expected.to_owned()) }
}
