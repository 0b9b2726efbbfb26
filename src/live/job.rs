//! A job's attempts: each looks for topics and offsets, and runs until it ends or has to begin anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Result, bail};
use foreshock_dataflows::batch::TimeRange;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::live::{LastSeen, LiveSettings};
use foreshock_dataflows::messages::Limits;
use foreshock_dataflows::meter::Meter;
use foreshock_dataflows::output_kind::OutputKind;
use foreshock_dataflows::saving::Saver;
use foreshock_operators::account::Counts;
use foreshock_operators::decode::Format;
use tracing::{info, warn};

use super::alerts::Alerts;
use super::failures::{FailureLog, StaysDown};
use super::snapshots::CheckpointCoordinator;
use super::start::incarnation::Incarnation;
use super::start::recovery::{self, ShardStart};
use super::start::{self, JobStart};
use super::{Handover, Shared, serve_model};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::cluster::place::ProcessPlace;
use crate::config::{Config, DeliveryGuarantee, LostOffsets};
use crate::halt::Halt;
use crate::kafka::out::transactions;
use crate::kafka::progress::{Shard, ShardProgress};
use crate::kafka::source;
use crate::metrics::Metrics;
use crate::state::Store;
use crate::state::requests::SnapshotRequests;
use crate::status::{JobStatus, Phase, State};

/// How much longer than `kafka.stop_timeout` the other processes may take to end.
const AFTER_STOP: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone)]
pub struct Job {
    pub config: Config,
    /// Of this process.
    pub workers: usize,
    pub kinds: Vec<OutputKind>,
    /// The format of all messages; `None`: each message's own.
    pub format: Option<Format>,
    /// The exchange of messages that name none.
    pub exchange: Option<String>,
    /// Begin at the first message of each partition, whatever was committed.
    pub from_beginning: bool,
    /// Have other settings than before come into force behind the last record there is.
    pub adopt: bool,
    /// Start although the job has failed at the same place again and again.
    pub retry: bool,
    /// End where the logs end: a backtest of topics.
    pub until_end: bool,
    pub job_status: Arc<JobStatus>,
    pub metrics: Metrics,
    /// Set from outside when the job shall end.
    pub stop: Arc<AtomicBool>,
}

