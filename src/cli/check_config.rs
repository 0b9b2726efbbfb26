//! `foreshock check-config`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::config::{Config, Mode, check_config, environment};
use crate::summary::print;

/// Check the configuration and print what is in force and where each value comes from.
#[derive(Args, Debug)]
pub struct CheckConfigArgs {
    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,

    /// The command that the configuration is meant for: some defaults depend on it.
    #[arg(long, value_name = "COMMAND", default_value = "run", value_parser = parse_mode)]
    command: Mode,
}

/// Runs the command.
pub fn run(args: &CheckConfigArgs) -> Result<()> {
    let config = Config::load(&args.configs, environment(), args.command)?;
    let mut text = Vec::new();
    check_config(&config, &mut text)?;
    print(&text)
}

fn parse_mode(name: &str) -> Result<Mode, String> {
    [Mode::Run, Mode::Backtest, Mode::Demo]
        .into_iter()
        .find(|mode| mode.name() == name)
        .ok_or_else(|| "expected one of run, backtest, demo".to_string())
}
