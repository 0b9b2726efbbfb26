//! A live job against the embedded broker, which fails when it is told to: nothing is lost, nothing needs a restart.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use foreshock::config::{Config, Mode};
use foreshock::kafka::admin::offsets::{Offsets, passes};
use foreshock::kafka::embedded::Embedded;
use foreshock::live::{Done, Job};
use foreshock::metrics::Metrics;
use foreshock::status::{JobStatus, Phase, State};
use foreshock_operators::outputs::OutputKind;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

/// Long enough for a busy machine; nothing waits for so long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

const PARTITIONS: i32 = 2;

/// A broker and a job on it.
struct Live {
    broker: Embedded,
    job_status: Arc<JobStatus>,
    metrics: Metrics,
    stop: Arc<AtomicBool>,
    job: JoinHandle<Result<Done>>,
}

impl Live {
    fn start(settings: &[(&str, &str)]) -> Live {
        Live::on(Embedded::start(topics()).unwrap(), settings)
    }

    fn on(broker: Embedded, settings: &[(&str, &str)]) -> Live {
        let brokers = ("FORESHOCK_KAFKA__BROKERS".to_owned(), broker.address());
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = Config::load(&[], settings.chain([brokers]), Mode::Demo).unwrap();
        let (job_status, stop) = (Arc::<JobStatus>::default(), Arc::<AtomicBool>::default());
        let metrics = Metrics::new(&config.metrics);
        let job = Job {
            config,
            workers: 2,
            kinds: OutputKind::ALL.into_iter().filter(|kind| *kind != OutputKind::Scored).collect(),
            format: None,
            exchange: None,
            from_beginning: false,
            adopt: false,
            retry: false,
            until_end: false,
            job_status: job_status.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        let job = thread::spawn(move || job.run());
        Live { broker, job_status, metrics, stop, job }
    }

    /// Waits until the job's state is as wanted.
    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) {
        await_that(what, || {
            let state = self.job_status.state();
            assert!(!matches!(state.phase, Phase::Failed(_)), "{:?}", state.phase);
            wanted(&state)
        });
    }

    /// Stops the job and gives back the broker.
    fn stop(self) -> (Embedded, Done) {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.job.join().unwrap().unwrap();
        (self.broker, done)
    }
}

#[track_caller]
fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn topics() -> impl Iterator<Item = (&'static str, i32)> {
    let names = [
        "ticks.raw",
        "ticks.features",
        "ticks.predictions",
        "market.metrics",
        "market.gaps",
        "market.alerts",
        "ticks.deadletter",
        "market.control",
    ];
    names.into_iter().map(|name| (name, PARTITIONS))
}

/// Sends numbered quotes: the number is the sequence and, as microseconds, the time. Waits for their delivery.
fn feed(broker: &Embedded, numbers: std::ops::Range<u64>) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", broker.address()).create().unwrap();
    for number in numbers {
        let partition = (number % PARTITIONS as u64) as i32;
        let time = 1_750_000_000_000_000 + number * 1_000;
        let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
        let (minute, second) = ((seconds - 1_750_000_000) / 60, (seconds - 1_750_000_000) % 60);
        let text = format!(
            "{{\"type\":\"quote\",\"exchange\":\"x\",\"instrument\":\"P{partition}\",\
             \"event_time\":\"2025-06-15T15:{minute:02}:{second:02}.{micros:06}Z\",\"sequence\":{number},\
             \"bid\":100,\"ask\":101}}"
        );
        let key = format!("x:P{partition}");
        let record = BaseRecord::to("ticks.raw").partition(partition).key(&key).payload(&text);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// The offsets of the raw messages that a topic's records come from, in the order of each partition, once all of
/// these messages have some.
fn sources(broker: &Embedded, topic: &str, messages: usize) -> Vec<Vec<u64>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let mut found = vec![Vec::new(); PARTITIONS as usize];
    await_that("all outputs are read", || {
        while let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
            let headers = message.headers().unwrap();
            let source = std::str::from_utf8(headers.get(0).value.unwrap()).unwrap();
            let parts: Vec<&str> = source.split('/').collect();
            assert_eq!((parts[0], parts[1]), ("ticks.raw", message.partition().to_string().as_str()));
            found[message.partition() as usize].push(parts[2].parse().unwrap());
        }
        let distinct = found.iter().map(|offsets| offsets.iter().collect::<BTreeSet<_>>().len());
        distinct.sum::<usize>() >= messages
    });
    found
}

