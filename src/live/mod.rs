//! A live job: the shards of topics through the graph of a backtest, its outputs to topics.
//!
//! ```text
//! start: topics ─► offsets ─► shards
//! then:  workers (poll ─► decode ─► market ─► publish)   committer   watcher   supervisor ─► board
//! ```
//! Workers never wait for a broker. The committer commits what they report as delivered, the watcher asks where
//! the logs end, the supervisor posts what all of them say and ends the job.

mod alerts;
pub mod clock;
mod committer;
mod start;
mod supervisor;
mod watcher;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use foreshock_dataflows::batch::Range;
use foreshock_dataflows::emit::Kind;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::live::{LastSeen, LiveSettings};
use foreshock_dataflows::messages::Limits;
use foreshock_dataflows::meter::Meter;
use foreshock_dataflows::publish::Publication;
use foreshock_operators::account::Counts;
use foreshock_operators::decode::Format;
use tracing::info;

use crate::cluster::Cluster;
use crate::cluster::place::Place;
use crate::config::Config;
use crate::halt::Halt;
use crate::kafka::progress::{Progress, Shard};
use crate::metrics::Metrics;
use crate::models::kind_name;
use crate::status::{Board, Phase, Serving, State, wall_time};

use alerts::Alerts;
use clock::Clock;

/// How much longer than `kafka.stop_timeout` the other processes may take to end.
const AFTER_STOP: Duration = Duration::from_secs(10);

/// What to run.
pub struct Job {
    pub config: Config,
    /// Of this process.
    pub workers: usize,
    pub kinds: Vec<Kind>,
    /// The format of all messages; `None`: each message's own.
    pub format: Option<Format>,
    /// The exchange of messages that name none.
    pub exchange: Option<String>,
    /// Begin at the first message of each partition, whatever was committed.
    pub from_beginning: bool,
    /// End where the logs end: a backtest of topics.
    pub until_end: bool,
    pub board: Arc<Board>,
    pub metrics: Metrics,
    /// Set from outside when the job shall end.
    pub stop: Arc<AtomicBool>,
}

/// What a job has done when it ends.
#[derive(Debug, Default)]
pub struct Done {
    pub counts: Counts,
    /// Rows that each worker's instruments had.
    pub rows_per_worker: Vec<i64>,
}

/// What the threads of a job share.
struct Shared {
    config: Config,
    place: Place,
    /// The other processes of the job, if there are any.
    cluster: Option<Arc<Cluster>>,
    until_end: bool,
    kinds: Arc<[Kind]>,
    shards: Arc<[Shard]>,
    /// By shard; those of other processes stand still.
    progress: Arc<[Arc<Progress>]>,
    decode: LiveSettings,
    instruments: Instruments,
    /// By worker of this process, as all of these.
    last_seen: Vec<LastSeen>,
    meters: Vec<Meter>,
    clock: Clock,
    board: Arc<Board>,
    metrics: Metrics,
    counts: Mutex<Counts>,
    rows_per_worker: Vec<AtomicI64>,
    /// The first message or row refused since the log told of some.
    first_refused: Mutex<Option<String>>,
    alerts: Mutex<Alerts>,
    kafka_connected: AtomicBool,
    /// Set from outside: read no more and deliver what was begun.
    stop: Arc<AtomicBool>,
    /// The workers have ended, so nothing more will be delivered.
    delivered: AtomicBool,
    halt: Halt,
}

impl Job {
    /// Runs until it is told to stop, or to the end of the logs.
    ///
    /// # Errors
    /// When topics or offsets are not as the job needs them, something can't be read or delivered, or outputs
    /// could not be delivered at the end. What was not committed is read again at the next start.
    pub fn run(self) -> Result<Done> {
        self.run_among(None)
    }

    /// The same as one of several processes.
    ///
    /// # Errors
    /// Those of [`Job::run`], and when another process has failed.
    pub fn run_in(self, cluster: Cluster) -> Result<Done> {
        let cluster = Arc::new(cluster);
        let at_most = self.config.kafka.stop_timeout + AFTER_STOP;
        let done = self.run_among(Some(cluster.clone()));
        let problem = done.as_ref().err().map(|error| format!("{error:#}"));
        cluster.end(problem.as_deref(), at_most);
        done
    }

