//! A job's attempts: each looks for topics and offsets, and runs until it ends or has to begin anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use foreshock_dataflows::instruments::Instruments;
use foreshock_operators::account::Counts;
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::venues::Format;
use tracing::{info, warn};

use super::attempt::{Attempt, Surroundings};
use super::failures::StaysDown;
use super::job_report::{EmittedBefore, serve_model};
use super::{JobParts, start};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::cluster::place::ProcessPlace;
use crate::config::{Config, DeliveryGuarantee, LostOffsets};
use crate::kafka::out::transactions;
use crate::kafka::progress::Shard;
use crate::kafka::source;
use crate::metrics::Metrics;
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
    /// Of this process, without rows whose outputs were emitted before.
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
        serve_model(
            &settings.parameters.model,
            &settings.parameters.features,
            &job_status,
            &self.metrics.job,
        );
        let mut job = self;
        let emitted_before = EmittedBefore::default();
        let mut stood_still = false;
        let done = loop {
            let mut begun = false;
            let done = job.start(cluster.clone(), &emitted_before).and_then(|attempt| match attempt {
                Some(attempt) => {
                    begun = true;
                    let ending = attempt.parts.ending.clone();
                    let done = job.run_once(attempt);
                    stood_still = ending.has_stood_still();
                    done
                }
                None => Ok(Done::default()),
            });
            match done {
                // Several processes begin anew together, so not from inside of one.
                Err(error) if cluster.is_none() && job.may_begin_anew(&error, stood_still) => {
                    warn!(error = format!("{error:#}"), "beginning anew from what is committed");
                    job.metrics.job.begun_anew.inc();
                    // What has ended has posted that it failed.
                    job_status.post(State { phase: Phase::Starting, ..State::clone(&job_status.state()) });
                    // Done once, where it came to that.
                    job.from_beginning &= !begun;
                    job.adopt &= !begun;
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

    /// Runs an attempt, and remembers how that has ended.
    fn run_once(&self, attempt: Attempt) -> Result<Done> {
        let JobParts { spec, measures, ending, .. } = attempt.parts.clone();
        let failures = attempt.failures.clone();
        if let Some(failures) = &failures
            && let Some(failure) = failures.stays_down(&measures.committed(&spec))
            && !self.retry
        {
            bail!(StaysDown::from(failure));
        }
        let done = attempt.run();
        match (&done, failures) {
            (Ok(_), Some(failures)) => failures.forget(),
            // What passes, or what others have done, is no failure at this place.
            (Err(error), Some(failures))
                if !self.stop.load(Ordering::Relaxed)
                    && !transactions::may_begin_anew(error)
                    && !transactions::is_fenced(error)
                    && ending.cluster.as_ref().is_none_or(|cluster| cluster.failure().is_none()) =>
            {
                failures.note(measures.committed_behind_end(&spec), format!("{error:#}"));
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
        emitted_before: &EmittedBefore,
    ) -> Result<Option<Attempt>> {
        let others = cluster.as_deref();
        let place = others.map_or(ProcessPlace::alone(self.workers), Cluster::place);
        if !others.map_or(Ok(true), Cluster::await_turn)? {
            return Ok(None);
        }
        let clock = Clock::start();
        let instruments = Instruments::new(self.config.settings.instruments.clone());
        let Some(found) = start::start(self, place, &instruments)? else { return Ok(None) };
        let names: Arc<[String]> = found.shards.iter().map(Shard::name).collect();
        if !others.map_or(Ok(true), |others| others.await_all(&names))? {
            return Ok(None);
        }
        let emitted_before = emitted_before.clone();
        let surroundings = Surroundings { job: self, place, cluster, clock, instruments, emitted_before };
        Ok(Some(Attempt::new(surroundings, names, found)))
    }
}
