//! One attempt of a job: its threads, from what the start has found until all of them have ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use foreshock_dataflows::batch::TimeRange;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::live::LiveSettings;
use foreshock_dataflows::messages::Limits;
use foreshock_dataflows::saving::Saver;

use super::ending::Ending;
use super::failures::FailureLog;
use super::job_report::{EmittedBefore, JobReport};
use super::job_spec::JobSpec;
use super::measures::Measures;
use super::snapshots::CheckpointCoordinator;
use super::start::JobStart;
use super::start::incarnation::Incarnation;
use super::start::shard_start::ShardStart;
use super::worker_start::WorkerStart;
use super::{Done, Job, JobParts, committer, snapshots, supervisor, watcher, worker};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::cluster::place::ProcessPlace;
use crate::config::DeliveryGuarantee;
use crate::kafka::out::exactly_once::LaneStart;
use crate::kafka::progress::{Shard, ShardProgress};
use crate::state::Store;
use crate::state::requests::SnapshotRequests;

/// An attempt that is about to run.
pub struct Attempt {
    pub parts: JobParts,
    /// How the job has failed before; `None` where there is no folder to remember it in.
    pub failures: Option<FailureLog>,
    /// What each worker of this process takes over.
    workers: Vec<WorkerStart>,
    /// `None` where no snapshots are kept.
    coordinator: Option<CheckpointCoordinator>,
}

/// What an attempt is made with beside what its start has found.
pub struct Surroundings<'a> {
    pub job: &'a Job,
    pub place: ProcessPlace,
    pub cluster: Option<Arc<Cluster>>,
    pub clock: Clock,
    pub instruments: Instruments,
    pub emitted_before: EmittedBefore,
}

impl Attempt {
    /// An attempt that goes on from what its start has found.
    pub fn new(surroundings: Surroundings, names: Arc<[String]>, found: JobStart) -> Attempt {
        let Surroundings { job, place, cluster, clock, instruments, emitted_before } = surroundings;
        let JobStart { shards, beginnings, markets, store } = found;
        let shards: Arc<[Shard]> = shards.into();
        let progress: Arc<[Arc<ShardProgress>]> =
            shards.iter().map(|shard| Arc::new(ShardProgress::of(shard))).collect();
        let metrics = &job.metrics.job;
        let report = JobReport::new(
            shards.len(),
            place.workers,
            job.job_status.clone(),
            metrics.clone(),
            emitted_before,
        );
        let mut bases = BTreeMap::new();
        let mut lanes = BTreeMap::new();
        let mut incarnations = BTreeMap::new();
        let mut saved = vec![0; shards.len()];
        let mut lost = Vec::new();
        for (shard, ShardStart { client, incarnation, account, saved: at, lost: gone, .. }) in beginnings {
            lost.extend(gone);
            bases.extend(account.base.map(|base| (shard, base)));
            report.restore_shard(shard, account.counts, account.alerts);
            // At its origin there is nothing to save.
            saved[shard as usize] = at.unwrap_or(incarnation.origin);
            let (progress, note) = (progress[shard as usize].clone(), incarnation.to_string().into());
            lanes.insert(shard, LaneStart { shard, client, progress, note });
            incarnations.insert(shard, incarnation);
        }
        metrics.lost_offsets.inc_by(lost.len() as u64);
        let folder = store.as_ref().and_then(Store::folder).map(Path::to_owned);
        let failures = folder.map(|folder| FailureLog::of(folder, place.process));
        let (coordinator, savers, requests) = coordinator(store, saved, incarnations, place.workers);
        let mut savers = savers.into_iter();
        let of_worker = |(index, market)| {
            let own = (0..).zip(shards.iter()).filter(|(number, _)| place.worker_of(*number) == index);
            let shards: Vec<(u32, Shard)> =
                own.map(|(number, shard)| (number as u32, shard.clone())).collect();
            let lanes = shards.iter().filter_map(|(number, _)| lanes.remove(number)).collect();
            WorkerStart { shards, lanes, market, saver: savers.next(), requests: requests.clone() }
        };
        let workers = (place.first()..).zip(markets).map(of_worker).collect();
        let spec = JobSpec {
            config: job.config.clone(),
            place,
            until_end: job.until_end,
            kinds: job.kinds.as_slice().into(),
            shards,
            decode: live_settings(job, names),
            instruments,
            bases,
            lost,
        };
        let measures = Measures::start(progress, place.workers, clock, metrics.clone());
        let ending = Ending::new(job.stop.clone(), job.config.kafka.transaction_timeout, cluster);
        let parts = JobParts {
            spec: Arc::new(spec),
            measures: Arc::new(measures),
            report: Arc::new(report),
            ending: Arc::new(ending),
        };
        Attempt { parts, failures, workers, coordinator }
    }