/// Every message once, in order: an idempotent producer doesn't even repeat.
#[track_caller]
fn all_in_order(found: &[Vec<u64>], each: u64) {
    for offsets in found {
        assert_eq!(*offsets, (0..each).collect::<Vec<_>>());
    }
}

#[test]
fn a_broker_that_goes_and_comes_back_costs_nothing() {
    let live = Live::start(&[]);
    live.until("the job runs", |state| state.phase == Phase::Running && state.kafka_connected);
    feed(&live.broker, 0..400);
    live.until("the first messages are computed", |state| state.counts.ticks == 400);
    live.broker.cluster().broker_down(1).unwrap();
    live.until("the broker is missed", |state| !state.kafka_connected);
    assert!(live.job_status.state().problem().unwrap().contains("no Kafka broker answers"));
    live.broker.cluster().broker_up(1).unwrap();
    live.until("the broker is found again", |state| state.kafka_connected);
    feed(&live.broker, 400..1_000);
    live.until("all messages are computed", |state| state.counts.ticks == 1_000);
    all_in_order(&sources(&live.broker, "ticks.features", 1_000), 500);
    live.stop();
}

/// A broker says of its partitions that they have none while it stops.
#[test]
fn a_partition_that_had_no_leader_for_a_moment_is_found_again() {
    let broker = Embedded::start(topics()).unwrap();
    let brokers = ("FORESHOCK_KAFKA__BROKERS".to_owned(), broker.address());
    let config = Config::load(&[], [brokers], Mode::Demo).unwrap();
    // Only what asks for offsets: the mock cluster itself falls over whoever fetches meanwhile.
    let offsets = Offsets::connect(&config.kafka, &config.job).unwrap();
    let bounds = || offsets.bounds("ticks.raw", 0, PATIENCE);
    await_that("the partition is found", || bounds().is_ok());
    broker.cluster().partition_leader("ticks.raw", 0, None).unwrap();
    await_that("the leader is missed", || bounds().is_err());
    assert!(passes(&bounds().unwrap_err().into()), "a job that starts meanwhile asks again");
    broker.cluster().partition_leader("ticks.raw", 0, Some(1)).unwrap();
    await_that("the leader is found again", || bounds().is_ok());
}

#[test]
fn errors_of_single_requests_are_tried_again() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR as STORAGE,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as MOVED,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as TIMED_OUT,
    };
    let live = Live::start(&[]);
    live.until("the job runs", |state| state.phase == Phase::Running);
    for round in 0..5 {
        let cluster = live.broker.cluster();
        feed(&live.broker, round * 200..(round + 1) * 200);
        cluster.request_errors(RDKafkaApiKey::Produce, &[MOVED, TIMED_OUT, MOVED]);
        cluster.request_errors(RDKafkaApiKey::Fetch, &[MOVED, STORAGE]);
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[TIMED_OUT, MOVED]);
        live.until("the round is computed", |state| state.counts.ticks == 200 * (round as i64 + 1));
    }
    all_in_order(&sources(&live.broker, "ticks.predictions", 1_000), 500);
    live.until("all is committed", |state| state.shards.iter().all(|shard| shard.committed == Some(500)));
    live.stop();
}

#[test]
fn with_slow_replies_a_stop_still_delivers_and_commits_all() {
    let live = Live::start(&[]);
    live.until("the job runs", |state| state.phase == Phase::Running);
    feed(&live.broker, 0..1_000);
    live.broker.cluster().broker_round_trip_time(1, Duration::from_millis(200)).unwrap();
    live.until("all messages are computed", |state| state.counts.ticks == 1_000);
    let (broker, done) = live.stop();
    assert_eq!((done.counts.ticks, done.counts.predictions), (1_000, 1_000));
    broker.cluster().broker_round_trip_time(1, Duration::ZERO).unwrap();
    all_in_order(&sources(&broker, "ticks.features", 1_000), 500);

    // The next one begins behind them, although nothing says so but the committed offsets.
    let live = Live::on(broker, &[]);
    live.until("the job runs", |state| state.phase == Phase::Running);
    feed(&live.broker, 1_000..1_100);
    live.until("the new messages are computed", |state| state.counts.ticks == 100);
    all_in_order(&sources(&live.broker, "ticks.features", 1_100), 550);
    live.stop();
}

