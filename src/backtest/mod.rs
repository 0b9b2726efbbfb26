//! Runs recorded files through the graph: the same one that a live job runs.

pub mod output;
mod pipeline;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use crossbeam_channel::{RecvTimeoutError, bounded};
use foreshock_dataflows::batch::TimeRange;
use foreshock_dataflows::decode::DecodeSettings;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::settings::Settings;
use foreshock_operators::outputs::OutputKind;

use crate::halt::Halt;
use crate::misuse::Misuse;
use crate::recordings::input::RecordedInput;
use crate::recordings::log::{LogSettings, RecordedLog};
use crate::recordings::notes::LogNotes;
use crate::recordings::sniff::Expected;
use crate::summary::RunSummary;
use output::{Destination, Outputs};
use pipeline::{Shared, pass_through};

/// How many ticks the threads of a run that has failed may take to end: one may be waiting for input.
const PATIENCE: u32 = 10;

/// How often a waiting main thread looks at progress and signals.
const TICK: Duration = Duration::from_millis(100);

/// Called now and then with the bytes read so far and the bytes there are, where that is known.
pub type ReadProgress = Box<dyn Fn(u64, Option<u64>)>;

/// What to run.
pub struct Backtest {
    pub inputs: Vec<RecordedInput>,
    pub expected: Expected,
    pub workers: usize,
    pub range: TimeRange,
    pub kinds: Vec<OutputKind>,
    pub destination: Destination,
    pub chunk_bytes: usize,
    pub max_message_bytes: usize,
    /// Whether control records are obeyed, not counted only.
    pub control: bool,
    pub settings: Settings,
    pub progress: ReadProgress,
    /// Reads files that are cut off or damaged as far as they are whole.
    pub take_whole: bool,
    /// Waits for more at the ends of files, until the first interruption.
    pub follow: bool,
    /// Set from outside when the run shall end without a result; the first time, a run that follows its files ends
    /// with all that is in them.
    pub interrupted: Arc<AtomicBool>,
}

impl Backtest {
    /// Runs to the end of the log.
    ///
    /// # Errors
    /// When an input can't be read to its end or understood, an output can't be written, or the run is
    /// interrupted. Then no file has been left under its own name.
    pub fn run(self) -> Result<RunSummary> {
        let started = Instant::now();
        for input in &self.inputs {
            if let RecordedInput::File(path) = input
                && self.kinds.iter().any(|kind| self.destination.replaces(path, *kind))
            {
                bail!(Misuse(format!(
                    "an output would replace the input {}; choose another --out",
                    input.described()
                )));
            }
        }
        let kinds = if self.destination == Destination::Nowhere { &[] } else { &self.kinds[..] };
        let outputs = Outputs::open(&self.destination, kinds)?;
        let partial_files = outputs.partial_files();
        let progress = Arc::new(AtomicU64::new(0));
        let notes = Arc::<LogNotes>::default();
        let total = self.inputs.iter().map(RecordedInput::size).sum::<Option<u64>>();
        let log_settings = LogSettings {
            inputs: self.inputs,
            expected: self.expected,
            chunk_bytes: self.chunk_bytes,
            max_message_bytes: self.max_message_bytes,
            take_whole: self.take_whole,
            follow: self.follow.then(Arc::default),
            progress: progress.clone(),
            notes: notes.clone(),
        };
        let interrupted = Interrupted { asked: self.interrupted, end: log_settings.follow.clone() };
        let interrupted = &interrupted;
        // Standard input may be silent for long before its first lines tell what it holds.
        let log =
            attended("open", interrupted, &Halt::default(), || {}, move || RecordedLog::open(&log_settings))?;
        let files = log.files();
        let shared = Arc::new(Shared {
            kinds: self.kinds.clone().into(),
            decode: DecodeSettings {
                files: files.clone(),
                range: self.range,
                max_message_bytes: self.max_message_bytes,
                control: self.control,
            },
            instruments: Instruments::new(self.settings.instruments.clone()),
            settings: self.settings,
            workers: self.workers,
            halt: Halt::default(),
        });
        let on_tick = || (self.progress)(progress.load(Ordering::Relaxed), total);
        let worker_shared = shared.clone();
        let written = attended("run", interrupted, &shared.halt, on_tick, move || {
            pass_through(log, outputs, &worker_shared)
        });
        // Nothing has its final name yet: an interrupted process may end here, whatever its threads wait for.
        let (outputs, tally) = written.inspect_err(|_| output::remove(&partial_files))?;
        if shared.instruments.too_many() {
            return Err(shared.too_many());
        }
        tally.check(&files, self.control)?;
        if let Some(wrong) = tally.counts.imbalance() {
            bail!("the account does not add up, which is a bug: {wrong}");
        }
        outputs.finish()?;
        let summary = RunSummary::new(tally.counts, tally.rows_per_worker, started.elapsed());
        Ok(RunSummary { notes: notes.all(), first_refused: tally.first_refused, ..summary })
    }
}

/// What asks a run to end before its log does.
struct Interrupted {
    asked: Arc<AtomicBool>,
    /// Ends the log where it is, for files that are followed.
    end: Option<Arc<AtomicBool>>,
}

impl Interrupted {
    /// Whether the run is to end without a result: who follows files is asked twice for that.
    fn ends_now(&self) -> bool {
        let Some(end) = &self.end else { return self.asked.load(Ordering::Relaxed) };
        let is_asked = self.asked.swap(false, Ordering::Relaxed);
        is_asked && end.swap(true, Ordering::Release)
    }
}

/// Does `work` on a thread of its own, and meanwhile calls `on_tick` now and then and listens for the end.
///
/// # Errors
/// Those of `work`, and that the run was interrupted or has failed: then the thread may still be waiting for input.
fn attended<T: Send + 'static>(
    name: &str,
    interrupted: &Interrupted,
    halt: &Halt,
    on_tick: impl Fn(),
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (finished, on_finished) = bounded(1);
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        // The receiver is gone only when the run was interrupted.
        let _ = finished.send(work());
    })?;
    let mut patience = PATIENCE;
    loop {
        match on_finished.recv_timeout(TICK) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if interrupted.ends_now() => {
                bail!("interrupted: no output file was left")
            }
            Err(RecvTimeoutError::Timeout) if halt.is_set() && patience == 0 => {
                // Its reason may be on its way already.
                return on_finished
                    .try_recv()
                    .unwrap_or_else(|_| Err(halt.reason().unwrap_or_else(|| anyhow!("the run was ended"))));
            }
            Err(RecvTimeoutError::Timeout) => {
                patience -= u32::from(halt.is_set());
                on_tick();
            }
        }
    }
    thread.join().map_err(|_| anyhow!("the thread {name:?} panicked"))?;
    bail!("the thread {name:?} ended without a result")
}
