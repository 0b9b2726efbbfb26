//! A process's talk with the supervisor that started it.
//!
//! ```text
//! standard input    stop            end in order
//!                   (end of input)  the supervisor is gone: end at once
//! standard output   one JSON object a line, see News
//! ```
//! Pipes and not signals: they tell of the supervisor's end too, however it came.

use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use foreshock_operators::account::Counts;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use crate::status::{JobStatus, Phase};
use crate::summary::RunSummary;

/// The order to end.
pub const STOP: &str = "stop\n";

/// How often the status is looked at for the news that the job runs.
const TICK: Duration = Duration::from_millis(10);

/// The exit status of a process whose supervisor is gone.
const ABANDONED: i32 = 1;

/// What a process tells its supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SupervisorMessage {
    /// It knows where it begins, and has begun.
    Running,
    /// It has ended in order.
    Ended(Box<ProcessReport>),
}

/// What a process has done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessReport {
    pub counts: Counts,
    /// Since the job began to read its input.
    pub account: Counts,
    pub rows_per_worker: Vec<i64>,
    pub peak_rss_bytes: u64,
}

/// The supervisor of this process.
pub struct Parent;

impl Parent {
    /// Listens to its orders, and tells it when the job runs.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn obey(stop: Arc<AtomicBool>, job_status: Arc<JobStatus>) -> Result<Parent> {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        named("orders").spawn(move || listen(&stop)).context("could not listen to the supervisor")?;
        named("news")
            .spawn(move || tell_when_running(&job_status))
            .context("could not tell the supervisor")?;
        Ok(Parent)
    }

    /// Tells it what was done, at the end.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn report(summary: &RunSummary) -> Result<()> {
        let RunSummary { counts, account, rows_per_worker, peak_rss_bytes, .. } = summary.clone();
        let account = account.unwrap_or_default();
        tell(&SupervisorMessage::Ended(Box::new(ProcessReport {
            counts,
            account,
            rows_per_worker,
            peak_rss_bytes,
        })))
    }
}

fn listen(stop: &AtomicBool) {
    for line in io::stdin().lock().lines() {
        match line.as_deref().map(str::trim) {
            Ok("stop") => stop.store(true, Ordering::Relaxed),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    error!("the supervisor is gone; ending at once");
    signal_hook::low_level::exit(ABANDONED)
}

fn tell_when_running(job_status: &JobStatus) {
    loop {
        match job_status.state().phase {
            Phase::Starting => thread::sleep(TICK),
            Phase::Running => break,
            Phase::Stopping | Phase::Failed(_) => return,
        }
    }
    if let Err(error) = tell(&SupervisorMessage::Running) {
        // The end of its orders will tell.
        info!(error = format!("{error:#}"), "the supervisor doesn't listen");
    }
}

fn tell(news: &SupervisorMessage) -> Result<()> {
    let line = serde_json::to_string(news).context("could not write news as JSON")?;
    crate::summary::print(format!("{line}\n").as_bytes())
}
