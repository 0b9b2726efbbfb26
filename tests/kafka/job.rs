//! A job with topics and a consumer group that nobody had before.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::Command;

use foreshock_operators::outputs::OutputKind;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::support::kafka::{Record, records, records_of, unique};
use crate::support::process::PATIENCE;
use crate::support::{Ended, finish, foreshock, http};

/// The names of the kinds of output that have topics and tell of the input; answers to control records are apart.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    OutputKind::of_topics().filter(|kind| *kind != OutputKind::Control).map(OutputKind::name)
}

/// The names of a job, and how to call the program for it.
#[derive(Clone)]
pub struct Job {
    pub brokers: String,
    /// The job's name, with which its output topics begin too.
    pub name: String,
    /// The input topic.
    pub raw: String,
    /// Configuration from the environment.
    pub settings: Vec<(String, String)>,
}

impl Job {
    pub fn new(brokers: &str, test: &str) -> Job {
        let name = unique(test);
        let raw = format!("{name}.raw");
        Job { brokers: brokers.to_owned(), name, raw, settings: Vec::new() }
            .with("HTTP__LISTEN", "off")
            .with("INSTRUMENTS__UNKNOWN", "accept")
            // Nothing here is asked how soon it is done, and brokers of slow machines take their time.
            .with("KAFKA__TRANSACTION_TIMEOUT", "60s")
            .with("KAFKA__STOP_TIMEOUT", "120s")
            .with("STATE__STORE", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"))
    }

    /// Another job, with outputs of its own, on the same input.
    pub fn another(&self, test: &str) -> Job {
        Job { name: unique(test), ..self.clone() }
    }

    /// With a key of the configuration, as its variable is called behind `FORESHOCK_`.
    pub fn with(mut self, key: &str, value: &str) -> Job {
        self.settings.push((format!("FORESHOCK_{key}"), value.to_owned()));
        self
    }

    /// With an HTTP server on a free port.
    pub fn with_http(self) -> Job {
        self.with("HTTP__LISTEN", "127.0.0.1:0")
    }

    /// The topic of a kind of output.
    pub fn topic(&self, kind: &str) -> String {
        format!("{}.{kind}", self.name)
    }

    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        self.live("run", args)
    }

    /// The job as several processes.
    pub fn launch<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        self.live("launch", args)
    }

    fn live<A: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(name, args);
        command.env("FORESHOCK_JOB__NAME", &self.name).env("FORESHOCK_TOPICS__INPUT", &self.raw);
        for kind in kinds() {
            command.env(format!("FORESHOCK_TOPICS__{}", kind.to_uppercase()), self.topic(kind));
        }
        // Made with as many partitions as the input has, so it can't be one for all jobs.
        command.env("FORESHOCK_TOPICS__CONTROL", self.topic("control"));
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn replay<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command("replay", args);
        command.args(["--topic", &self.raw]);
        command
    }

    fn command<A: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = foreshock();
        command.args([name, "--json", "--brokers", &self.brokers]).args(args);
        command
    }

    /// Feeds files as fast as possible.
    #[track_caller]
    pub fn feed<A: AsRef<OsStr>>(&self, files: impl IntoIterator<Item = A>, partitions: usize) {
        let mut command = self.replay(files);
        command.args(["--speed", "max", "--partitions", &partitions.to_string()]);
        summary(&finish(command, None));
    }

    /// Reads the input from its beginning to its end; gives the account.
    #[track_caller]
    pub fn run_through(&self, args: &[&str]) -> Value {
        let all = ["--from-beginning", "--until-end"];
        summary(&finish(self.run(all.iter().chain(args)), None))
    }

    /// All outputs of a kind, by partition.
    #[track_caller]
    pub fn outputs(&self, kind: &str) -> Vec<Vec<Record>> {
        records(&self.brokers, &self.topic(kind))
    }

    /// All outputs of every kind, by partition.
    #[track_caller]
    pub fn all_outputs(&self) -> BTreeMap<&'static str, Vec<Vec<Record>>> {
        let topics: Vec<String> = kinds().map(|kind| self.topic(kind)).collect();
        let found = records_of(&self.brokers, &topics.iter().map(String::as_str).collect::<Vec<_>>());
        kinds().zip(found).collect()
    }

    pub fn producer(&self) -> BaseProducer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .create()
            .unwrap()
    }
}

