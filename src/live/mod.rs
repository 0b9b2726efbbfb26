//! A live job: the shards of topics through the graph of a backtest, its outputs to topics.
//!
//! ```text
//! start: topics ─► offsets ─► shards
//! then:  workers (poll ─► decode ─► market ─► publish)   committer   watcher   supervisor ─► board
//! ```
//! Workers never wait for a broker. The committer commits what they report as delivered, the watcher asks where
//! the logs end, the supervisor posts what all of them say and ends the job.

mod account;
mod alerts;
mod committer;
pub mod failures;
mod job;

mod snapshots;
pub mod start;
mod supervisor;
mod watcher;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use foreshock_dataflows::encode_records::Publication;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::live::{LastSeen, LiveSettings};
use foreshock_dataflows::market::Market;
use foreshock_dataflows::meter::Meter;
use foreshock_dataflows::output_kind::OutputKind;
use foreshock_dataflows::saving::Saver;
use foreshock_dataflows::settings::Settings;
use foreshock_operators::account::Counts;
use foreshock_operators::change::Change;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::model::Model;
use tracing::info;

use crate::cluster::Cluster;
use crate::cluster::place::ProcessPlace;
use crate::config::{Config, DeliveryGuarantee, MemoryShare};
use crate::halt::Halt;
use crate::kafka::out::transactions::Client;
use crate::kafka::progress::{Shard, ShardProgress};
use crate::metrics::Metrics;
use crate::models::kind_name;
use crate::status::{JobStatus, Serving, wall_time};

use crate::clock::Clock;
use crate::state::requests::SnapshotRequests;
use account::ShardAccount;
use alerts::Alerts;
use failures::FailureLog;
use snapshots::CheckpointCoordinator;

pub use job::{Done, Job};

