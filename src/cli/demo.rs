//! `foreshock demo`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::run::topic_kinds;
use super::{on_signals, parse_workers};
use crate::config::{Config, Mode, environment};
use crate::{demo, logs};

/// Show all of foreshock at work, with nothing to install: a broker inside, two feeds, a live job, its HTTP server.
///
/// Ends at Ctrl-C or SIGTERM.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,

    /// Worker threads of the job.
    #[arg(short, long, value_name = "N", default_value = "2", value_parser = parse_workers)]
    workers: usize,
}

/// Runs the command.
pub fn demo(args: DemoArgs) -> Result<()> {
    let config = Config::load(&args.configs, environment(), Mode::Demo)?;
    logs::start(&config.log);
    demo::show::run(config, args.workers, topic_kinds(Vec::new()), &on_signals()?)
}
