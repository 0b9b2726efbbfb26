//! Writes one worker's publications so that each is there once: a transaction a shard, which holds outputs and the
//! offset of the input behind them.
//!
//! ```text
//! publication ─► open transaction ─(interval)─► committers ─► committed: progress of the shard
//!      └► kept while a commit is on its way, or the client's queue is full
//! ```
//! A transaction ends where a publication ends. What comes meanwhile waits, encoded; a shard is not read on while its
//! share of the backlog is waiting. Nothing here waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use foreshock_dataflows::batch::Cut;
use foreshock_dataflows::encode_records::{OutputRecord, Publication};
use foreshock_dataflows::instruments::Instruments;
use prometheus::{IntCounter, IntCounterVec};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;
use rdkafka::types::RDKafkaErrorCode;
use timely::scheduling::SyncActivator;
use tracing::debug;

use crate::config::TopicsConfig;
use crate::faults;
use crate::kafka::out::records::Records;
use crate::kafka::out::sink::{Accepted, Backlog, Sink};
use crate::kafka::out::transactions::{Client, CommitRequest, Committers};
use crate::kafka::progress::{Shard, ShardProgress};

/// Delivery reports are taken after this many sends, so that they don't pile up.
const SENDS_PER_POLL: usize = 256;

/// Offsets that don't move are committed again after so long.
const COMMITTED_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// How many timeouts of a transaction its steps may take together: to deliver, and to commit.
const TIMEOUTS_MAX: u32 = 3;

/// The most that counts of the time between two looks.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// How often a drain looks whether commits have returned.
const DRAIN_TICK: Duration = Duration::from_millis(1);

/// How often transactions end, and how large they may grow.
#[derive(Clone, Copy, Debug)]
pub struct TransactionPace {
    pub interval: Duration,
    /// Bytes of one shard after which a transaction ends early.
    pub bytes: usize,
}

/// What is counted.
pub struct TransactionCounters {
    /// By result.
    pub commits: IntCounterVec,
    pub aborted: IntCounter,
}

/// In the note beside a committed offset: a row before it waits, so its outputs come behind it.
pub const HAS_WAITING: &str = "waiting=1";

/// Where all of a worker's outputs leave.
pub struct ExactlyOnce {
    records: Records,
    /// By shard.
    lanes: BTreeMap<u32, Lane>,
    committers: Committers,
    counters: TransactionCounters,
    pace: TransactionPace,
    activator: Option<Arc<SyncActivator>>,
}

/// The way of one shard's outputs.
struct Lane {
    client: Arc<Client>,
    progress: Arc<ShardProgress>,
    /// What is to be known of the shard beside its offset.
    note: Arc<str>,
    /// Publications that the client has not taken whole, the oldest first.
    kept: VecDeque<Kept>,
    /// Records of the oldest that the client has taken.
    next: usize,
    kept_bytes: usize,
    /// Whether a row waited at the offset that was committed last.
    has_waiting: bool,
    /// When an offset was committed last; brokers forget those that never are.
    committed_at: Instant,
    looked_at: Instant,
    /// How long there has been something to commit and nothing was.
    busy_for: Duration,
    open: Transaction,
    committing: Option<Transaction>,
    outcome: Arc<Mutex<Option<Result<()>>>>,
}

struct Kept {
    publication: Publication,
    predictions: usize,
    bytes: usize,
}

/// What a transaction holds.
#[derive(Clone, Copy, Default)]
struct Transaction {
    /// When its first publication came; `None`: it is empty.
    since: Option<Instant>,
    publications: usize,
    records: usize,
    bytes: usize,
    next_offset: i64,
    /// A row before that offset waits, and is in no output yet.
    has_waiting: bool,
}

/// A shard and what its outputs need.
pub struct LaneStart {
    pub shard: u32,
    pub client: Arc<Client>,
    pub progress: Arc<ShardProgress>,
    pub note: Arc<str>,
}

impl ExactlyOnce {
    /// A sink for the outputs of these shards.
    pub fn new(
        opened: Vec<LaneStart>,
        topics: &TopicsConfig,
        shards: Arc<[Shard]>,
        instruments: Instruments,
        committers: Committers,
        pace: TransactionPace,
        counters: TransactionCounters,
    ) -> ExactlyOnce {
        let lane = |LaneStart { shard, client, progress, note }: LaneStart| {
            let lane = Lane {
                client,
                progress,
                note,
                kept: VecDeque::new(),
                next: 0,
                kept_bytes: 0,
                has_waiting: false,
                committed_at: Instant::now(),
                looked_at: Instant::now(),
                busy_for: Duration::ZERO,
                open: Transaction::default(),
                committing: None,
                outcome: Arc::default(),
            };
            (shard, lane)
        };
        ExactlyOnce {
            records: Records::new(topics, shards, instruments),
            lanes: opened.into_iter().map(lane).collect(),
            committers,
            counters,
            pace,
            activator: None,
        }
    }

