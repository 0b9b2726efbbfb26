//! How far a group is behind its input, told from brokers alone: the job need not run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Kafka;
use crate::kafka::admin::offsets::{Bounds, Committed, Offsets, is_away, passes};
use crate::kafka::client::{Role, Words, client_config, refused};

/// How long brokers may take to answer one question about partitions and offsets.
const OFFSETS_WITHIN: Duration = Duration::from_secs(5);

/// How long may be looked for the first records that wait.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// How long a queue is waited for before the next one is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// How far one partition is processed.
#[derive(Clone, Debug)]
pub struct ShardLag {
    pub topic: String,
    pub partition: i32,
    /// Where the log begins and ends, open transactions included.
    pub bounds: Bounds,
    /// `None`: the group has committed nothing here.
    pub committed: Option<Committed>,
    /// Offsets from there to the end, at most so many records, as a log has holes; 0 where no record is among them.
    /// `None` without a committed offset, or with one that the log doesn't reach.
    pub lag: Option<i64>,
    /// Kafka's timestamp, in milliseconds, of the first record that waits; `None` where there is none or it could not
    /// be read.
    pub waits_since: Option<i64>,
    /// What is not as it should be.
    pub problem: Option<String>,
}

impl ShardLag {
    /// `topic/partition`, as in a row's source.
    pub fn name(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    /// The offset to go on at, where something is left to process.
    fn next(&self) -> Option<i64> {
        let committed = self.committed.as_ref()?.offset;
        self.lag.filter(|lag| *lag > 0).map(|_| committed.max(self.bounds.low))
    }
}

/// Asks how far a group is with each partition of its topics.
///
/// # Errors
/// When no broker answers in time, or a topic is missing.
pub fn lag(kafka: &Kafka, group: &str, topics: &[String]) -> Result<Vec<ShardLag>> {
    let offsets = Offsets::connect(kafka, group)?;
    let mut shards = ask(&offsets, kafka, topics)
        .map_err(|error| if passes(&error) { error.context(no_answer(kafka)) } else { error })?;
    find_waiting(kafka, group, &mut shards)?;
    Ok(shards)
}

fn no_answer(kafka: &Kafka) -> String {
    let within = OFFSETS_WITHIN.as_secs();
    format!(
        "no broker at {} answered within {within} s; see kafka.brokers in the configuration",
        kafka.brokers
    )
}

fn ask(offsets: &Offsets, kafka: &Kafka, topics: &[String]) -> Result<Vec<ShardLag>> {
    let mut partitions = Vec::new();
    for topic in topics {
        let count = offsets
            .partitions(topic, OFFSETS_WITHIN)
            .with_context(|| format!("could not look at the topic {topic:?}"))?;
        if count == 0 {
            bail!("there is no topic {topic:?} at {}; see topics.input in the configuration", kafka.brokers);
        }
        partitions.extend((0..count as i32).map(|partition| (topic.clone(), partition)));
    }
    let committed = offsets.committed_texts(&partitions, OFFSETS_WITHIN)?;
    let mut shards = Vec::new();
    for ((topic, partition), committed) in partitions.into_iter().zip(committed) {
        let bounds = offsets
            .bounds(&topic, partition, OFFSETS_WITHIN)
            .with_context(|| format!("could not ask where {topic}/{partition} begins and ends"))?;
        shards.push(shard(topic, partition, bounds, committed));
    }
    Ok(shards)
}

fn shard(topic: String, partition: i32, bounds: Bounds, committed: Option<Committed>) -> ShardLag {
    let Bounds { low, high } = bounds;
    let (lag, problem) = match committed.as_ref().map(|committed| committed.offset) {
        None => (None, Some("no offset committed".to_owned())),
        Some(offset) if offset > high => {
            (None, Some("the log ends before the committed offset: was the topic made anew?".to_owned()))
        }
        Some(offset) if offset < low => {
            (Some(high - low), Some(format!("offsets {offset} to {low} are gone unprocessed")))
        }
        Some(offset) => (Some(high - offset), None),
    };
    ShardLag { topic, partition, bounds, committed, lag, waits_since: None, problem }
}

/// Finds the first record that waits in each partition, and where there is none though offsets are left.
fn find_waiting(kafka: &Kafka, group: &str, shards: &mut [ShardLag]) -> Result<()> {
    let behind = |shard: &&mut ShardLag| shard.next().is_some();
    let mut waiting: Vec<&mut ShardLag> = shards.iter_mut().filter(behind).collect();
    let places = waiting.iter().map(|shard| Place::of(shard, 0)).collect();
    let reader = Reader::open(kafka, group, places, None)?;
    let mut hidden = Vec::new();
    for (shard, found) in waiting.iter_mut().zip(reader.read()) {
        match found {
            Found::Record(stamp) => shard.waits_since = Some(stamp),
            Found::End => {
                // As far as this job can read: its client hides what stands behind an open transaction.
                let stable = reader.stable_end(&shard.topic, shard.partition)?;
                if stable >= shard.bounds.high {
                    shard.lag = Some(0);
                } else {
                    shard.problem.get_or_insert_with(|| {
                        format!("records from {stable} on are hidden by an open transaction")
                    });
                    hidden.push((Place::of(shard, stable), shard));
                }
            }
            Found::Nothing(why) => {
                shard.problem.get_or_insert(why);
            }
        }
    }
    if hidden.is_empty() {
        return Ok(());
    }
    let (places, mut hidden): (Vec<Place>, Vec<_>) = hidden.into_iter().unzip();
    let reader = Reader::open(kafka, group, places, Some("read_uncommitted"))?;
    for (shard, found) in hidden.iter_mut().zip(reader.read()) {
        if let Found::Record(stamp) = found {
            shard.waits_since = Some(stamp);
        }
    }
    Ok(())
}

/// Where to read one record.
struct Place {
    topic: String,
    partition: i32,
    offset: i64,
}

impl Place {
    fn of(shard: &ShardLag, at_least: i64) -> Place {
        let offset = shard.next().unwrap_or_default().max(at_least);
        Place { topic: shard.topic.clone(), partition: shard.partition, offset }
    }
}

/// What there is at a place.
enum Found {
    /// A record with this timestamp, in milliseconds.
    Record(i64),
    /// No record up to the end.
    End,
    /// It could not be told, and why.
    Nothing(String),
}

/// Reads the first record from each of some places on.
struct Reader {
    queues: Vec<PartitionQueue<Words>>,
    consumer: Arc<BaseConsumer<Words>>,
}

impl Reader {
    fn open(kafka: &Kafka, group: &str, places: Vec<Place>, isolation: Option<&str>) -> Result<Reader> {
        let mut config = client_config(kafka, group, Role::Consumer);
        config.set("enable.partition.eof", "true");
        // One record is enough.
        config.set("queued.min.messages", "1").set("fetch.message.max.bytes", "65536");
        if let Some(isolation) = isolation {
            config.set("isolation.level", isolation);
        }
        let consumer: BaseConsumer<Words> = refused(config.create_with_context(Words), "consumer")?;
        let consumer = Arc::new(consumer);
        let mut assignment = TopicPartitionList::new();
        let mut queues = Vec::new();
        for Place { topic, partition, offset } in places {
            assignment.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
            let queue = consumer.split_partition_queue(&topic, partition);
            queues.push(queue.with_context(|| format!("could not open a queue for {topic}/{partition}"))?);
        }
        consumer.assign(&assignment).context("could not assign partitions")?;
        Ok(Reader { queues, consumer })
    }

