//! `foreshock backtest`.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use clap::Args;
use foreshock_dataflows::batch::TimeRange;
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::time::Time;
use foreshock_operators::venues::Format;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::warn;

use super::{emit_help, format_help, parse_format, parse_kind, parse_time, parse_workers, processors};
use crate::backtest::output::Destination;
use crate::backtest::{Backtest, ReadProgress};
use crate::config::{Config, Mode, environment};
use crate::logs;
use crate::misuse::Misuse;
use crate::recordings::input::RecordedInput;
use crate::recordings::sniff::Expected;
use crate::summary::print;

/// Run recorded feeds through the graph of a live job, as fast as the machine can.
///
/// Prints the account of the run: every message and row has one fate, and the fates add up.
#[derive(Args, Debug)]
pub struct BacktestArgs {
    /// Recorded files, merged as one log: JSON lines, plain or with a receive time before each, or a JSON array; also as
    /// .zst, .gz and .zip; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,

    #[arg(long, value_parser = parse_format, help = format_help("What the files hold; told from their first lines"))]
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

    #[arg(
        long, value_name = "LIST", value_delimiter = ',', value_parser = parse_file_kind, requires = "out",
        help = emit_help(OutputKind::of_files(), "all but scored")
    )]
    emit: Vec<OutputKind>,

    /// Folder for the outputs, one file a kind; `-` writes a single kind to standard output. Without it only the
    /// summary is printed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Read a file that was cut off or is damaged as far as it is whole, and say what was lost.
    #[arg(long)]
    take_whole: bool,

    /// Read files that are still being written: wait for more at their ends, go on where they are rotated or truncated,
    /// until Ctrl-C or SIGTERM; then the outputs are complete. A second signal ends it at once, without outputs.
    #[arg(long)]
    follow: bool,

    /// Fail when a message or row was refused or late; the outputs are kept.
    #[arg(long)]
    strict: bool,

    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn backtest(args: BacktestArgs) -> Result<()> {
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
    if args.follow && inputs.contains(&RecordedInput::Stdin) {
        bail!(Misuse("standard input is read to its end in any case: --follow takes files".to_string()));
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
        take_whole: args.take_whole,
        follow: args.follow,
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
    if let Some(warning) = summary.mostly_refused().filter(|_| args.json) {
        warn!("{warning}");
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

fn parse_file_kind(name: &str) -> Result<OutputKind, String> {
    let kind = parse_kind(name)?;
    match kind.output().has_file {
        true => Ok(kind),
        false => Err(format!("{name} rows go to a topic only: see run")),
    }
}
