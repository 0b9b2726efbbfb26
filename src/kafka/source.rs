//! Reads one worker's shards: messages ─► deliveries, each of one shard.
//!
//! Every shard has a queue of its own, so that one whose outputs wait is simply not asked; the others go on. The
//! client fetches ahead in its own threads and wakes the worker when an empty queue gets something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use foreshock_dataflows::batch::{Cut, Delivery};
use foreshock_operators::venues::EXCHANGES;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use timely::scheduling::SyncActivator;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::config::Kafka;
use crate::kafka::admin::offsets::is_away;
use crate::kafka::client::{Role, Words, client_config, is_configured, refused};
use crate::kafka::closing::{Closing, close_in_background};
use crate::kafka::message::{delivered, digest};
use crate::kafka::progress::{Shard, ShardProgress};
use crate::state::requests::{SnapshotRequests, StartedSnapshot};

/// The most messages of one delivery: enough that a batch's own cost doesn't matter, few enough that shards take
/// turns within a millisecond.
const MESSAGES_MAX: usize = 512;

/// The most bytes of one delivery, unless its first message alone is larger.
const BYTES_MAX: usize = 512 << 10;

/// Property: how much may be fetched ahead.
const FETCHED_KBYTES: &str = "queued.max.messages.kbytes";

/// How much of one shard is fetched ahead at the least: about one answer of the broker.
const FETCHED_KBYTES_MIN: usize = 256;

impl ConsumerContext for Words {}

/// The shards that one worker reads.
pub struct KafkaSource {
    settings: SourceSettings,
    consumer: Closing<Arc<BaseConsumer<Words>>>,
    queues: Vec<Queue>,
    /// The shard to ask first the next time.
    first: usize,
    activator: Option<Arc<SyncActivator>>,
    /// Clients made anew since the last message.
    backoff: u32,
}

/// How shards are read.
#[derive(Clone)]
pub struct SourceSettings {
    pub kafka: Kafka,
    pub group: String,
    /// Each ends where its log has no more.
    pub until_end: bool,
    /// Bytes that may be read ahead of what is asked for.
    pub fetched: usize,
    pub clock: Clock,
    /// Who wants snapshots; `None`: nobody.
    pub requests: Option<Arc<SnapshotRequests>>,
}

struct Queue {
    queue: PartitionQueue<Words>,
    at: Shard,
    name: String,
    /// Position in the job's list of shards.
    shard: u32,
    next_offset: i64,
    /// Offset and digest of the last record read.
    last_record: Option<(i64, [u8; 32])>,
    /// It was read as far as it will be.
    ended: bool,
    progress: Arc<ShardProgress>,
    /// Names of exchanges that headers gave, so that each is kept once.
    exchanges: Vec<Arc<str>>,
    /// When the client last had something to say, or there was nothing to wait for.
    moved_at: Instant,
    warned_at: Option<Instant>,
}

/// What there may be after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// A limit was reached before the queues were empty.
    More,
    Drained,
    /// All shards were read to the end that was to be reached.
    Ended,
}