    /// What there is at each place, in their order.
    fn read(&self) -> Vec<Found> {
        let deadline = Instant::now() + READ_WITHIN;
        let mut found: Vec<Option<Found>> = self.queues.iter().map(|_| None).collect();
        while found.iter().any(Option::is_none) && Instant::now() < deadline {
            // What the client has to say of itself.
            while self.consumer.poll(Duration::ZERO).is_some() {}
            for (queue, found) in self.queues.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                *found = match queue.poll(LOOK) {
                    None => None,
                    Some(Ok(message)) => {
                        Some(Found::Record(message.timestamp().to_millis().unwrap_or_default()))
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => Some(Found::End),
                    Some(Err(error)) if is_away(&error) => None,
                    Some(Err(error)) => Some(Found::Nothing(format!("could not be read: {error}"))),
                };
            }
        }
        let late = || Found::Nothing(format!("could not be read within {} s", READ_WITHIN.as_secs()));
        found.into_iter().map(|found| found.unwrap_or_else(late)).collect()
    }

    /// Where the log ends for this client.
    fn stable_end(&self, topic: &str, partition: i32) -> Result<i64> {
        let answer = self.consumer.fetch_watermarks(topic, partition, OFFSETS_WITHIN);
        let (_, high) = answer.with_context(|| format!("could not ask where {topic}/{partition} ends"))?;
        Ok(high)
    }
}
