//! What flows through a run. Its only threads are its workers, who read and write by turns:
//!
//! ```text
//! log ─chunks─► decode ─► in order ─► market ─► encode ─parts─► outputs
//!  └─ whichever worker has room      whichever worker gave the epoch's last part ─┘
//! ```
//! So bytes are read, worked on and written while they are in one processor's cache, and no thread waits for another's
//! call. Timely's queues have no bound: nobody reads more than [`EPOCHS_PER_WORKER`] epochs a worker ahead of what is
//! written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Error, Result, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, unbounded};
use foreshock_dataflows::batch::Chunk;
use foreshock_dataflows::changes::{LogChanges, changes};
use foreshock_dataflows::decode::{DecodeSettings, LogFile, decode, in_order};
use foreshock_dataflows::encode_lines::{EncodeLines, Part, encode_lines};
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::market::{Market, market_of_files};
use foreshock_dataflows::meter::Meter;
use foreshock_dataflows::settings::Settings;
use foreshock_dataflows::source::{Next, chunks};
use foreshock_operators::account::Counts;
use foreshock_operators::encode::Encoder;
use foreshock_operators::outputs::OutputKind;
use timely::scheduling::SyncActivator;
use tracing::{debug, warn};

use super::output::Outputs;
use crate::halt::Halt;
use crate::recordings::log::RecordedLog;

/// Epochs that are read and not written, for each worker: enough that nobody waits for a neighbour, few enough that memory
/// stays small.
const EPOCHS_PER_WORKER: usize = 4;

/// How often files that are followed are looked at for more.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A run of which more than one row in this many is late deserves a word.
const LATE_SHARE: i64 = 10;

/// What the threads of one run share.
pub struct Shared {
    pub kinds: Arc<[OutputKind]>,
    pub decode: DecodeSettings,
    pub settings: Settings,
    pub instruments: Instruments,
    pub workers: usize,
    pub halt: Halt,
}

impl Shared {
    /// The error of a log with too many instruments.
    pub fn too_many(&self) -> Error {
        let max = self.settings.instruments.max;
        anyhow!("more than {max} instruments; raise instruments.max if they are real")
    }
}

/// What the writer has added up.
pub struct Tally {
    pub counts: Counts,
    pub rows_per_worker: Vec<i64>,
    pub first_refused: Option<String>,
}

impl Tally {
    /// A log of which nothing at all could be read is no log of that format.
    pub fn check(&self, files: &[LogFile], control: bool) -> Result<()> {
        let counts = &self.counts;
        if counts.messages_in == 0 && counts.outside == 0 {
            let names: Vec<_> = files.iter().map(|file| format!("{:?}", file.name)).collect();
            bail!("there is no message in {}", names.join(", "));
        }
        if counts.messages_in > 0 && counts.messages_deadlettered == counts.messages_in {
            let format = files.first().map_or("", |file| file.format.name());
            let first = self.first_refused.as_deref().unwrap_or("no reason");
            bail!(
                "none of {} messages could be read as {format}; the first: {first}; compare it with docs/inputs.md: is it \
                 another format (--format), or not a message a line?",
                counts.messages_in
            );
        }
        if counts.rows_in == 0 && counts.outside > 0 {
            warn!(rows = counts.outside, "all rows lie before --from or after --to");
        }
        if counts.late * LATE_SHARE > counts.rows_in {
            warn!(
                late = counts.late,
                rows = counts.rows_in,
                "many rows are late: one may have a time far ahead"
            );
        }
        if counts.control_records > 0 && !control {
            warn!(
                records = counts.control_records,
                "control records are counted, but not obeyed: job.control is off"
            );
        }
        Ok(())
    }
}

