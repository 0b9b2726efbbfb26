//! The curve of a live job on a real Kafka.

use std::env;
use std::time::Duration;

use foreshock::config::{Kafka, Mode};
use foreshock::kafka::admin::topics::TopicAdmin;
use foreshock::kafka::client::{Role, client_config};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::run::{Cost, Effort, Place, foreshock, take_turns, timed};
use crate::support::job::{config, flush, producer, send, setting, settings};
use crate::support::quotes::{EXCHANGE, Quotes};

const INSTRUMENTS: usize = 20;
const PER_SECOND: f64 = 1_000.0;
const PARTITIONS: usize = 4;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// More processes beside more workers of one process, over the same topic.
pub fn processes(effort: Effort) {
    let brokers = env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_default();
    if brokers.is_empty() {
        eprintln!("skipped: set KAFKA_BOOTSTRAP_SERVERS, see scripts/kafka and scripts/curves");
        return;
    }
    let name = format!("curves-{}", std::process::id());
    let kafka = fill(&brokers, &name, effort.ticks);
    let (of_processes, of_workers) = ("processes of one worker", "workers of one process");
    let shapes = [(of_processes, 1, 1), (of_processes, 2, 1), (of_workers, 1, 1), (of_workers, 1, 2)];
    let places = shapes.map(|(series, processes, workers)| {
        let x = processes * workers;
        Place {
            curve: "processes",
            series: series.to_owned(),
            x: x as f64,
            label: x.to_string(),
            base: 0,
            more: Value::Null,
        }
    });
    let mut runs = 0;
    take_turns(&places, effort.rounds, |at| {
        runs += 1;
        let (_, processes, workers) = shapes[at];
        job(&brokers, &kafka, &name, &format!("{name}-{runs}"), effort.ticks, processes, workers)
    });
}

/// Sends quotes to a new topic.
fn fill(brokers: &str, name: &str, ticks: usize) -> Kafka {
    let kafka = config(&settings(brokers, name), Mode::Run).kafka;
    let topic = format!("{name}.raw");
    let topics = TopicAdmin::new(&kafka, name).expect("a client can be made");
    topics.create(&topic, PARTITIONS as i32).expect("the topic can be made");
    let (producer, mut quotes, mut line) =
        (producer(&kafka), Quotes::new(INSTRUMENTS, PER_SECOND), Vec::new());
    for _ in 0..ticks {
        let number = quotes.next(&mut line);
        let (key, partition) = (format!("{EXCHANGE}:I{number}"), (number % PARTITIONS) as i32);
        send(&producer, || BaseRecord::to(&topic).partition(partition).key(&key).payload(line.as_slice()));
    }
    flush(&producer);
    kafka
}

/// A job of its own works through the topic; its wall time goes from its first prediction to its last.
fn job(
    brokers: &str,
    kafka: &Kafka,
    input: &str,
    name: &str,
    ticks: usize,
    processes: usize,
    workers: usize,
) -> Cost {
    let state = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = foreshock();
    command.args(["launch", "--until-end", "--json", "--emit", "features,predictions"]);
    command
        .args(["-n", &processes.to_string(), "-w", &workers.to_string()])
        .envs(settings(brokers, name))
        .envs([
            setting("TOPICS__INPUT", &format!("{input}.raw")),
            setting("STATE__STORE", &state.path().display().to_string()),
        ]);
    let timed = timed(command);
    let (first, last) = span(kafka, &format!("{name}.predictions"));
    Cost { wall_s: (last - first) as f64 / 1e3, ..timed.cost(ticks) }
}

/// When the first record of a topic was produced and when the last, in milliseconds.
fn span(kafka: &Kafka, topic: &str) -> (i64, i64) {
    let consumer: BaseConsumer =
        client_config(kafka, "curves", Role::Consumer).create().expect("a consumer can be made");
    let time_at = |partition: i32, offset: i64| {
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("the offset is legal");
        consumer.assign(&from).expect("the partition can be assigned");
        let message = consumer.poll(PATIENCE).expect("the broker answers").expect("the record can be read");
        message.timestamp().to_millis().expect("records have times")
    };
    let times = (0..PARTITIONS as i32).map(|partition| {
        let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).expect("the broker answers");
        // Behind the last record is the end of its transaction.
        (time_at(partition, low), time_at(partition, high - 2))
    });
    times
        .reduce(|(first, last), (begin, end)| (first.min(begin), last.max(end)))
        .expect("there are partitions")
}