impl KafkaSource {
    /// Begins to fetch these shards, each with its number, where they start.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn start(
        settings: SourceSettings,
        shards: Vec<(u32, Shard, Arc<ShardProgress>)>,
    ) -> Result<KafkaSource> {
        let places: Vec<(&Shard, i64)> = shards.iter().map(|(_, shard, _)| (shard, shard.start)).collect();
        let (consumer, opened) = fetch(&settings, &places)?;
        let queue =
            |((number, at, progress), queue): ((u32, Shard, Arc<ShardProgress>), PartitionQueue<Words>)| {
                Queue {
                    queue,
                    name: at.name(),
                    shard: number,
                    next_offset: at.start,
                    last_record: None,
                    at,
                    ended: false,
                    progress,
                    exchanges: EXCHANGES.iter().map(|name| Arc::from(*name)).collect(),
                    moved_at: Instant::now(),
                    warned_at: None,
                }
            };
        let queues = shards.into_iter().zip(opened).map(queue).collect();
        Ok(KafkaSource {
            settings,
            consumer: Closing::new(consumer),
            queues,
            first: 0,
            activator: None,
            backoff: 0,
        })
    }

    /// Has the worker woken whenever an empty queue gets something.
    pub fn wake(&mut self, activator: Arc<SyncActivator>) {
        for queue in &mut self.queues {
            let activator = activator.clone();
            queue.queue.set_nonempty_callback(move || {
                // A worker that is gone has nothing to be woken for.
                let _ = activator.activate();
            });
        }
        self.activator = Some(activator);
    }

    /// Takes what has arrived, without waiting: one delivery at the most of each shard that `has_room` for more.
    ///
    /// # Errors
    /// When a shard can't be read any further: its offset is gone, or the topic, or the right to read it.
    pub fn poll(&mut self, has_room: impl Fn(u32) -> bool, deliveries: &mut Vec<Delivery>) -> Result<Polled> {
        // Errors and news of the client itself; messages come through the shards' own queues.
        match self.consumer.poll(Duration::ZERO) {
            None => {}
            Some(Err(error)) => match judge(&error) {
                Judgement::Passing => debug!(%error, "a consumer met an error"),
                Judgement::Fatal(why) => bail!("could not read from Kafka: {why}"),
            },
            Some(Ok(message)) => bail!(
                "{}/{}/{} came past its queue, which is a bug",
                message.topic(),
                message.partition(),
                message.offset()
            ),
        }
        let count = self.queues.len();
        let mut polled = Polled::Drained;
        for at in 0..count {
            let queue = &mut self.queues[(self.first + at) % count];
            if queue.ended {
                continue;
            }
            if !has_room(queue.shard) {
                queue.moved_at = Instant::now();
            } else if queue.poll(&self.settings, deliveries)? {
                polled = Polled::More;
            }
        }
        if count > 0 {
            self.first = (self.first + 1) % count;
        }
        if !deliveries.is_empty() {
            self.backoff = 0;
        }
        let ended = self.settings.until_end && self.queues.iter().all(|queue| queue.ended);
        Ok(if ended { Polled::Ended } else { polled })
    }

    /// Has the state of every shard saved that is past what was emitted before: no more rows follow.
    pub fn finish(&mut self, deliveries: &mut Vec<Delivery>) {
        let Some(requests) = &self.settings.requests else { return };
        for queue in &self.queues {
            let snapshot = requests.last(queue.shard, queue.next_offset);
            if let Some(snapshot) = snapshot.filter(|_| queue.next_offset >= queue.at.emit_from) {
                requests.note_started(queue.begun(snapshot.number));
                let cut = Cut { snapshot: Some(snapshot), ..queue.cut(self.settings.clock) };
                deliveries.push(Delivery { end: false, bytes: Arc::default(), messages: Vec::new(), cut });
            }
        }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.queues.len()
    }

    /// Whether a shard has had more to read for so long and was not given it; longer each time that a new client
    /// has not helped, as where an open transaction hides what there is.
    pub fn is_stalled(&self, after: Duration) -> bool {
        let waits = |queue: &&Queue| {
            !queue.ended && queue.progress.is_reachable() && queue.progress.end() > queue.next_offset
        };
        let stalled_for = self.queues.iter().filter(waits).map(|queue| queue.moved_at.elapsed()).max();
        stalled_for.unwrap_or_default() >= after * (1 << self.backoff.min(BACKOFF_MAX))
    }

    /// Forgives the time so far without messages: there is a reason for it.
    pub fn reset_stall_timer(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.moved_at = Instant::now());
    }

    /// Replaces the client by a new one, which goes on where this one is.
    ///
    /// # Errors
    /// When the new client can't be made.
    pub fn recreate_client(&mut self) -> Result<()> {
        let places: Vec<(&Shard, i64)> =
            self.queues.iter().map(|queue| (&queue.at, queue.next_offset)).collect();
        let (consumer, opened) = fetch(&self.settings, &places)?;
        self.consumer = Closing::new(consumer);
        let replace = |(queue, fresh): (&mut Queue, _)| std::mem::replace(&mut queue.queue, fresh);
        let old: Vec<_> = self.queues.iter_mut().zip(opened).map(replace).collect();
        // Each holds the client too.
        close_in_background(old);
        self.reset_stall_timer();
        self.backoff += 1;
        if let Some(activator) = self.activator.clone() {
            self.wake(activator);
        }
        Ok(())
    }
}

