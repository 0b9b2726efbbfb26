//! Sends messages and knows the fate of each.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig};
use tracing::warn;

use crate::config::Kafka;
use crate::kafka::client::{Role, Words, client_config, is_configured, refused};
use crate::kafka::closing::Closing;

/// What may wait for delivery; then the sender waits too.
const QUEUE_KBYTES: &str = "65536";

/// How long a message may wait for delivery, brokers away or not.
const DELIVERY_TIMEOUT_MS: &str = "60000";

/// Delivery reports are taken after this many messages.
const POLL_EACH: u64 = 256;

/// New clients without a delivery between them: more would not help either.
const RENEWALS_MAX: u32 = 2;

/// How long a broker may take to say who leads.
const LEADERS_WITHIN: Duration = Duration::from_secs(2);

/// How long a client may take to let go of its messages.
const RETURNED_WITHIN: Duration = Duration::from_secs(2);

/// How long one look at the queue takes where it is full or being emptied.
const DRAIN_TICK: Duration = Duration::from_millis(2);

/// A message to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    pub headers: &'a [(&'a str, &'a [u8])],
    /// What a failure is called by, see [`SendFailure::tag`].
    pub tag: usize,
}

/// A message that was not delivered.
#[derive(Clone, Debug)]
pub struct SendFailure {
    /// The first message's own.
    pub tag: usize,
    pub error: KafkaError,
    /// How many there are in all.
    pub count: u64,
}

/// An idempotent producer to one topic, for one thread.
pub struct Sender {
    topic: String,
    config: ClientConfig,
    producer: Closing<BaseProducer<Reports>>,
    sent: u64,
    progress: ShardProgress,
}

/// Whether messages that wait get anywhere.
struct ShardProgress {
    /// `kafka.stalled_after`.
    at_most: Duration,
    delivered: u64,
    /// When that last changed, or brokers were looked for.
    moved_at: Instant,
    /// Brokers answered then.
    are_there: bool,
    /// Clients made anew since the last delivery.
    renewals: u32,
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
        let producer = producer(&config, Reports::default())?;
        let progress = ShardProgress::after(0, kafka.stalled_after);
        Ok(Sender { topic: topic.to_owned(), config, producer, sent: 0, progress })
    }

    /// Hands a message to the queue, and waits while that is full; `false`: `stop` was set meanwhile, and the
    /// message was not sent. What can't be queued at all counts as a failure.
    pub fn send(&mut self, message: &Outgoing, stop: &AtomicBool) -> bool {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in message.headers {
            headers = headers.insert(Header { key, value: Some(*value) });
        }
        let sent = Box::new(Sent { number: self.sent, tag: message.tag });
        let mut record =
            BaseRecord::with_opaque_to(&self.topic, sent).partition(message.partition).payload(message.value);
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
                    self.progress.watch(&self.topic, &self.config, &mut self.producer);
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
    pub fn wait(&mut self, length: Duration) {
        self.producer.poll(length);
        self.progress.watch(&self.topic, &self.config, &mut self.producer);
    }

    /// How many messages brokers have acknowledged.
    pub fn delivered(&self) -> u64 {
        self.producer.context().0.delivered.load(Ordering::Relaxed)
    }

    /// The first message that was not delivered, and how many there are.
    pub fn failure(&self) -> Option<SendFailure> {
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
    pub fn drain(&mut self, patience: Duration) -> Result<()> {
        let (mut least, mut deadline) = (i32::MAX, Instant::now() + patience);
        loop {
            let waiting = self.producer.in_flight_count();
            if waiting == 0 {
                return Ok(());
            }
            if waiting < least {
                (least, deadline) = (waiting, Instant::now() + patience);
            } else if Instant::now() >= deadline
                && self.progress.recreate_client(&self.topic, &self.config, &mut self.producer)
            {
                (least, deadline) = (i32::MAX, Instant::now() + patience);
            } else if Instant::now() >= deadline {
                bail!(
                    "{waiting} messages to {:?} were not acknowledged within {} s",
                    self.topic,
                    patience.as_secs()
                );
            }
            self.wait(DRAIN_TICK);
        }
    }
}

fn producer(config: &ClientConfig, reports: Reports) -> Result<Closing<BaseProducer<Reports>>> {
    refused(BaseProducer::from_config_and_context(config, reports), "producer").map(Closing::new)
}

impl ShardProgress {
    fn after(delivered: u64, at_most: Duration) -> ShardProgress {
        ShardProgress { at_most, delivered, moved_at: Instant::now(), are_there: false, renewals: 0 }
    }

    /// Looks whether anything was delivered, and has the client made anew where that has not been so for long.
    fn watch(&mut self, topic: &str, config: &ClientConfig, client: &mut Closing<BaseProducer<Reports>>) {
        let delivered = client.context().0.delivered.load(Ordering::Relaxed);
        if delivered != self.delivered || client.in_flight_count() == 0 {
            *self = ShardProgress::after(delivered, self.at_most);
        }
        // Looked at twice: brokers that have just come back need a while.
        if self.moved_at.elapsed() < self.at_most / 2 {
            return;
        }
        let were_there = self.are_there;
        self.are_there = has_leaders(client, topic);
        self.moved_at = Instant::now();
        if were_there && self.are_there {
            self.recreate_client(topic, config, client);
        }
    }

    /// Replaces a client that delivers nothing to brokers that answer by a new one, which sends what has not arrived: the
    /// library can lose a partition's leader for good (librdkafka issue 5430). Says whether it has.
    fn recreate_client(
        &mut self,
        topic: &str,
        config: &ClientConfig,
        client: &mut Closing<BaseProducer<Reports>>,
    ) -> bool {
        if self.renewals >= RENEWALS_MAX || !has_leaders(client, topic) {
            return false;
        }
        let fresh = match producer(config, Reports::clone(client.context())) {
            Ok(fresh) => fresh,
            Err(error) => {
                warn!(error = format!("{error:#}"), "could not make a new producer");
                return false;
            }
        };
        let back = take_back(client);
        let messages = back.len();
        // Which of them have arrived without a word of it nobody knows.
        warn!(
            topic,
            messages,
            "nothing was delivered, with brokers that answer; made a new producer, some messages may come twice"
        );
        *client = fresh;
        back.into_iter().for_each(|back| back.send(client));
        (self.moved_at, self.are_there) = (Instant::now(), false);
        self.renewals += 1;
        true
    }
}

/// Whether brokers answer, and know a leader of each partition.
fn has_leaders(client: &BaseProducer<Reports>, topic: &str) -> bool {
    let metadata = client.client().fetch_metadata(Some(topic), LEADERS_WITHIN);
    metadata.is_ok_and(|metadata| {
        metadata.topics().iter().all(|topic| {
            let partitions = topic.partitions();
            !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0)
        })
    })
}

