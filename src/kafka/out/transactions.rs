//! One transactional producer a shard: what it writes and how far the shard's input is read become visible together.
//!
//! ```text
//! open (fences whoever was there before) ─► begin ─► records ─► commit with the input offset ─► begin ...
//! ```
//! Nothing is tried again past a commit whose outcome isn't clear: the client is left alone, the process begins anew
//! from what the brokers know, and they tell what came of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender, unbounded};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;

use crate::config::Kafka;
use crate::faults;
use crate::kafka::admin::offsets::{Committed, is_away};
use crate::kafka::client::{Role, Words, client_config, hold_at_most, refused};
use crate::kafka::closing::Closing;
use crate::kafka::message::SOURCE;
use crate::kafka::progress::Shard;

/// Commits run at the same time, at the most.
const THREADS_MAX: usize = 32;

/// How long an answer of a broker may take, unless transactions are shorter.
const SOCKET_TIMEOUT_MS: u128 = 10_000;

/// The wait between two looks for delivery reports: the library's own flush looks each 100 ms.
const REPORTS_EACH: Duration = Duration::from_micros(500);

/// The producer of one shard.
pub struct Client {
    pub producer: Closing<BaseProducer<DeliveryFailures>>,
    group: ConsumerGroupMetadata,
    topic: String,
    partition: i32,
    /// Position in the job's list of shards.
    shard: u32,
    /// Of a transaction.
    pub timeout: Duration,
}

/// Notes what can't be delivered.
#[derive(Clone, Default)]
pub struct DeliveryFailures(Arc<Mutex<Option<(KafkaError, String)>>>);

/// Who may commit for a group. Keeps a client for as long as it is used.
pub struct Group {
    consumer: BaseConsumer<Words>,
}

impl Group {
    /// # Errors
    /// When the client can't be made.
    pub fn of_job(kafka: &Kafka, job: &str) -> Result<Group> {
        let consumer =
            refused(client_config(kafka, job, Role::Admin).create_with_context(Words), "consumer")?;
        Ok(Group { consumer })
    }

    fn metadata(&self) -> Result<ConsumerGroupMetadata> {
        self.consumer.group_metadata().context("the consumer has no group, which is a bug")
    }
}

/// The name under which the producer of a shard is fenced, by whatever process it was made.
pub fn transactional_id(job: &str, shard: &Shard) -> String {
    format!("{job}/{}/{}", shard.topic, shard.partition)
}