/// Reads, computes and writes; returns the outputs, complete but not yet named.
pub fn pass_through(log: RecordedLog, outputs: Outputs, shared: &Arc<Shared>) -> Result<(Outputs, Tally)> {
    for file in shared.decode.files.iter() {
        debug!(file = file.name, format = file.format.name(), exchange = file.exchange, "reading");
    }
    let ends = Arc::new(Ends::new(log, outputs, shared.clone()));
    let (of_workers, worker_shared) = (ends.clone(), shared.clone());
    let config = timely::Config::process(shared.workers);
    let guards = timely::execute(config, move |worker| {
        build(worker, &of_workers, &worker_shared);
        while worker.step_or_park(None) {}
    });
    let guards = guards.map_err(|error| anyhow!("could not start the workers: {error}"))?;
    for worker in guards.join() {
        worker.map_err(|error| anyhow!("a worker ended early: {error}"))?;
    }
    match shared.halt.reason() {
        Some(error) => Err(error),
        None => ends.finish(),
    }
}

/// Builds the graph on one worker.
fn build(worker: &mut timely::worker::Worker, ends: &Arc<Ends>, shared: &Arc<Shared>) {
    let Shared { kinds, decode: decode_settings, settings, instruments, workers, .. } = &**shared;
    let (source, sink) = (ends.clone(), ends.clone());
    worker.dataflow::<u64, _, _>(|scope| {
        let chunks = chunks(scope, move || source.next(), |activator| ends.wakes().push(activator));
        let rows = decode(chunks, decode_settings.clone(), instruments, *workers);
        let log_changes =
            LogChanges::new(Arc::new(settings.clone()), decode_settings.files.clone(), *workers);
        let rows = changes(in_order(rows), log_changes);
        let outcomes = market_of_files(rows, Market::new(settings, instruments), &Meter::default());
        let encoder = Encoder::new(&settings.parameters.features.horizons, &settings.parameters.model);
        let files = decode_settings.files.clone();
        let emitter = EncodeLines::new(kinds.clone(), files, instruments.clone(), encoder, *workers);
        encode_lines(outcomes, emitter, move |part| sink.take_part(part));
    });
}

/// Both ends of a run, for all its workers.
struct Ends {
    shared: Arc<Shared>,
    /// `None` when all of it was read.
    log: Mutex<Option<RecordedLog>>,
    /// Epochs that were read, and those of them that were written.
    chunks: AtomicU64,
    written: AtomicU64,
    /// Somebody had no room to read more, and wants to be woken.
    starved: AtomicBool,
    wakes: Mutex<Vec<SyncActivator>>,
    give: Sender<Part>,
    parts: Receiver<Part>,
    writing: Mutex<Writing>,
}

/// Writes the epochs in their order, each when all workers' parts of it are here.
struct Writing {
    outputs: Outputs,
    tally: Tally,
    waiting: BTreeMap<u64, Vec<Part>>,
    next: u64,
    /// Notices that were given.
    said: BTreeSet<String>,
}

impl Ends {
    fn new(log: RecordedLog, outputs: Outputs, shared: Arc<Shared>) -> Ends {
        let (give, parts) = unbounded();
        let rows_per_worker = vec![0; shared.workers];
        let tally = Tally { counts: Default::default(), rows_per_worker, first_refused: None };
        Ends {
            shared,
            log: Mutex::new(Some(log)),
            chunks: AtomicU64::new(0),
            written: AtomicU64::new(0),
            starved: AtomicBool::new(false),
            wakes: Mutex::default(),
            give,
            parts,
            writing: Mutex::new(Writing {
                outputs,
                tally,
                waiting: BTreeMap::new(),
                next: 0,
                said: BTreeSet::new(),
            }),
        }
    }

    /// The next chunk of the log, where there is room for it.
    fn next(&self) -> Next {
        let mut log = lock(&self.log);
        let Some(open) = log.as_mut() else { return Next::Ended };
        if !self.has_room() {
            self.starved.store(true, Ordering::SeqCst);
            // What was written just before that has woken nobody.
            if !self.has_room() {
                return Next::Nothing;
            }
        }
        if let Some(chunk) = self.read(open) {
            self.chunks.fetch_add(1, Ordering::SeqCst);
            return Next::Chunk(chunk);
        }
        if open.is_waiting() && !self.shared.halt.is_set() && !self.shared.instruments.too_many() {
            self.flush_idle();
            return Next::Wait(LOOK_EVERY);
        }
        self.chunks.fetch_add(1, Ordering::SeqCst);
        let end = open.end_chunk();
        *log = None;
        Next::Chunk(end)
    }

