//! `foreshock state`: which snapshots there are, what is in them, and whether they can be used.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use foreshock_operators::time::{SECOND, Time, write_rfc3339};
use serde_json::{Value, json};

use super::table::{Table, age};
use crate::config::{Config, Mode, environment};
use crate::hex::hex;
use crate::logs;
use crate::misuse::Misuse;
use crate::state::{Entry, InstrumentState, ReadError, Snapshot, Store};
use crate::status::wall_time;
use crate::summary::print;

/// Look at the snapshots of a job's state: which there are, what is in them, and whether they can be used.
///
/// The job may run or not. state.store and job.name in the configuration say where they are.
#[derive(Args, Debug)]
pub struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Subcommand, Debug)]
enum StateCommand {
    /// List all snapshots, of each partition the newest first; reads each to its end.
    List(ListArgs),
    /// Show what one snapshot holds.
    Inspect(InspectArgs),
    /// Read all snapshots, one line each; fails when one of them can't be used.
    Verify(ListArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,

    /// Print JSON: one object for all.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// Which snapshot: the newest of the partition, or that of an offset.
    #[arg(value_name = "TOPIC/PARTITION[@OFFSET]", value_parser = parse_wanted)]
    snapshot: Wanted,

    #[command(flatten)]
    rest: ListArgs,
}

/// A snapshot that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    topic: String,
    partition: i32,
    /// `None`: the newest.
    offset: Option<i64>,
}

fn parse_wanted(text: &str) -> Result<Wanted, String> {
    let read = || {
        let (shard, offset) = match text.rsplit_once('@') {
            Some((shard, offset)) => (shard, Some(offset.parse().ok()?)),
            None => (text, None),
        };
        let (topic, partition) = shard.rsplit_once('/')?;
        Some(Wanted { topic: topic.to_owned(), partition: partition.parse().ok()?, offset })
    };
    read().ok_or_else(|| "expected a partition and maybe an offset, like ticks.raw/0@1200".to_owned())
}

/// Runs the command.
pub fn state(args: StateArgs) -> Result<()> {
    match args.command {
        StateCommand::List(args) => list(&args),
        StateCommand::Inspect(args) => inspect(&args.snapshot, &args.rest),
        StateCommand::Verify(args) => verify(&args),
    }
}

/// The store that configuration names.
fn open(args: &ListArgs) -> Result<Store> {
    let config = Config::load(&args.configs, environment(), Mode::Run)?;
    logs::start(&config.log);
    Store::open(&config.state.store, &config.job)
        .map_err(|error| Misuse(format!("{error}; see state.store in the configuration")).into())
}

fn list(args: &ListArgs) -> Result<()> {
    let store = open(args)?;
    let now = wall_time();
    let mut table = Table::new(["shard", "offset", "age", "bytes", "instruments", "state"]).ending_in_words();
    let mut listed = Vec::new();
    for entry in store.list_all()? {
        // One at a time: each may be large.
        let read = store.load(&entry);
        let seconds = seconds(now, read.as_ref().map_or(entry.stored_at, |snapshot| snapshot.header.made_at));
        let instruments = read.as_ref().ok().map(|snapshot| snapshot.instruments.len());
        table.row([
            entry.shard(),
            entry.offset.to_string(),
            age(seconds),
            entry.bytes.to_string(),
            instruments.map_or("-".to_owned(), |count| count.to_string()),
            read.as_ref().map_or_else(problem_of, |_| "good".to_owned()),
        ]);
        let mut object = named(&store, &entry);
        object["age_seconds"] = seconds.into();
        object["instruments"] = instruments.into();
        add_state(&mut object, &read);
        listed.push(object);
    }
    if args.json {
        return print_json(&json!({ "store": store.location(), "snapshots": listed }));
    }
    print(table.to_string().as_bytes())
}

fn verify(args: &ListArgs) -> Result<()> {
    let store = open(args)?;
    let (mut all, mut bad) = (0, 0);
    let mut checked = Vec::new();
    for entry in store.list_all()? {
        let read = store.load(&entry);
        all += 1;
        bad += u64::from(read.is_err());
        if args.json {
            let mut object = named(&store, &entry);
            add_state(&mut object, &read);
            checked.push(object);
        } else {
            let state = read.as_ref().map_or_else(problem_of, |_| "good".to_owned());
            print(format!("{}: {state}\n", entry.name()).as_bytes())?;
        }
    }
    if args.json {
        print_json(&json!({ "store": store.location(), "snapshots": checked }))?;
    }
    if bad > 0 {
        bail!("{bad} of {all} snapshots can't be used");
    }
    Ok(())
}

