//! One worker of a live job: reads its shards, computes, hands outputs to the producer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use foreshock_dataflows::live::{LiveDecode, decode};
use foreshock_dataflows::market::{Market, market};
use foreshock_dataflows::publish::{Publish, publish};
use foreshock_dataflows::source::{Turn, deliveries};
use foreshock_operators::encode::Encoder;
use foreshock_operators::time::SECOND;
use timely::worker::Worker;
use tracing::warn;

use super::Shared;
use crate::kafka::progress::{Progress, Shard};
use crate::kafka::sink::{Accepted, Sink};
use crate::kafka::source::{Polled, Source, SourceSettings};
use crate::metrics::JobMetrics;

/// How long a worker sleeps when nothing wakes it: then it looks at delivery reports and at whether to stop.
const IDLE: Duration = Duration::from_millis(10);

/// How long a worker waits before it looks again whether the backlog has room.
const FULL: Duration = Duration::from_millis(1);

/// Where a worker's rows come from and its outputs go.
pub type Ends = (Source, Sink);

/// Works until the job ends.
///
/// # Errors
/// When outputs were not delivered in time at the end.
pub fn work(worker: &mut Worker, (source, sink): Ends, shared: &Arc<Shared>) -> Result<()> {
    let index = worker.index() - shared.place.first();
    let (source, sink) = (Rc::new(RefCell::new(source)), Rc::new(RefCell::new(sink)));
    build(worker, index, shared, source.clone(), &sink);
    let metrics = &shared.metrics.job;
    let label = worker.index().to_string();
    let steps = metrics.steps.with_label_values(&[&label]);
    let backlog_bytes = metrics.backlog_bytes.with_label_values(&[&label]);
    let queued = metrics.producer_records.with_label_values(&[&label]);
    metrics.backlog_limit.set(shared.config.kafka.backlog as i64);
    while worker.step_or_park(Some(IDLE)) {
        steps.inc();
        let mut sink = sink.borrow_mut();
        pump(&mut sink, shared);
        backlog_bytes.set(sink.backlog_bytes() as i64);
        queued.set(sink.queued_records() as i64);
        if let Err(error) = watch_over(&mut source.borrow_mut(), &mut sink, shared) {
            shared.halt.fail(error);
        }
    }
    if shared.halt.is_set() {
        return Ok(());
    }
    let mut sink = sink.borrow_mut();
    let drained = sink.drain(shared.config.kafka.stop_timeout, |accepted| observe(&accepted, shared));
    backlog_bytes.set(sink.backlog_bytes() as i64);
    queued.set(sink.queued_records() as i64);
    drained
}

/// Replaces a client that has stood still although brokers answer: the library can lose a partition's leader for
/// good (librdkafka issue 5430).
fn watch_over(source: &mut Source, sink: &mut Sink, shared: &Shared) -> Result<()> {
    if !shared.kafka_connected.load(Ordering::Acquire) {
        source.forgive();
        sink.forgive();
        return Ok(());
    }
    let (at_most, renewals) = (shared.config.kafka.stalled_after, &shared.metrics.job.client_renewals);
    if sink.is_stalled(at_most) {
        warn!(
            seconds = at_most.as_secs(),
            "nothing was delivered, with brokers that answer; making a new producer"
        );
        renewals.with_label_values(&["producer"]).inc();
        sink.renew()?;
    }
    if source.is_stalled(at_most) {
        warn!(
            seconds = at_most.as_secs(),
            "nothing was read, with brokers that answer; making a new consumer"
        );
        renewals.with_label_values(&["consumer"]).inc();
        source.renew()?;
    }
    Ok(())
}

/// Makes the clients of the worker of this number among those of all processes.
///
/// # Errors
/// When the library refuses.
pub fn open(shared: &Shared, index: usize) -> Result<Ends> {
    let config = &shared.config;
    let mine: Vec<(u32, Shard, Arc<Progress>)> = shared
        .shards
        .iter()
        .zip(shared.progress.iter())
        .enumerate()
        .filter(|(number, _)| shared.place.worker_of(*number) == index)
        .map(|(number, (shard, progress))| (number as u32, shard.clone(), progress.clone()))
        .collect();
    let settings = SourceSettings {
        kafka: config.kafka.clone(),
        group: config.job.clone(),
        until_end: shared.until_end,
        clock: shared.clock,
    };
    let source = Source::start(settings, mine)?;
    let sink = Sink::start(
        &config.kafka,
        &config.topics,
        &config.job,
        shared.shards.clone(),
        &shared.progress,
        shared.instruments.clone(),
    )?;
    Ok((source, sink))
}

