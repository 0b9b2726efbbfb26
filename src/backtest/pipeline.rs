//! The threads of a run and what flows between them.
//!
//! ```text
//! reader thread ─chunks─► workers (decode ─► in order ─► market ─► encode) ─parts─► writer thread ─► files
//!       ▲                                                                              │
//!       └──────────────────── one permit for each epoch written ◄──────────────────────┘
//! ```
//! Timely's queues have no bound, so permits bound the whole path: the reader never runs more than
//! [`EPOCHS_PER_WORKER`] epochs a worker ahead of the writer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Error, Result, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use foreshock_dataflows::batch::Chunk;
use foreshock_dataflows::changes::{LogChanges, changes};
use foreshock_dataflows::decode::{DecodeSettings, LogFile, decode, in_order};
use foreshock_dataflows::emit::{Emit, Kind, Part, emit};
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::market::{Market, market};
use foreshock_dataflows::meter::Meter;
use foreshock_dataflows::settings::Settings;
use foreshock_dataflows::source::{Next, chunks};
use foreshock_operators::account::Counts;
use foreshock_operators::encode::Encoder;
use timely::scheduling::SyncActivator;
use tracing::{debug, warn};

use super::log::Log;
use super::output::Outputs;
use crate::halt::Halt;

/// Epochs on their way between reader and writer, for each worker: enough that nobody waits for a neighbour,
/// few enough that memory stays small.
const EPOCHS_PER_WORKER: usize = 4;

/// A run of which more than one row in this many is late deserves a word.
const LATE_SHARE: i64 = 10;

