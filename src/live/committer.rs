//! Commits offsets, and only those behind which all outputs have arrived. Never on a worker's thread.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use tracing::{info, warn};

use super::Shared;
use crate::kafka::offsets::{Offsets, passes};

/// Commits until the workers have ended and their last outputs are committed.
///
/// # Errors
/// When the last offsets could not be committed in time: what is behind them is read again at the next start.
pub fn commit(shared: &Shared) -> Result<()> {
    let offsets = match Offsets::connect(&shared.config.kafka, &shared.config.job) {
        Ok(offsets) => offsets,
        Err(error) => {
            shared.halt.fail(error);
            return Ok(());
        }
    };
    let mut failing = false;
    let mut deadline: Option<Instant> = None;
    loop {
        // Looked at first: what was delivered before the end is then committed below.
        let is_last = shared.delivered.load(Ordering::Acquire);
        let due: Vec<(usize, i64)> = (0..shared.shards.len())
            .map(|at| (at, shared.progress[at].delivered()))
            .filter(|(at, delivered)| *delivered != shared.committed[*at].load(Ordering::Relaxed))
            .collect();
        let places = due.iter().map(|(at, delivered)| {
            let shard = &shared.shards[*at];
            (shard.topic.as_str(), shard.partition, *delivered)
        });
        let commits = &shared.metrics.job.commits;
        match offsets.commit(places) {
            Ok(()) => {
                for (at, delivered) in &due {
                    shared.committed[*at].store(*delivered, Ordering::Relaxed);
                }
                if !due.is_empty() {
                    commits.with_label_values(&["done"]).inc();
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
                commits.with_label_values(&["failed"]).inc();
                if !passes(&error) {
                    shared.halt.fail(error);
                    return Ok(());
                }
                if !failing {
                    warn!(error = format!("{error:#}"), "offsets can't be committed; trying again");
                    failing = true;
                }
                let at_most = shared.config.kafka.stop_timeout;
                if is_last && Instant::now() >= *deadline.get_or_insert(Instant::now() + at_most) {
                    return Err(anyhow!(
                        "{error:#}, for {at_most:?}; what is not committed is read again at the next start"
                    ));
                }
            }
        }
        if shared.halt.is_set() {
            return Ok(());
        }
        thread::park_timeout(shared.config.kafka.commit_interval);
    }
}
