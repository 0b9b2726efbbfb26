//! One worker of a live job: reads its shards, computes, hands outputs to the producer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use foreshock_dataflows::encode_records::{EncodeRecords, encode_records};
use foreshock_dataflows::live::{LiveDecode, decode};
use foreshock_dataflows::market::{Market, market};
use foreshock_dataflows::ownership::{ForeignConflict, ownership};
use foreshock_dataflows::saving::Saver;
use foreshock_dataflows::source::{NextPoll, deliveries};
use timely::dataflow::Scope;
use timely::worker::Worker;
use tracing::warn;

use super::JobParts;
use super::account::ShardAccount;
use super::ending::Ending;
use super::job_spec::JobSpec;
use super::measures::Measures;
use crate::config::DeliveryGuarantee;
use crate::kafka::out::at_least_once::AtLeastOnce;
use crate::kafka::out::exactly_once::{ExactlyOnce, LaneStart, TransactionCounters, TransactionPace};
use crate::kafka::out::sink::{Backlog, Sink};
use crate::kafka::out::transactions::Committers;
use crate::kafka::progress::Shard;
use crate::kafka::source::{KafkaSource, Polled, SourceSettings};
use crate::state::requests::SnapshotRequests;

/// How long a worker sleeps when nothing wakes it: then it looks at delivery reports and at whether to stop.
const IDLE: Duration = Duration::from_millis(10);

/// How long a worker waits before it looks again whether the backlog has room.
const FULL: Duration = Duration::from_millis(1);

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

/// Where a worker's rows come from and its outputs go, and the states between.
pub struct Ends {
    source: KafkaSource,
    sink: Box<dyn Sink + Send>,
    market: Market,
    saver: Option<Saver>,
}

/// Works until the job ends.
///
/// # Errors
/// When outputs were not delivered in time at the end.
pub fn work(worker: &mut Worker, ends: Ends, parts: &JobParts) -> Result<()> {
    let JobParts { spec, measures, ending, .. } = parts;
    let index = worker.index() - spec.place.first();
    let Ends { source, sink, market, saver } = ends;
    let (source, sink) = (Rc::new(RefCell::new(source)), Rc::new(RefCell::new(sink)));
    build(worker, index, parts, &source, &sink, market, saver);
    let metrics = &measures.metrics;
    let label = worker.index().to_string();
    let steps = metrics.steps.with_label_values(&[&label]);
    let backlog_bytes = metrics.backlog_bytes.with_label_values(&[&label]);
    let in_flight = metrics.in_flight.with_label_values(&[&label]);
    let queued = metrics.producer_records.with_label_values(&[&label]);
    let gauge = |backlog: Backlog| {
        backlog_bytes.set(backlog.bytes as i64);
        in_flight.set(backlog.publications as i64);
        queued.set(backlog.queued_records as i64);
    };
    metrics.backlog_limit.set(spec.memory().outputs as i64);
    while worker.step_or_park(Some(IDLE)) {
        steps.inc();
        let sink = &mut **sink.borrow_mut();
        poll_sink(sink, measures, ending);
        gauge(sink.backlog());
        measures.note_recovery(spec);
        if let Err(error) = watch_over(&mut source.borrow_mut(), sink, spec, measures) {
            ending.halt.fail(error);
        }
    }
    if ending.halt.is_set() {
        return Ok(());
    }
    let mut sink = sink.borrow_mut();
    let drained =
        sink.drain(spec.config.kafka.stop_timeout, &mut |accepted| measures.note_latency(&accepted));
    gauge(sink.backlog());
    drained
}

