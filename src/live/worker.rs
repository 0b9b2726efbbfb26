//! One worker of a live job: reads its shards, computes, hands outputs to the producer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};
use foreshock_dataflows::encode_records::{EncodeRecords, encode_records};
use foreshock_dataflows::live::{LiveDecode, decode};
use foreshock_dataflows::market::{Market, market};
use foreshock_dataflows::ownership::{ForeignConflict, ownership};
use foreshock_dataflows::saving::Saver;
use foreshock_dataflows::source::{NextPoll, deliveries};
use foreshock_operators::time::SECOND;
use timely::dataflow::Scope;
use timely::worker::Worker;
use tracing::warn;

use super::Shared;
use super::account::ShardAccount;
use crate::config::DeliveryGuarantee;
use crate::kafka::out::at_least_once::AtLeastOnce;
use crate::kafka::out::exactly_once::{ExactlyOnce, LaneStart, TransactionCounters, TransactionPace};
use crate::kafka::out::sink::{Accepted, Backlog, Sink};
use crate::kafka::out::transactions::Committers;
use crate::kafka::progress::{Shard, ShardProgress};
use crate::kafka::source::{KafkaSource, Polled, SourceSettings};
use crate::metrics::JobMetrics;

/// How long a worker sleeps when nothing wakes it: then it looks at delivery reports and at whether to stop.
const IDLE: Duration = Duration::from_millis(10);

/// How long a worker waits before it looks again whether the backlog has room.
const FULL: Duration = Duration::from_millis(1);

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
pub fn work(worker: &mut Worker, ends: Ends, shared: &Arc<Shared>) -> Result<()> {
    let index = worker.index() - shared.place.first();
    let Ends { source, sink, market, saver } = ends;
    let (source, sink) = (Rc::new(RefCell::new(source)), Rc::new(RefCell::new(sink)));
    build(worker, index, shared, &source, &sink, market, saver);
    let metrics = &shared.metrics.job;
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
    metrics.backlog_limit.set(shared.memory().outputs as i64);
    while worker.step_or_park(Some(IDLE)) {
        steps.inc();
        let sink = &mut **sink.borrow_mut();
        poll_sink(sink, shared);
        gauge(sink.backlog());
        shared.note_recovery();
        if let Err(error) = watch_over(&mut source.borrow_mut(), sink, shared) {
            shared.halt.fail(error);
        }
    }
    if shared.halt.is_set() {
        return Ok(());
    }
    let mut sink = sink.borrow_mut();
    let drained = sink.drain(shared.config.kafka.stop_timeout, &mut |accepted| observe(&accepted, shared));
    gauge(sink.backlog());
    drained
}

/// Replaces a client that has stood still although brokers answer: the library can lose a partition's leader for
/// good (librdkafka issue 5430).
fn watch_over(source: &mut KafkaSource, sink: &mut dyn Sink, shared: &Shared) -> Result<()> {
    if !shared.kafka_connected.load(Ordering::Acquire) {
        source.reset_stall_timer();
        sink.reset_stall_timer();
        return Ok(());
    }
    let (at_most, renewals) = (shared.config.kafka.stalled_after, &shared.metrics.job.client_renewals);
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

/// Makes the clients of the worker of this number among those of all processes.
///
/// # Errors
/// When the library refuses.
pub fn open(shared: &Shared, index: usize) -> Result<Ends> {
    let config = &shared.config;
    let mine: Vec<(u32, Shard, Arc<ShardProgress>)> = shared
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
        fetched: shared.memory().fetched,
        clock: shared.clock,
        requests: shared.begun().requests.clone(),
    };
    let local = index - shared.place.first();
    let numbers: Vec<u32> = mine.iter().map(|(number, ..)| *number).collect();
    let source = KafkaSource::start(settings, mine)?;
    let market = shared.begun().markets[local].take().context("its states are taken, which is a bug")?;
    let saver = shared.begun().savers.get_mut(local).and_then(Option::take);
    let sink = sink(shared, &numbers)?;
    Ok(Ends { source, sink, market, saver })
}

/// Where the outputs of these shards go.
fn sink(shared: &Shared, shards: &[u32]) -> Result<Box<dyn Sink + Send>> {
    let config = &shared.config;
    if config.delivery == DeliveryGuarantee::AtLeastOnce {
        return Ok(Box::new(AtLeastOnce::start(
            &config.kafka,
            &config.topics,
            &config.job,
            shared.memory().queued,
            shared.shards.clone(),
            &shared.progress,
            shared.instruments.clone(),
        )?));
    }
    let mut begun = shared.begun();
    let open = |shard: &u32| {
        let (client, note) = begun.clients.remove(shard).context("its producer is taken, which is a bug")?;
        Ok(LaneStart { shard: *shard, client, progress: shared.progress[*shard as usize].clone(), note })
    };
    let opened = shards.iter().map(open).collect::<Result<Vec<_>>>()?;
    // A transaction that has taken half of the room may as well end.
    let bytes = shared.memory().outputs / shards.len().max(1) / 2;
    let pace = TransactionPace { interval: config.kafka.commit_interval, bytes };
    let metrics = &shared.metrics.job;
    let counters = TransactionCounters { commits: metrics.commits.clone(), aborted: metrics.aborted.clone() };
    Ok(Box::new(ExactlyOnce::new(
        opened,
        &config.topics,
        shared.shards.clone(),
        shared.instruments.clone(),
        Committers::start(shards.len())?,
        pace,
        counters,
    )))
}

