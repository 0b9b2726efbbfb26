//! Sends messages and knows the fate of each.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::client::{Role, Words, client_config, is_configured, refused};
use crate::config::Kafka;

/// What may wait for delivery; then the sender waits too.
const QUEUE_KBYTES: &str = "65536";

/// How long a message may wait for delivery, brokers away or not.
const DELIVERY_TIMEOUT_MS: &str = "60000";

/// Delivery reports are taken after this many messages.
const POLL_EACH: u64 = 256;

/// How long one look at the queue takes where it is full or being emptied.
const DRAIN_TICK: Duration = Duration::from_millis(2);

/// A message to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    pub headers: &'a [(&'a str, &'a [u8])],
    /// What a failure is called by, see [`Failure::tag`].
    pub tag: usize,
}

/// A message that was not delivered.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The first message's own.
    pub tag: usize,
    pub error: KafkaError,
    /// How many there are in all.
    pub count: u64,
}

/// An idempotent producer to one topic, for one thread.
pub struct Sender {
    topic: String,
    producer: BaseProducer<Reports>,
    sent: u64,
}

impl Sender {
    /// Makes the producer; brokers are not asked yet. A message may be as large as `message_bytes_max`, if the
    /// brokers let it.
    ///
    /// # Errors
    /// When a property in the configuration is none of librdkafka's.
    pub fn new(kafka: &Kafka, client_id: &str, topic: &str, message_bytes_max: usize) -> Result<Sender> {
        let mut config = client_config(kafka, client_id, Role::Producer);
        let message_max = (message_bytes_max + 64 * 1024).clamp(1_000_000, 1_000_000_000).to_string();
        for (name, value) in [
            ("acks", "all"),
            ("message.timeout.ms", DELIVERY_TIMEOUT_MS),
            ("queue.buffering.max.kbytes", QUEUE_KBYTES),
            ("message.max.bytes", &message_max),
        ] {
            if !is_configured(kafka, Role::Producer, name) {
                config.set(name, value);
            }
        }
        let producer =
            refused(BaseProducer::from_config_and_context(&config, Reports::default()), "producer")?;
        Ok(Sender { topic: topic.to_owned(), producer, sent: 0 })
    }

    /// Hands a message to the queue, and waits while that is full; `false`: `stop` was set meanwhile, and the
    /// message was not sent. What can't be queued at all counts as a failure.
    pub fn send(&mut self, message: &Outgoing, stop: &AtomicBool) -> bool {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in message.headers {
            headers = headers.insert(Header { key, value: Some(*value) });
        }
        let mut record = BaseRecord::with_opaque_to(&self.topic, message.tag)
            .partition(message.partition)
            .payload(message.value);
        record.key = message.key;
        if !message.headers.is_empty() {
            record = record.headers(headers);
        }
        self.sent += 1;
        if self.sent.is_multiple_of(POLL_EACH) {
            self.producer.poll(Duration::ZERO);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return true,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(DRAIN_TICK);
                    if stop.load(Ordering::Relaxed) {
                        return false;
                    }
                }
                Err((error, _)) => {
                    self.producer.context().failed(message.tag, error);
                    return true;
                }
            }
        }
    }

    /// Waits for so long, and takes delivery reports meanwhile.
    pub fn wait(&self, length: Duration) {
        self.producer.poll(length);
    }

    /// How many messages brokers have acknowledged.
    pub fn delivered(&self) -> u64 {
        self.producer.context().0.delivered.load(Ordering::Relaxed)
    }

    /// The first message that was not delivered, and how many there are.
    pub fn failure(&self) -> Option<Failure> {
        self.producer.context().0.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the producer can't send any more, where brokers have said so.
    pub fn fatal(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"))
    }

    /// Whether the producer can't go on: what it sends is not delivered any more.
    pub fn is_broken(&self) -> bool {
        self.fatal().is_some()
            || self.failure().is_some_and(|failure| {
                failure.error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut)
            })
    }

    /// Waits until every message has met its fate, at most `patience` without any progress.
    ///
    /// # Errors
    /// When some are still on their way then.
    pub fn drain(&self, patience: Duration) -> Result<()> {
        let (mut least, mut deadline) = (i32::MAX, Instant::now() + patience);
        loop {
            let waiting = self.producer.in_flight_count();
            if waiting == 0 {
                return Ok(());
            }
            if waiting < least {
                (least, deadline) = (waiting, Instant::now() + patience);
            } else if Instant::now() >= deadline {
                bail!(
                    "{waiting} messages to {:?} were not acknowledged within {} s",
                    self.topic,
                    patience.as_secs()
                );
            }
            self.producer.poll(DRAIN_TICK);
        }
    }
}

/// Counts what became of messages.
#[derive(Clone, Default)]
struct Reports(Arc<Fates>);

#[derive(Default)]
struct Fates {
    delivered: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

impl Reports {
    fn failed(&self, tag: usize, error: KafkaError) {
        let mut failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(Failure { tag, error, count: 0 }).count += 1;
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Words.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Words.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        match result {
            Ok(_) => drop(self.0.delivered.fetch_add(1, Ordering::Relaxed)),
            Err((error, _)) => self.failed(tag, error.clone()),
        }
    }
}
