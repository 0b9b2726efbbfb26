//! What exactly-once costs: throughput, latency and recovery of both ways of delivery on a real broker.
//!
//! ```text
//! cargo bench --bench delivery -- throughput [TICKS [ROUNDS]]
//! cargo bench --bench delivery -- latency [SECONDS [RATE...]]
//! cargo bench --bench delivery -- recovery [SECONDS [KILLS]]
//! ```
//! `scripts/delivery` runs all of it, with a broker of its own and processors for each. Each line printed is JSON. Latency
//! goes from when a tick was handed to the producer of the input, which sends at once, to when a reader of its own has
//! its prediction: the reader finds the tick by the header `source`, so both times are of one clock. Recovery goes from
//! the start of the process to when that reader has the first prediction which was not there before.

use std::env;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use foreshock::clock::Clock;
use foreshock::config::{Config, Kafka, Mode};
use foreshock::kafka::admin::topics::TopicAdmin;
use foreshock::kafka::client::{Role, client_config};
use foreshock_testkit::http;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

#[allow(dead_code, reason = "other benches use more of it")]
mod support;

use support::figures::{median, quantile};
use support::job::{config, flush, job, send, setting, settings};
use support::quotes::{EXCHANGE, Quotes};

const INSTRUMENTS: usize = 20;

/// Ticks a second of event time, where nothing else is said.
const RATE: usize = 20_000;

/// The ways that are compared: the first with each of the others.
const WAYS: [Way; 3] = [
    Way { delivery: "at_least_once", commit_interval: "1s" },
    Way { delivery: "exactly_once", commit_interval: "1s" },
    Way { delivery: "exactly_once", commit_interval: "50ms" },
];

/// How often something is looked at that nothing tells of.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Left out of latencies: a new process, and windows that grow.
const WARM_UP: Duration = Duration::from_secs(5);

/// What was committed just before a kill has reached the reader after so long.
const AFTER_KILL: Duration = Duration::from_millis(500);

/// How long a job has caught up before it is killed. In steps, so that its last snapshot is of any age.
const FLOW_STEP: Duration = Duration::from_millis(2_500);

fn main() {
    let Ok(brokers) = env::var("KAFKA_BOOTSTRAP_SERVERS") else {
        eprintln!("skipped: set KAFKA_BOOTSTRAP_SERVERS, see scripts/kafka and scripts/delivery");
        return;
    };
    // Cargo adds one of its own.
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let numbers: Vec<usize> = words.iter().skip(1).filter_map(|word| word.parse().ok()).collect();
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    match words.first().map(String::as_str) {
        Some("throughput") => throughput(&brokers, number(0, 1_000_000), number(1, 3)),
        Some("latency") => {
            let rates = numbers.get(1..).filter(|rates| !rates.is_empty()).unwrap_or(&[1_000, RATE]);
            latency(&brokers, number(0, 20), rates);
        }
        Some("recovery") => recovery(&brokers, number(0, 300), number(1, 5)),
        _ => eprintln!("name what to measure: throughput, latency or recovery"),
    }
}

/// One way of delivery.
#[derive(Clone, Copy)]
struct Way {
    delivery: &'static str,
    commit_interval: &'static str,
}

/// The topics of one measurement, all new.
struct Place {
    name: String,
    settings: Vec<(String, String)>,
    kafka: Kafka,
    _state: tempfile::TempDir,
}

impl Place {
    fn new(brokers: &str, what: &str) -> Place {
        let name = format!("bench-{}-{what}", std::process::id());
        let state = tempfile::tempdir().expect("a temporary folder can be made");
        let mut settings = settings(brokers, &name);
        settings.push(setting("STATE__STORE", &state.path().display().to_string()));
        settings.push(setting("KAFKA__START", "earliest"));
        let kafka = config(&settings, Mode::Run).kafka;
        let topics = TopicAdmin::new(&kafka, &name).expect("a client can be made");
        for topic in ["raw", "features", "predictions"] {
            topics.create(&format!("{name}.{topic}"), 1).expect("the topic can be made");
        }
        Place { name, settings, kafka, _state: state }
    }

    fn topic(&self, of: &str) -> String {
        format!("{}.{of}", self.name)
    }

