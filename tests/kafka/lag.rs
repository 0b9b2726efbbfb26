//! `foreshock lag`: how far a job is behind, told while nothing of it runs.

use std::process::Command;
use std::time::{Duration, Instant};

use foreshock::state::{Header, Store};
use foreshock_operators::time::Time;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use tempfile::TempDir;

use crate::kafka::job::{Job, quote, send_quotes, summary};
use crate::support::kafka::{brokers, commit, consumer, unique};
use crate::support::process::PATIENCE;
use crate::support::{Ended, finish, foreshock};

fn command(job: &Job) -> Command {
    let mut command = foreshock();
    command.args(["lag", "--brokers", &job.brokers]);
    command.env("FORESHOCK_JOB__NAME", &job.name).env("FORESHOCK_TOPICS__INPUT", &job.raw);
    // A folder that isn't there.
    command.env("FORESHOCK_STATE__STORE", std::env::temp_dir().join(&job.name));
    command.envs(job.settings.iter().map(|(name, value)| (name, value)));
    command
}

#[track_caller]
fn lag(job: &Job) -> Value {
    let mut command = command(job);
    command.arg("--json");
    summary(&finish(command, None))
}

/// It fails, soon, and says all of these.
#[track_caller]
fn assert_fails(job: &Job, told: &[&str]) {
    let started = Instant::now();
    let Ended { status, stdout, stderr } = finish(command(job), None);
    assert_eq!((status, stdout.len()), (Some(1), 0), "{stderr}");
    for part in told {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
    assert!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
}

/// Sends a record with a Kafka timestamp so far in the past.
fn send_aged(job: &Job, producer: &BaseProducer, partition: i32, number: u64, age: Duration) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let value = quote(partition, number);
    let record = BaseRecord::<str, str>::to(&job.raw).partition(partition).payload(&value);
    producer.send(record.timestamp((now - age).as_millis() as i64)).map_err(|(error, _)| error).unwrap();
}

fn transactional(job: &Job) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &job.brokers)
        .set("transactional.id", &job.name)
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