#[test]
fn a_small_backlog_makes_reading_wait_and_loses_nothing() {
    let live = Live::start(&[("FORESHOCK_JOB__MEMORY_BUDGET", "8MiB")]);
    live.until("the job runs", |state| state.phase == Phase::Running);
    live.broker.cluster().broker_round_trip_time(1, Duration::from_millis(100)).unwrap();
    feed(&live.broker, 0..8_000);
    live.until("all messages are computed", |state| state.counts.ticks == 8_000);
    live.broker.cluster().broker_round_trip_time(1, Duration::ZERO).unwrap();
    all_in_order(&sources(&live.broker, "ticks.predictions", 8_000), 4_000);
    live.stop();
}

#[test]
fn a_consumer_that_stands_still_is_made_anew_and_nothing_is_lost() {
    use RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR as STORAGE;
    let live = Live::start(&[("FORESHOCK_KAFKA__STALLED_AFTER", "1s")]);
    live.until("the job runs", |state| state.phase == Phase::Running);
    feed(&live.broker, 0..200);
    live.until("the first messages are computed", |state| state.counts.ticks == 200);
    let cluster = live.broker.cluster();
    cluster.request_errors(RDKafkaApiKey::Fetch, &[STORAGE; 2_000]);
    feed(&live.broker, 200..1_000);
    await_that("the consumer is made anew", || {
        live.metrics.job.client_renewals.with_label_values(&["consumer"]).get() > 0
    });
    cluster.clear_request_errors(RDKafkaApiKey::Fetch);
    live.until("all messages are computed", |state| state.counts.ticks == 1_000);
    all_in_order(&sources(&live.broker, "ticks.features", 1_000), 500);
    live.stop();
}

#[test]
fn an_output_partition_without_a_leader_holds_up_its_own_input_only() {
    let live = Live::start(&[("FORESHOCK_KAFKA__STALLED_AFTER", "1s")]);
    live.until("the job runs", |state| state.phase == Phase::Running);
    live.broker.cluster().partition_leader("ticks.features", 0, None).unwrap();
    feed(&live.broker, 0..1_000);
    let committed = |state: &State| [0, 1].map(|at: usize| state.shards[at].committed);
    live.until("the other partition is committed", |state| committed(state) == [Some(0), Some(500)]);
    await_that("the producer is made anew", || {
        live.metrics.job.client_renewals.with_label_values(&["producer"]).get() > 0
    });
    assert_eq!(committed(&live.job_status.state()), [Some(0), Some(500)]);
    live.broker.cluster().partition_leader("ticks.features", 0, Some(1)).unwrap();
    live.until("both are committed", |state| committed(state) == [Some(500), Some(500)]);
    for offsets in sources(&live.broker, "ticks.features", 1_000) {
        let distinct: BTreeSet<u64> = offsets.into_iter().collect();
        assert!(distinct.into_iter().eq(0..500));
    }
    live.stop();
}

#[test]
fn a_job_waits_for_its_broker_and_can_be_stopped_meanwhile() {
    let broker = Embedded::start(topics()).unwrap();
    broker.cluster().broker_down(1).unwrap();
    let live = Live::on(broker, &[]);
    // Whatever it tries meanwhile, it does not fail.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(live.job_status.state().phase, Phase::Starting);
    assert!(live.job_status.state().problem().is_some());
    let (_, done) = live.stop();
    assert_eq!(done.counts.messages_in, 0);
}

#[test]
fn a_broken_property_is_told_by_name() {
    let broker = Embedded::start(topics()).unwrap();
    let live = Live::on(broker, &[("FORESHOCK_KAFKA__PROPERTIES", "no.such.property=1")]);
    let error = live.job.join().unwrap().unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("no.such.property") && text.contains("kafka.properties"), "{text}");
}