impl Client {
    /// Makes the producer of a shard of this number, which may hold so many bytes. From then on whoever had it before can commit nothing, and what it had begun is
    /// undone.
    ///
    /// # Errors
    /// When no coordinator answers in time (see [`passes`](crate::kafka::admin::offsets::passes)), or refuses.
    pub fn open(
        kafka: &Kafka,
        job: &str,
        group: &Group,
        shard: &Shard,
        (number, queued): (u32, usize),
        at_most: Duration,
    ) -> Result<Client> {
        let timeout = kafka.transaction_timeout;
        let milliseconds = timeout.as_millis().to_string();
        let mut config = client_config(kafka, job, Role::Producer);
        config
            .set("transactional.id", transactional_id(job, shard))
            .set("transaction.timeout.ms", &milliseconds)
            // The library wants it no longer than a transaction.
            .set("socket.timeout.ms", timeout.as_millis().min(SOCKET_TIMEOUT_MS).to_string())
            // A record that is older than its transaction can only fail with it.
            .set("message.timeout.ms", &milliseconds)
            // Transactions that follow each other closely meet the end of the one before.
            .set("retry.backoff.ms", "5")
            .set("retry.backoff.max.ms", "100");
        hold_at_most(&mut config, kafka, queued);
        let failures = DeliveryFailures::default();
        let producer: BaseProducer<DeliveryFailures> =
            refused(config.create_with_context(failures), "producer")?;
        let producer = Closing::new(producer);
        let what = || format!("could not take over the outputs of {}", shard.name());
        let deadline = Instant::now() + at_most;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match producer.init_transactions(left.max(Duration::from_millis(100))) {
                Ok(()) => break,
                Err(error) if may_try_again(&error) && Instant::now() < deadline => {
                    debug!(shard = shard.name(), %error, "transactions can't be begun yet");
                    producer.poll(Duration::from_millis(10));
                }
                Err(error) => return Err(error).with_context(what),
            }
        }
        producer.begin_transaction().with_context(what)?;
        Ok(Client {
            producer,
            group: group.metadata()?,
            topic: shard.topic.clone(),
            partition: shard.partition,
            shard: number,
            timeout,
        })
    }

    /// Why something could not be delivered, if anything.
    pub fn failure(&self) -> Option<anyhow::Error> {
        // Such as that it was fenced: what it then says of single records is only a consequence.
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            return Some(anyhow::Error::new(KafkaError::Global(code)).context(reason));
        }
        let failure = self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.map(|(error, what)| anyhow::Error::new(error).context(what))
    }

    /// Ends the transaction with this input offset and what is to be known of it, and begins the next.
    ///
    /// # Errors
    /// When it is not certain that all of it is committed: then the client is of no more use.
    pub fn commit(&self, next_offset: i64, note: &str) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        let what = || format!("the outputs of {}/{} before {next_offset}", self.topic, self.partition);
        self.drain(deadline).with_context(|| format!("could not deliver {}", what()))?;
        faults::point("before_commit");
        if !faults::sabotage("skip-commit") {
            self.send_offset(next_offset, note, deadline)
                .with_context(|| format!("could not commit {}", what()))?;
        }
        again_until(deadline, || self.producer.commit_transaction(left(deadline)))
            .with_context(|| format!("could not commit {}", what()))?;
        faults::point("after_commit");
        faults::mark("transaction", self.shard, false);
        self.producer.begin_transaction().with_context(|| format!("could not go on behind {}", what()))
    }

    /// Undoes what earlier transactions of this shard have left without an end. Brokers may take a transaction for
    /// ended and not have said so to each of its partitions: Kafka 4.3.1 leaves out those that have no leader just
    /// then, as while the only broker stops. What stands behind is hidden until the partition gets the end of another
    /// transaction of this producer, so here is one that touches all of them, and is aborted.
    ///
    /// # Errors
    /// As [`Client::commit`].
    pub fn abort_hanging<'a>(
        &self,
        outputs: impl Iterator<Item = &'a str>,
        committed: &Committed,
    ) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        let what = || format!("could not undo what was left of {}/{}", self.topic, self.partition);
        for topic in outputs {
            // With a key: compacted topics take none without.
            let record =
                BaseRecord::with_opaque_to(topic, 0).partition(self.partition).key("undone").payload("");
            self.producer.send(record).map_err(|(error, _)| error).with_context(what)?;
        }
        self.drain(deadline).with_context(what)?;
        self.send_offset(committed.offset, &committed.metadata, deadline).with_context(what)?;
        again_until(deadline, || self.producer.abort_transaction(left(deadline))).with_context(what)?;
        self.producer.begin_transaction().with_context(what)
    }

    fn send_offset(&self, next_offset: i64, note: &str, deadline: Instant) -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        let mut place = offsets.add_partition(&self.topic, self.partition);
        place.set_offset(Offset::Offset(next_offset))?;
        place.set_metadata(note);
        let send = || self.producer.send_offsets_to_transaction(&offsets, &self.group, left(deadline));
        Ok(again_until(deadline, send)?)
    }

    /// Waits until all records have arrived.
    fn drain(&self, deadline: Instant) -> Result<()> {
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(REPORTS_EACH);
            if let Some(error) = self.failure() {
                return Err(error);
            }
            if Instant::now() >= deadline {
                let count = self.producer.in_flight_count();
                let late = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
                return Err(anyhow::Error::new(late))
                    .with_context(|| format!("{count} records have not arrived within {:?}", self.timeout));
            }
        }
        match self.failure() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// The library says of some errors that the same call may be made again: its outcome is then still open.