/// What the threads of a job share.
struct Shared {
    config: Config,
    place: ProcessPlace,
    /// The other processes of the job, if there are any.
    cluster: Option<Arc<Cluster>>,
    until_end: bool,
    kinds: Arc<[OutputKind]>,
    shards: Arc<[Shard]>,
    /// By shard; those of other processes stand still.
    progress: Arc<[Arc<ShardProgress>]>,
    decode: LiveSettings,
    instruments: Instruments,
    /// By worker of this process, as all of these.
    last_seen: Vec<LastSeen>,
    meters: Vec<Meter>,
    clock: Clock,
    job_status: Arc<JobStatus>,
    metrics: Metrics,
    /// Of what this process does not tell, since it was told of before: what is restored and read again.
    suppressed: Mutex<Counts>,
    /// The same of the first attempt that came to an end with it.
    emitted_before: Arc<Mutex<Option<Counts>>>,
    /// By shard: of the job, as far as it is known.
    accounts: Vec<Mutex<Counts>>,
    /// By shard: the settings that the job began it with.
    bases: BTreeMap<u32, Arc<Settings>>,
    /// What the shards of this process are begun with.
    begun: Mutex<Handover>,
    recovery: start::recovery::Watch,
    failures: Option<FailureLog>,
    /// What was gone at the start, and what was done about it.
    lost: Vec<String>,
    /// When the process was last not let run for as long as a transaction may take.
    stood_still: Mutex<Option<Instant>>,
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

/// What the threads of a job take over when they begin.
struct Handover {
    /// By shard: the producer of its outputs, and what is noted beside its offset.
    clients: BTreeMap<u32, (Arc<Client>, Arc<str>)>,
    /// By worker of this process.
    markets: Vec<Option<Market>>,
    /// By worker of this process; empty where no snapshots are kept.
    savers: Vec<Option<Saver>>,
    coordinator: Option<CheckpointCoordinator>,
    requests: Option<Arc<SnapshotRequests>>,
}

/// Puts a model in force for HTTP and metrics.
fn serve_model(
    model: &Arc<Model>,
    features: &Arc<FeatureSettings>,
    job_status: &JobStatus,
    metrics: &Metrics,
) {
    info!(
        name = &*model.name,
        version = &*model.version,
        kind = kind_name(model),
        sha256 = &*model.sha256,
        "model in force"
    );
    let info = [&*model.name, &*model.version, model.variant(), &*model.sha256];
    metrics.job.model_info.reset();
    metrics.job.model_info.with_label_values(&info).set(1);
    metrics.job.model_loaded.set(1);
    job_status.serve(Serving { model: model.clone(), features: features.clone(), loaded_at: wall_time() });
}

impl Shared {
    fn run(self: Arc<Shared>) -> Result<Done> {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let result = thread::scope(|scope| -> Result<()> {
            let watcher = named("watcher").spawn_scoped(scope, || watcher::watch(&self))?;
            let committer = named("committer").spawn_scoped(scope, || self.commit())?;
            let coordinator = self.begun().coordinator.take();
            let coordinator = coordinator
                .map(|coordinator| {
                    named("snapshots").spawn_scoped(scope, || snapshots::keep(&self, coordinator))
                })
                .transpose()?;
            let workers = named("workers").spawn_scoped(scope, || self.work()).inspect_err(|_| {
                // The others wait for them.
                self.halt.set();
                self.delivered.store(true, Ordering::Release);
            })?;
            supervisor::supervise(&self, || workers.is_finished());
            let worked = workers.join().map_err(|_| anyhow!("the workers panicked"))?;
            if worked.is_err() {
                // What was not delivered will not be committed either.
                self.halt.set();
            }
            self.delivered.store(true, Ordering::Release);
            let committed = committer.join().map_err(|_| anyhow!("the committer panicked"))?;
            watcher.join().map_err(|_| anyhow!("the watcher panicked"))?;
            if let Some(coordinator) = coordinator {
                coordinator.join().map_err(|_| anyhow!("the keeper of snapshots panicked"))?;
            }
            supervisor::post(&self);
            match self.halt.reason() {
                Some(reason) => Err(reason),
                None => worked.and(committed),
            }
        });
        let mut emitted_before = self.emitted_before.lock().unwrap_or_else(PoisonError::into_inner);
        if self.recovery.has_ended() {
            emitted_before.get_or_insert_with(|| self.suppressed().clone());
        }
        result?;
        let account = self.account_so_far();
        let counts = account.since(emitted_before.as_ref().unwrap_or(&self.suppressed()));
        if let Some(wrong) = account.imbalance() {
            bail!("the account does not add up, which is a bug: {wrong}");
        }
        let rows_per_worker = self.rows_per_worker.iter().map(|rows| rows.load(Ordering::Relaxed)).collect();
        Ok(Done { counts, account, rows_per_worker })
    }

    fn work(self: &Arc<Shared>) -> Result<()> {
        let shared = self.clone();
        // Before any worker starts: the graph can't end where one never built its part of it.
        let ProcessPlace { workers, .. } = self.place;
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

    /// Notes how long the process has just stood still.
    fn note_pause(&self, pause: Duration) {
        if pause >= self.config.kafka.transaction_timeout {
            let mut stood_still = self.stood_still.lock().unwrap_or_else(PoisonError::into_inner);
            *stood_still = Some(Instant::now());
        }
    }

    /// Whether the process has lately stood still for so long that another one may have been started in its place.
    fn has_stood_still(&self) -> bool {
        let stood_still = self.stood_still.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = 2 * self.config.kafka.transaction_timeout;
        stood_still.is_some_and(|until| until.elapsed() < lately)
    }

    /// The committed offsets of this process's shards, by name.
    fn committed(&self) -> Vec<(String, i64)> {
        let own = self.own_shards();
        own.map(|shard| (self.shards[shard].name(), self.progress[shard].committed())).collect()
    }

    /// Puts in force for HTTP and metrics what a control record has put in force for rows.
    fn serve(&self, model: Option<&Arc<Model>>, features: Option<&Arc<FeatureSettings>>) {
        if model.is_none() && features.is_none() {
            return;
        }
        let Some(serving) = self.job_status.serving() else { return };
        let (model, features) = (model.unwrap_or(&serving.model), features.unwrap_or(&serving.features));
        if serving.model != *model || serving.features != *features {
            serve_model(model, features, &self.job_status, &self.metrics);
        }
    }

    /// The same with what a shard begins with.
    fn serve_changes(&self, shard: u32, changes: &[Arc<Change>]) {
        let mut in_force: Vec<_> = changes.iter().filter(|change| change.effective_at.is_none()).collect();
        in_force.sort_by_key(|change| std::cmp::Reverse(change.number));
        let base = self.bases.get(&shard);
        let model = in_force.iter().find_map(|change| change.model()).or(base.map(|base| &base.model));
        let features = in_force.iter().find_map(|change| change.features());
        self.serve(model, features.or(base.map(|base| &base.features)));
    }

    /// The same of those that have rows to commit.
    fn standing(&self) -> Vec<(String, i64)> {
        let behind = |shard: &usize| self.progress[*shard].committed() < self.progress[*shard].end();
        let own = self.own_shards().filter(behind);
        own.map(|shard| (self.shards[shard].name(), self.progress[shard].committed())).collect()
    }

    /// What one worker may hold.
    fn memory(&self) -> MemoryShare {
        self.config.memory_share(self.place.workers)
    }

    /// Whether workers are to read no more.
    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.halt.is_set()
    }

