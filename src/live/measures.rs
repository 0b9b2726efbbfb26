//! What is measured while a job runs: how far shards are, whether brokers answer, how long things take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foreshock_dataflows::live::LastSeen;
use foreshock_dataflows::meter::Meter;
use foreshock_operators::time::SECOND;
use tracing::info;

use super::job_spec::JobSpec;
use super::recovery_watch::RecoveryWatch;
use crate::clock::Clock;
use crate::kafka::out::sink::Accepted;
use crate::kafka::progress::ShardProgress;
use crate::metrics::JobMetrics;

/// What one attempt of a job measures. Workers and the threads beside them write it, the supervisor reads it.
pub struct Measures {
    /// By shard; those of other processes stand still.
    pub progress: Arc<[Arc<ShardProgress>]>,
    /// By worker of this process, as the meters: when each of its instruments was last heard of.
    pub last_seen: Vec<LastSeen>,
    pub meters: Vec<Meter>,
    pub clock: Clock,
    pub metrics: JobMetrics,
    /// Whether all that was emitted before has been read again.
    pub recovery: RecoveryWatch,
    /// Whether a broker answered the watcher when it asked last.
    kafka_connected: AtomicBool,
}

impl Measures {
    /// Measures from now on, of a start that has just spoken with the brokers.
    pub fn start(
        progress: Arc<[Arc<ShardProgress>]>,
        workers: usize,
        clock: Clock,
        metrics: JobMetrics,
    ) -> Measures {
        Measures {
            progress,
            last_seen: (0..workers).map(|_| LastSeen::default()).collect(),
            meters: (0..workers).map(|_| Meter::default()).collect(),
            clock,
            metrics,
            recovery: RecoveryWatch::start(),
            kafka_connected: AtomicBool::new(true),
        }
    }

    /// Notes whether a broker answers.
    pub fn note_kafka_connected(&self, is_connected: bool) {
        self.kafka_connected.store(is_connected, Ordering::Release);
    }

    /// Whether a broker answered when it was asked last.
    pub fn is_kafka_connected(&self) -> bool {
        self.kafka_connected.load(Ordering::Acquire)
    }

    /// The committed offsets of this process's shards, by name.
    pub fn committed(&self, spec: &JobSpec) -> Vec<(String, i64)> {
        self.named(spec, spec.own_shards())
    }

    /// The same of those that have rows to commit.
    pub fn committed_behind_end(&self, spec: &JobSpec) -> Vec<(String, i64)> {
        let behind = |shard: &usize| self.progress[*shard].committed() < self.progress[*shard].end();
        self.named(spec, spec.own_shards().filter(behind))
    }

    fn named(&self, spec: &JobSpec, shards: impl Iterator<Item = usize>) -> Vec<(String, i64)> {
        shards.map(|shard| (spec.shards[shard].name(), self.progress[shard].committed())).collect()
    }

    /// Notes when all that was emitted before has been read again.
    pub fn note_recovery(&self, spec: &JobSpec) {
        let is_there = |shard: usize| {
            let (from, progress) = (spec.shards[shard].emit_from, &self.progress[shard]);
            // The last offsets before it may hold no record.
            progress.position() >= from || progress.position() >= progress.end()
        };
        if let Some(took) = self.recovery.is_over(spec.own_shards().map(is_there)) {
            let rows = self.metrics.replayed_rows.get();
            self.metrics.recovery_seconds.set(took.as_secs_f64());
            info!(
                seconds = took.as_secs_f64(),
                replayed_rows = rows,
                "recovered: going on where the last commit was"
            );
        }
    }

    /// Notes the latency of the ticks of a publication that the client has taken whole.
    pub fn note_latency(&self, accepted: &Accepted) {
        if accepted.predictions == 0 {
            return;
        }
        let waited = self.clock.nanoseconds().saturating_sub(accepted.cut.read_at) as f64 / SECOND as f64;
        for histogram in [&self.metrics.latency, &self.metrics.volatility_latency] {
            let local = histogram.local();
            (0..accepted.predictions).for_each(|_| local.observe(waited));
            local.flush();
        }
    }
}