    fn run_among(self, cluster: Option<Arc<Cluster>>) -> Result<Done> {
        let (board, stop) = (self.board.clone(), self.stop.clone());
        serve_model(&self.config, &board, &self.metrics);
        let done = self.start(cluster).and_then(|shared| match shared {
            Some(shared) => shared.run(),
            None => Ok(Done::default()),
        });
        let mut state = State::clone(&board.state());
        state.phase = match &done {
            Ok(_) => Phase::Stopping,
            Err(error) => Phase::Failed(format!("{error:#}")),
        };
        board.post(state);
        if done.is_ok() && stop.load(Ordering::Relaxed) {
            info!("stopped");
        }
        done
    }

    /// Looks for topics and offsets. `None` where the job was stopped meanwhile.
    fn start(self, cluster: Option<Arc<Cluster>>) -> Result<Option<Arc<Shared>>> {
        let others = cluster.as_deref();
        let place = others.map_or(Place::alone(self.workers), Cluster::place);
        if !others.map_or(Ok(true), Cluster::await_turn)? {
            return Ok(None);
        }
        let Some(shards) = start::shards(&self, place)? else { return Ok(None) };
        let shards: Arc<[Shard]> = shards.into();
        let names: Arc<[String]> = shards.iter().map(Shard::name).collect();
        if !others.map_or(Ok(true), |others| others.await_all(&names))? {
            return Ok(None);
        }
        let settings = &self.config.settings;
        let limits = Limits {
            range: Range::default(),
            max_ahead: settings.max_ahead,
            max_message_bytes: self.config.input.max_message_bytes,
        };
        let format = self.format.or(self.config.input.format);
        let exchange = self.exchange.map(Arc::from);
        Ok(Some(Arc::new(Shared {
            place,
            cluster,
            until_end: self.until_end,
            kinds: self.kinds.into(),
            progress: shards.iter().map(|at| Arc::new(Progress::between(at.start, at.end))).collect(),
            shards,
            decode: LiveSettings { shards: names, format, exchange, limits },
            instruments: Instruments::new(settings.instruments.clone()),
            last_seen: (0..self.workers).map(|_| LastSeen::default()).collect(),
            meters: (0..self.workers).map(|_| Meter::default()).collect(),
            clock: Clock::start(),
            board: self.board,
            metrics: self.metrics,
            counts: Mutex::default(),
            rows_per_worker: (0..self.workers).map(|_| AtomicI64::new(0)).collect(),
            first_refused: Mutex::default(),
            alerts: Mutex::default(),
            // The start has just spoken with the brokers.
            kafka_connected: AtomicBool::new(true),
            stop: self.stop,
            delivered: AtomicBool::new(false),
            halt: Halt::default(),
            config: self.config,
        })))
    }
}

/// Puts the configured model in force for HTTP and metrics.
fn serve_model(config: &Config, board: &Board, metrics: &Metrics) {
    let model = &config.settings.model;
    info!(
        name = &*model.name,
        version = &*model.version,
        kind = kind_name(model),
        sha256 = &*model.sha256,
        "model in force"
    );
    let info = [&*model.name, &*model.version, model.variant(), &*model.sha256];
    metrics.job.model_info.with_label_values(&info).set(1);
    metrics.job.model_loaded.set(1);
    let features = config.settings.features.clone();
    board.serve(Serving { model: model.clone(), features, loaded_at: wall_time() });
}

