//! Runs recorded files through the graph: the same one that a live job runs.
//!
//! ```text
//! reader thread ─chunks─► workers (decode ─► in order ─► market ─► encode) ─parts─► writer thread ─► files
//!       ▲                                                                              │
//!       └──────────────────── one permit for each epoch written ◄──────────────────────┘
//! ```
//! Timely's queues have no bound, so permits bound the whole path: the reader never runs more than
//! [`EPOCHS_PER_WORKER`] epochs a worker ahead of the writer.

pub mod blocks;
pub mod input;
pub mod log;
pub mod output;
pub mod sniff;
pub mod summary;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, unbounded};
use foreshock_dataflows::batch::{Chunk, Range};
use foreshock_dataflows::decode::{DecodeSettings, LogFile, decode, in_order};
use foreshock_dataflows::emit::{Emit, Kind, Part, emit};
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::market::market;
use foreshock_dataflows::settings::Settings;
use foreshock_dataflows::source::{Next, chunks};
use foreshock_operators::encode::Encoder;
use timely::scheduling::SyncActivator;

use input::Input;
use log::{Log, LogSettings};
use output::{Destination, Outputs};
use sniff::Expected;
use summary::Summary;

/// Epochs on their way between reader and writer, for each worker: enough that nobody waits for a neighbour,
/// few enough that memory stays small.
const EPOCHS_PER_WORKER: usize = 4;

/// How often a waiting main thread looks at progress and signals.
const TICK: Duration = Duration::from_millis(100);

/// An error in how the program was called, rather than in what it met.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);

/// Called now and then with the bytes read so far and the bytes there are, where that is known.
pub type Progress = Box<dyn Fn(u64, Option<u64>)>;

/// What to run.
pub struct Backtest {
    pub inputs: Vec<Input>,
    pub expected: Expected,
    pub workers: usize,
    pub range: Range,
    pub kinds: Vec<Kind>,
    pub destination: Destination,
    pub chunk_bytes: usize,
    pub max_message_bytes: usize,
    pub settings: Settings,
    pub progress: Progress,
    /// Set from outside when the run shall end without a result.
    pub interrupted: Arc<AtomicBool>,
}

/// What the threads of one run share.
struct Shared {
    kinds: Arc<[Kind]>,
    decode: DecodeSettings,
    settings: Settings,
    instruments: Instruments,
    workers: usize,
    halt: Halt,
}

/// Ends a run early, with the first reason given.
#[derive(Clone, Default)]
struct Halt(Arc<(AtomicBool, Mutex<Option<Error>>)>);

impl Halt {
    fn fail(&self, error: Error) {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.0.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    fn reason(&self) -> Option<Error> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Backtest {
    /// Runs to the end of the log.
    ///
    /// # Errors
    /// When an input can't be read to its end or understood, an output can't be written, or the run is
    /// interrupted. Then no file has been left under its own name.
    pub fn run(self) -> Result<Summary> {
        let started = Instant::now();
        for input in &self.inputs {
            if let Input::File(path) = input
                && self.kinds.iter().any(|kind| self.destination.replaces(path, *kind))
            {
                bail!(Misuse(format!(
                    "an output would replace the input {}; choose another --out",
                    input.described()
                )));
            }
        }
        let progress = Arc::new(AtomicU64::new(0));
        let total = self.inputs.iter().map(Input::size).sum::<Option<u64>>();
        let log_settings = LogSettings {
            inputs: self.inputs,
            expected: self.expected,
            chunk_bytes: self.chunk_bytes,
            max_message_bytes: self.max_message_bytes,
            progress: progress.clone(),
        };
        let interrupted = &self.interrupted;
        // Standard input may be silent for long before its first lines tell what it holds.
        let log = attended("open", interrupted, || {}, move || Log::open(&log_settings))?;
        let files = log.files();
        let shared = Arc::new(Shared {
            kinds: self.kinds.clone().into(),
            decode: DecodeSettings {
                files: files.clone(),
                range: self.range,
                max_ahead: self.settings.max_ahead,
                max_message_bytes: self.max_message_bytes,
            },
            instruments: Instruments::new(self.settings.instruments.clone()),
            settings: self.settings,
            workers: self.workers,
            halt: Halt::default(),
        });
        let kinds = if self.destination == Destination::Nowhere { &[] } else { &self.kinds[..] };
        let outputs = Outputs::open(&self.destination, kinds)?;
        let partial_files = outputs.partial_files();

        let on_tick = || (self.progress)(progress.load(Ordering::Relaxed), total);
        let worker_shared = shared.clone();
        let written =
            attended("run", interrupted, on_tick, move || pass_through(log, outputs, &worker_shared));
        // Nothing has its final name yet: an interrupted process may end here, whatever its threads wait for.
        let (outputs, tally) = written.inspect_err(|_| output::remove(&partial_files))?;
        if shared.instruments.too_many() {
            let max = shared.settings.instruments.max;
            bail!("more than {max} instruments; raise instruments.max if they are real");
        }
        tally.check(&files)?;
        if let Some(wrong) = tally.counts.imbalance() {
            bail!("the account does not add up, which is a bug: {wrong}");
        }
        outputs.finish()?;
        Ok(Summary::new(tally.counts, tally.rows_per_worker, started.elapsed()))
    }
}

/// Does `work` on a thread of its own, and meanwhile calls `on_tick` now and then and listens for the end.
///
/// # Errors
/// Those of `work`, and that the run was interrupted: then the thread may still be waiting for something.
fn attended<T: Send + 'static>(
    name: &str,
    interrupted: &AtomicBool,
    on_tick: impl Fn(),
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (finished, on_finished) = bounded(1);
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        // The receiver is gone only when the run was interrupted.
        let _ = finished.send(work());
    })?;
    loop {
        match on_finished.recv_timeout(TICK) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if interrupted.load(Ordering::Relaxed) => {
                bail!("interrupted: no output was left")
            }
            Err(RecvTimeoutError::Timeout) => on_tick(),
        }
    }
    thread.join().map_err(|_| anyhow!("the thread {name:?} panicked"))?;
    bail!("the thread {name:?} ended without a result")
}

/// What the writer has added up.
struct Tally {
    counts: foreshock_operators::account::Counts,
    rows_per_worker: Vec<i64>,
    first_refused: Option<String>,
}

impl Tally {
    /// A log of which nothing at all could be read is no log of that format.
    fn check(&self, files: &[LogFile]) -> Result<()> {
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
        Ok(())
    }
}

/// Reads, computes and writes, on threads of its own; returns the outputs, complete but not yet named.
fn pass_through(log: Log, outputs: Outputs, shared: &Arc<Shared>) -> Result<(Outputs, Tally)> {
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
        let outcomes = market(in_order(rows), settings, instruments);
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
    let mut waiting = std::collections::BTreeMap::<u64, Vec<Part>>::new();
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