    fn config(&self, job: &str, way: Way) -> Config {
        let mut settings = self.settings.clone();
        settings.push(setting("JOB__NAME", job));
        settings.push(setting("JOB__DELIVERY", way.delivery));
        settings.push(setting("KAFKA__COMMIT_INTERVAL", way.commit_interval));
        config(&settings, Mode::Run)
    }
}

fn print(line: &Value) {
    println!("{line}");
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Each way in turn works through the same input.
fn throughput(brokers: &str, ticks: usize, rounds: usize) {
    let place = Place::new(brokers, "throughput");
    let mut feed = Feed::new(&place, "zstd");
    (0..ticks).for_each(|_| feed.send());
    flush(&feed.producer);
    // The first job of a process finds everything cold.
    rate(&place, WAYS[0], ticks, "warm-up");
    let mut rates = [const { Vec::new() }; WAYS.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..WAYS.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            rates[at].push(rate(&place, WAYS[at], ticks, &format!("{round}-{at}")));
        }
        let line: Vec<f64> = rates.iter().map(|rates| rates[round].round()).collect();
        print(&json!({
            "what": "throughput_round", "round": round + 1, "at_least_once": line[0],
            "exactly_once_1s": line[1], "exactly_once_50ms": line[2], "load": load_average(),
        }));
    }
    let [base, others @ ..] = &mut rates;
    for (way, rates) in WAYS[1..].iter().zip(others) {
        let mut ratios: Vec<f64> = rates.iter().zip(base.iter()).map(|(rate, base)| rate / base).collect();
        print(&json!({
            "what": "throughput", "commit_interval": way.commit_interval, "ticks": ticks,
            "at_least_once": median(&mut base.clone()).round(), "exactly_once": median(&mut rates.clone()).round(),
            "ratio": median(&mut ratios),
        }));
    }
}

/// Ticks a second from the first that a job has told of until the last can be read.
fn rate(place: &Place, way: Way, ticks: usize, run: &str) -> f64 {
    let job = job(&place.config(&format!("{}-{run}", place.name), way));
    let (told, is_done) = (job.metrics.job.latency.clone(), Arc::new(AtomicBool::new(false)));
    let (config, topic) = (client_config(&place.kafka, "bench", Role::Consumer), place.topic("predictions"));
    let ended = is_done.clone();
    let watcher = thread::spawn(move || {
        // Read-committed, as the job's own consumers: what is not committed does not count as there.
        let client: BaseConsumer = config.create().expect("a consumer can be made");
        let end = || client.fetch_watermarks(&topic, 0, PATIENCE).expect("the broker answers").1;
        while told.get_sample_count() == 0 && !ended.load(Ordering::Acquire) {
            thread::sleep(LOOK_EVERY);
        }
        let began = Instant::now();
        let (mut last, mut at) = (end(), began);
        loop {
            // Looked at first: what there is then is all.
            let was_ended = ended.load(Ordering::Acquire);
            let now = end();
            if now != last {
                (last, at) = (now, Instant::now());
            }
            if was_ended {
                return at - began;
            }
            thread::sleep(5 * LOOK_EVERY);
        }
    });
    let done = job.run().expect("the job runs to the end");
    is_done.store(true, Ordering::Release);
    assert_eq!(done.counts.ticks as usize, ticks, "each tick is told of once");
    ticks as f64 / watcher.join().expect("the watcher watches").as_secs_f64()
}

/// Sends quotes to the input.
struct Feed {
    producer: BaseProducer,
    topic: String,
    quotes: Quotes,
    line: Vec<u8>,
    keys: Vec<String>,
}

impl Feed {
    fn new(place: &Place, codec: &str) -> Feed {
        let mut config = client_config(&place.kafka, "bench", Role::Producer);
        // A tick leaves when it is there.
        config.set("linger.ms", "0").set("compression.codec", codec);
        let producer = config.create().expect("a producer can be made");
        let keys = (0..INSTRUMENTS).map(|number| format!("{EXCHANGE}:I{number}")).collect();
        let quotes = Quotes::new(INSTRUMENTS, RATE as f64);
        Feed { producer, topic: place.topic("raw"), quotes, line: Vec::new(), keys }
    }

    fn send(&mut self) {
        let number = self.quotes.next(&mut self.line);
        let Feed { producer, topic, line, keys, .. } = self;
        send(producer, || BaseRecord::to(topic).partition(0).key(&keys[number]).payload(line.as_slice()));
    }

