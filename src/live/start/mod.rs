//! What a job looks at before it begins: topics, partitions, offsets.

mod hanging;
pub mod incarnation;
mod lost;
pub mod recovery;
pub mod shard_start;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::market::Market;
use foreshock_operators::venues::Format;
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::Job;
use crate::cluster::place::ProcessPlace;
use crate::config::{DeliveryGuarantee, LostOffsets};
use crate::hex::hex;
use crate::kafka::admin::commits::Commits;
use crate::kafka::admin::offsets::{Committed, Offsets, passes};
use crate::kafka::admin::topics::TopicAdmin;
use crate::kafka::progress::{Partition, Shard};
use crate::state::Store;
use crate::status::wall_time;
use incarnation::{Conditions, Incarnation};
use recovery::Recovery;
use shard_start::ShardStart;

/// How long the brokers may take for one answer about partitions, offsets and what is at them.
const OFFSETS_WITHIN: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to reach them.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often the log says that they are still away.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// What a job begins with.
pub struct JobStart {
    /// Those of other processes stand still.
    pub shards: Vec<Shard>,
    /// By shard of this process, where outputs are transactions.
    pub beginnings: BTreeMap<u32, ShardStart>,
    /// By worker of this process.
    pub markets: Vec<Market>,
    /// Where snapshots are kept, if they are.
    pub store: Option<Store>,
}