    /// Runs until the job ends.
    ///
    /// # Errors
    /// When it could not go on, or what was begun was not delivered and committed in time.
    pub fn run(self) -> Result<Done> {
        let Attempt { parts, workers, coordinator, .. } = self;
        let JobParts { spec, measures, report, ending } = &parts;
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let result = thread::scope(|scope| -> Result<()> {
            let watcher = named("watcher").spawn_scoped(scope, || watcher::watch(spec, measures, ending))?;
            let committer =
                named("committer").spawn_scoped(scope, || commit_offsets(spec, measures, ending))?;
            let coordinator = coordinator
                .map(|coordinator| {
                    named("snapshots")
                        .spawn_scoped(scope, || snapshots::keep(coordinator, spec, measures, ending))
                })
                .transpose()?;
            let workers =
                named("workers").spawn_scoped(scope, || run_workers(workers, &parts)).inspect_err(|_| {
                    // The others wait for them.
                    ending.halt.set();
                    ending.note_delivered();
                })?;
            supervisor::supervise(&parts, || workers.is_finished());
            let worked = workers.join().map_err(|_| anyhow!("the workers panicked"))?;
            if worked.is_err() {
                // What was not delivered will not be committed either.
                ending.halt.set();
            }
            ending.note_delivered();
            let committed = committer.join().map_err(|_| anyhow!("the committer panicked"))?;
            watcher.join().map_err(|_| anyhow!("the watcher panicked"))?;
            if let Some(coordinator) = coordinator {
                coordinator.join().map_err(|_| anyhow!("the keeper of snapshots panicked"))?;
            }
            supervisor::post(&parts);
            match ending.halt.reason() {
                Some(reason) => Err(reason),
                None => worked.and(committed),
            }
        });
        if measures.recovery.has_ended() {
            report.note_emitted_before();
        }
        result?;
        let (counts, account) = report.closing_account()?;
        Ok(Done { counts, account, rows_per_worker: report.rows_per_worker() })
    }
}

/// Commits offsets where outputs don't do that themselves.
fn commit_offsets(spec: &JobSpec, measures: &Measures, ending: &Ending) -> Result<()> {
    match spec.config.delivery {
        DeliveryGuarantee::ExactlyOnce => Ok(()),
        DeliveryGuarantee::AtLeastOnce => committer::commit_delivered(spec, measures, ending),
    }
}

/// Runs the workers of this process until all of them have ended.
fn run_workers(workers: Vec<WorkerStart>, parts: &JobParts) -> Result<()> {
    let JobParts { spec, measures, ending, .. } = parts;
    let first = spec.place.first();
    // Before any worker starts: the graph can't end where one never built its part of it.
    let opened = (first..).zip(workers).map(|(index, start)| {
        let opened = start.open(spec, measures);
        opened.map(Some).with_context(|| format!("worker {index} could not start"))
    });
    let opened = opened.collect::<Result<Vec<_>>>();
    // Timely starts all workers with one function, which takes its own out of here.
    let opened = Mutex::new(opened.inspect_err(|_| ending.halt.set())?);
    let (builders, connections) = match &ending.cluster {
        Some(cluster) => cluster.builders()?,
        None => timely::CommunicationConfig::Process(spec.place.workers)
            .try_build()
            .map_err(|error| anyhow!(error))?,
    };
    let settings = timely::WorkerConfig::default();
    let parts = parts.clone();
    let guards = timely::execute::execute_from(builders, connections, settings, move |worker| {
        let own = opened.lock().unwrap_or_else(PoisonError::into_inner)[worker.index() - first].take();
        own.map_or(Ok(()), |own| worker::work(worker, own, &parts))
    });
    let guards = guards.map_err(|error| anyhow!("could not start the workers: {error}"))?;
    for worker in guards.join() {
        worker.map_err(|error| anyhow!("a worker ended early: {error}"))?.context("a worker failed")?;
    }
    Ok(())
}

/// How messages become rows.
fn live_settings(job: &Job, shards: Arc<[String]>) -> LiveSettings {
    let Job { config, format, exchange, .. } = job;
    let limits = Limits {
        range: TimeRange::default(),
        max_message_bytes: config.input.max_message_bytes,
        control: config.control,
    };
    LiveSettings {
        shards,
        format: format.or(config.input.format),
        exchange: exchange.as_deref().map(Arc::from),
        limits,
        settings: Arc::new(config.settings.clone()),
    }
}

/// The thread that keeps snapshots, and how workers reach it: a saver for each of them, and what is asked for.
fn coordinator(
    store: Option<Store>,
    saved: Vec<i64>,
    incarnations: BTreeMap<u32, Incarnation>,
    workers: usize,
) -> (Option<CheckpointCoordinator>, Vec<Saver>, Option<Arc<SnapshotRequests>>) {
    let Some(store) = store else { return (None, Vec::new(), None) };
    let (begin, begun) = mpsc::channel();
    let (give, pieces) = mpsc::channel();
    let savers: Vec<Saver> = (0..workers).map(|_| Saver::new(give.clone())).collect();
    let requests = Arc::new(SnapshotRequests::new(saved.into_iter(), begin));
    let coordinator = CheckpointCoordinator {
        store,
        requests: requests.clone(),
        begun,
        pieces,
        savers: savers.clone(),
        incarnations,
    };
    (Some(coordinator), savers, Some(requests))
}
