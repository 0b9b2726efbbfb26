//! Looks at single records of a log.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Role, Words, client_config, refused};
use super::message::digest;
use crate::config::Kafka;

/// What is found at a place of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub offset: i64,
    pub digest: [u8; 32],
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
    let what = || format!("could not look at {topic}/{partition}/{offset}");
    let mut config = client_config(kafka, group, Role::Consumer);
    config.set("enable.partition.eof", "true");
    // Whose transaction it was is decided by now.
    config.set("isolation.level", "read_uncommitted");
    let consumer: BaseConsumer<Words> = refused(config.create_with_context(Words), "consumer")?;
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, partition, Offset::Offset(offset)).with_context(what)?;
    consumer.assign(&place).with_context(what)?;
    let deadline = Instant::now() + at_most;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let stamped_at = message.timestamp().to_millis().unwrap_or_default();
                let digest = digest(message.key().unwrap_or_default(), message.payload(), stamped_at);
                return Ok(Some(Found { offset: message.offset(), digest }));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) if !super::offsets::is_away(&error) => return Err(error).with_context(what),
            _ => {}
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)).with_context(what)
}