    fn advance(&mut self, at_once: bool, accepted: &mut dyn FnMut(Accepted)) -> Result<()> {
        for (shard, lane) in &mut self.lanes {
            lane.take_outcome(*shard, &self.counters)?;
            lane.is_on_time()?;
            if lane.committing.is_some() {
                continue;
            }
            lane.send(*shard, &mut self.records, accepted)?;
            lane.client.producer.poll(Duration::ZERO);
            if let Some(error) = lane.client.failure() {
                return Err(error);
            }
            lane.refresh();
            if lane.is_due(self.pace, at_once) {
                lane.commit(&self.committers, self.activator.clone());
            }
        }
        Ok(())
    }
}

impl Sink for ExactlyOnce {
    fn push(&mut self, mut publication: Publication) {
        // It was emitted before.
        if publication.cut.suppressed {
            return;
        }
        let Some(lane) = self.lanes.get_mut(&publication.cut.shard) else { return };
        let predictions = std::mem::take(&mut publication.predictions).len();
        publication.records.shrink_to_fit();
        publication.bytes.shrink_to_fit();
        let bytes = publication.bytes.len()
            + publication.records.len() * size_of::<OutputRecord>()
            + size_of::<Kept>();
        lane.kept_bytes += bytes;
        lane.kept.push_back(Kept { publication, predictions, bytes });
    }

    fn poll(&mut self, accepted: &mut dyn FnMut(Accepted)) -> Result<()> {
        self.advance(false, accepted)
    }

    fn drain(&mut self, at_most: Duration, accepted: &mut dyn FnMut(Accepted)) -> Result<()> {
        let deadline = Instant::now() + at_most;
        loop {
            self.advance(true, accepted)?;
            if self.lanes.values().all(Lane::is_idle) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} bytes of outputs were not committed within {at_most:?}; their input is read again at the \
                     next start",
                    self.backlog().bytes
                );
            }
            thread::sleep(DRAIN_TICK);
        }
    }

    fn wake(&mut self, activator: Arc<SyncActivator>) {
        self.activator = Some(activator);
    }

    fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        for lane in self.lanes.values() {
            backlog.publications += lane.kept.len() + lane.open.publications;
            backlog.publications += lane.committing.map_or(0, |committing| committing.publications);
            backlog.bytes += lane.bytes();
            backlog.queued_records +=
                usize::try_from(lane.client.producer.in_flight_count()).unwrap_or_default();
        }
        backlog
    }

    fn backlog_bytes_of(&self, shard: u32) -> usize {
        self.lanes.get(&shard).map_or(0, Lane::bytes)
    }

    /// A transaction that gets nowhere runs into its timeout, which ends the job's attempt.
    fn recreate_stalled_client(&mut self, _after: Duration) -> Result<bool> {
        Ok(false)
    }

    fn reset_stall_timer(&mut self) {}
}

/// What is open is left to the brokers: the next start undoes it, or the timeout.
impl Drop for ExactlyOnce {
    fn drop(&mut self) {
        let open = self.lanes.values().filter(|lane| lane.open.since.is_some() || lane.committing.is_some());
        self.counters.aborted.inc_by(open.count() as u64);
    }
}