fn again_until(
    deadline: Instant,
    mut call: impl FnMut() -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                debug!(error = error.string(), "a transaction's step is tried again");
                thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

fn may_try_again(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(inner) => !inner.is_fatal() && (inner.is_retriable() || is_away(error)),
        _ => false,
    }
}

/// Whether an error may pass, so that the job can begin anew from what is committed: brokers were away, or a
/// transaction got nowhere in time.
pub fn may_begin_anew(error: &anyhow::Error) -> bool {
    let codes = error.chain().filter_map(|cause| cause.downcast_ref::<KafkaError>());
    let passes = |error: &KafkaError| {
        is_away(error)
            || matches!(
                error.rdkafka_error_code(),
                Some(
                    RDKafkaErrorCode::MessageTimedOut
                        | RDKafkaErrorCode::PurgeQueue
                        | RDKafkaErrorCode::PurgeInflight
                        | RDKafkaErrorCode::ConcurrentTransactions
                        | RDKafkaErrorCode::NotEnoughReplicas
                        | RDKafkaErrorCode::NotEnoughReplicasAfterAppend
                )
            )
    };
    !is_fenced(error) && codes.into_iter().any(passes)
}

/// Whether an error says that another process has taken over, or that a transaction was left open for too long.
pub fn is_fenced(error: &anyhow::Error) -> bool {
    let codes = error.chain().filter_map(|cause| cause.downcast_ref::<KafkaError>());
    codes.filter_map(KafkaError::rdkafka_error_code).any(|code| {
        matches!(
            code,
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
        )
    })
}

/// Says what has happened where the brokers only speak of epochs.
pub fn explained(error: anyhow::Error) -> anyhow::Error {
    if !is_fenced(&error) {
        return error;
    }
    error.context(
        "another process has taken over this job's outputs, or a transaction was open for longer than \
         kafka.transaction_timeout",
    )
}

impl ClientContext for DeliveryFailures {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Words.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.note(error.clone(), format!("the producer can't go on: {reason}"));
        }
        Words.error(error, reason);
    }
}

impl ProducerContext for DeliveryFailures {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult, _tag: usize) {
        let Err((error, message)) = result else { return };
        let headers = message.headers();
        let source = headers.and_then(|headers| headers.iter().find(|header| header.key == SOURCE));
        let source = source.and_then(|header| header.value).map(String::from_utf8_lossy);
        let what = format!(
            "could not deliver an output of {} to {}/{}",
            source.unwrap_or_default(),
            message.topic(),
            message.partition(),
        );
        self.note(error.clone(), what);
    }
}

impl DeliveryFailures {
    fn note(&self, error: KafkaError, what: String) {
        // The first one is the cause of the others.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((error, what));
    }
}

/// A transaction that is to be committed.
pub struct CommitRequest {
    pub client: Arc<Client>,
    pub next_offset: i64,
    pub note: Arc<str>,
    /// Told of the outcome, on a thread of the committers.
    pub done: Box<dyn FnOnce(Result<()>) + Send>,
}

/// Threads that commit, so that no worker waits.
pub struct Committers {
    orders: Sender<CommitRequest>,
}

impl Committers {
    /// As many threads as there are shards, up to a bound. They end with this.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn start(shards: usize) -> Result<Committers> {
        let (orders, taken) = unbounded();
        for _ in 0..shards.clamp(1, THREADS_MAX) {
            let taken: Receiver<CommitRequest> = taken.clone();
            let serve = move || {
                for CommitRequest { client, next_offset, note, done } in taken {
                    done(client.commit(next_offset, &note));
                }
            };
            thread::Builder::new()
                .name("commit".to_owned())
                .spawn(serve)
                .context("could not start a thread")?;
        }
        Ok(Committers { orders })
    }

    /// Has a transaction committed.
    pub fn commit(&self, order: CommitRequest) {
        // The threads live as long as this does.
        let _ = self.orders.send(order);
    }
}