impl Shared {
    fn run(self: Arc<Shared>) -> Result<Done> {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let result = thread::scope(|scope| -> Result<()> {
            let watcher = named("watcher").spawn_scoped(scope, || watcher::watch(&self))?;
            let committer = named("committer").spawn_scoped(scope, || committer::commit(&self))?;
            let workers = named("workers").spawn_scoped(scope, || self.work())?;
            supervisor::supervise(&self, || workers.is_finished());
            let worked = workers.join().map_err(|_| anyhow!("the workers panicked"))?;
            self.delivered.store(true, Ordering::Release);
            let committed = committer.join().map_err(|_| anyhow!("the committer panicked"))?;
            watcher.join().map_err(|_| anyhow!("the watcher panicked"))?;
            supervisor::post(&self);
            match self.halt.reason() {
                Some(reason) => Err(reason),
                None => worked.and(committed),
            }
        });
        result?;
        let counts = self.counts().clone();
        if let Some(wrong) = counts.imbalance() {
            bail!("the account does not add up, which is a bug: {wrong}");
        }
        let rows_per_worker = self.rows_per_worker.iter().map(|rows| rows.load(Ordering::Relaxed)).collect();
        Ok(Done { counts, rows_per_worker })
    }

    fn work(self: &Arc<Shared>) -> Result<()> {
        let shared = self.clone();
        // Before any worker starts: the graph can't end where one never built its part of it.
        let Place { workers, .. } = self.place;
        let ends = (self.place.first()..self.place.first() + workers).map(|index| {
            let ends = worker::open(self, index);
            ends.map(Some).with_context(|| format!("worker {index} could not start"))
        });
        let ends = ends.collect::<Result<Vec<_>>>();
        let ends = Mutex::new(ends.inspect_err(|_| self.halt.set())?);
        let (builders, connections) = match &self.cluster {
            Some(cluster) => cluster.builders()?,
            None => {
                timely::CommunicationConfig::Process(workers).try_build().map_err(|error| anyhow!(error))?
            }
        };
        let settings = timely::WorkerConfig::default();
        let guards = timely::execute::execute_from(builders, connections, settings, move |worker| {
            let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
            let own = ends[worker.index() - shared.place.first()].take();
            drop(ends);
            own.map_or(Ok(()), |own| worker::work(worker, own, &shared))
        });
        let guards = guards.map_err(|error| anyhow!("could not start the workers: {error}"))?;
        for worker in guards.join() {
            worker.map_err(|error| anyhow!("a worker ended early: {error}"))?.context("a worker failed")?;
        }
        Ok(())
    }

    /// Whether workers are to read no more.
    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.halt.is_set()
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the job with the other processes, and has them end with this one.
    fn mind_others(&self) {
        let Some(cluster) = &self.cluster else { return };
        if let Some(why) = cluster.failure() {
            self.halt.fail(anyhow!(why));
        }
        if self.halt.is_set() {
            cluster.fail(&self.halt.text().unwrap_or_default());
        }
    }

    /// The shards that this process reads, by number.
    fn own_shards(&self) -> impl Iterator<Item = usize> {
        (0..self.shards.len()).filter(|shard| self.place.has(*shard))
    }

    /// Takes a publication of one of this process's workers into the account.
    fn account(&self, worker: usize, publication: &mut Publication) {
        let metrics = &self.metrics.job;
        self.rows_per_worker[worker].fetch_add(publication.counts.rows_processed(), Ordering::Relaxed);
        metrics.count(&publication.counts);
        self.counts().add(&publication.counts);
        if let Some(refused) = publication.first_refused.take() {
            self.first_refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refused);
        }
        for kind in self.kinds.iter() {
            let records = publication.records.iter().filter(|record| record.kind == *kind).count();
            if records > 0 {
                metrics.outputs.with_label_values(&[kind.name()]).inc_by(records as u64);
            }
        }
        let spikes = publication.predictions.iter().filter(|(_, spike)| *spike).count();
        for (label, n) in [("1", spikes), ("0", publication.predictions.len() - spikes)] {
            metrics.predictions_by_class.with_label_values(&[label]).inc_by(n as u64);
        }
        let probability = metrics.probability.local();
        publication.predictions.iter().for_each(|(p, _)| probability.observe(*p));
        probability.flush();
        if !publication.alerts.is_empty() {
            let mut alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
            for (instrument, alert) in publication.alerts.drain(..) {
                alerts.note(&self.instruments.get(instrument), *alert, metrics);
            }
        }
    }
}