/// Takes all that a client has not delivered out of it, in the order in which it was sent.
fn take_back(client: &BaseProducer<Reports>) -> Vec<Returned> {
    let fates = &client.context().0;
    fates.are_taken_back.store(true, Ordering::Relaxed);
    client.purge(PurgeConfig::default().queue().inflight());
    let deadline = Instant::now() + RETURNED_WITHIN;
    while client.in_flight_count() > 0 && Instant::now() < deadline {
        client.poll(DRAIN_TICK);
    }
    fates.are_taken_back.store(false, Ordering::Relaxed);
    let mut returned = std::mem::take(&mut *fates.returned.lock().unwrap_or_else(PoisonError::into_inner));
    returned.sort_by_key(|returned| returned.sent.number);
    returned
}

/// What is known of a message beside the message.
struct Sent {
    /// Counts from 0 in the order of sending.
    number: u64,
    tag: usize,
}

/// A message that came back.
struct Returned {
    sent: Box<Sent>,
    message: OwnedMessage,
}

impl Returned {
    fn send(self, client: &BaseProducer<Reports>) {
        let Returned { sent, message } = self;
        let tag = sent.tag;
        let mut record = BaseRecord::with_opaque_to(message.topic(), sent).partition(message.partition());
        (record.key, record.payload) = (message.key(), message.payload());
        record.headers = message.headers().cloned();
        // As many as the other client held, so it has room.
        if let Err((error, _)) = client.send(record) {
            client.context().failed(tag, error);
        }
    }
}

/// Counts what became of messages.
#[derive(Clone, Default)]
struct Reports(Arc<Fates>);

#[derive(Default)]
struct Fates {
    delivered: AtomicU64,
    failure: Mutex<Option<SendFailure>>,
    /// What is not delivered now is to be sent by another client.
    are_taken_back: AtomicBool,
    returned: Mutex<Vec<Returned>>,
}

impl Reports {
    fn failed(&self, tag: usize, error: KafkaError) {
        let mut failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(SendFailure { tag, error, count: 0 }).count += 1;
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
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        match result {
            Ok(_) => drop(self.0.delivered.fetch_add(1, Ordering::Relaxed)),
            Err((_, message)) if self.0.are_taken_back.load(Ordering::Relaxed) => {
                let returned = Returned { sent, message: message.detach() };
                self.0.returned.lock().unwrap_or_else(PoisonError::into_inner).push(returned);
            }
            Err((error, _)) => self.failed(sent.tag, error.clone()),
        }
    }
}