    /// Sends so many a second, of event time too, until told to stop or to the number; tells of each before it goes.
    fn flow(&mut self, rate: usize, ticks: usize, stop: &AtomicBool, mut tell: impl FnMut(usize)) {
        self.quotes.step = 1e6 / rate as f64;
        let (began, mut sent) = (Instant::now(), 0);
        while sent < ticks && !stop.load(Ordering::Relaxed) {
            let due = (began.elapsed().as_secs_f64() * rate as f64) as usize;
            while sent < due.min(ticks) {
                tell(sent);
                self.send();
                sent += 1;
            }
            self.producer.poll(Duration::ZERO);
            thread::sleep(Duration::from_micros(200));
        }
        flush(&self.producer);
    }
}

/// Reads predictions as they come; for each the offset of its tick goes to `take`.
fn read(
    place: &Place,
    isolation: &str,
    stop: Arc<AtomicBool>,
    mut take: impl FnMut(usize) + Send + 'static,
) -> JoinHandle<()> {
    let mut config = client_config(&place.kafka, "reader", Role::Consumer);
    config.set("isolation.level", isolation);
    let (topic, mut from) = (place.topic("predictions"), TopicPartitionList::new());
    from.add_partition_offset(&topic, 0, Offset::Beginning).expect("the offset is legal");
    thread::spawn(move || {
        let consumer: BaseConsumer = config.create().expect("a consumer can be made");
        consumer.assign(&from).expect("the partition can be assigned");
        while !stop.load(Ordering::Relaxed) {
            let Some(message) = consumer.poll(Duration::from_millis(10)) else { continue };
            take(source_offset(&message.expect("predictions can be read")).expect("it has a source"));
        }
    })
}

/// The offset in `topic/partition/offset/index`.
fn source_offset(message: &BorrowedMessage) -> Option<usize> {
    let header = message.headers()?.iter().find(|header| header.key == "source")?;
    let source = std::str::from_utf8(header.value?).ok()?;
    source.rsplit('/').nth(1)?.parse().ok()
}

/// A job in a process of its own, on a processor of its own where `JOB_CPU` names one; killed when dropped.
struct Running {
    child: Child,
    http: SocketAddr,
}

impl Running {
    fn start(place: &Place, way: Way, http: SocketAddr, encode_lines: &str) -> Running {
        let foreshock = env!("CARGO_BIN_EXE_foreshock");
        let mut command = match env::var("JOB_CPU") {
            Ok(cpu) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", &cpu, foreshock]);
                pinned
            }
            Err(_) => Command::new(foreshock),
        };
        command.args(["run", "-w", "1", "--emit", encode_lines]).envs(place.settings.iter().cloned()).envs([
            ("FORESHOCK_JOB__DELIVERY", way.delivery),
            ("FORESHOCK_KAFKA__COMMIT_INTERVAL", way.commit_interval),
            ("FORESHOCK_HTTP__LISTEN", &http.to_string()),
            ("LOG_LEVEL", "warn"),
        ]);
        let child = command.stdout(Stdio::null()).spawn().expect("foreshock can be started");
        Running { child, http }
    }

    fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    fn is_ready(&self) -> bool {
        matches!(http::ask(self.http, "GET", "/ready", ""), Ok((200, _)))
    }

    /// A value among its metrics, summed over labels.
    fn metric(&self, name: &str) -> f64 {
        let (_, text) = http::ask(self.http, "GET", "/metrics", "").unwrap_or_default();
        let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free now.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address")
}

fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(LOOK_EVERY);
    }
}

/// From when a tick is sent to when its prediction is read, for both ways at each rate.
fn latency(brokers: &str, seconds: usize, rates: &[usize]) {
    for rate in rates {
        for way in [Way { commit_interval: "50ms", ..WAYS[0] }, WAYS[2]] {
            let place = Place::new(brokers, &format!("latency-{}-{rate}", way.delivery));
            latency_of(&place, way, *rate, seconds);
        }
    }
}