fn inspect(wanted: &Wanted, args: &ListArgs) -> Result<()> {
    let store = open(args)?;
    let Wanted { topic, partition, offset } = wanted;
    let mut entries = store.list(topic, *partition)?.into_iter();
    let found = entries.find(|entry| offset.is_none_or(|offset| entry.offset == offset));
    let Some(entry) = found else {
        let which = offset.map_or(String::new(), |offset| format!(" at offset {offset}"));
        bail!("there is no snapshot of {topic}/{partition}{which} at {:?}", store.location());
    };
    let snapshot = store.load(&entry).with_context(|| format!("can't use {}", store.path(&entry)))?;
    if args.json {
        print_json(&described(&store, &entry, &snapshot))
    } else {
        describe(&store, &entry, snapshot)
    }
}

fn describe(store: &Store, entry: &Entry, snapshot: Snapshot) -> Result<()> {
    let header = &snapshot.header;
    let last = header
        .last_record
        .map_or("none".to_owned(), |last| format!("offset {}, sha256 {}", last.offset, hex(&last.sha256)));
    let cold = if header.origin_is_cold { "with empty state" } else { "with a state that was there" };
    let mut text = String::new();
    for (name, value) in [
        ("snapshot", entry.name()),
        ("path", store.path(entry)),
        ("bytes", entry.bytes.to_string()),
        ("job", header.job.clone()),
        ("life", header.incarnation.clone()),
        ("next offset", header.offset.to_string()),
        ("origin", format!("{}, begun {cold}", header.origin)),
        ("last record", last),
        ("settings", header.settings.clone()),
        ("made by", format!("foreshock {}", header.made_by)),
        ("made at", time(header.made_at)),
    ] {
        writeln!(text, "{name:13}{value}")?;
    }
    let mut sections = Table::new(["section", "bytes"]);
    for (name, bytes) in &snapshot.sections {
        sections.row([name.clone(), bytes.len().to_string()]);
    }
    let mut instruments = Table::new(["instrument", "bytes", "sections"]).ending_in_words();
    for state in largest_first(snapshot.instruments) {
        let names: Vec<String> =
            state.sections.iter().map(|(name, bytes)| format!("{name} {}", bytes.len())).collect();
        instruments.row([name(&state), state.bytes().to_string(), names.join(", ")]);
    }
    write!(text, "\n{sections}\n{instruments}")?;
    print(text.as_bytes())
}

fn described(store: &Store, entry: &Entry, snapshot: &Snapshot) -> Value {
    let sizes = |sections: &std::collections::BTreeMap<String, Vec<u8>>| -> Value {
        sections.iter().map(|(name, bytes)| (name.clone(), Value::from(bytes.len()))).collect()
    };
    let instruments: Vec<Value> = largest_first(snapshot.instruments.clone())
        .iter()
        .map(|state| {
            json!({
                "exchange": state.exchange,
                "symbol": state.symbol,
                "bytes": state.bytes(),
                "sections": sizes(&state.sections),
            })
        })
        .collect();
    let mut object = named(store, entry);
    let header = &snapshot.header;
    object["header"] = json!(header);
    object["header"]["made_at"] = time(header.made_at).into();
    object["sections"] = sizes(&snapshot.sections);
    object["instruments"] = instruments.into();
    object
}

fn largest_first(mut instruments: Vec<InstrumentState>) -> Vec<InstrumentState> {
    // Stable: those of one size stay in the order of their names.
    instruments.sort_by_key(|state| std::cmp::Reverse(state.bytes()));
    instruments
}

fn name(state: &InstrumentState) -> String {
    format!("{}:{}", state.exchange, state.symbol)
}

fn named(store: &Store, entry: &Entry) -> Value {
    json!({
        "topic": entry.topic,
        "partition": entry.partition,
        "offset": entry.offset,
        "bytes": entry.bytes,
        "path": store.path(entry),
    })
}

fn add_state(object: &mut Value, read: &Result<Snapshot, ReadError>) {
    object["state"] = read.as_ref().map_or_else(ReadError::kind, |_| "good").into();
    object["problem"] = read.as_ref().err().map(problem_of).into();
}

/// An error with its causes.
fn problem_of(error: &ReadError) -> String {
    match error {
        ReadError::Io(cause) => format!("{error}: {cause}"),
        other => other.to_string(),
    }
}

fn time(time: Time) -> String {
    let mut text = Vec::new();
    write_rfc3339(time, 3, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// From a moment to now, to a millisecond.
pub(super) fn seconds(now: Time, then: Time) -> f64 {
    (now.since(then) as f64 / SECOND as f64 * 1e3).round() / 1e3
}

pub(super) fn print_json(value: &Value) -> Result<()> {
    print(format!("{value}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_snapshot() {
        let wanted =
            |topic: &str, partition, offset| Ok(Wanted { topic: topic.to_owned(), partition, offset });
        assert_eq!(parse_wanted("ticks.raw/0"), wanted("ticks.raw", 0, None));
        assert_eq!(parse_wanted("ticks.raw/12@34"), wanted("ticks.raw", 12, Some(34)));
        for text in ["ticks.raw", "ticks.raw/x", "ticks.raw/0@", "ticks.raw/0@x", "@5", ""] {
            assert!(parse_wanted(text).is_err(), "{text}");
        }
    }
}