/// Builds the graph: the same for every worker. This is the process's own `index`th.
fn build(
    worker: &mut Worker,
    index: usize,
    shared: &Arc<Shared>,
    source: &Rc<RefCell<KafkaSource>>,
    sink: &Rc<RefCell<Box<dyn Sink + Send>>>,
    mut states: Market,
    saver: Option<Saver>,
) {
    let (clock, meter) = (shared.clock, &shared.meters[index]);
    let waits = shared.metrics.job.backlog_waits.with_label_values(&[&worker.index().to_string()]);
    worker.dataflow::<u64, _, _>(|scope| {
        let has_ended = Rc::new(Cell::new(false));
        if shared.place.processes > 1 {
            watch_ownership(scope, index, shared, has_ended.clone());
        }
        let (polled, filled, job) = (source.clone(), sink.clone(), shared.clone());
        if let Some(saver) = &saver {
            states.save_to(saver);
        }
        let poll = move |arrived: &mut Vec<_>| {
            let (mut source, sink) = (polled.borrow_mut(), filled.borrow());
            if job.is_stopping() {
                // What failed leaves the state as it was saved last.
                if !job.halt.is_set() {
                    source.finish(arrived);
                }
                has_ended.set(true);
                return NextPoll::Ended;
            }
            // Each shard has its share, so that one whose outputs wait leaves the others theirs.
            let share = job.memory().outputs / source.shards().max(1);
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
                    job.halt.fail(error);
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
        let last_seen = shared.last_seen[index].clone();
        let mut decoder = LiveDecode::new(shared.decode.clone(), &shared.instruments, last_seen);
        let (names, base) = (shared.decode.shards.clone(), shared.decode.settings.clone());
        let mut publisher =
            EncodeRecords::new(shared.kinds.clone(), names, shared.instruments.clone(), base.clone());
        for (shard, begun) in states.take_restored() {
            publisher.begin_shard(shard, shared.bases.get(&shard).unwrap_or(&base), &begun.changes);
            shared.serve_changes(shard, &begun.changes);
            decoder.resume_shard(shard, begun);
        }
        if let Some(saver) = &saver {
            decoder.save_to(saver.clone());
        }
        let rows = decode(deliveries, decoder, meter);
        let outcomes = market(rows, states, meter);
        let (sink, job) = (sink.clone(), shared.clone());
        let deliver = move |mut publication: foreshock_dataflows::encode_records::Publication| {
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
            let cut = publication.cut;
            job.serve(publication.model.as_ref(), publication.features.as_ref());
            job.account(index, &mut publication);
            if let (Some(saver), Some(snapshot)) = (&saver, cut.snapshot) {
                let account = job.account_of(cut.shard);
                saver.shard(cut.shard, snapshot.number, ShardAccount::SECTION, account.bytes());
            }
            let sink = &mut **sink.borrow_mut();
            sink.push(publication);
            poll_sink(sink, &job);
        };
        encode_records(outcomes, publisher, deliver, meter);
    });
}

/// Ends the job where an instrument is met in shards of two processes.
fn watch_ownership<'scope>(
    scope: Scope<'scope, u64>,
    index: usize,
    shared: &Arc<Shared>,
    has_ended: Rc<Cell<bool>>,
) {
    // One of a process's workers tells for all: they share a table.
    let instruments = (index == 0).then(|| shared.instruments.clone());
    let job = shared.clone();
    let conflict = move |ForeignConflict { exchange, symbol, owner, met_in }: ForeignConflict| {
        let shard = |number: u32| job.shards.get(number as usize).map(Shard::name).unwrap_or_default();
        job.halt.fail(anyhow::anyhow!(
            "{exchange}:{symbol} was met in {} and in {}: an instrument's rows must be in one partition of one \
             topic, so that they have an order; key the messages by <exchange>:<symbol>",
            shard(owner),
            shard(met_in),
        ));
    };
    ownership(scope, instruments, move || has_ended.get(), conflict);
}

fn poll_sink(sink: &mut dyn Sink, shared: &Shared) {
    if let Err(error) = sink.poll(&mut |accepted| observe(&accepted, shared)) {
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
