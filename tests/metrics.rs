//! What /metrics says, held against docs/metrics.md and against what has happened.
//!
//! `UPDATE_GOLDEN=1 cargo test --release metrics::` writes the document's tables anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use foreshock::config::{Config, Mode};
use foreshock::http::Server;
use foreshock::kafka::embedded::Embedded;
use foreshock::live::Job;
use foreshock::metrics::Metrics;
use foreshock::status::JobStatus;
use foreshock_operators::outputs::OutputKind;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const PATIENCE: Duration = Duration::from_secs(60);
const DOCUMENT: &str = "docs/metrics.md";

/// Counters that only trouble moves, which this test doesn't make.
const STILL: [&str; 13] = [
    // Strangers at the port of a job of several processes: tests/cluster.
    "foreshock_cluster_refused_total",
    // Brokers that take less than comes in: tests/mock.rs.
    "foreshock_backlog_waits_total",
    // A reorder buffer with a hundred thousand rows.
    "foreshock_hurried_rows_total",
    // As many connections as may be open: tests/http.
    "foreshock_http_connections_full_total",
    "foreshock_http_turned_away_total",
    // This version makes no connections to venues.
    "websocket_connections_total",
    // Brokers that answer and still take and give nothing: tests/mock.rs.
    "foreshock_client_renewals_total",
    // A model that insists on a feature; the bundled one takes nulls as 0.
    "foreshock_predictions_refused_total",
    // Whole seconds.
    "process_cpu_seconds_total",
    // Mock clusters know no transactions, and without them nothing is kept: tests/kafka.
    "foreshock_lost_offsets_total",
    "foreshock_replayed_rows_total",
    "foreshock_restarts_total",
    "foreshock_transactions_aborted_total",
];