impl Lane {
    /// Looks whether the commit on its way has returned.
    fn take_outcome(&mut self, shard: u32, counters: &TransactionCounters) -> Result<()> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(outcome), Some(committed)) = (outcome, self.committing) else { return Ok(()) };
        self.committing = None;
        let result = if outcome.is_ok() { "done" } else { "failed" };
        counters.commits.with_label_values(&[result]).inc();
        outcome?;
        self.progress.deliver(committed.next_offset);
        self.progress.commit(committed.next_offset);
        self.has_waiting = committed.has_waiting;
        self.committed_at = Instant::now();
        self.busy_for = Duration::ZERO;
        let Transaction { records, next_offset, .. } = committed;
        debug!(target: "foreshock::transactions", shard, state = "committed", records, next_offset);
        Ok(())
    }

    /// Nothing of a transaction takes longer than its timeout several times over, unless the library has lost
    /// something: better to begin anew than to wait for ever.
    ///
    /// # Errors
    /// When one has.
    fn is_on_time(&mut self) -> Result<()> {
        let looked_at = std::mem::replace(&mut self.looked_at, Instant::now());
        // A process that stood still has other worries.
        self.busy_for += looked_at.elapsed().min(LOOK_MAX);
        let at_most = self.client.timeout * TIMEOUTS_MAX;
        if self.is_idle() {
            self.busy_for = Duration::ZERO;
        }
        if self.busy_for < at_most {
            return Ok(());
        }
        let step = if self.committing.is_some() { "committed" } else { "delivered" };
        let late = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        Err(anyhow::Error::new(late))
            .with_context(|| format!("the outputs of a transaction were not {step} within {at_most:?}"))
    }

    /// Hands publications to the client, as many as it takes.
    fn send(&mut self, shard: u32, records: &mut Records, accepted: &mut dyn FnMut(Accepted)) -> Result<()> {
        let mut sent = 0;
        while let Some(kept) = self.kept.front_mut() {
            if self.open.since.is_none() {
                self.open.since = Some(Instant::now());
                debug!(target: "foreshock::transactions", shard, state = "begun");
                faults::mark("transaction", shard, true);
            }
            while let Some(record) = kept.publication.records.get(self.next).copied() {
                faults::point("before_produce");
                let last = kept.publication.records.len() - 1;
                if self.next < last && faults::sabotage("swap") {
                    kept.publication.records.swap(self.next, self.next + 1);
                    continue;
                }
                let times =
                    if faults::sabotage("drop") { 0 } else { 1 + usize::from(faults::sabotage("duplicate")) };
                for _ in 0..times {
                    if !records.send(&self.client.producer, shard, &kept.publication.bytes, record, 0)? {
                        return Ok(());
                    }
                }
                faults::point("after_produce");
                self.next += 1;
                self.open.records += 1;
                sent += 1;
                if sent % SENDS_PER_POLL == 0 {
                    self.client.producer.poll(Duration::ZERO);
                }
            }
            let Some(Kept { publication, predictions, bytes }) = self.kept.pop_front() else { break };
            let cut: Cut = publication.cut;
            self.next = 0;
            self.kept_bytes -= bytes;
            self.open.bytes += bytes;
            self.open.publications += 1;
            self.open.next_offset = cut.next_offset;
            self.open.has_waiting = publication.low_watermark < cut.next_offset;
            accepted(Accepted { cut, predictions });
        }
        Ok(())
    }

    /// Has an offset that has not moved for long committed once more, in a transaction with nothing in it.
    fn refresh(&mut self) {
        if self.is_idle() && self.committed_at.elapsed() >= COMMITTED_AGAIN_AFTER {
            let next_offset = self.progress.committed();
            let since = Some(Instant::now());
            let has_waiting = self.has_waiting;
            self.open =
                Transaction { since, next_offset, publications: 1, has_waiting, ..Transaction::default() };
        }
    }

    /// Whether the open transaction is to end now. It can only where a publication ends.
    fn is_due(&self, pace: TransactionPace, at_once: bool) -> bool {
        let Some(since) = self.open.since.filter(|_| self.next == 0 && self.open.publications > 0) else {
            return false;
        };
        at_once || since.elapsed() >= pace.interval || self.open.bytes >= pace.bytes
    }

    fn commit(&mut self, committers: &Committers, activator: Option<Arc<SyncActivator>>) {
        let transaction = std::mem::take(&mut self.open);
        self.committing = Some(transaction);
        let outcome = self.outcome.clone();
        let done = move |result| {
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            // A worker that is gone has nothing to be woken for.
            let _ = activator.map(|activator| activator.activate());
        };
        let client = self.client.clone();
        let note = match transaction.has_waiting {
            true => format!("{} {HAS_WAITING}", self.note).into(),
            false => self.note.clone(),
        };
        committers.commit(CommitRequest {
            client,
            next_offset: transaction.next_offset,
            note,
            done: Box::new(done),
        });
    }

    fn bytes(&self) -> usize {
        self.kept_bytes + self.open.bytes + self.committing.map_or(0, |committing| committing.bytes)
    }

    fn is_idle(&self) -> bool {
        self.kept.is_empty() && self.open.since.is_none() && self.committing.is_none()
    }
}
