//! Reads what comes into a topic from now on.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Kafka;
use crate::kafka::admin::offsets::{Offsets, is_away};
use crate::kafka::client::{Role, Words, client_config, refused};

/// How long brokers may take to say where a partition ends.
const LOG_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// How long one look at the queue takes.
const LOOK: Duration = Duration::from_millis(100);

/// What comes into a topic behind a moment.
pub struct Answers {
    consumer: BaseConsumer<Words>,
}

impl Answers {
    /// Begins at the present end of each of the topic's partitions.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub fn from_now_on(kafka: &Kafka, client_id: &str, topic: &str, partitions: i32) -> Result<Answers> {
        let offsets = Offsets::connect(kafka, client_id)?;
        let mut ends = TopicPartitionList::new();
        for partition in 0..partitions {
            let bounds = offsets
                .bounds(topic, partition, LOG_ENDS_WITHIN)
                .with_context(|| format!("could not ask where {topic}/{partition} ends"))?;
            ends.add_partition_offset(topic, partition, Offset::Offset(bounds.high))?;
        }
        let config = client_config(kafka, client_id, Role::Consumer);
        let consumer: BaseConsumer<Words> = refused(config.create_with_context(Words), "consumer")?;
        consumer.assign(&ends).with_context(|| format!("could not read {topic:?}"))?;
        Ok(Answers { consumer })
    }

    /// The next message's value; `None` where none has come by the deadline.
    ///
    /// # Errors
    /// When the topic can't be read.
    pub fn next(&self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        while Instant::now() < deadline {
            match self.consumer.poll(LOOK) {
                Some(Ok(message)) => return Ok(Some(message.payload().unwrap_or_default().to_vec())),
                Some(Err(error)) if !is_away(&error) => return Err(error).context("could not read answers"),
                _ => {}
            }
        }
        Ok(None)
    }
}