/// What the threads of one run share.
pub struct Shared {
    pub kinds: Arc<[Kind]>,
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
    first_refused: Option<String>,
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
            bail!("none of {} messages could be read as {format}; the first: {first}", counts.messages_in);
        }
        let refused = counts.rows_deadlettered + counts.late;
        if counts.rows_in > 0 && refused == counts.rows_in {
            let first = self.first_refused.as_deref().unwrap_or("no reason");
            warn!(rows = refused, first, "no row could be used");
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

/// Reads, computes and writes, on threads of its own; returns the outputs, complete but not yet named.
pub fn pass_through(log: Log, outputs: Outputs, shared: &Arc<Shared>) -> Result<(Outputs, Tally)> {
    for file in shared.decode.files.iter() {
        debug!(file = file.name, format = file.format.name(), exchange = file.exchange, "reading");
    }
    let window = EPOCHS_PER_WORKER * shared.workers;
    let (permit, permits) = bounded(window);
    (0..window).try_for_each(|_| permit.send(())).context("could not fill the queue of permits")?;
    let (chunk_sender, chunk_receiver) = bounded(window);
    let (wake_sender, wakes) = unbounded();
    let (part_sender, parts) = unbounded();

    thread::scope(|scope| {
        let named = |name: &str| thread::Builder::new().name(name.to_string());
        let reader =
            named("reader").spawn_scoped(scope, || read(log, &permits, chunk_sender, &wakes, shared))?;
        let writer = named("writer").spawn_scoped(scope, move || write(outputs, &parts, &permit, shared))?;
        let worker_shared = shared.clone();
        let config = timely::Config::process(shared.workers);
        let guards = timely::execute(config, move |worker| {
            build(worker, &chunk_receiver, &wake_sender, &part_sender, &worker_shared);
            while worker.step_or_park(None) {}
        });
        let guards = guards.map_err(|error| anyhow!("could not start the workers: {error}"))?;
        for worker in guards.join() {
            worker.map_err(|error| anyhow!("a worker ended early: {error}"))?;
        }
        reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        writer.join().map_err(|_| anyhow!("the writer panicked"))?
    })
    .and_then(|written| match shared.halt.reason() {
        Some(error) => Err(error),
        None => Ok(written),
    })
}

/// Builds the graph on one worker.
fn build(
    worker: &mut timely::worker::Worker,
    queue: &Receiver<Chunk>,
    wake: &Sender<SyncActivator>,
    parts: &Sender<Part>,
    shared: &Arc<Shared>,
) {
    let Shared { kinds, decode: decode_settings, settings, instruments, workers, .. } = &**shared;
    let (queue, parts) = (queue.clone(), parts.clone());
    worker.dataflow::<u64, _, _>(|scope| {
        let next = move || match queue.try_recv() {
            Ok(chunk) => Next::Chunk(chunk),
            Err(TryRecvError::Empty) => Next::Nothing,
            Err(TryRecvError::Disconnected) => Next::Ended,
        };
        let chunks = chunks(scope, next, |activator| {
            // The reader waits for one from each worker.
            let _ = wake.send(activator);
        });
        let rows = decode(chunks, decode_settings.clone(), instruments, *workers);
        let log_changes =
            LogChanges::new(Arc::new(settings.clone()), decode_settings.files.clone(), *workers);
        let rows = changes(in_order(rows), log_changes);
        let outcomes = market(rows, Market::new(settings, instruments), &Meter::default());
        let encoder = Encoder::new(&settings.features.horizons, &settings.model);
        let files = decode_settings.files.clone();
        let emitter = Emit::new(kinds.clone(), files, instruments.clone(), encoder, *workers);
        emit(outcomes, emitter, move |part| {
            // The writer takes parts until the last sender is gone.
            let _ = parts.send(part);
        });
    });
}

/// Feeds the log to the workers, as fast as the writer frees permits.
fn read(
    mut log: Log,
    permits: &Receiver<()>,
    chunks: Sender<Chunk>,
    wakes: &Receiver<SyncActivator>,
    shared: &Shared,
) {
    let activators: Vec<SyncActivator> = wakes.iter().take(shared.workers).collect();
    let wake = || {
        for activator in &activators {
            // A worker that is gone has nothing to be woken for.
            let _ = activator.activate();
        }
    };
    let send = |chunk| {
        let sent = permits.recv().is_ok() && chunks.send(chunk).is_ok();
        wake();
        sent
    };
    loop {
        if shared.halt.is_set() || shared.instruments.too_many() {
            break;
        }
        match log.next_chunk() {
            Ok(Some(chunk)) => {
                if !send(chunk) {
                    break;
                }
            }
            Ok(None) => {
                let end = log.end_chunk();
                send(end);
                break;
            }
            Err(error) => {
                shared.halt.fail(error);
                break;
            }
        }
    }
    drop(chunks);
    for activator in &activators {
        let _ = activator.activate();
    }
}

/// Writes the epochs in their order, each when all workers' parts of it are here.
fn write(
    mut outputs: Outputs,
    parts: &Receiver<Part>,
    permit: &Sender<()>,
    shared: &Shared,
) -> Result<(Outputs, Tally)> {
    let mut tally =
        Tally { counts: Default::default(), rows_per_worker: vec![0; shared.workers], first_refused: None };
    let mut waiting = BTreeMap::<u64, Vec<Part>>::new();
    let mut next = 0;
    for part in parts {
        waiting.entry(part.epoch).or_default().push(part);
        while waiting.get(&next).is_some_and(|parts| parts.len() == shared.workers) {
            let mut parts = waiting.remove(&next).unwrap_or_default();
            parts.sort_by_key(|part| part.worker);
            next += 1;
            for part in &mut parts {
                tally.counts.add(&part.counts);
                tally.rows_per_worker[part.worker] += part.counts.rows_processed();
                tally.first_refused = tally.first_refused.take().or(part.first_refused.take());
                if let Some(why) = part.unusable.take() {
                    shared.halt.fail(Error::msg(why));
                }
            }
            if shared.instruments.too_many() {
                shared.halt.fail(shared.too_many());
            }
            let lines: Vec<_> = parts.into_iter().map(|part| part.lines).collect();
            if !shared.halt.is_set()
                && let Err(error) = outputs.write(&lines)
            {
                shared.halt.fail(error);
            }
            // Nobody waits for permits once the reader has gone.
            let _ = permit.try_send(());
        }
    }
    Ok((outputs, tally))
}
