//! `foreshock lag`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use foreshock_operators::time::{MILLISECOND, Time};
use serde_json::{Value, json};
use tracing::warn;

use super::parse_brokers;
use super::state::{print_json, seconds};
use super::table::{Table, age};
use crate::config::{Config, Mode, environment};
use crate::kafka::admin::lag::{ShardLag, lag};
use crate::live::start::incarnation::Incarnation;
use crate::logs;
use crate::state::{Entry, Store};
use crate::status::wall_time;
use crate::summary::print;

/// Show how far a job is behind its input, whether it runs or not.
///
/// Told from the ends of the input topics and the offsets that the job has committed.
#[derive(Args, Debug)]
pub struct LagArgs {
    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,

    /// Brokers to ask first, `host:port` with commas between them; by default kafka.brokers.
    #[arg(long, value_name = "ADDRESSES", value_parser = parse_brokers)]
    brokers: Option<String>,

    /// Print JSON: one object for all.
    #[arg(long)]
    json: bool,
}

/// A partition with all that is known of it.
struct Shard {
    lag: ShardLag,
    /// How long the first record that waits has waited; 0 where none does.
    seconds: Option<f64>,
    snapshot: Option<Entry>,
}

/// Runs the command.
pub fn run(args: LagArgs) -> Result<()> {
    let brokers = args.brokers.map(|brokers| ("FORESHOCK_KAFKA__BROKERS".to_owned(), brokers));
    let config = Config::load(&args.configs, environment().chain(brokers), Mode::Run)?;
    logs::start(&config.log);
    let found = lag(&config.kafka, &config.job, &config.topics.input)?;
    if found.iter().all(|shard| shard.committed.is_none()) {
        bail!(
            "the job {:?} has committed no offsets for {}: it has not run yet, or has another job.name",
            config.job,
            config.topics.input.join(", ")
        );
    }
    let mut snapshots = newest(&config);
    let now = wall_time();
    let with_rest = |lag: ShardLag| {
        let since = lag.waits_since.map(|stamp| Time(stamp.saturating_mul(MILLISECOND)));
        let waited = since.map(|since| seconds(now, since).max(0.0));
        let seconds = if lag.lag == Some(0) { Some(0.0) } else { waited };
        let snapshot = snapshots.remove(&(lag.topic.clone(), lag.partition));
        Shard { lag, seconds, snapshot }
    };
    let shards: Vec<Shard> = found.into_iter().map(with_rest).collect();
    if args.json { print_json(&object(&config, &shards, now)) } else { print(table(&shards, now).as_bytes()) }
}

/// The newest snapshot of each shard; none where the store can't be read.
fn newest(config: &Config) -> BTreeMap<(String, i32), Entry> {
    let listed = Store::open(&config.state.store, &config.job).and_then(|store| store.list_all());
    let entries = listed.unwrap_or_else(|error| {
        warn!(error = format!("{:#}", anyhow::Error::from(error)), "snapshots are not shown");
        Vec::new()
    });
    // The newest comes last, and stays.
    entries.into_iter().rev().map(|entry| ((entry.topic.clone(), entry.partition), entry)).collect()
}

fn total(shards: &[Shard]) -> i64 {
    shards.iter().filter_map(|shard| shard.lag.lag).sum()
}

fn longest(shards: &[Shard]) -> Option<f64> {
    shards.iter().filter_map(|shard| shard.seconds).reduce(f64::max)
}

fn table(shards: &[Shard], now: Time) -> String {
    let head = ["shard", "committed", "end", "lag", "seconds", "snapshot", "age", "remarks"];
    let mut table = Table::new(head).ending_in_words();
    let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    let waited = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1}"));
    for Shard { lag, seconds: waits, snapshot } in shards {
        let committed = lag.committed.as_ref();
        let note = committed.map(|committed| note(&committed.metadata)).filter(|text| !text.is_empty());
        let remarks: Vec<String> = lag.problem.clone().into_iter().chain(note).collect();
        table.row([
            lag.name(),
            number(committed.map(|committed| committed.offset)),
            lag.bounds.high.to_string(),
            number(lag.lag),
            waited(*waits),
            number(snapshot.as_ref().map(|entry| entry.offset)),
            snapshot.as_ref().map_or("-".to_owned(), |entry| age(seconds(now, entry.stored_at))),
            remarks.join("; "),
        ]);
    }
    let none = String::new;
    let sum = total(shards).to_string();
    table.row(["total".to_owned(), none(), none(), sum, waited(longest(shards)), none(), none(), none()]);
    table.to_string()
}

/// What the text beside a committed offset says.
fn note(metadata: &str) -> String {
    match Incarnation::parse(metadata) {
        Some(Incarnation { origin, from: None, .. }) => format!("begun at {origin}"),
        Some(Incarnation { origin, .. }) => format!("begun at {origin} with a state that was there"),
        // Somebody else's words.
        None => metadata.to_owned(),
    }
}

fn object(config: &Config, shards: &[Shard], now: Time) -> Value {
    let shard = |Shard { lag, seconds: waited, snapshot }: &Shard| {
        json!({
            "topic": lag.topic,
            "partition": lag.partition,
            "committed": lag.committed.as_ref().map(|committed| committed.offset),
            "metadata": lag.committed.as_ref().map(|committed| &committed.metadata),
            "begin": lag.bounds.low,
            "end": lag.bounds.high,
            "lag": lag.lag,
            "lag_seconds": waited,
            "snapshot": snapshot.as_ref().map(|entry| json!({
                "offset": entry.offset,
                "age_seconds": seconds(now, entry.stored_at),
                "bytes": entry.bytes,
            })),
            "problem": lag.problem,
        })
    };
    json!({
        "job": config.job,
        "brokers": config.kafka.brokers,
        "lag": total(shards),
        "lag_seconds": longest(shards),
        "shards": shards.iter().map(shard).collect::<Vec<Value>>(),
    })
}
