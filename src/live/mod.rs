//! A live job: the shards of topics through the graph of a backtest, its outputs to topics.
//!
//! ```text
//! start: topics ─► offsets ─► shards
//! then:  workers (poll ─► decode ─► market ─► publish)   committer   watcher   supervisor ─► job status
//! ```
//! Workers never wait for a broker. The committer commits what they report as delivered, the watcher asks where
//! the logs end, the supervisor posts what all of them say and ends the job.
//!
//! What these threads have in common lies in four parts, and each takes only those that it needs:
//!
//! ```text
//! JobSpec    what is fixed     configuration, shards, instruments               all
//! Measures   what is measured  progress, clocks, metrics, whether brokers answer   all
//! JobReport  what is said      account, alerts, refusals, the model in force    workers, supervisor
//! Ending     what ends it      halt, stop, delivered, the other processes       all
//! ```

mod account;
mod alerts;
mod attempt;
mod committer;
mod deliver;
mod ending;
pub mod failures;
mod job;
mod job_report;
mod job_spec;
mod measures;
mod poll;
mod recovery_watch;
mod snapshots;
pub mod start;
mod supervisor;
mod watcher;
mod worker;
mod worker_ends;
mod worker_start;

use std::sync::Arc;

use ending::Ending;
use job_report::JobReport;
use job_spec::JobSpec;
use measures::Measures;

pub use job::{Done, Job};

/// What the threads of one attempt have in common. Clones share it.
#[derive(Clone)]
struct JobParts {
    spec: Arc<JobSpec>,
    measures: Arc<Measures>,
    report: Arc<JobReport>,
    ending: Arc<Ending>,
}
