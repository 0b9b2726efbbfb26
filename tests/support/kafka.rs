//! The Kafka that `KAFKA_BOOTSTRAP_SERVERS` names: what its topics hold, and messages for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};

/// How long anything may take that brokers have a part in.
const PATIENCE: Duration = Duration::from_secs(60);

/// The brokers to test against; says so where there are none.
pub fn brokers(test: &str) -> Option<String> {
    let found = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok().filter(|servers| !servers.is_empty());
    if found.is_none() {
        eprintln!("SKIPPED {test}: KAFKA_BOOTSTRAP_SERVERS names no Kafka (scripts/kafka start)");
    }
    found
}

/// A name that nothing had before.
pub fn unique(test: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{test}-{}-{now}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A record as it is in a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub offset: i64,
    pub key: Option<String>,
    /// Empty for a null.
    pub value: Vec<u8>,
    pub headers: BTreeMap<String, String>,
    /// Milliseconds.
    pub timestamp: i64,
}

impl Record {
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.value).unwrap()
    }
}

pub fn consumer(brokers: &str, group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("allow.auto.create.topics", "false")
        .set("enable.partition.eof", "true")
        // A broker that is being started is met as soon as it is there.
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .unwrap()
}

#[track_caller]
fn partitions(consumer: &BaseConsumer, topic: &str) -> usize {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    metadata.topics()[0].partitions().len()
}

/// All records of a topic, by partition.
#[track_caller]
pub fn records(brokers: &str, topic: &str) -> Vec<Vec<Record>> {
    records_of(brokers, &[topic]).remove(0)
}

/// All records of each of these topics, by partition: with one client, as each takes its time to begin.
#[track_caller]
pub fn records_of(brokers: &str, topics: &[&str]) -> Vec<Vec<Vec<Record>>> {
    let consumer = consumer(brokers, "reader");
    let mut assigned = TopicPartitionList::new();
    let mut found = Vec::new();
    for topic in topics {
        found.push(vec![Vec::new(); partitions(&consumer, topic)]);
        for partition in 0..found[found.len() - 1].len() as i32 {
            assigned.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
    }
    consumer.assign(&assigned).unwrap();
    let mut to_read = assigned.count();
    let deadline = Instant::now() + PATIENCE;
    while to_read > 0 {
        assert!(Instant::now() < deadline, "{topics:?} could not be read to their ends");
        let message = match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Err(KafkaError::PartitionEOF(_))) => {
                to_read -= 1;
                continue;
            }
            Some(message) => message.unwrap(),
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let headers = headers.map(|header| (header.key.to_owned(), text(header.value.unwrap())));
        let topic = topics.iter().position(|topic| *topic == message.topic()).unwrap();
        found[topic][message.partition() as usize].push(Record {
            offset: message.offset(),
            key: message.key().map(text),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers.collect(),
            timestamp: message.timestamp().to_millis().unwrap(),
        });
    }
    found
}

/// The offsets that a group has committed, by partition.
#[track_caller]
pub fn committed(brokers: &str, group: &str, topic: &str) -> Vec<Option<i64>> {
    let consumer = consumer(brokers, group);
    let partitions = partitions(&consumer, topic) as i32;
    let mut asked = TopicPartitionList::new();
    for partition in 0..partitions {
        asked.add_partition(topic, partition);
    }
    let answer = consumer.committed_offsets(asked, PATIENCE).unwrap();
    let offset = |partition| match answer.find_partition(topic, partition).unwrap().offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    (0..partitions).map(offset).collect()
}

/// Commits an offset for a group that nobody is in.
#[track_caller]
pub fn commit(brokers: &str, group: &str, topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    consumer(brokers, group).commit(&list, CommitMode::Sync).unwrap();
}
