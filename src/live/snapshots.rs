//! The checkpoint coordinator: requests snapshots of the shards' states, writes the pieces as they come, publishes them.
//!
//! ```text
//! request ─► source (next cut) ─► operators ─► pieces ─► file ─► all there, and the cut committed ─► published
//! ```
//! One at a time while the job runs; at its end one of each shard. What goes wrong here is logged and counted, and costs
//! a longer replay: it never stops the job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use foreshock_dataflows::changes;
use foreshock_dataflows::market::Market;
use foreshock_dataflows::saving::{Piece, PieceContent, Saver};
use foreshock_operators::row::InstrumentId;
use tracing::{debug, warn};

use super::account::ShardAccount;
use super::ending::Ending;
use super::job_spec::JobSpec;
use super::measures::Measures;
use super::start::incarnation::Incarnation;
use crate::faults;
use crate::state::requests::{SnapshotRequests, StartedSnapshot};
use crate::state::{Header, RecordPrint, Store, StoreError, Writer, Written};
use crate::status::wall_time;

/// The section that tells how an instrument is defined: a state is only taken up for one that is defined alike.
pub const DEFINITION: &str = "definition";

/// How long this thread sleeps when no piece comes.
const TICK: Duration = Duration::from_millis(5);

/// A shard that gets no rows for so long after a request is passed over.
const REQUEST_FOR: Duration = Duration::from_millis(500);

/// How long the log keeps quiet about further snapshots that can't be written.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How long the end of the job waits for snapshots that are being written.
const END_WITHIN: Duration = Duration::from_secs(30);

/// What the thread needs.
pub struct CheckpointCoordinator {
    pub store: Store,
    pub requests: Arc<SnapshotRequests>,
    pub begun: Receiver<StartedSnapshot>,
    pub pieces: Receiver<Piece>,
    /// By worker of this process.
    pub savers: Vec<Saver>,
    /// By shard; of those of other processes nothing is known.
    pub incarnations: BTreeMap<u32, Incarnation>,
}

/// A snapshot that is being written.
struct Writing {
    begun: StartedSnapshot,
    since: Instant,
    /// `None`: it has failed, and its pieces are let go.
    writer: Option<Writer>,
    done: BTreeSet<&'static str>,
}

/// A snapshot that is written and waits for its cut to be committed.
struct Waiting {
    shard: u32,
    offset: i64,
    since: Instant,
    written: Written,
}

struct RequestedSnapshot {
    shard: u32,
    at: Instant,
}

/// Keeps snapshots until the job has ended.
pub fn keep(coordinator: CheckpointCoordinator, spec: &JobSpec, measures: &Measures, ending: &Ending) {
    let mut kept = Checkpoints {
        spec,
        measures,
        ending,
        coordinator,
        writing: BTreeMap::new(),
        waiting: Vec::new(),
        request: None,
        rounds: spec.own_shards().map(|shard| (shard as u32, Instant::now())).collect(),
        warned_at: None,
    };
    kept.run();
}

struct Checkpoints<'a> {
    spec: &'a JobSpec,
    measures: &'a Measures,
    ending: &'a Ending,
    coordinator: CheckpointCoordinator,
    /// By shard and number.
    writing: BTreeMap<(u32, u64), Writing>,
    waiting: Vec<Waiting>,
    request: Option<RequestedSnapshot>,
    /// When each shard's last snapshot was begun, or requested in vain.
    rounds: BTreeMap<u32, Instant>,
    warned_at: Option<Instant>,
}