/// Each queue holds the client too.
impl Drop for KafkaSource {
    fn drop(&mut self) {
        close_in_background(std::mem::take(&mut self.queues));
    }
}

/// A client, and the queue of each of its partitions.
type Fetching = (Arc<BaseConsumer<Words>>, Vec<PartitionQueue<Words>>);

/// A client that fetches partitions from these offsets, and a queue for each.
fn fetch(settings: &SourceSettings, places: &[(&Shard, i64)]) -> Result<Fetching> {
    let kafka = &settings.kafka;
    let mut config = client_config(kafka, &settings.group, Role::Consumer);
    // Whether all was read is known from this, not from offsets, which have holes.
    config.set("enable.partition.eof", "true");
    if !is_configured(kafka, Role::Consumer, FETCHED_KBYTES) {
        // The limit is one for each queue, so for each shard.
        let each = (settings.fetched / 1024 / places.len().max(1)).max(FETCHED_KBYTES_MIN);
        config.set(FETCHED_KBYTES, each.to_string());
    }
    let consumer: BaseConsumer<Words> = refused(config.create_with_context(Words), "consumer")?;
    let consumer = Arc::new(consumer);
    let mut assignment = TopicPartitionList::new();
    let mut queues = Vec::new();
    for (shard, offset) in places {
        assignment
            .add_partition_offset(&shard.topic, shard.partition, Offset::Offset(*offset))
            .with_context(|| format!("could not begin {} at {offset}", shard.name()))?;
        // Before the assignment: what is fetched then can't go anywhere else.
        let queue = consumer
            .split_partition_queue(&shard.topic, shard.partition)
            .with_context(|| format!("could not open a queue for {}", shard.name()))?;
        queues.push(queue);
    }
    consumer.assign(&assignment).context("could not assign partitions")?;
    Ok((consumer, queues))
}

/// So often the patience with a client that stands still is doubled.
pub(super) const BACKOFF_MAX: u32 = 5;

/// How often the log tells of a shard's passing errors, at the most.
const WARN_EVERY: Duration = Duration::from_secs(30);

