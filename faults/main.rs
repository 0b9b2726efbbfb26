//! The fault campaign: a job on a real Kafka through kills and outages, and a judge of what it wrote.
//!
//! ```text
//! seed ─► plan ─► campaign ─► job (processes) ─► proxy ─► broker
//!    └──► feed ─► feeder ─► broker       watch ◄─────────┘
//! then: outputs of the job ┐
//!       undisturbed run ───┴► judge ─► report
//! ```
//! `scripts/faults` builds and calls it; docs/reliability.md tells what it shows.

mod broker;
mod campaign;
mod feed;
mod feeder;
mod job;
mod judge;
mod marks;
mod options;
mod plan;
mod proxy;
mod report;
mod state;
mod topics;
mod watch;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;

use crate::options::Options;
use crate::report::Report;

/// The judge found a difference, or something else was wrong with the job.
const WRONG: u8 = 3;

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.short {
        options.kills = 20;
    }
    let seed = *options.seed.get_or_insert_with(|| job::milliseconds_now() as u64 % 1_000_000);
    println!("{options}");
    match campaign::run(&options, seed).and_then(|report| tell(&options, report)) {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(WRONG),
        Err(error) => {
            eprintln!("the campaign failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tell(options: &Options, report: Report) -> Result<Report> {
    for wrong in &report.wrong {
        println!("wrong: {wrong}");
    }
    if let Some(first) = &report.verdict.first {
        println!("first difference: {first}");
    }
    println!("{report}");
    if let Some(path) = &options.json {
        let all = json!({"options": options.to_string(), "seed": options.seed, "report": report.to_json()});
        fs::write(path, format!("{all:#}\n"))
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(report)
}
