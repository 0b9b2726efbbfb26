//! Looks at single records of a log.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Role, Words, client_config, refused};
use super::message::digest;
use super::parting::Parting;
use super::reports::SOURCE;
use crate::config::Kafka;

/// What is found at a place of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub offset: i64,
    pub digest: [u8; 32],
}

/// The row that has caused an output, as its header tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// `topic/partition`.
    pub shard: String,
    pub offset: i64,
}

impl Told {
    fn by(record: &BorrowedMessage) -> Option<Told> {
        let source = record.headers()?.iter().find(|header| header.key == SOURCE)?.value?;
        let (message, _index) = std::str::from_utf8(source).ok()?.rsplit_once('/')?;
        let (shard, offset) = message.rsplit_once('/')?;
        Some(Told { shard: shard.to_owned(), offset: offset.parse().ok()? })
    }
}

/// What the first of an output's records at this offset or behind it tells, visible or not; `None` where there is none.
///
/// # Errors
/// When the log can't be read there, or nothing has come in time.
pub fn first_told(
    kafka: &Kafka,
    group: &str,
    place: (&str, i32, i64),
    at_most: Duration,
) -> Result<Option<Told>> {
    find(kafka, group, place, "read_uncommitted", at_most, Told::by)
}

/// The offset of the row that the last visible record of a shard tells of, from this offset of an output on; `None` where
/// there is none.
///
/// # Errors
/// When the log can't be read there, or its end has not come in time.
pub fn last_told(
    kafka: &Kafka,
    group: &str,
    place: (&str, i32, i64),
    shard: &str,
    at_most: Duration,
) -> Result<Option<i64>> {
    let last = Cell::new(None);
    find(kafka, group, place, "read_committed", at_most, |record| -> Option<()> {
        if let Some(told) = Told::by(record).filter(|told| told.shard == shard) {
            last.set(Some(told.offset));
        }
        None
    })?;
    Ok(last.get())
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
) -> Result<Option<Found>> {
    // Whose transaction it was is decided by now.
    find(kafka, group, (topic, partition, offset), "read_uncommitted", at_most, |message| {
        let stamped_at = message.timestamp().to_millis().unwrap_or_default();
        let digest = digest(message.key().unwrap_or_default(), message.payload(), stamped_at);
        Some(Found { offset: message.offset(), digest })
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
    let consumer = Parting::new(consumer);
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
            Some(Err(error)) if !super::offsets::is_away(&error) => return Err(error).with_context(what),
            _ => {}
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)).with_context(what)
}