impl Queue {
    /// Takes what has arrived; says whether a limit was reached.
    fn poll(&mut self, settings: &SourceSettings, deliveries: &mut Vec<Delivery>) -> Result<bool> {
        let clock = settings.clock;
        let mut delivery = self.empty();
        let mut bytes = Vec::new();
        let mut replayed = None;
        let mut is_full = false;
        let mut reached_end = false;
        while !is_full && !reached_end {
            match self.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    // What was emitted before and what was not is never in one delivery.
                    let suppressed = message.offset() < self.at.emit_from;
                    if !delivery.messages.is_empty() && delivery.cut.suppressed != suppressed {
                        replayed = Some((
                            std::mem::replace(&mut delivery, self.empty()),
                            std::mem::take(&mut bytes),
                        ));
                    }
                    delivery.cut.suppressed = suppressed;
                    if delivery.messages.is_empty() {
                        delivery.cut.read_at = clock.nanoseconds();
                    }
                    delivery.cut.stamped_at = message.timestamp().to_millis().unwrap_or_default();
                    delivery.cut.next_offset = message.offset() + 1;
                    delivery.messages.push(delivered(&message, &mut bytes, &mut self.exchanges));
                    is_full = delivery.messages.len() >= MESSAGES_MAX || bytes.len() >= BYTES_MAX;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => reached_end = true,
                Some(Err(error)) => match judge(&error) {
                    Judgement::Passing if is_away(&error) => {
                        debug!(shard = self.name, %error, "a broker is away")
                    }
                    Judgement::Passing => self.warn(&error),
                    Judgement::Fatal(why) => {
                        let what = format!("could not read {} at {}: {why}", self.name, self.next_offset);
                        return Err(anyhow::Error::new(error).context(what));
                    }
                },
            }
        }
        if let Some((delivery, bytes)) = replayed {
            self.hand_over(settings, delivery, bytes, deliveries);
        }
        if !delivery.messages.is_empty() {
            self.hand_over(settings, delivery, bytes, deliveries);
        }
        if reached_end {
            self.moved_at = Instant::now();
            self.progress.reached_end();
            if settings.until_end {
                self.ended = true;
                let cut = self.cut(clock);
                deliveries.push(Delivery { end: true, bytes: Arc::default(), messages: Vec::new(), cut });
            }
        } else if self.progress.end() <= self.next_offset {
            // Nothing to wait for.
            self.moved_at = Instant::now();
        }
        Ok(is_full || (reached_end && !self.ended))
    }

    fn empty(&self) -> Delivery {
        let cut = Cut { shard: self.shard, ..Cut::default() };
        Delivery { end: false, bytes: Arc::default(), messages: Vec::new(), cut }
    }

    /// The place that was read to.
    fn cut(&self, clock: Clock) -> Cut {
        Cut {
            shard: self.shard,
            next_offset: self.next_offset,
            read_at: clock.nanoseconds(),
            stamped_at: self.progress.stamped_at().unwrap_or_default(),
            ..Cut::default()
        }
    }

    fn begun(&self, number: u64) -> StartedSnapshot {
        StartedSnapshot { shard: self.shard, number, offset: self.next_offset, last_record: self.last_record }
    }

    fn hand_over(
        &mut self,
        settings: &SourceSettings,
        mut delivery: Delivery,
        bytes: Vec<u8>,
        deliveries: &mut Vec<Delivery>,
    ) {
        self.moved_at = Instant::now();
        self.next_offset = delivery.cut.next_offset;
        self.progress.read(self.next_offset, delivery.cut.stamped_at);
        if let Some(requests) = &settings.requests {
            let last = delivery.messages.last();
            self.last_record = last.map(|last| {
                let body = last.body.map(|body| body.of(&bytes));
                (last.offset as i64, digest(last.key.of(&bytes), body, delivery.cut.stamped_at))
            });
            // Before what was emitted is read again there is a snapshot already.
            let snapshot = if delivery.cut.suppressed { None } else { requests.take_request(self.shard) };
            if let Some(snapshot) = snapshot {
                requests.note_started(self.begun(snapshot.number));
                delivery.cut.snapshot = Some(snapshot);
            }
        }
        delivery.bytes = Arc::new(bytes);
        deliveries.push(delivery);
    }

    fn warn(&mut self, error: &KafkaError) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            warn!(shard = self.name, offset = self.next_offset, %error, "could not read; trying again");
            self.warned_at = Some(Instant::now());
        }
    }
}

/// Whether an error says that the next offset to read is gone.
pub fn is_gone(error: &anyhow::Error) -> bool {
    let codes = error.chain().filter_map(|cause| cause.downcast_ref::<KafkaError>());
    let is_gone =
        |code| matches!(code, RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset);
    codes.filter_map(KafkaError::rdkafka_error_code).any(is_gone)
}

/// What an error of a consumer means for the job.
enum Judgement {
    /// The client tries again by itself.
    Passing,
    Fatal(String),
}

fn judge(error: &KafkaError) -> Judgement {
    let Some(code) = error.rdkafka_error_code() else { return Judgement::Passing };
    match code {
        RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset => Judgement::Fatal(format!(
            "the broker doesn't have this offset any more ({error}); see kafka.lost_offsets, or start with \
             --from-beginning to read what is left from empty windows"
        )),
        RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownPartition
        | RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::SaslAuthenticationFailed
        | RDKafkaErrorCode::NotImplemented
        | RDKafkaErrorCode::BadCompression
        // The library goes on behind a message that it can't read; the job would never know of it.
        | RDKafkaErrorCode::BadMessage
        | RDKafkaErrorCode::Fatal => Judgement::Fatal(error.to_string()),
        _ => Judgement::Passing,
    }
}
