//! What a job in exactly-once mode promises: outputs that an undisturbed run would have given, each once, whatever
//! becomes of its processes, its snapshots, its settings and its topics.

mod hanging;
mod limits;
mod lost;
mod refused;
mod settings;
mod snapshots;
mod stops;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tempfile::TempDir;

use crate::kafka::job::{Job, over_shards, stats, summary};
use crate::support::feed;
use crate::support::kafka::Record;
use crate::support::process::{PATIENCE, Running};
use crate::support::{Ended, finish, http};

/// A job that keeps its state in a folder of its own, which goes with this.
struct Kept {
    job: Job,
    state: TempDir,
}

impl Kept {
    fn new(brokers: &str, test: &str) -> Kept {
        Kept::of(Job::new(brokers, test).with("KAFKA__START", "earliest"))
    }

    fn of(job: Job) -> Kept {
        let state = TempDir::new().unwrap();
        let job = job.with("STATE__STORE", state.path().to_str().unwrap());
        Kept { job, state }
    }

    /// Another job on the same input, with outputs and a state of its own.
    fn another(&self, test: &str) -> Kept {
        Kept::of(self.job.another(test))
    }

    /// The same job, with other settings.
    fn with(&self, key: &str, value: &str) -> Job {
        self.job.clone().with(key, value)
    }

    /// Its snapshots of a partition, the newest first.
    fn snapshots(&self, partition: i32) -> Vec<PathBuf> {
        let prefix = format!("{}-{partition}-", self.job.raw);
        let offset = |path: &Path| -> Option<i64> {
            let name = path.file_name()?.to_str()?;
            name.strip_prefix(&prefix)?.strip_suffix(".snapshot")?.parse().ok()
        };
        let entries = fs::read_dir(self.state.path().join(&self.job.name)).unwrap();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| offset(path).is_some());
        found.sort_by_key(|path| -offset(path).unwrap());
        found
    }
}

/// Goes on where the job was, to the end of its input; gives the account.
#[track_caller]
fn go_on(job: &Job, args: &[&str]) -> Value {
    summary(&finish(job.run(["--until-end"].iter().chain(args)), None))
}

/// It ends with this status, and its last line says all of these.
#[track_caller]
fn assert_ends(ended: &Ended, status: i32, told: &[&str]) {
    assert_eq!(ended.status, Some(status), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    for part in told {
        assert!(last.contains(part), "{part:?} is not in {}", ended.stderr);
    }
}

/// Starts a job with an HTTP server, and waits until it has come to the end of its input and committed that.
#[track_caller]
fn caught_up(job: &Job, args: &[&str]) -> (Running, SocketAddr) {
    let mut running = Running::start(job.clone().with_http().run(args));
    let address = running.http();
    running.until("all is read", |_| http::get(address, "/ready").0 == 200);
    running.until("all is committed", |_| {
        let stats = stats(address);
        over_shards(&stats, "committed") == over_shards(&stats, "end")
    });
    (running, address)
}

/// Stops a job in order; gives the account.
#[track_caller]
fn stopped(running: Running) -> Value {
    running.signal("TERM");
    summary(&running.end())
}

/// The value of a metric, with its labels as they are printed.
#[track_caller]
fn metric(address: SocketAddr, name: &str) -> f64 {
    let (_, text) = http::ask(address, "GET", "/metrics", "").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("there is no metric {name}")).parse().unwrap()
}

/// Sends the messages of a made-up feed, each to the partition of its instrument, and waits until they have arrived.
#[track_caller]
fn send_feed(job: &Job, producer: &BaseProducer, messages: &[feed::Message], partitions: usize) {
    for message in messages {
        let key = format!("coinbase:P{:03}-USD", message.product);
        let partition = (message.product % partitions) as i32;
        let record = BaseRecord::to(&job.raw).partition(partition).key(&key).payload(&message.line);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// What readers get: key, value and headers of each record, by kind and partition.
type Outputs = BTreeMap<&'static str, Vec<Vec<(Option<String>, Vec<u8>, BTreeMap<String, String>)>>>;

fn outputs(job: &Job) -> Outputs {
    let told = |record: Record| (record.key, record.value, record.headers);
    let partition = |records: Vec<Record>| records.into_iter().map(told).collect();
    let kind = |partitions: Vec<Vec<Record>>| partitions.into_iter().map(partition).collect();
    job.all_outputs().into_iter().map(|(name, partitions)| (name, kind(partitions))).collect()
}

/// All records of a kind as JSON, by partition.
#[track_caller]
fn values(job: &Job, kind: &str) -> Vec<Vec<Value>> {
    let value = |record: &Record| serde_json::from_str(record.text()).unwrap();
    job.outputs(kind).iter().map(|records| records.iter().map(value).collect()).collect()
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Creates a topic with these properties.
#[track_caller]
fn create(brokers: &str, topic: &str, partitions: i32, properties: &[(&str, &str)]) {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let new = properties.iter().fold(new, |new, (name, value)| new.set(name, value));
    let made = block_on(admin(brokers).create_topics(&[new], &AdminOptions::new())).unwrap();
    assert_eq!(made, [Ok(topic.to_owned())]);
}
