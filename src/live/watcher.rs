//! Asks the brokers once a second where the logs end: so it is known too whether they answer.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::Shared;
use crate::kafka::offsets::Offsets;
use crate::status::wall_time;

/// How often the brokers are asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer may take before the brokers are said to be away.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How long the end of the job goes unnoticed here.
const TICK: Duration = Duration::from_millis(100);

/// Watches until the workers have ended.
pub fn watch(shared: &Shared) {
    let offsets = match Offsets::connect(&shared.config.kafka, &shared.config.job) {
        Ok(offsets) => offsets,
        Err(error) => return shared.halt.fail(error),
    };
    let mut lost_at: Option<Instant> = None;
    while !shared.delivered.load(Ordering::Acquire) && !shared.halt.is_set() {
        let asked_at = Instant::now();
        let connected = look(shared, &offsets);
        shared.kafka_connected.store(connected, Ordering::Release);
        match (connected, lost_at) {
            (false, None) => {
                warn!(
                    brokers = shared.config.kafka.brokers,
                    "no Kafka broker answers; going on when one does"
                );
                lost_at = Some(asked_at);
            }
            (true, Some(lost)) => {
                info!(away_seconds = lost.elapsed().as_secs(), "Kafka brokers answer again");
                lost_at = None;
            }
            _ => {}
        }
        // Jobs that lost the same broker shall not come back in step.
        let jitter = Duration::from_millis(wall_time().0.unsigned_abs() / 1_000 % 250);
        while asked_at.elapsed() < INTERVAL + jitter && !shared.delivered.load(Ordering::Acquire) {
            thread::sleep(TICK);
        }
    }
}

/// Asks for the end of each shard; says whether all were told.
fn look(shared: &Shared, offsets: &Offsets) -> bool {
    for (shard, end) in shared.shards.iter().zip(&shared.ends) {
        match offsets.bounds(&shard.topic, shard.partition, ANSWER_WITHIN) {
            Ok(bounds) => end.store(bounds.high, Ordering::Release),
            Err(error) => {
                debug!(shard = shard.name(), %error, "could not ask where a log ends");
                return false;
            }
        }
        if shared.delivered.load(Ordering::Acquire) {
            return true;
        }
    }
    true
}
