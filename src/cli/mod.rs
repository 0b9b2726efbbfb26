//! The command line.

mod backtest;
mod check_config;
mod control;
mod demo;
mod lag;
mod launch;
mod replay;
mod run;
mod state;
mod table;

use std::io::{self, Write};
use std::panic;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::time::{Time, parse_rfc3339};
use foreshock_operators::venues::Format;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::documents::error::ConfigErrors;
use crate::documents::kind::is_address;
use crate::kafka::closing::await_closed;
use crate::launch::ProcessStaysDown;
use crate::live::failures;
use crate::misuse::Misuse;

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
    Backtest(backtest::BacktestArgs),
    Replay(replay::ReplayArgs),
    Control(control::ControlArgs),
    Lag(lag::LagArgs),
    State(state::StateArgs),
    CheckConfig(check_config::CheckConfigArgs),
}

/// Runs the program.
pub fn main() -> ExitCode {
    end_at_panics();
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Launch(args) => launch::launch(args),
        Command::Demo(args) => demo::demo(args),
        Command::Backtest(args) => backtest::backtest(args),
        Command::Replay(args) => replay::replay(args),
        Command::Control(args) => control::control(args),
        Command::Lag(args) => lag::run(args),
        Command::State(args) => state::state(args),
        Command::CheckConfig(args) => check_config::run(&args),
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

/// A panicking worker would leave its siblings waiting for ever: the process ends instead, and starts again from its log.
fn end_at_panics() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        say(what);
        process::abort()
    }));
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

fn parse_format(name: &str) -> Result<Format, String> {
    let known: Vec<&str> = Format::all().map(Format::name).collect();
    let known = known.join(", ");
    Format::parse(name).ok_or_else(|| format!("expected one of {known}"))
}

/// What the help says of `--format`: what there is, and how it is told where it is left out.
fn format_help(is_told: &str) -> String {
    let names: Vec<&str> = Format::all().map(Format::name).collect();
    format!("{is_told} where left out: {}", names.join(", "))
}

/// What the help says of `--emit`.
fn emit_help(kinds: impl Iterator<Item = OutputKind>, by_default: &str) -> String {
    let names: Vec<&str> = kinds.map(OutputKind::name).collect();
    format!("What to write: a list of {}; by default {by_default}", names.join(", "))
}

fn parse_kind(name: &str) -> Result<OutputKind, String> {
    let known = OutputKind::ALL.map(OutputKind::name).join(", ");
    OutputKind::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| format!("expected one of {known}"))
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
