//! Looks at single records of a log.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Kafka;
use crate::kafka::client::{Role, Words, client_config, refused};
use crate::kafka::closing::Closing;
use crate::kafka::message::SOURCE;
use crate::kafka::message::digest;

/// What is found at a place of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordDigest {
    pub offset: i64,
    pub digest: [u8; 32],
}

/// Which records of a log are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Not those behind or in open transactions, nor those that were undone.
    Visible,
    All,
}

/// The rows that records of an output come from.
#[derive(Clone, Debug, Default)]
pub struct EmittedRows {
    /// `topic/partition` of the input, for the first of them.
    pub first: Option<String>,
    /// By `topic/partition` of the input: the largest offset.
    pub largest: BTreeMap<String, i64>,
}

/// The rows that records of an output come from, from an offset on to its end.
///
/// # Errors
/// When the log can't be read there, or its end has not come in time.
pub fn emitted_rows(
    kafka: &Kafka,
    group: &str,
    place: (&str, i32, i64),
    sight: Sight,
    at_most: Duration,
) -> Result<EmittedRows> {
    let isolation = if sight == Sight::All { "read_uncommitted" } else { "read_committed" };
    let emitted_rows = RefCell::new(EmittedRows::default());
    find(kafka, group, place, isolation, at_most, |record| -> Option<()> {
        if let Some((shard, offset)) = source(record) {
            let mut emitted_rows = emitted_rows.borrow_mut();
            emitted_rows.first.get_or_insert_with(|| shard.clone());
            let largest = emitted_rows.largest.entry(shard).or_insert(offset);
            *largest = offset.max(*largest);
        }
        None
    })?;
    Ok(emitted_rows.into_inner())
}

/// The shard and offset of the row that has caused an output, as its header tells.
fn source(record: &BorrowedMessage) -> Option<(String, i64)> {
    let source = record.headers()?.iter().find(|header| header.key == SOURCE)?.value?;
    let (message, _index) = std::str::from_utf8(source).ok()?.rsplit_once('/')?;
    let (shard, offset) = message.rsplit_once('/')?;
    Some((shard.to_owned(), offset.parse().ok()?))
}

/// The first record at this offset or behind it; `None` where there is none.
///
/// # Errors
/// When the log can't be read there, or nothing has come in time.
pub fn first_record(
    kafka: &Kafka,
    group: &str,
    (topic, partition, offset): (&str, i32, i64),
    at_most: Duration,
) -> Result<Option<RecordDigest>> {
    // Whose transaction it was is decided by now.
    find(kafka, group, (topic, partition, offset), "read_uncommitted", at_most, |message| {
        let stamped_at = message.timestamp().to_millis().unwrap_or_default();
        let digest = digest(message.key().unwrap_or_default(), message.payload(), stamped_at);
        Some(RecordDigest { offset: message.offset(), digest })
    })
}

/// What is made of the first record from an offset on of which anything is; `None` where the log ends before.
fn find<F>(
    kafka: &Kafka,
    group: &str,
    (topic, partition, offset): (&str, i32, i64),
    isolation: &str,
    at_most: Duration,
    look: impl Fn(&BorrowedMessage) -> Option<F>,
) -> Result<Option<F>> {
    let what = || format!("could not look at {topic}/{partition}/{offset}");
    let mut config = client_config(kafka, group, Role::Consumer);
    config.set("enable.partition.eof", "true");
    config.set("isolation.level", isolation);
    let consumer: BaseConsumer<Words> = refused(config.create_with_context(Words), "consumer")?;
    let consumer = Closing::new(consumer);
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, partition, Offset::Offset(offset)).with_context(what)?;
    consumer.assign(&place).with_context(what)?;
    let deadline = Instant::now() + at_most;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                if let Some(found) = look(&message) {
                    return Ok(Some(found));
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) if !crate::kafka::admin::offsets::is_away(&error) => {
                return Err(error).with_context(what);
            }
            _ => {}
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)).with_context(what)
}
