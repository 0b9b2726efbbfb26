//! One worker of a live job: builds its graph, and looks after its clients between the graph's steps.
//!
//! ```text
//! Poll ─► deliveries ─► Stage (decode ─► market ─► encode) ─► Deliver ─► sink
//! ```

use anyhow::Result;
use foreshock_dataflows::market::Market;
use foreshock_dataflows::ownership::{ForeignConflict, ownership};
use foreshock_dataflows::saving::Saver;
use foreshock_dataflows::source::deliveries;
use foreshock_dataflows::stage::Stage;
use prometheus::{IntCounter, IntGauge};
use timely::dataflow::Scope;
use timely::worker::Worker;
use tracing::warn;

use super::JobParts;
use super::deliver::Deliver;
use super::job_spec::JobSpec;
use super::measures::Measures;
use super::poll::{IDLE, Poll};
use super::worker_ends::WorkerEnds;
use super::worker_start::OpenedWorker;
use crate::kafka::out::sink::Backlog;
use crate::kafka::progress::Shard;
use crate::metrics::JobMetrics;

/// Works until the job ends.
///
/// # Errors
/// When outputs were not delivered in time at the end.
pub fn work(worker: &mut Worker, opened: OpenedWorker, parts: &JobParts) -> Result<()> {
    let JobParts { spec, measures, ending, .. } = parts;
    let OpenedWorker { source, sink, market, saver } = opened;
    let ends = WorkerEnds::new(source, sink);
    build(worker, &ends, market, saver, parts);
    let gauges = WorkerGauges::of(worker.index(), &measures.metrics);
    measures.metrics.backlog_limit.set(spec.memory().outputs as i64);
    while worker.step_or_park(Some(IDLE)) {
        gauges.steps.inc();
        ends.poll_sink(measures, ending);
        gauges.set(ends.sink().backlog());
        measures.note_recovery(spec);
        if let Err(error) = replace_stalled_clients(&ends, spec, measures) {
            ending.halt.fail(error);
        }
    }
    if ending.halt.is_set() {
        return Ok(());
    }
    let mut sink = ends.sink();
    let drained =
        sink.drain(spec.config.kafka.stop_timeout, &mut |accepted| measures.note_latency(&accepted));
    gauges.set(sink.backlog());
    drained
}

/// What metrics show of one worker.
struct WorkerGauges {
    steps: IntCounter,
    backlog_bytes: IntGauge,
    in_flight: IntGauge,
    queued_records: IntGauge,
}

impl WorkerGauges {
    /// Those of the worker of this number among all of the job.
    fn of(worker: usize, metrics: &JobMetrics) -> WorkerGauges {
        let label = worker.to_string();
        WorkerGauges {
            steps: metrics.steps.with_label_values(&[&label]),
            backlog_bytes: metrics.backlog_bytes.with_label_values(&[&label]),
            in_flight: metrics.in_flight.with_label_values(&[&label]),
            queued_records: metrics.producer_records.with_label_values(&[&label]),
        }
    }

    fn set(&self, backlog: Backlog) {
        self.backlog_bytes.set(backlog.bytes as i64);
        self.in_flight.set(backlog.publications as i64);
        self.queued_records.set(backlog.queued_records as i64);
    }
}

/// Replaces a client that has stood still although brokers answer: the library can lose a partition's leader for
/// good (librdkafka issue 5430).
fn replace_stalled_clients(ends: &WorkerEnds, spec: &JobSpec, measures: &Measures) -> Result<()> {
    let (mut source, mut sink) = (ends.source(), ends.sink());
    if !measures.is_kafka_connected() {
        source.reset_stall_timer();
        sink.reset_stall_timer();
        return Ok(());
    }
    let (at_most, renewals) = (spec.config.kafka.stalled_after, &measures.metrics.client_renewals);
    if sink.recreate_stalled_client(at_most)? {
        warn!(
            seconds = at_most.as_secs(),
            "nothing was delivered, with brokers that answer; made a new producer"
        );
        renewals.with_label_values(&["producer"]).inc();
    }
    if source.is_stalled(at_most) {
        warn!(
            seconds = at_most.as_secs(),
            "nothing was read, with brokers that answer; making a new consumer"
        );
        renewals.with_label_values(&["consumer"]).inc();
        source.recreate_client()?;
    }
    Ok(())
}

/// Builds the graph: the same for every worker.
fn build(worker: &mut Worker, ends: &WorkerEnds, market: Market, saver: Option<Saver>, parts: &JobParts) {
    let JobParts { spec, measures, report, ending } = parts;
    let index = worker.index() - spec.place.first();
    let (clock, meter) = (measures.clock, &measures.meters[index]);
    let last_seen = measures.last_seen[index].clone();
    let mut stage = Stage::new(market, spec.decode.clone(), spec.kinds.clone(), &spec.instruments, last_seen);
    stage.resume_shards(&spec.bases, |shard, changes| {
        report.serve_restored(spec.bases.get(&shard), changes);
    });
    if let Some(saver) = &saver {
        stage.save_to(saver);
    }
    let waits = measures.metrics.backlog_waits.with_label_values(&[&worker.index().to_string()]);
    let mut poll = Poll::new(ends.clone(), spec.memory().outputs, ending.clone(), waits);
    let mut deliver = Deliver::new(index, ends.clone(), parts.clone(), saver);
    worker.dataflow::<u64, _, _>(|scope| {
        if spec.place.processes > 1 {
            end_at_conflicts(scope, index, ends.clone(), parts);
        }
        let deliveries = deliveries(
            scope,
            move |arrived| poll.poll(arrived),
            move || clock.milliseconds(),
            |activator| ends.wake(activator),
        );
        stage.build(deliveries, move |publication| deliver.deliver(publication), meter);
    });
}

/// Ends the job where an instrument is met in shards of two processes.
fn end_at_conflicts<'scope>(scope: Scope<'scope, u64>, index: usize, ends: WorkerEnds, parts: &JobParts) {
    // One of a process's workers tells for all: they share a table.
    let instruments = (index == 0).then(|| parts.spec.instruments.clone());
    let (shards, halt) = (parts.spec.shards.clone(), parts.ending.halt.clone());
    let conflict = move |ForeignConflict { exchange, symbol, owner, met_in }: ForeignConflict| {
        let shard = |number: u32| shards.get(number as usize).map(Shard::name).unwrap_or_default();
        halt.fail(anyhow::anyhow!(
            "{exchange}:{symbol} was met in {} and in {}: an instrument's rows must be in one partition of one \
             topic, so that they have an order; key the messages by <exchange>:<symbol>",
            shard(owner),
            shard(met_in),
        ));
    };
    ownership(scope, instruments, move || ends.has_read_all(), conflict);
}