/// What a job has done when it ends.
#[derive(Debug, Default)]
pub struct Done {
    /// Of this process, without rows that were told of before.
    pub counts: Counts,
    /// Of the job, since it began to read its shards; where nothing is kept of that, since this process began.
    pub account: Counts,
    /// Rows that each worker's instruments had.
    pub rows_per_worker: Vec<i64>,
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
        let (job_status, stop) = (self.job_status.clone(), self.stop.clone());
        let settings = &self.config.settings;
        serve_model(&settings.model, &settings.features, &job_status, &self.metrics);
        let mut attempt = self;
        let emitted_before = Arc::new(Mutex::new(None));
        let mut stood_still = false;
        let done = loop {
            let mut begun = false;
            let done = attempt.start(cluster.clone(), &emitted_before).and_then(|shared| match shared {
                Some(shared) => {
                    begun = true;
                    let done = attempt.run_once(&shared);
                    stood_still = shared.has_stood_still();
                    done
                }
                None => Ok(Done::default()),
            });
            match done {
                // Several processes begin anew together, so not from inside of one.
                Err(error) if cluster.is_none() && attempt.may_begin_anew(&error, stood_still) => {
                    warn!(error = format!("{error:#}"), "beginning anew from what is committed");
                    attempt.metrics.job.begun_anew.inc();
                    // What has ended has posted that it failed.
                    job_status.post(State { phase: Phase::Starting, ..State::clone(&job_status.state()) });
                    // Done once, where it came to that.
                    attempt.from_beginning &= !begun;
                    attempt.adopt &= !begun;
                }
                done => break done.map_err(transactions::explained),
            }
        };
        let mut state = State::clone(&job_status.state());
        state.phase = match &done {
            Ok(_) => Phase::Stopping,
            Err(error) => Phase::Failed(format!("{error:#}")),
        };
        job_status.post(state);
        if done.is_ok() && stop.load(Ordering::Relaxed) {
            info!("stopped");
        }
        done
    }

    /// Runs, and remembers how that has ended.
    fn run_once(&self, shared: &Arc<Shared>) -> Result<Done> {
        let failures = shared.failures.as_ref();
        if let Some(failure) = failures.and_then(|failures| failures.stays_down(&shared.committed()))
            && !self.retry
        {
            bail!(StaysDown::from(failure));
        }
        let done = shared.clone().run();
        match (&done, failures) {
            (Ok(_), Some(failures)) => failures.forget(),
            // What passes, or what others have done, is no failure at this place.
            (Err(error), Some(failures))
                if !self.stop.load(Ordering::Relaxed)
                    && !transactions::may_begin_anew(error)
                    && !transactions::is_fenced(error)
                    && shared.cluster.as_ref().is_none_or(|cluster| cluster.failure().is_none()) =>
            {
                failures.note(shared.standing(), format!("{error:#}"));
            }
            _ => {}
        }
        done
    }

    /// Whether the job can go on by itself after this error, as if it had been started again.
    fn may_begin_anew(&self, error: &anyhow::Error, stood_still: bool) -> bool {
        self.config.delivery == DeliveryGuarantee::ExactlyOnce
            && !self.stop.load(Ordering::Relaxed)
            // Who was away for so long may have a successor, and leaves it alone.
            && !stood_still
            && (transactions::may_begin_anew(error)
                || (self.config.kafka.lost_offsets != LostOffsets::Fail && source::is_gone(error)))
    }

    /// Looks for topics and offsets. `None` where the job was stopped meanwhile.
    fn start(
        &self,
        cluster: Option<Arc<Cluster>>,
        emitted_before: &Arc<Mutex<Option<Counts>>>,
    ) -> Result<Option<Arc<Shared>>> {
        let others = cluster.as_deref();
        let place = others.map_or(ProcessPlace::alone(self.workers), Cluster::place);
        if !others.map_or(Ok(true), Cluster::await_turn)? {
            return Ok(None);
        }
        let settings = &self.config.settings;
        let clock = Clock::start();
        let instruments = Instruments::new(settings.instruments.clone());
        let Some(JobStart { shards, beginnings, markets, store }) = start::start(self, place, &instruments)?
        else {
            return Ok(None);
        };
        let shards: Arc<[Shard]> = shards.into();
        let names: Arc<[String]> = shards.iter().map(Shard::name).collect();
        if !others.map_or(Ok(true), |others| others.await_all(&names))? {
            return Ok(None);
        }
        let limits = Limits {
            range: TimeRange::default(),
            max_ahead: settings.max_ahead,
            max_message_bytes: self.config.input.max_message_bytes,
            control: self.config.control,
        };
        let base = Arc::new(settings.clone());
        let format = self.format.or(self.config.input.format);
        let exchange = self.exchange.as_deref().map(Arc::from);
        let mut alerts = Alerts::default();
        let mut restored = Counts::default();
        let mut accounts: Vec<Counts> = shards.iter().map(|_| Counts::default()).collect();
        let mut bases = BTreeMap::new();
        let mut clients = BTreeMap::new();
        let mut incarnations = BTreeMap::new();
        let mut saved = vec![0; shards.len()];
        let mut lost = Vec::new();
        for (shard, ShardStart { client, incarnation, account, saved: at, lost: gone, .. }) in beginnings {
            lost.extend(gone);
            restored.add(&account.counts);
            bases.extend(account.base.map(|base| (shard, base)));
            accounts[shard as usize] = account.counts;
            alerts.restore(shard, account.alerts, &self.metrics.job);
            // At its origin there is nothing to save.
            saved[shard as usize] = at.unwrap_or(incarnation.origin);
            clients.insert(shard, (client, incarnation.to_string().into()));
            incarnations.insert(shard, incarnation);
        }
        let folder = store.as_ref().and_then(Store::folder).map(Path::to_owned);
        let failures = folder.map(|folder| FailureLog::of(folder, place.process));
        self.metrics.job.lost_offsets.inc_by(lost.len() as u64);
        let (coordinator, savers, requests) = coordinator(store, saved, incarnations, self.workers);
        let begun = Handover {
            clients,
            markets: markets.into_iter().map(Some).collect(),
            savers: savers.into_iter().map(Some).collect(),
            coordinator,
            requests,
        };
        Ok(Some(Arc::new(Shared {
            place,
            cluster,
            until_end: self.until_end,
            kinds: self.kinds.as_slice().into(),
            progress: shards.iter().map(|at| Arc::new(ShardProgress::of(at))).collect(),
            recovery: recovery::Watch::start(),
            failures,
            lost,
            stood_still: Mutex::default(),
            shards,
            decode: LiveSettings { shards: names, format, exchange, limits, settings: base },
            instruments,
            last_seen: (0..self.workers).map(|_| LastSeen::default()).collect(),
            meters: (0..self.workers).map(|_| Meter::default()).collect(),
            clock,
            job_status: self.job_status.clone(),
            metrics: self.metrics.clone(),
            suppressed: Mutex::new(restored),
            emitted_before: emitted_before.clone(),
            bases,
            accounts: accounts.into_iter().map(Mutex::new).collect(),
            begun: Mutex::new(begun),
            rows_per_worker: (0..self.workers).map(|_| AtomicI64::new(0)).collect(),
            first_refused: Mutex::default(),
            alerts: Mutex::new(alerts),
            // The start has just spoken with the brokers.
            kafka_connected: AtomicBool::new(true),
            stop: self.stop.clone(),
            delivered: AtomicBool::new(false),
            halt: Halt::default(),
            config: self.config.clone(),
        })))
    }
}

/// The thread that keeps snapshots, and how workers reach it.
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