    /// `None` where nothing more is there, or nothing more is wanted.
    fn read(&self, log: &mut RecordedLog) -> Option<Chunk> {
        if self.shared.halt.is_set() || self.shared.instruments.too_many() {
            return None;
        }
        log.next_chunk().unwrap_or_else(|error| {
            self.shared.halt.fail(error);
            None
        })
    }

    /// Brings all that was computed to whoever reads along, where everything read is written.
    fn flush_idle(&self) {
        if self.chunks.load(Ordering::SeqCst) != self.written.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(mut writing) = self.writing.try_lock()
            && let Err(error) = writing.outputs.flush()
        {
            self.shared.halt.fail(error);
        }
    }

    fn has_room(&self) -> bool {
        let on_their_way = self.chunks.load(Ordering::SeqCst) - self.written.load(Ordering::SeqCst);
        on_their_way < (EPOCHS_PER_WORKER * self.shared.workers) as u64
    }

    /// Takes what a worker has to say of an epoch, and writes what is complete.
    fn take_part(&self, part: Part) {
        // This end holds a receiver.
        let _ = self.give.send(part);
        // Whoever is writing just now looks for more when it is done.
        while let Ok(mut writing) = self.writing.try_lock() {
            let before = writing.next;
            self.parts.try_iter().for_each(|part| writing.take_part(part, &self.shared));
            let written = writing.next - before;
            drop(writing);
            self.written.fetch_add(written, Ordering::SeqCst);
            if written > 0 && self.starved.swap(false, Ordering::SeqCst) {
                for wake in self.wakes().iter() {
                    // A worker that is gone has nothing to be woken for.
                    let _ = wake.activate();
                }
            }
            if self.parts.is_empty() {
                return;
            }
        }
    }

    fn wakes(&self) -> MutexGuard<'_, Vec<SyncActivator>> {
        lock(&self.wakes)
    }

    /// What was written when all workers have ended.
    fn finish(self: Arc<Ends>) -> Result<(Outputs, Tally)> {
        let ends = Arc::into_inner(self).ok_or_else(|| anyhow!("a worker has left its graph behind"))?;
        let Ends { writing, parts, shared, chunks, .. } = ends;
        let mut writing = writing.into_inner().unwrap_or_else(PoisonError::into_inner);
        parts.try_iter().for_each(|part| writing.take_part(part, &shared));
        let Writing { outputs, tally, waiting, next, .. } = writing;
        if !waiting.is_empty() || next != chunks.into_inner() {
            bail!("an epoch was not written, which is a bug");
        }
        match shared.halt.reason() {
            Some(error) => Err(error),
            None => Ok((outputs, tally)),
        }
    }
}

impl Writing {
    fn take_part(&mut self, part: Part, shared: &Shared) {
        self.waiting.entry(part.epoch).or_default().push(part);
        while self.waiting.get(&self.next).is_some_and(|parts| parts.len() == shared.workers) {
            let mut parts = self.waiting.remove(&self.next).unwrap_or_default();
            parts.sort_by_key(|part| part.worker);
            self.next += 1;
            let tally = &mut self.tally;
            for part in &mut parts {
                tally.counts.add(&part.counts);
                tally.rows_per_worker[part.worker] += part.counts.rows_processed();
                tally.first_refused = tally.first_refused.take().or(part.first_refused.take());
                for notice in part.notices.drain(..) {
                    // Workers may find the same.
                    if self.said.insert(notice.clone()) {
                        warn!("{notice}");
                    }
                }
                if let Some(why) = part.unusable.take() {
                    shared.halt.fail(Error::msg(why));
                }
            }
            if shared.instruments.too_many() {
                shared.halt.fail(shared.too_many());
            }
            let lines: Vec<_> = parts.into_iter().map(|part| part.lines).collect();
            if !shared.halt.is_set()
                && let Err(error) = self.outputs.write(&lines)
            {
                shared.halt.fail(error);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