/// Looks for topics and offsets, and takes up the state at them. Waits for brokers that are away; `None` where the job
/// was stopped meanwhile.
///
/// # Errors
/// When topics are not as the job needs them, or committed offsets are gone.
pub fn start(job: &Job, place: ProcessPlace, instruments: &Instruments) -> Result<Option<JobStart>> {
    let kafka = &job.config.kafka;
    let mut pause = Duration::from_millis(100);
    let mut warned_at: Option<Instant> = None;
    while !job.stop.load(Ordering::Relaxed) {
        // With clients of its own: one that has met brokers going or coming may keep what it was told then.
        let attempted = Brokers::clients(job).and_then(|brokers| attempt(job, place, &brokers, instruments));
        match attempted {
            Ok(start) => return Ok(Some(start)),
            Err(error) if !passes(&error) => return Err(error),
            Err(error) => {
                if warned_at.is_none_or(|warned_at| warned_at.elapsed() >= TELL_EVERY) {
                    let brokers = &kafka.brokers;
                    warn!(brokers, error = format!("{error:#}"), "no Kafka broker answers; trying again");
                    warned_at = Some(Instant::now());
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

struct Brokers {
    topics: TopicAdmin,
    offsets: Offsets,
    commits: Commits,
}

impl Brokers {
    fn clients(job: &Job) -> Result<Brokers> {
        let (kafka, name) = (&job.config.kafka, &job.config.job);
        Ok(Brokers {
            topics: TopicAdmin::new(kafka, name)?,
            offsets: Offsets::connect(kafka, name)?,
            commits: Commits::connect(kafka, name)?,
        })
    }
}

fn attempt(job: &Job, place: ProcessPlace, brokers: &Brokers, instruments: &Instruments) -> Result<JobStart> {
    let partitions = partitions(job, &brokers.topics)?;
    let store = match job.config.delivery {
        DeliveryGuarantee::ExactlyOnce => Some(Store::open(&job.config.state.store, &job.config.job)?),
        DeliveryGuarantee::AtLeastOnce => None,
    };
    let mut shards = origins(job, place, brokers, &partitions, store.as_ref())?;
    let settings = &job.config.settings;
    let mut markets: Vec<Market> = (0..place.workers).map(|_| Market::new(settings, instruments)).collect();
    let mut beginnings = BTreeMap::new();
    if job.config.delivery == DeliveryGuarantee::ExactlyOnce {
        let own: Vec<(u32, Partition)> =
            (0..).zip(partitions).filter(|(shard, _)| place.has(*shard as usize)).collect();
        let (conditions, counts) = (conditions(job), counts(&own, &shards));
        let recovery = Recovery {
            job,
            store: store.as_ref(),
            conditions: &conditions,
            partitions: &counts,
            instruments,
        };
        markets.iter_mut().for_each(|market| market.track_waiting(false));
        beginnings = recovery.begin_shards(&own, &brokers.offsets, place, &mut markets)?;
        for (number, beginning) in &beginnings {
            shards[*number as usize] = beginning.shard.clone();
        }
    }
    let inputs = job.config.topics.input.join(", ");
    info!(job = job.config.job, inputs, partitions = shards.len(), workers = place.total(), "starting");
    if shards.len() < place.total() {
        let (workers, partitions) = (place.total(), shards.len());
        warn!(workers, partitions, "more workers than partitions: some have nothing to do");
    }
    for shard in &shards {
        tracing::debug!(shard = shard.name(), offset = shard.start, "reading");
    }
    Ok(JobStart { shards, beginnings, markets, store })
}

/// How many partitions each topic has.
fn counts(own: &[(u32, Partition)], shards: &[Shard]) -> BTreeMap<String, usize> {
    let topics: BTreeSet<&String> = own.iter().map(|(_, (topic, _))| topic).collect();
    let count = |topic: &String| shards.iter().filter(|shard| shard.topic == *topic).count();
    topics.into_iter().map(|topic| (topic.clone(), count(topic))).collect()
}

/// What results depend on.
fn conditions(job: &Job) -> Conditions {
    let short = |text: String| text[..16].to_owned();
    let Job { config, format, exchange, .. } = job;
    let (format, largest, control) =
        (format.or(config.input.format), config.input.max_message_bytes, config.control);
    let reading = format!("{} {exchange:?} {largest} {control}", format.map_or("auto", Format::name));
    Conditions {
        settings: short(config.settings.fingerprint()),
        reading: short(hex(&Sha256::digest(reading))),
    }
}

/// All partitions of the input; makes sure of the output's.
fn partitions(job: &Job, topics: &TopicAdmin) -> Result<Vec<Partition>> {
    let wanted = &job.config.topics;
    let mut partitions: Vec<Partition> = Vec::new();
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
    Ok(partitions)
}

/// Whether a shard was begun although the brokers know nothing of it.
fn forgotten(store: Option<&Store>, topic: &str, partition: i32) -> Result<bool> {
    Ok(store.map(|store| store.list(topic, partition)).transpose()?.is_some_and(|found| !found.is_empty()))
}

/// The shards, each with the offset that is committed; those of which none is begin somewhere from now on.
fn origins(
    job: &Job,
    place: ProcessPlace,
    brokers: &Brokers,
    partitions: &[Partition],
    store: Option<&Store>,
) -> Result<Vec<Shard>> {
    let committed = brokers.offsets.committed_texts(partitions, OFFSETS_WITHIN)?;
    let was_read: BTreeSet<&String> = partitions
        .iter()
        .zip(&committed)
        .filter(|(_, offset)| offset.is_some())
        .map(|((topic, _), _)| topic)
        .collect();
    // Partitions that a topic got since the job read it last are read whole: nothing in them was.
    let is_new = |topic: &String| was_read.contains(topic);
    let (mut shards, mut fresh) = (Vec::new(), Vec::new());
    let exactly_once = job.config.delivery == DeliveryGuarantee::ExactlyOnce;
    let (lost_offsets, from_beginning) = (job.config.kafka.lost_offsets, job.from_beginning);
    for ((topic, partition), committed) in partitions.iter().zip(committed) {
        let bounds = brokers
            .offsets
            .bounds(topic, *partition, OFFSETS_WITHIN)
            .with_context(|| format!("could not ask where {topic}/{partition} begins and ends"))?;
        let start = match &committed {
            // Under transactions that is done when nobody else can commit any more.
            _ if job.from_beginning && !exactly_once && place.process == 0 => bounds.low,
            None if forgotten(store, topic, *partition)? => {
                let job = job.config.job.as_str();
                if lost_offsets == LostOffsets::Fail && !from_beginning {
                    bail!(
                        "the brokers know no offset of the job {job:?} for {topic}/{partition}, of which there are \
                         snapshots: they have forgotten it (offsets.retention.minutes), or the group was removed; \
                         start with --from-beginning to read what is there from empty windows, or see \
                         kafka.lost_offsets"
                    );
                }
                warn!(
                    job,
                    topic, partition, "no offset is known of a partition with snapshots; beginning anew"
                );
                bounds.low
            }
            None if job.config.kafka.from_earliest || job.until_end || is_new(topic) => bounds.low,
            None => bounds.high,
            // Whether they are there still is looked at when nobody else can move them.
            Some(committed) if exactly_once || (bounds.low..=bounds.high).contains(&committed.offset) => {
                committed.offset
            }
            Some(Committed { offset, .. }) => bail!(
                "the job {:?} has read {topic}/{partition} up to offset {offset}, but the broker has only {} to {}: \
                 records were removed, or the topic was made anew; start with --from-beginning to read what is \
                 there, from cold windows",
                job.config.job,
                bounds.low,
                bounds.high,
            ),
        };
        if committed.is_none_or(|committed| committed.offset != start) {
            let count = partitions.iter().filter(|(other, _)| other == topic).count();
            let incarnation =
                exactly_once.then(|| Incarnation::starting_at(start, &conditions(job), count).to_string());
            fresh.push((topic.as_str(), *partition, start, incarnation.unwrap_or_default()));
        }
        let topic = topic.clone();
        shards.push(Shard { topic, partition: *partition, start, emit_from: start, end: bounds.high });
    }
    // Where a job begins is fixed before its first output: a crash before the first commit changes nothing.
    if place.process == 0 {
        let origins = fresh
            .iter()
            .map(|(topic, partition, start, incarnation)| (*topic, *partition, *start, incarnation.as_str()));
        brokers.commits.commit(origins, OFFSETS_WITHIN)?;
    } else if let Some((topic, partition, ..)) = fresh.first() {
        bail!("process 0 has not fixed where {topic}/{partition} begins, which is a bug");
    }
    Ok(shards)
}
