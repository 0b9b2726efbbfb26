//! Commits offsets, and only those behind which all outputs have arrived. Never on a worker's thread.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tracing::{info, warn};

use super::ending::Ending;
use super::job_spec::JobSpec;
use super::measures::Measures;
use crate::kafka::admin::commits::Commits;
use crate::kafka::admin::offsets::passes;

/// How long the group's coordinator may take for one commit.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// Offsets that don't move are committed again after so long: brokers forget those that are not.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// Commits until the workers have ended and their last outputs are committed.
///
/// # Errors
/// When the last offsets could not be committed in time: what is behind them is read again at the next start.
pub fn commit_delivered(spec: &JobSpec, measures: &Measures, ending: &Ending) -> Result<()> {
    let commits = match Commits::connect(&spec.config.kafka, &spec.config.job) {
        Ok(commits) => commits,
        Err(error) => {
            ending.halt.fail(error);
            return Ok(());
        }
    };
    let mut failing = false;
    let mut deadline: Option<Instant> = None;
    let mut all_at = Instant::now();
    loop {
        // Looked at first: what was delivered before the end is then committed below.
        let is_last = ending.is_delivered();
        let again = all_at.elapsed() >= AGAIN_AFTER;
        match commit_due(spec, measures, &commits, again) {
            Ok(()) => {
                if again {
                    all_at = Instant::now();
                }
                if failing {
                    info!("offsets are committed again");
                    failing = false;
                }
                if is_last {
                    return Ok(());
                }
            }
            Err(error) => {
                measures.metrics.commits.with_label_values(&["failed"]).inc();
                if !passes(&error) {
                    ending.halt.fail(error);
                    return Ok(());
                }
                if !failing {
                    warn!(error = format!("{error:#}"), "offsets can't be committed; trying again");
                    failing = true;
                }
                let at_most = spec.config.kafka.stop_timeout;
                // A job that can't go on does not wait for brokers besides.
                if is_last
                    && (ending.halt.is_set()
                        || Instant::now() >= *deadline.get_or_insert(Instant::now() + at_most))
                {
                    return Err(anyhow!(
                        "{error:#}, for {at_most:?}; what is not committed is read again at the next start"
                    ));
                }
            }
        }
        thread::park_timeout(spec.config.kafka.commit_interval);
    }
}

/// Commits what was delivered since the last time, or all of it `again`.
fn commit_due(spec: &JobSpec, measures: &Measures, commits: &Commits, again: bool) -> Result<()> {
    let due: Vec<_> = spec
        .own_shards()
        .map(|at| (&spec.shards[at], &measures.progress[at]))
        .map(|(shard, progress)| (shard, progress, progress.delivered()))
        .filter(|(_, progress, delivered)| again || *delivered != progress.committed())
        .collect();
    if due.is_empty() {
        return Ok(());
    }
    let places =
        due.iter().map(|(shard, _, delivered)| (shard.topic.as_str(), shard.partition, *delivered, ""));
    commits.commit(places, COMMIT_WITHIN)?;
    for (_, progress, delivered) in &due {
        progress.commit(*delivered);
    }
    measures.metrics.commits.with_label_values(&["done"]).inc();
    Ok(())
}