impl Checkpoints<'_> {
    fn run(&mut self) {
        let mut ending: Option<Instant> = None;
        loop {
            // Looked at first: pieces of the last snapshots are then in the channel.
            let is_ending = self.ending.is_delivered();
            let is_empty = match self.coordinator.pieces.recv_timeout(TICK) {
                Ok(piece) => {
                    self.write_piece(piece);
                    self.coordinator
                        .pieces
                        .try_iter()
                        .take(1_000)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .for_each(|p| self.write_piece(p));
                    false
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => true,
            };
            self.publish();
            if is_ending {
                let since = *ending.get_or_insert_with(Instant::now);
                let is_done = is_empty && (self.waiting.is_empty() || self.ending.halt.is_set());
                if is_done || since.elapsed() >= END_WITHIN {
                    return;
                }
            } else {
                self.request_due();
            }
        }
    }

    /// Wishes for the snapshot that has been due for longest.
    fn request_due(&mut self) {
        let requests = self.coordinator.requests.clone();
        if let Some(RequestedSnapshot { shard, at }) = &self.request {
            if at.elapsed() < REQUEST_FOR {
                return;
            }
            // No rows, or too late: then it has begun by now.
            requests.withdraw(*shard);
            self.rounds.insert(*shard, Instant::now());
            self.request = None;
        }
        if !self.writing.is_empty() || !self.waiting.is_empty() {
            return;
        }
        let interval = self.spec.config.state.interval;
        let has_moved = |shard: u32| {
            let progress = &self.measures.progress[shard as usize];
            progress.committed() != requests.saved(shard)
        };
        let due = self.rounds.iter().filter(|(shard, at)| at.elapsed() >= interval && has_moved(**shard));
        if let Some((shard, _)) = due.min_by_key(|(_, at)| **at) {
            let shard = *shard;
            requests.request_snapshot(shard);
            self.request = Some(RequestedSnapshot { shard, at: Instant::now() });
        }
    }

    fn write_piece(&mut self, piece: Piece) {
        while let Ok(begun) = self.coordinator.begun.try_recv() {
            self.begin_writing(begun);
        }
        let key = (piece.shard, piece.number);
        if let Some(writing) = self.writing.get_mut(&key) {
            let done = match (&mut writing.writer, &piece.content) {
                (_, PieceContent::Done) => {
                    writing.done.insert(piece.section);
                    Ok(())
                }
                (None, _) => Ok(()),
                (Some(writer), PieceContent::Shard(bytes)) => writer.section(piece.section, bytes),
                (Some(writer), PieceContent::Key(at, bytes)) => {
                    let id = InstrumentId(*at as u32);
                    let instrument = self.spec.instruments.get(id);
                    let definition = self.spec.instruments.definition(id);
                    let (exchange, symbol) = (&instrument.exchange, &instrument.symbol);
                    writer
                        .instrument(exchange, symbol, piece.section, bytes)
                        .and_then(|()| writer.instrument(exchange, symbol, DEFINITION, definition.as_bytes()))
                }
            };
            if let Err(error) = done {
                writing.writer = None;
                self.fail(piece.shard, &error);
            }
            self.finish(key);
        }
        let worker = self.spec.place.worker_of(piece.shard as usize) - self.spec.place.first();
        self.coordinator.savers[worker].piece_done(piece);
    }

    fn begin_writing(&mut self, begun: StartedSnapshot) {
        let shard = begun.shard;
        if self.request.as_ref().is_some_and(|request| request.shard == shard) {
            self.request = None;
        }
        self.rounds.insert(shard, Instant::now());
        let at = &self.spec.shards[shard as usize];
        let Some(incarnation) = self.coordinator.incarnations.get(&shard) else { return };
        let header = Header {
            job: self.spec.config.job.clone(),
            topic: at.topic.clone(),
            partition: at.partition,
            incarnation: incarnation.id.clone(),
            offset: begun.offset,
            origin: incarnation.origin,
            origin_is_cold: incarnation.is_cold(),
            last_record: begun.last_record.map(|(offset, sha256)| RecordPrint { offset, sha256 }),
            settings: incarnation.settings.clone(),
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
            made_at: wall_time(),
        };
        debug!(target: "foreshock::state", shard, offset = begun.offset, state = "begun");
        faults::mark("snapshot", shard, true);
        let writer =
            self.coordinator.store.begin_snapshot(&header).map_err(|error| self.fail(shard, &error)).ok();
        let key = (shard, begun.number);
        self.writing.insert(key, Writing { begun, since: Instant::now(), writer, done: BTreeSet::new() });
    }

    /// Ends a file of which all sections are there.
    fn finish(&mut self, key: (u32, u64)) {
        let sections = [Market::SECTION, changes::NAME, ShardAccount::SECTION];
        let Some(writing) = self.writing.get(&key) else { return };
        if !sections.iter().all(|section| writing.done.contains(section)) {
            return;
        }
        let Some(Writing { begun, since, writer: Some(writer), .. }) = self.writing.remove(&key) else {
            return;
        };
        match writer.finish() {
            Ok(written) => {
                self.waiting.push(Waiting { shard: begun.shard, offset: begun.offset, since, written });
            }
            Err(error) => self.fail(begun.shard, &error),
        }
    }

    /// Publishes what is written and committed: a snapshot must never lie ahead of what is committed.
    fn publish(&mut self) {
        let is_committed =
            |waiting: &Waiting| self.measures.progress[waiting.shard as usize].committed() >= waiting.offset;
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(is_committed);
        self.waiting = waiting;
        for Waiting { shard, offset, since, written } in ready {
            let at = &self.spec.shards[shard as usize];
            match written.publish() {
                Ok(entry) => {
                    let (store, keep) = (&self.coordinator.store, self.spec.config.state.keep);
                    // What can't be removed now is removed with the next.
                    if let Err(error) = store.prune(&at.topic, at.partition, keep) {
                        debug!(shard, %error, "an old snapshot can't be removed");
                    }
                    self.coordinator.requests.note_published(shard, offset);
                    self.measures.metrics.saved(&at.topic, at.partition, entry.bytes, since.elapsed());
                    debug!(target: "foreshock::state", shard, offset, bytes = entry.bytes, state = "published");
                    faults::mark("snapshot", shard, false);
                }
                Err(error) => self.fail(shard, &error),
            }
        }
    }

    fn fail(&mut self, shard: u32, error: &StoreError) {
        self.measures.metrics.snapshots.with_label_values(&["failed"]).inc();
        faults::mark("snapshot", shard, false);
        if self.warned_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            let shard = self.spec.shards[shard as usize].name();
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            warn!(
                shard,
                error = text,
                "a snapshot could not be kept; a restart would read more of its input again"
            );
            self.warned_at = Some(Instant::now());
        }
    }
}