fn latency_of(place: &Place, way: Way, rate: usize, seconds: usize) {
    let (clock, warm_up) = (Clock::start(), rate * WARM_UP.as_secs() as usize);
    let ticks = warm_up + rate * seconds;
    let sent: Arc<[AtomicU64]> = (0..ticks).map(|_| AtomicU64::new(0)).collect();
    let took = Arc::new(Mutex::new(Vec::with_capacity(ticks)));
    let job = Running::start(
        place,
        way,
        free_address(),
        "features,predictions,metrics,gaps,alerts,deadletter,control",
    );
    await_that("the job is ready", || job.is_ready());
    let isolation = if way.delivery == "exactly_once" { "read_committed" } else { "read_uncommitted" };
    let stop = Arc::<AtomicBool>::default();
    let (sent_at, taken) = (sent.clone(), took.clone());
    let reader = read(place, isolation, stop.clone(), move |offset| {
        let waited = clock.nanoseconds() - sent_at[offset].load(Ordering::Acquire);
        taken.lock().unwrap_or_else(PoisonError::into_inner).push((offset, waited as f64 / 1e6));
    });
    Feed::new(place, "none").flow(rate, ticks, &stop, |tick| {
        sent[tick].store(clock.nanoseconds(), Ordering::Release);
    });
    let load = load_average();
    let read = || took.lock().unwrap_or_else(PoisonError::into_inner).len();
    // A quote without a prediction would be a change of the job.
    await_that("all predictions are read", || read() >= ticks);
    stop.store(true, Ordering::Relaxed);
    reader.join().expect("the reader reads");
    let took = took.lock().unwrap_or_else(PoisonError::into_inner);
    let mut measured: Vec<f64> =
        took.iter().filter(|(tick, _)| *tick >= warm_up).map(|(_, ms)| *ms).collect();
    print(&json!({
        "what": "latency", "delivery": way.delivery, "rate": rate, "ticks": measured.len(),
        "p50_ms": quantile(&mut measured, 0.5), "p99_ms": quantile(&mut measured, 0.99),
        "p999_ms": quantile(&mut measured, 0.999), "load": load,
    }));
}

/// From the start of a process to the first output that was not there before, after kills in flow.
fn recovery(brokers: &str, seconds: usize, kills: usize) {
    let (place, way) = (Place::new(brokers, "recovery"), WAYS[2]);
    let mut feed = Feed::new(&place, "zstd");
    let filled = seconds * RATE;
    (0..filled).for_each(|_| feed.send());
    flush(&feed.producer);
    let (stop, last_read) = (Arc::<AtomicBool>::default(), Arc::new(AtomicI64::new(-1)));
    let last = last_read.clone();
    let reader = read(&place, "read_committed", stop.clone(), move |offset| {
        last.store(offset as i64, Ordering::Release);
    });
    let read = || last_read.load(Ordering::Acquire);
    let http = free_address();
    let mut job = Running::start(&place, way, http, "predictions");
    await_that("the state is built", || read() >= filled as i64 - 1);
    let sent = Arc::new(AtomicI64::new(filled as i64));
    let (so_far, until) = (sent.clone(), stop.clone());
    let feeder = thread::spawn(move || {
        feed.flow(RATE, usize::MAX, &until, |_| _ = so_far.fetch_add(1, Ordering::AcqRel));
    });
    let (mut outputs, mut own, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for kill in 1..=kills as u32 {
        await_that("the job has caught up", || sent.load(Ordering::Acquire) - read() < RATE as i64 / 2);
        thread::sleep(kill * FLOW_STEP);
        job.kill();
        thread::sleep(AFTER_KILL);
        let (before, began) = (read(), Instant::now());
        job = Running::start(&place, way, http, "predictions");
        await_that("something new is there", || read() > before);
        outputs.push(began.elapsed().as_secs_f64());
        await_that("the job tells of its recovery", || job.metric("foreshock_recovery_seconds") > 0.0);
        own.push(job.metric("foreshock_recovery_seconds"));
        rows.push(job.metric("foreshock_replayed_rows_total"));
        print(&json!({
            "what": "recovery_kill", "kill": kill, "first_output_s": outputs.last(), "own_s": own.last(),
            "replayed_rows": rows.last(), "load": load_average(),
        }));
    }
    await_that("there is a snapshot", || job.metric("foreshock_snapshot_bytes") > 0.0);
    let bytes = job.metric("foreshock_snapshot_bytes");
    stop.store(true, Ordering::Relaxed);
    feeder.join().expect("the feeder feeds");
    reader.join().expect("the reader reads");
    print(&json!({
        "what": "recovery", "state_s": seconds, "kills": kills, "first_output_s": median(&mut outputs),
        "own_s": median(&mut own), "replayed_rows": median(&mut rows), "snapshot_bytes": bytes,
    }));
}