    /// Commits offsets where outputs don't do that themselves.
    fn commit(&self) -> Result<()> {
        match self.config.delivery {
            DeliveryGuarantee::ExactlyOnce => Ok(()),
            DeliveryGuarantee::AtLeastOnce => committer::commit(self),
        }
    }

    fn begun(&self) -> MutexGuard<'_, Handover> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account of all shards of this process, since the job began to read them.
    fn account_so_far(&self) -> Counts {
        let mut sum = Counts::default();
        for account in &self.accounts {
            sum.add(&account.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }

    /// What a snapshot says of a shard as a whole.
    fn account_of(&self, shard: u32) -> ShardAccount {
        let counts = self.accounts[shard as usize].lock().unwrap_or_else(PoisonError::into_inner).clone();
        let alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner).of_shard(shard);
        ShardAccount { base: self.bases.get(&shard).cloned(), counts, alerts }
    }

    fn suppressed(&self) -> MutexGuard<'_, Counts> {
        self.suppressed.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Notes when all that was told of before has been read again.
    fn note_recovery(&self) {
        let is_there = |shard: usize| {
            let (from, progress) = (self.shards[shard].emit_from, &self.progress[shard]);
            // The last offsets before it may hold no record.
            progress.position() >= from || progress.position() >= progress.end()
        };
        if let Some(took) = self.recovery.is_over(self.own_shards().map(is_there)) {
            let rows = self.metrics.job.replayed_rows.get();
            self.metrics.job.recovery_seconds.set(took.as_secs_f64());
            info!(
                seconds = took.as_secs_f64(),
                replayed_rows = rows,
                "recovered: going on where the last commit was"
            );
        }
    }

    /// The shards that this process reads, by number.
    fn own_shards(&self) -> impl Iterator<Item = usize> {
        (0..self.shards.len()).filter(|shard| self.place.has(*shard))
    }

    /// Takes a publication of one of this process's workers into the account.
    fn account(&self, worker: usize, publication: &mut Publication) {
        let (metrics, shard) = (&self.metrics.job, publication.cut.shard);
        let counts = &publication.counts;
        self.accounts[shard as usize].lock().unwrap_or_else(PoisonError::into_inner).add(counts);
        if !publication.alerts.is_empty() {
            let mut alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
            for (instrument, alert) in publication.alerts.drain(..) {
                if !publication.cut.suppressed {
                    let labels = [alert.state.name(), alert.priority.name()];
                    metrics.alerts.with_label_values(&labels).inc();
                }
                alerts.note(shard, &self.instruments.get(instrument), *alert, metrics);
            }
        }
        if publication.cut.suppressed {
            // Counted by the process that told of it.
            self.suppressed().add(counts);
            return metrics.replayed_rows.inc_by(counts.rows_processed().unsigned_abs());
        }
        self.rows_per_worker[worker].fetch_add(counts.rows_processed(), Ordering::Relaxed);
        metrics.count(counts);
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
    }
}
