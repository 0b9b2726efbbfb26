//! A topic tells what a backtest of the file tells that was replayed into it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::kafka::job::{Job, account, source};
use crate::support::feed::{Recipe, file};
use crate::support::kafka::{Record, brokers, records};
use crate::support::{Backtest, Files, Ran, data};

/// Lines by instrument and kind, as [`Ran::by_instrument`] gives them.
pub type Lines = BTreeMap<(String, String), Vec<String>>;

#[test]
fn a_recording_gives_what_its_backtest_gives() {
    let Some(brokers) = brokers("a_recording_gives_what_its_backtest_gives") else { return };
    let files = [data("btcusdt-usdm.log.zst"), data("btcusdt-spot.log.zst")];
    check(&brokers, "recording", &files);
}

#[test]
fn a_dirty_feed_of_many_instruments_gives_what_its_backtest_gives() {
    let Some(brokers) = brokers("a_dirty_feed_of_many_instruments_gives_what_its_backtest_gives") else {
        return;
    };
    let files = Files::new();
    let feed = files.add("feed.ndjson", file(&Recipe::lively(11, 7).messages(12_000)));
    check(&brokers, "dirty", &[feed]);
}

fn check(brokers: &str, test: &str, files: &[PathBuf]) {
    let backtest = Backtest::of(files).run();
    let expected = lines(&backtest);
    for partitions in [1, 3, 6] {
        let fed = Job::new(brokers, test);
        fed.feed(files, partitions);
        let raw = records(brokers, &fed.raw);
        assert_eq!(raw.len(), partitions);
        for workers in ["1", "2"] {
            let what = format!("{partitions} partitions, {workers} workers");
            let job = fed.another(test);
            let summary = job.run_through(&["-w", workers]);
            assert_eq!(account(&summary), backtest.account(), "{what}");
            let outputs = job.all_outputs();
            assert_same_lines(&expected, &by_instrument(&outputs), &what);
            for (kind, outputs) in outputs {
                assert_eq!(outputs.len(), partitions, "{kind}");
                for (partition, records) in outputs.iter().enumerate() {
                    assert_belongs(&job, kind, partition, records, &raw[partition]);
                }
            }
        }
    }
}

/// What a backtest has for topics.
pub fn lines(ran: &Ran) -> Lines {
    ran.by_instrument().into_iter().filter(|((_, kind), _)| kind != "scored").collect()
}

/// The values of outputs in the order of their partitions, as a backtest's lines.
pub fn by_instrument(outputs: &BTreeMap<&str, Vec<Vec<Record>>>) -> Lines {
    let mut lines = Lines::new();
    for (kind, partitions) in outputs {
        for record in partitions.iter().flatten() {
            let mut value: Value = serde_json::from_slice(&record.value).unwrap();
            let (instrument, text) = if *kind == "deadletter" {
                assert_eq!(
                    value["source"], record.headers["source"],
                    "a dead letter and its header tell the same"
                );
                value.as_object_mut().unwrap().remove("source");
                let original: Value = serde_json::from_str(value["original"].as_str().unwrap()).unwrap();
                (original["product_id"].as_str().unwrap().to_owned(), value.to_string())
            } else {
                (value["instrument"].as_str().unwrap().to_owned(), record.text().to_owned())
            };
            lines.entry((instrument, (*kind).to_owned())).or_default().push(text);
        }
    }
    lines
}

#[track_caller]
pub fn assert_same_lines(expected: &Lines, found: &Lines, what: &str) {
    let keys = |lines: &Lines| lines.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(expected), keys(found), "{what}");
    for (key, expected) in expected {
        let found = &found[key];
        let same = expected.iter().zip(found).take_while(|(one, other)| one == other).count();
        assert!(
            same == expected.len() && same == found.len(),
            "{what}: {key:?}: line {} of {} and of {}: {:?} and {:?}",
            same + 1,
            expected.len(),
            found.len(),
            expected.get(same),
            found.get(same),
        );
    }
}

/// Keys are right, and each output's source is a raw message of its own partition and instrument, in the log's order.
#[track_caller]
fn assert_belongs(job: &Job, kind: &str, partition: usize, outputs: &[Record], raw: &[Record]) {
    let mut last = BTreeMap::new();
    for output in outputs {
        let (offset, index) = source(job, partition, output);
        assert_eq!(index, 0, "each of these messages has one row");
        let message = &raw[offset as usize];
        assert_eq!(message.offset, offset as i64);
        let value: Value = serde_json::from_slice(&output.value).unwrap();
        let named = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let key = match kind {
            "alerts" => named("id"),
            "deadletter" => message.key.clone().unwrap(),
            _ => format!("{}:{}", named("exchange"), named("instrument")),
        };
        assert_eq!(output.key, Some(key), "{kind} of {offset}");
        if kind == "deadletter" {
            assert_eq!(value["original"], message.text());
        } else {
            assert_eq!(message.headers["exchange"], named("exchange"));
            let symbol = message.key.as_deref().unwrap().split_once(':').unwrap().1;
            // BTCUSDT is BTC-USDT or BTC-USDT-PERP; the made-up ones are not listed.
            let name = named("instrument");
            let plain = name.trim_end_matches("-PERP").replace('-', "");
            assert!(symbol == name || symbol == plain, "{kind} of {offset}: {symbol} and {name}");
        }
        let before = last.insert(output.key.clone(), offset);
        let in_order = before.is_none_or(|before| before <= offset);
        assert!(in_order, "{kind} of {offset} behind that of {before:?}");
    }
}
