//! What a worker begins with, and the clients that it makes of that.

use std::sync::Arc;

use anyhow::{Result, bail};
use foreshock_dataflows::market::Market;
use foreshock_dataflows::saving::Saver;

use super::job_spec::JobSpec;
use super::measures::Measures;
use crate::config::DeliveryGuarantee;
use crate::kafka::out::at_least_once::AtLeastOnce;
use crate::kafka::out::exactly_once::{ExactlyOnce, LaneStart, TransactionCounters, TransactionPace};
use crate::kafka::out::sink::Sink;
use crate::kafka::out::transactions::Committers;
use crate::kafka::progress::Shard;
use crate::kafka::source::{KafkaSource, SourceSettings};
use crate::state::requests::SnapshotRequests;

/// What one worker takes over from the start of the job.
pub struct WorkerStart {
    /// Its shards, each with its number.
    pub shards: Vec<(u32, Shard)>,
    /// Where outputs are transactions: the producer of each of these shards.
    pub lanes: Vec<LaneStart>,
    /// The states of its instruments.
    pub market: Market,
    /// Where its states are saved; `None` where no snapshots are kept, as below.
    pub saver: Option<Saver>,
    pub requests: Option<Arc<SnapshotRequests>>,
}

/// A worker whose clients are made: where its rows come from and its outputs go, and the states between.
pub struct OpenedWorker {
    pub source: KafkaSource,
    pub sink: Box<dyn Sink + Send>,
    pub market: Market,
    pub saver: Option<Saver>,
}

impl WorkerStart {
    /// Makes the clients of the worker.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn open(self, spec: &JobSpec, measures: &Measures) -> Result<OpenedWorker> {
        let WorkerStart { shards, lanes, market, saver, requests } = self;
        let config = &spec.config;
        let settings = SourceSettings {
            kafka: config.kafka.clone(),
            group: config.job.clone(),
            until_end: spec.until_end,
            fetched: spec.memory().fetched,
            clock: measures.clock,
            requests,
        };
        let count = shards.len();
        let with_progress =
            |(number, shard): (u32, Shard)| (number, shard, measures.progress[number as usize].clone());
        let source = KafkaSource::start(settings, shards.into_iter().map(with_progress).collect())?;
        let sink: Box<dyn Sink + Send> = match config.delivery {
            DeliveryGuarantee::AtLeastOnce => Box::new(at_least_once(spec, measures)?),
            DeliveryGuarantee::ExactlyOnce if lanes.len() != count => {
                bail!("a shard has no producer, which is a bug")
            }
            DeliveryGuarantee::ExactlyOnce => Box::new(exactly_once(lanes, spec, measures)?),
        };
        Ok(OpenedWorker { source, sink, market, saver })
    }
}

fn at_least_once(spec: &JobSpec, measures: &Measures) -> Result<AtLeastOnce> {
    let config = &spec.config;
    AtLeastOnce::start(
        &config.kafka,
        &config.topics,
        &config.job,
        spec.memory().queued,
        spec.shards.clone(),
        &measures.progress,
        spec.instruments.clone(),
    )
}

fn exactly_once(lanes: Vec<LaneStart>, spec: &JobSpec, measures: &Measures) -> Result<ExactlyOnce> {
    let (config, metrics, count) = (&spec.config, &measures.metrics, lanes.len());
    // A transaction that has taken half of the room may as well end.
    let bytes = spec.memory().outputs / count.max(1) / 2;
    let pace = TransactionPace { interval: config.kafka.commit_interval, bytes };
    let counters = TransactionCounters { commits: metrics.commits.clone(), aborted: metrics.aborted.clone() };
    Ok(ExactlyOnce::new(
        lanes,
        &config.topics,
        spec.shards.clone(),
        spec.instruments.clone(),
        Committers::start(count)?,
        pace,
        counters,
    ))
}