#[test]
fn what_waits_is_counted_in_offsets_and_seconds() {
    let Some(brokers) = brokers("what_waits_is_counted_in_offsets_and_seconds") else { return };
    let job = Job::new(&brokers, "lag").with("KAFKA__PARTITIONS", "4").with("KAFKA__START", "earliest");
    let account = job.run_through(&[]);
    assert_eq!(account["messages_in"], 0);
    send_quotes(&job, 0, 0..20);
    send_quotes(&job, 1, 0..5);
    let producer = job.producer();
    send_aged(&job, &producer, 2, 0, Duration::from_secs(900));
    send_aged(&job, &producer, 2, 1, Duration::from_secs(600));
    producer.flush(PATIENCE).unwrap();
    commit(&brokers, &job.name, &job.raw, 0, 15);
    commit(&brokers, &job.name, &job.raw, 1, 5);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&job.raw, 2, Offset::Offset(1)).unwrap();
    list.find_partition(&job.raw, 2).unwrap();
    for mut element in list.elements() {
        element.set_metadata("origin=0");
    }
    consumer(&brokers, &job.name).commit(&list, CommitMode::Sync).unwrap();

    let found = lag(&job);
    let of = |name: &str| -> Vec<Value> {
        found["shards"].as_array().unwrap().iter().map(|shard| shard[name].clone()).collect()
    };
    assert_eq!(of("lag"), [5, 0, 1, 0], "{found}");
    assert_eq!(of("committed"), [15, 5, 1, 0], "{found}");
    assert_eq!(of("end"), [20, 5, 2, 0], "{found}");
    assert_eq!(of("metadata")[2], "origin=0", "{found}");
    let seconds: Vec<f64> = of("lag_seconds").iter().map(|seconds| seconds.as_f64().unwrap()).collect();
    assert!(seconds[0] < 120.0 && seconds[1] == 0.0 && seconds[3] == 0.0, "{found}");
    assert!((600.0..720.0).contains(&seconds[2]), "{found}");
    assert_eq!((&found["lag"], &found["lag_seconds"]), (&6.into(), &of("lag_seconds")[2]));
    assert_eq!(of("snapshot"), [Value::Null, Value::Null, Value::Null, Value::Null]);

    // With a snapshot beside it, as a table.
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), &job.name).unwrap();
    for offset in [3, 12] {
        let header = Header {
            job: job.name.clone(),
            topic: job.raw.clone(),
            partition: 0,
            incarnation: String::new(),
            offset,
            origin: 0,
            origin_is_cold: true,
            last_record: None,
            settings: String::new(),
            made_by: String::new(),
            made_at: Time(0),
        };
        store.begin_snapshot(&header).unwrap().finish().unwrap().publish().unwrap();
    }
    let mut command = command(&job);
    command.env("FORESHOCK_STATE__STORE", folder.path());
    let ended = finish(command, None);
    let text = String::from_utf8(ended.stdout).unwrap();
    let cells = |line: usize| text.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(cells(0), ["shard", "committed", "end", "lag", "seconds", "snapshot", "age", "remarks"]);
    let first = cells(1);
    assert_eq!((first[1], first[2], first[3], first[5]), ("15", "20", "5", "12"), "{text}");
    assert_eq!(cells(3)[7], "origin=0", "{text}");
    assert_eq!(cells(5)[..2], ["total", "6"], "{text}");
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn offsets_without_records_are_no_lag_and_an_open_transaction_is() {
    let Some(brokers) = brokers("offsets_without_records_are_no_lag_and_an_open_transaction_is") else {
        return;
    };
    let job = Job::new(&brokers, "holes").with("KAFKA__PARTITIONS", "1").with("KAFKA__START", "earliest");
    job.run_through(&[]);
    let producer = transactional(&job);
    producer.begin_transaction().unwrap();
    send_aged(&job, &producer, 0, 0, Duration::from_secs(60));
    producer.flush(PATIENCE).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();
    let shard = |found: &Value| found["shards"][0].clone();
    // An abort shows when its marker is written, soon after.
    crate::support::process::await_that("only an aborted row and a marker are left", || {
        let found = shard(&lag(&job));
        (found["committed"].as_i64(), found["end"].as_i64(), found["lag"].as_i64())
            == (Some(0), Some(2), Some(0))
            && found["lag_seconds"] == 0.0
    });

    producer.begin_transaction().unwrap();
    send_aged(&job, &producer, 0, 1, Duration::from_secs(900));
    producer.flush(PATIENCE).unwrap();
    let found = shard(&lag(&job));
    assert_eq!((&found["end"], &found["lag"]), (&3.into(), &3.into()), "{found}");
    assert!(found["lag_seconds"].as_f64().unwrap() >= 900.0, "{found}");
    assert!(found["problem"].as_str().unwrap().contains("open transaction"), "{found}");
    producer.commit_transaction(PATIENCE).unwrap();
}

#[test]
fn what_can_not_be_told_says_why() {
    let Some(brokers) = brokers("what_can_not_be_told_says_why") else { return };
    let job = Job::new(&brokers, "untold").with("KAFKA__PARTITIONS", "2");
    assert_fails(&job, &["there is no topic", &job.raw, "topics.input"]);
    send_quotes(&job, 0, 0..1);
    assert_fails(&job, &["has committed no offsets", &job.name]);
    // One that the log doesn't reach.
    commit(&brokers, &job.name, &job.raw, 0, 1_000);
    let found = lag(&job);
    assert_eq!(found["shards"][0]["lag"], Value::Null);
    assert!(found["shards"][0]["problem"].as_str().unwrap().contains("made anew"), "{found}");
}

#[test]
fn brokers_that_are_away_are_told_soon() {
    let job = Job::new("127.0.0.1:1", &unique("away"));
    assert_fails(&job, &["no broker at 127.0.0.1:1 answered", "kafka.brokers"]);
}
