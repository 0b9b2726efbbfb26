//! What a job looks at before it begins: topics, partitions, offsets.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tracing::{info, warn};

use super::Job;
use crate::cluster::place::Place;
use crate::kafka::commits::Commits;
use crate::kafka::offsets::{Offsets, passes};
use crate::kafka::progress::Shard;
use crate::kafka::topics::Topics;
use crate::status::wall_time;

/// How long one answer of the brokers may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to reach them.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often the log says that they are still away.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// The shards of a job, each with the offset to begin at. Waits for brokers that are away; `None` where the job
/// was stopped meanwhile.
///
/// # Errors
/// When topics are not as the job needs them, or committed offsets are gone.
pub fn shards(job: &Job, place: Place) -> Result<Option<Vec<Shard>>> {
    let kafka = &job.config.kafka;
    let (topics, offsets) = (Topics::new(kafka, &job.config.job)?, Offsets::connect(kafka, &job.config.job)?);
    let commits = Commits::connect(kafka, &job.config.job)?;
    let mut pause = Duration::from_millis(100);
    let mut told: Option<Instant> = None;
    while !job.stop.load(Ordering::Relaxed) {
        match attempt(job, place, &topics, &offsets, &commits) {
            Ok(shards) => return Ok(Some(shards)),
            Err(error) if !passes(&error) => return Err(error),
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                    let brokers = &kafka.brokers;
                    warn!(brokers, error = format!("{error:#}"), "no Kafka broker answers; trying again");
                    told = Some(Instant::now());
                }
            }
        }
        // With jitter, so that jobs that lost the same broker don't come back in step.
        let jitter = Duration::from_micros(wall_time().0.unsigned_abs() / 1_000 % 1_000 * 100);
        let until = Instant::now() + pause + jitter;
        while Instant::now() < until && !job.stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        pause = (2 * pause).min(PAUSE_MAX);
    }
    Ok(None)
}

fn attempt(
    job: &Job,
    place: Place,
    topics: &Topics,
    offsets: &Offsets,
    commits: &Commits,
) -> Result<Vec<Shard>> {
    let wanted = &job.config.topics;
    let mut partitions: Vec<(String, i32)> = Vec::new();
    for topic in &wanted.input {
        let count = topics.ensure(topic, job.config.kafka.partitions)?;
        partitions.extend((0..count).map(|partition| (topic.clone(), partition)));
    }
    let most = partitions.iter().map(|(_, partition)| partition + 1).max().unwrap_or_default();
    for kind in &job.kinds {
        let Some(topic) = wanted.output.get(kind) else { continue };
        let count = topics.ensure(topic, most)?;
        if count < most {
            bail!(
                "the topic {topic:?} has {count} partitions and the input {most}: rows go to the partition they \
                 come from, so it needs as many; add partitions to it, or name another with topics.{}",
                kind.name()
            );
        }
    }
    let committed = offsets.committed(&partitions, ANSWER_WITHIN)?;
    let was_read: BTreeSet<&String> = partitions
        .iter()
        .zip(&committed)
        .filter(|(_, offset)| offset.is_some())
        .map(|((topic, _), _)| topic)
        .collect();
    // Partitions that a topic got since the job read it last are read whole: nothing in them was.
    let is_new = |topic: &String| was_read.contains(topic);
    let mut shards = Vec::new();
    let mut fresh = Vec::new();
    for ((topic, partition), committed) in partitions.iter().zip(committed) {
        let (topic, partition) = (topic.clone(), *partition);
        let bounds = offsets
            .bounds(&topic, partition, ANSWER_WITHIN)
            .with_context(|| format!("could not ask where {topic}/{partition} begins and ends"))?;
        let start = match committed {
            _ if job.from_beginning && place.process == 0 => bounds.low,
            None if job.config.kafka.from_earliest || job.until_end || is_new(&topic) => bounds.low,
            None => bounds.high,
            Some(offset) if (bounds.low..=bounds.high).contains(&offset) => offset,
            Some(offset) => bail!(
                "the job {:?} has read {topic}/{partition} up to offset {offset}, but the broker has only {} to {}: \
                 records were removed, or the topic was made anew; start with --from-beginning to read what is \
                 there, from cold windows",
                job.config.job,
                bounds.low,
                bounds.high,
            ),
        };
        if committed != Some(start) {
            fresh.push((topic.clone(), partition, start));
        }
        shards.push(Shard { topic, partition, start, end: bounds.high });
    }
    // Where a job begins is fixed before its first output: a crash before the first commit changes nothing.
    let origins = fresh.iter().map(|(topic, partition, start)| (topic.as_str(), *partition, *start));
    if place.process == 0 {
        commits.commit(origins, ANSWER_WITHIN)?;
    } else if let Some((topic, partition, _)) = fresh.first() {
        bail!("process 0 has not fixed where {topic}/{partition} begins, which is a bug");
    }
    let inputs = wanted.input.join(", ");
    info!(job = job.config.job, inputs, partitions = shards.len(), workers = place.total(), "starting");
    if shards.len() < place.total() {
        let (workers, partitions) = (place.total(), shards.len());
        warn!(workers, partitions, "more workers than partitions: some have nothing to do");
    }
    for shard in &shards {
        tracing::debug!(shard = shard.name(), offset = shard.start, "reading");
    }
    Ok(shards)
}
