//! Asks the brokers once a second where the logs end: so it is known too whether they answer.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tracing::{debug, info, warn};

use super::ending::Ending;
use super::job_spec::JobSpec;
use super::measures::Measures;
use crate::config::DeliveryGuarantee;
use crate::kafka::admin::offsets::Offsets;
use crate::status::wall_time;

/// How often the brokers are asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer on partitions and their ends may take before the brokers are said to be away.
const LOG_ENDS_WITHIN: Duration = Duration::from_secs(3);

/// How long the end of the job goes unnoticed here.
const TICK: Duration = Duration::from_millis(100);

/// Watches until the workers have ended.
pub fn watch(spec: &JobSpec, measures: &Measures, ending: &Ending) {
    let offsets = match Offsets::connect(&spec.config.kafka, &spec.config.job) {
        Ok(offsets) => offsets,
        Err(error) => return ending.halt.fail(error),
    };
    let mut lost_at: Option<Instant> = None;
    while !ending.is_delivered() && !ending.halt.is_set() {
        let asked_at = Instant::now();
        let connected = ask_brokers(spec, measures, ending, &offsets);
        measures.note_kafka_connected(connected);
        match (connected, lost_at) {
            (false, None) => {
                warn!(brokers = spec.config.kafka.brokers, "no Kafka broker answers; going on when one does");
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
        while asked_at.elapsed() < INTERVAL + jitter && !ending.is_delivered() {
            thread::sleep(TICK);
        }
    }
}

/// Asks for the number of partitions and the end of each; says whether a broker answered.
fn ask_brokers(spec: &JobSpec, measures: &Measures, ending: &Ending, offsets: &Offsets) -> bool {
    for topic in &spec.config.topics.input {
        let known = spec.shards.iter().filter(|shard| shard.topic == *topic).count();
        match offsets.partitions(topic, LOG_ENDS_WITHIN) {
            // A topic that is gone is reported by its readers.
            Ok(count) if count > known => {
                let way_out = match spec.config.delivery {
                    DeliveryGuarantee::ExactlyOnce => {
                        "go on under another job.name, which begins behind what is there (kafka.start: latest), with \
                         output topics of at least as many"
                    }
                    DeliveryGuarantee::AtLeastOnce => {
                        "start the job again, with output topics of at least as many"
                    }
                };
                ending.halt.fail(anyhow!(
                    "the topic {topic:?} has {count} partitions now and had {known}: keys may have moved to other \
                     partitions, so instruments too; {way_out}"
                ));
            }
            Ok(_) => {}
            Err(error) => {
                debug!(topic, %error, "could not ask for a topic's partitions");
                return false;
            }
        }
    }
    let deadline = Instant::now() + LOG_ENDS_WITHIN;
    let mut answers = 0;
    for at in spec.own_shards() {
        let (shard, progress) = (&spec.shards[at], &measures.progress[at]);
        let left = deadline.saturating_duration_since(Instant::now());
        match offsets.bounds(&shard.topic, shard.partition, left) {
            Ok(bounds) => {
                progress.ends_at(bounds.high);
                answers += 1;
            }
            // Its leader may be away alone: the others are asked all the same, as long as there is time.
            Err(error) => {
                progress.lose();
                debug!(shard = shard.name(), %error, "could not ask where a log ends");
            }
        }
        if left.is_zero() || ending.is_delivered() {
            break;
        }
    }
    answers > 0 || spec.own_shards().next().is_none()
}
