//! The demo from outside: one process, which clients that know nothing of it read, ask and stop.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::support::process::{PATIENCE, Running, await_that, await_within};
use crate::support::{Files, finish, foreshock, http};

/// How long the first alert may take; the first burst comes after half a minute.
const FIRST_ALERT: Duration = Duration::from_secs(90);

fn demo(listen: &str) -> Command {
    let mut command = foreshock();
    command.arg("demo").env("FORESHOCK_HTTP__LISTEN", listen);
    command
}

/// The sum of a metric's samples that have this label, or of all of them.
#[track_caller]
fn metric(address: SocketAddr, name: &str, label: &str) -> f64 {
    let (status, text) = http::ask(address, "GET", "/metrics", "").unwrap();
    assert_eq!(status, 200);
    let is_asked = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(label);
    let samples = text.lines().filter(is_asked);
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// The first rows of a topic, read by a client that is none of ours where there is one.
fn rows(broker: &str, topic: &str, count: usize) -> Vec<Value> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-q", "-b", broker, "-t", topic, "-o", "beginning", "-c", &count.to_string()]);
    let lines: Vec<String> = match kcat.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
        }
        Err(error) => {
            eprintln!("kcat can't be run ({error}): reading with librdkafka's own consumer");
            read(broker, topic, count)
        }
    };
    assert_eq!(lines.len(), count);
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn read(broker: &str, topic: &str, count: usize) -> Vec<String> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker).set("group.id", "reader").create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let mut all = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        all.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let mut lines = Vec::new();
    await_that("rows come", || {
        while let Some(message) = consumer.poll(Duration::from_millis(50)) {
            lines.push(String::from_utf8(message.unwrap().payload().unwrap().to_vec()).unwrap());
        }
        lines.len() >= count
    });
    lines.truncate(count);
    lines
}

/// The broker's address, as the demo tells people how to read from it.
#[track_caller]
fn broker(running: &mut Running) -> String {
    running.until("it tells how to read", |running| running.printed().contains("kcat -C -b "));
    let printed = running.printed();
    let command = printed.split("kcat -C -b ").nth(1).unwrap();
    command.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn the_demo_shows_all_of_foreshock_and_needs_nothing() {
    let mut running = Running::start(demo("127.0.0.1:0"));
    let address = running.http();
    let broker = broker(&mut running);
    assert!(running.printed().contains(&format!("http://{address}/")), "{}", running.printed());

    running.until("it is ready", |_| http::get(address, "/ready").0 == 200);
    let (status, health) = http::get(address, "/health");
    assert_eq!((status, &health["status"]), (200, &"healthy".into()), "{health}");
    assert_eq!((&health["kafka_connected"], &health["model_loaded"]), (&true.into(), &true.into()));

    for row in rows(&broker, "ticks.predictions", 10) {
        let probability = row["probability"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&probability), "{row}");
        assert!(row["instrument"].is_string() && row["event_time"].is_string(), "{row}");
    }

    let ticks = || metric(address, "foreshock_rows_total", "ticks");
    let before = ticks();
    assert!(before > 0.0);
    running.until("ticks move", |_| ticks() > before + 100.0);
    assert!(metric(address, "predictions_total", "") > 0.0);
    assert_eq!(metric(address, "foreshock_kafka_connected", ""), 1.0);

    let (status, graph) = http::ask(address, "GET", "/graph", "").unwrap();
    assert_eq!(status, 200, "{graph}");
    for text in ["worker 0", "worker 1", ">decode<", ">rules<", ">publish<", "rows"] {
        assert!(graph.contains(text), "{text}: {graph}");
    }
    assert!(metric(address, "foreshock_operator_rows_total", "publish") > 100.0);

    let body = json!({"ret_mean": 0.0, "ret_std": 0.00005, "n": 50}).to_string();
    let (status, answer) = http::ask(address, "POST", "/predict", &body).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!((0.0..=1.0).contains(&answer["probability"].as_f64().unwrap()), "{answer}");

    let alerts = || metric(address, "foreshock_alerts_total", "");
    await_within(FIRST_ALERT, "an alert", || alerts() > 0.0);
    let alert = rows(&broker, "market.alerts", 1).remove(0);
    assert_eq!(alert["state"], "active", "{alert}");
    running.until("the alert is told of", |running| {
        running.printed().contains(&format!("{} ", alert["rule"].as_str().unwrap()))
    });
    assert_eq!(http::get(address, "/health").0, 200, "{}", running.log());

    running.signal("INT");
    let ended = running.end();
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let printed = String::from_utf8(ended.stdout).unwrap();
    let numbers: Vec<u64> = printed
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("stopped: of "))
        .map(|rest| rest.split(' ').filter_map(|word| word.parse().ok()).collect())
        .unwrap_or_default();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1] && numbers[0] > 0, "{printed}");
}

#[test]
fn a_port_in_use_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = finish(demo(&address), None);
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    let told = ["could not listen at", address.as_str(), "http.listen"];
    assert!(told.iter().all(|part| ended.stderr.contains(part)), "{}", ended.stderr);
    assert!(ended.stdout.is_empty(), "it doesn't tell where to look when nobody is there");
}

/// What it tells people to read is what its configuration names.
#[test]
fn a_demo_with_topics_of_other_names_and_no_server_works_too() {
    let files = Files::new();
    let path = files.add("demo.yaml", "topics:\n  predictions: my.predictions\nhttp:\n  listen: off\n");
    let mut command = foreshock();
    command.args(["demo", "-w", "1", "--config"]).arg(path);
    let mut running = Running::start(command);
    let broker = broker(&mut running);
    assert!(running.printed().contains("-t my.predictions"), "{}", running.printed());
    assert_eq!(rows(&broker, "my.predictions", 3).len(), 3);
    running.signal("TERM");
    assert_eq!(running.end().status, Some(0));
}