#[test]
fn the_document_is_what_a_scrape_says_and_what_should_move_has_moved() {
    let topics = [
        "ticks.raw",
        "ticks.features",
        "ticks.predictions",
        "market.metrics",
        "market.gaps",
        "market.alerts",
        "ticks.deadletter",
        "market.control",
    ];
    let broker = Embedded::start(topics.into_iter().map(|topic| (topic, 2))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("alerts.yaml");
    fs::write(&rules, RULE).unwrap();
    let settings = [
        ("FORESHOCK_KAFKA__BROKERS", broker.address()),
        ("FORESHOCK_HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ("FORESHOCK_ALERTS__FILE", rules.to_str().unwrap().to_owned()),
    ];
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
    let config = Config::load(&[], settings, Mode::Demo).unwrap();
    let (job_status, metrics, stop) =
        (Arc::<JobStatus>::default(), Metrics::new(&config.metrics), Arc::<AtomicBool>::default());
    // As a job that keeps its state would, so that the document has these too.
    metrics.job.saved("ticks.raw", 0, 1_000, Duration::from_millis(2));
    let server = Server::start(config.http.as_ref().unwrap(), job_status.clone(), metrics.clone()).unwrap();
    let job = Job {
        config,
        workers: 2,
        kinds: OutputKind::ALL.into_iter().filter(|kind| *kind != OutputKind::Scored).collect(),
        format: None,
        exchange: None,
        from_beginning: true,
        adopt: false,
        retry: false,
        until_end: false,
        job_status: job_status.clone(),
        metrics,
        stop: stop.clone(),
    };
    let job = thread::spawn(move || job.run());
    let messages = feed(&broker);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = job_status.state();
        let is_committed = state.shards.iter().map(|shard| shard.committed.unwrap_or_default()).sum::<i64>();
        if is_committed == messages {
            break;
        }
        assert!(Instant::now() < deadline, "{state:?}");
        thread::sleep(Duration::from_millis(5));
    }
    let features = r#"{"ret_mean":1e-6,"ret_std":1e-5,"n":60}"#;
    assert!(ask(server.address(), "POST /predict", features).starts_with("HTTP/1.1 200"));
    // Instruments are counted once a second.
    let scrape = loop {
        let scrape = ask(server.address(), "GET /metrics", "");
        if scrape.contains("\nforeshock_instruments 2\n") {
            break scrape;
        }
        assert!(Instant::now() < deadline, "{scrape}");
        thread::sleep(Duration::from_millis(50));
    };
    let (_, text) = scrape.split_once("\r\n\r\n").unwrap();

    check_document(text);
    check_with_promtool(text);
    let samples = samples(text);
    let value = |name: &str| samples.get(name).unwrap_or_else(|| panic!("no {name} in\n{text}"));
    for (name, kind, _) in families(text) {
        let counted = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
        let of_name = samples.iter().filter(|(sample, _)| base(sample) == counted);
        let total: f64 = of_name.map(|(_, value)| value).sum();
        let should_move = (kind == "counter" || kind == "histogram") && !STILL.contains(&name.as_str());
        assert!(!should_move || total > 0.0, "{name} has not moved:\n{text}");
    }
    // Every message and row has one fate, and the gauges say what is so.
    let sum = |prefix: &str| -> f64 {
        samples.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
    };
    assert_eq!(sum("foreshock_messages_total{"), messages as f64);
    assert_eq!(sum("foreshock_dead_letters_total{"), DEAD_LETTERS as f64 + 1.0);
    for (reason, n) in
        [("broken_json", 1.0), ("empty", 1.0), ("crossed", 1.0), ("late", 1.0), ("wrong_type", 0.0)]
    {
        assert_eq!(*value(&format!("foreshock_dead_letters_total{{reason=\"{reason}\"}}")), n, "{reason}");
    }
    let exact = [
        ("foreshock_rows_total{fate=\"duplicate\"}", 1.0),
        ("foreshock_rows_total{fate=\"late\"}", 1.0),
        ("foreshock_messages_total{fate=\"control\"}", 1.0),
        ("foreshock_gaps_total", 1.0),
        ("foreshock_locked_quotes_total", 1.0),
        ("foreshock_control_records_total", 1.0),
        ("foreshock_instruments", 2.0),
        ("foreshock_kafka_connected", 1.0),
        ("foreshock_ready", 1.0),
        ("model_loaded", 1.0),
        ("foreshock_backlog_bytes{worker=\"0\"}", 0.0),
        ("kafka_consumer_lag{partition=\"0\",topic=\"ticks.raw\"}", 0.0),
        ("foreshock_active_alerts{priority=\"P1\"}", 1.0),
        ("market_regime_state{exchange=\"x\",instrument=\"A\"}", 2.0),
    ];
    for (name, expected) in exact {
        assert_eq!(*value(name), expected, "{name}");
    }
    assert_eq!(value("foreshock_predictions_total"), value("prediction_probability_count"));
    assert_eq!(value("foreshock_predictions_total"), value("foreshock_latency_seconds_count"));
    assert!(*value("process_resident_memory_bytes") > 1e6);
    stop.store(true, Ordering::Relaxed);
    job.join().unwrap().unwrap();
    server.stop();
}

const RULE: &str = "rules:
  - name: wide
    metric: spread_bps
    instruments: [\"x:A\"]
    priority: P1
    raise: {above: 50}
    clear: 40
    for: 1s
    resolve_for: 5s
    cooldown: 1s
    enabled: true
";

/// Messages among those of [`feed`] that are refused, the late one not counted.
const DEAD_LETTERS: usize = 3;

/// Sends one of everything that a counter counts; says how many messages that are.
fn feed(broker: &Embedded) -> i64 {
    let quote = |instrument: &str, second: usize, sequence: usize, bid: f64, ask: f64| {
        format!(
            "{{\"type\":\"quote\",\"exchange\":\"x\",\"instrument\":\"{instrument}\",\
             \"event_time\":\"2026-01-02T03:{:02}:{:02}Z\",\"sequence\":{sequence},\"bid\":{bid},\"ask\":{ask}}}",
            second / 60,
            second % 60,
        )
    };
    let mut messages: Vec<(i32, Option<String>)> = Vec::new();
    let mut good = |partition, text: String| messages.push((partition, Some(text)));
    for second in 0..10 {
        good(0, quote("A", second, second, 100.0, 100.1));
        good(1, quote("B", second, second, 50.0, 50.1));
    }
    good(0, quote("A", 9, 9, 100.0, 100.1));
    good(0, quote("A", 5, 5_000, 100.0, 100.1));
    good(1, quote("B", 30, 30, 50.0, 50.0));
    for second in 10..15 {
        good(0, quote("A", second, second, 100.0, 101.0));
    }
    good(0, "{\"type\":\"trade\",\"exchange\":\"x\",\"instrument\":\"A\",\"event_time\":\"2026-01-02T03:00:14Z\",\"price\":100,\"size\":1}".to_owned());
    good(1, "{\"type\":\"candle\",\"exchange\":\"x\",\"instrument\":\"B\"}".to_owned());
    good(1, "{\"type\":\"quote\",".to_owned());
    // It confirms the stamp of the one before.
    good(1, quote("B", 31, 31, 50.0, 50.1));
    good(1, quote("B", 32, 32, 51.0, 50.0));
    messages.push((1, None));
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", broker.address()).create().unwrap();
    for (partition, text) in &messages {
        let mut record = BaseRecord::to("ticks.raw").partition(*partition).key("x:A");
        record.payload = text.as_deref();
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    let header = Header { key: "foreshock-control", value: Some("rules") };
    // It would take effect at the next row, which doesn't come.
    let rules = r#"{"type":"control","id":"r1","kind":"rules","rules":[]}"#;
    let control = BaseRecord::to("ticks.raw").partition(0).key("x:A").payload(rules);
    let control = control.headers(OwnedHeaders::new().insert(header));
    producer.send(control).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
    messages.len() as i64 + 1
}

fn ask(address: SocketAddr, what: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{what} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Name, type and help of each metric of a scrape.
fn families(text: &str) -> Vec<(String, String, String)> {
    let mut helps = BTreeMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helps.insert(name, help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            found.push((name.to_owned(), kind.to_owned(), helps.get(name).unwrap_or(&"").to_string()));
        }
    }
    found
}

/// Values by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

fn base(sample: &str) -> &str {
    sample.split('{').next().unwrap()
}

/// The labels of a metric, but for a histogram's own.
fn labels(text: &str, name: &str) -> String {
    let of_metric = |sample: &str| {
        let base = base(sample);
        base == name || ["_bucket", "_sum", "_count"].iter().any(|end| base.strip_suffix(end) == Some(name))
    };
    let mut labels: Vec<&str> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && of_metric(line)) {
        let Some((_, rest)) = line.split_once('{') else { continue };
        let inside = rest.rsplit_once('}').map_or("", |(inside, _)| inside);
        labels.extend(inside.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0)));
    }
    labels.retain(|label| *label != "le");
    labels.sort_unstable();
    labels.dedup();
    labels.join(", ")
}

/// The tables of the document: one row a metric, from the scrape itself.
fn check_document(text: &str) {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for (name, kind, help) in families(text) {
        writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels(text, &name)).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let document = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- metrics -->\n", "<!-- end of metrics -->");
    let (head, rest) = document.split_once(begin).unwrap();
    let (found, tail) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, format!("{head}{begin}{table}{end}{tail}")).unwrap();
        return;
    }
    assert_eq!(found, table, "{DOCUMENT} is out of date: UPDATE_GOLDEN=1 writes it anew");
}

/// Prometheus' own opinion, where its tool is at hand.
fn check_with_promtool(text: &str) {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/docker-check/deb/usr/bin/promtool");
    let tool = if unpacked.exists() { unpacked } else { "promtool".into() };
    let started = Command::new(tool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = started else {
        return eprintln!("SKIPPED: promtool is not at hand (Debian's package prometheus has it)");
    };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr) + String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && words.trim().is_empty(), "promtool says:\n{words}");
}