/// Replaces a client that has stood still although brokers answer: the library can lose a partition's leader for
/// good (librdkafka issue 5430).
fn watch_over(
    source: &mut KafkaSource,
    sink: &mut dyn Sink,
    spec: &JobSpec,
    measures: &Measures,
) -> Result<()> {
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

/// Makes the clients of a worker.
///
/// # Errors
/// When the library refuses.
pub fn open(start: WorkerStart, spec: &JobSpec, measures: &Measures) -> Result<Ends> {
    let WorkerStart { shards, lanes, market, saver, requests } = start;
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
    Ok(Ends { source, sink, market, saver })
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

/// Builds the graph: the same for every worker. This is the process's own `index`th.
fn build(
    worker: &mut Worker,
    index: usize,
    parts: &JobParts,
    source: &Rc<RefCell<KafkaSource>>,
    sink: &Rc<RefCell<Box<dyn Sink + Send>>>,
    mut states: Market,
    saver: Option<Saver>,
) {
    let JobParts { spec, measures, report, .. } = parts;
    let (clock, meter) = (measures.clock, &measures.meters[index]);
    let waits = measures.metrics.backlog_waits.with_label_values(&[&worker.index().to_string()]);
    worker.dataflow::<u64, _, _>(|scope| {
        let has_ended = Rc::new(Cell::new(false));
        if spec.place.processes > 1 {
            watch_ownership(scope, index, parts, has_ended.clone());
        }
        let (polled, filled, job) = (source.clone(), sink.clone(), parts.clone());
        if let Some(saver) = &saver {
            states.save_to(saver);
        }
        let poll = move |arrived: &mut Vec<_>| {
            let (mut source, sink) = (polled.borrow_mut(), filled.borrow());
            if job.ending.is_stopping() {
                // What failed leaves the state as it was saved last.
                if !job.ending.halt.is_set() {
                    source.finish(arrived);
                }
                has_ended.set(true);
                return NextPoll::Ended;
            }
            // Each shard has its share, so that one whose outputs wait leaves the others theirs.
            let share = job.spec.memory().outputs / source.shards().max(1);
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
                Ok(Polled::More) => NextPoll::Again,
                Ok(Polled::Drained) if is_full.get() => NextPoll::Wait(FULL),
                Ok(Polled::Drained) => NextPoll::Wait(IDLE),
                Ok(Polled::Ended) => {
                    source.finish(arrived);
                    has_ended.set(true);
                    NextPoll::Ended
                }
                Err(error) => {
                    job.ending.halt.fail(error);
                    has_ended.set(true);
                    NextPoll::Ended
                }
            }
        };
        let deliveries = deliveries(
            scope,
            poll,
            move || clock.milliseconds(),
            |activator| {
                let activator = Arc::new(activator);
                sink.borrow_mut().wake(activator.clone());
                source.borrow_mut().wake(activator);
            },
        );
        let last_seen = measures.last_seen[index].clone();
        let mut decoder = LiveDecode::new(spec.decode.clone(), &spec.instruments, last_seen);
        let (names, base) = (spec.decode.shards.clone(), spec.decode.settings.clone());
        let mut publisher =
            EncodeRecords::new(spec.kinds.clone(), names, spec.instruments.clone(), base.clone());
        for (shard, begun) in states.take_restored() {
            publisher.begin_shard(shard, spec.bases.get(&shard).unwrap_or(&base), &begun.changes);
            report.serve_restored(spec.bases.get(&shard), &begun.changes);
            decoder.resume_shard(shard, begun);
        }
        if let Some(saver) = &saver {
            decoder.save_to(saver.clone());
        }
        let rows = decode(deliveries, decoder, meter);
        let outcomes = market(rows, states, meter);
        let (sink, job) = (sink.clone(), parts.clone());
        let deliver = move |mut publication: foreshock_dataflows::encode_records::Publication| {
            if job.ending.halt.is_set() {
                return;
            }
            if let Some(why) = publication.unusable.take() {
                return job.ending.halt.fail(anyhow::Error::msg(why));
            }
            if job.spec.instruments.too_many() {
                let max = job.spec.config.settings.instruments.max;
                return job.ending.halt.fail(anyhow::anyhow!(
                    "more than {max} instruments; raise instruments.max if they are real"
                ));
            }
            let cut = publication.cut;
            job.report.serve_changed(publication.model.as_ref(), publication.features.as_ref());
            job.report.add_publication(index, &job.spec.kinds, &job.spec.instruments, &mut publication);
            if let (Some(saver), Some(snapshot)) = (&saver, cut.snapshot) {
                let account = job.report.shard_account(cut.shard, job.spec.bases.get(&cut.shard).cloned());
                saver.shard(cut.shard, snapshot.number, ShardAccount::SECTION, account.bytes());
            }
            let sink = &mut **sink.borrow_mut();
            sink.push(publication);
            poll_sink(sink, &job.measures, &job.ending);
        };
        encode_records(outcomes, publisher, deliver, meter);
    });
}

/// Ends the job where an instrument is met in shards of two processes.
fn watch_ownership<'scope>(
    scope: Scope<'scope, u64>,
    index: usize,
    parts: &JobParts,
    has_ended: Rc<Cell<bool>>,
) {
    // One of a process's workers tells for all: they share a table.
    let instruments = (index == 0).then(|| parts.spec.instruments.clone());
    let job = parts.clone();
    let conflict = move |ForeignConflict { exchange, symbol, owner, met_in }: ForeignConflict| {
        let shard = |number: u32| job.spec.shards.get(number as usize).map(Shard::name).unwrap_or_default();
        job.ending.halt.fail(anyhow::anyhow!(
            "{exchange}:{symbol} was met in {} and in {}: an instrument's rows must be in one partition of one \
             topic, so that they have an order; key the messages by <exchange>:<symbol>",
            shard(owner),
            shard(met_in),
        ));
    };
    ownership(scope, instruments, move || has_ended.get(), conflict);
}

fn poll_sink(sink: &mut dyn Sink, measures: &Measures, ending: &Ending) {
    if let Err(error) = sink.poll(&mut |accepted| measures.note_latency(&accepted)) {
        ending.halt.fail(error);
    }
}