/// Builds the graph: the same for every worker. This is the process's own `index`th.
fn build(
    worker: &mut Worker,
    index: usize,
    shared: &Arc<Shared>,
    source: Rc<RefCell<Source>>,
    sink: &Rc<RefCell<Sink>>,
) {
    let settings = &shared.config.settings;
    let (clock, meter) = (shared.clock, &shared.meters[index]);
    let waits = shared.metrics.job.backlog_waits.with_label_values(&[&worker.index().to_string()]);
    worker.dataflow::<u64, _, _>(|scope| {
        let (polled, filled, job) = (source.clone(), sink.clone(), shared.clone());
        let poll = move |arrived: &mut Vec<_>| {
            if job.is_stopping() {
                return Turn::Ended;
            }
            let (mut source, sink) = (polled.borrow_mut(), filled.borrow());
            // Each shard has its share, so that one whose outputs wait leaves the others theirs.
            let share = job.config.kafka.backlog / source.shards().max(1);
            let is_full = Cell::new(false);
            let has_room = |shard| {
                let has_room = sink.backlog_bytes_of(shard) < share;
                is_full.set(is_full.get() || !has_room);
                has_room
            };
            let polled = source.poll(has_room, arrived);
            if is_full.get() {
                waits.inc();
            }
            match polled {
                Ok(Polled::More) => Turn::Again,
                Ok(Polled::Drained) if is_full.get() => Turn::Wait(FULL),
                Ok(Polled::Drained) => Turn::Wait(IDLE),
                Ok(Polled::Ended) => Turn::Ended,
                Err(error) => {
                    job.halt.fail(error);
                    Turn::Ended
                }
            }
        };
        let deliveries = deliveries(
            scope,
            poll,
            move || clock.milliseconds(),
            |activator| source.borrow_mut().wake(Arc::new(activator)),
        );
        let last_seen = shared.last_seen[index].clone();
        let decoder = LiveDecode::new(shared.decode.clone(), &shared.instruments, last_seen);
        let rows = decode(deliveries, decoder, meter);
        let outcomes = market(rows, Market::new(settings, &shared.instruments), meter);
        let encoder = Encoder::new(&settings.features.horizons, &settings.model);
        let names = shared.decode.shards.clone();
        let publisher = Publish::new(shared.kinds.clone(), names, shared.instruments.clone(), encoder);
        let (sink, job) = (sink.clone(), shared.clone());
        let deliver = move |mut publication: foreshock_dataflows::publish::Publication| {
            if job.halt.is_set() {
                return;
            }
            if let Some(why) = publication.unusable.take() {
                return job.halt.fail(anyhow::Error::msg(why));
            }
            if job.instruments.too_many() {
                let max = job.config.settings.instruments.max;
                return job.halt.fail(anyhow::anyhow!(
                    "more than {max} instruments; raise instruments.max if they are real"
                ));
            }
            job.account(index, &mut publication);
            let mut sink = sink.borrow_mut();
            sink.take(publication);
            pump(&mut sink, &job);
        };
        publish(outcomes, publisher, deliver, meter);
    });
}

fn pump(sink: &mut Sink, shared: &Shared) {
    if let Err(error) = sink.pump(|accepted| observe(&accepted, shared)) {
        shared.halt.fail(error);
    }
}

/// Takes the latency of a publication's ticks.
fn observe(accepted: &Accepted, shared: &Shared) {
    if accepted.predictions == 0 {
        return;
    }
    let waited = shared.clock.nanoseconds().saturating_sub(accepted.cut.read_at) as f64 / SECOND as f64;
    let JobMetrics { latency, volatility_latency, .. } = &shared.metrics.job;
    for histogram in [latency, volatility_latency] {
        let local = histogram.local();
        (0..accepted.predictions).for_each(|_| local.observe(waited));
        local.flush();
    }
}