/// What a command printed at its good end.
#[track_caller]
pub fn summary(ended: &Ended) -> Value {
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// The counts of an account that don't differ from run to run.
pub fn account(summary: &Value) -> Value {
    let mut account = summary.clone();
    account.as_object_mut().unwrap().remove("account");
    for name in ["rows_per_worker", "seconds", "ticks_per_second", "peak_rss_bytes"] {
        assert!(account.as_object_mut().unwrap().remove(name).is_some(), "no {name} in {summary}");
    }
    account
}

/// A message for the input.
#[derive(Clone, Debug, Default)]
pub struct Message<'a> {
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(&'a str, &'a [u8])>,
}

/// Sends messages and waits until they have arrived.
#[track_caller]
pub fn send<'a>(job: &Job, messages: impl IntoIterator<Item = Message<'a>>) {
    let producer = job.producer();
    for message in messages {
        let mut headers = OwnedHeaders::new();
        for (key, value) in message.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record = BaseRecord::to(&job.raw).partition(message.partition).headers(headers);
        record.key = message.key;
        record.payload = message.value;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// A numbered quote of an instrument of its own for each partition: each makes a tick.
pub fn quote(partition: i32, number: u64) -> String {
    let (seconds, millis) = (number / 1_000, number % 1_000);
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    assert!(minutes < 60, "the hour is over");
    format!(
        r#"{{"type":"quote","exchange":"x","instrument":"P{partition}","event_time":"2026-03-02T15:{minutes:02}:{seconds:02}.{millis:03}Z","sequence":{number},"bid":100,"ask":101}}"#
    )
}

/// Sends these quotes to one partition and waits until they have arrived.
#[track_caller]
pub fn send_quotes(job: &Job, partition: i32, numbers: std::ops::Range<u64>) {
    let quotes: Vec<String> = numbers.map(|number| quote(partition, number)).collect();
    let key = format!("x:P{partition}");
    let message = |quote| Message {
        partition,
        key: Some(key.as_bytes()),
        value: Some(str::as_bytes(quote)),
        headers: Vec::new(),
    };
    send(job, quotes.iter().map(|quote| message(quote)));
}

/// What `/stats` says, once there is a job.
#[track_caller]
pub fn stats(address: SocketAddr) -> Value {
    http::get(address, "/stats").1
}

/// The sum over partitions of one field of `/stats`.
pub fn over_shards(stats: &Value, field: &str) -> i64 {
    stats["shards"].as_array().unwrap().iter().map(|shard| shard[field].as_i64().unwrap()).sum()
}

/// Offset and index that a record's header names; topic and partition must be those of its input.
#[track_caller]
pub fn source(job: &Job, partition: usize, record: &Record) -> (u64, u32) {
    let source = &record.headers["source"];
    let shard = format!("{}/{partition}/", job.raw);
    let place = source.strip_prefix(&shard).unwrap_or_else(|| panic!("{source} in partition {partition}"));
    let (offset, index) = place.split_once('/').unwrap();
    (offset.parse().unwrap(), index.parse().unwrap())
}

/// How often each raw message is the source of an output of this kind, by partition.
#[track_caller]
pub fn sources(job: &Job, kind: &str) -> Vec<BTreeMap<u64, usize>> {
    let outputs = job.outputs(kind);
    let count = |(partition, records): (usize, &Vec<Record>)| {
        let mut counts = BTreeMap::new();
        for record in records {
            *counts.entry(source(job, partition, record).0).or_default() += 1;
        }
        counts
    };
    outputs.iter().enumerate().map(count).collect()
}

/// Asserts that each partition's messages, so many, are each the source of one output.
#[track_caller]
pub fn assert_each_once(counts: &[BTreeMap<u64, usize>], lengths: &[u64]) {
    for (partition, (counts, length)) in counts.iter().zip(lengths).enumerate() {
        let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).take(3).collect();
        assert!(repeated.is_empty(), "partition {partition}: repeated {repeated:?}");
        let missing: Vec<_> = (0..*length).filter(|offset| !counts.contains_key(offset)).take(3).collect();
        assert!(missing.is_empty(), "partition {partition} of {length}: missing {missing:?}");
        assert_eq!(counts.len() as u64, *length, "partition {partition}");
    }
}
