//! The made-up market raises an alert soon after it opens, and resolves it, under the bundled rules.

use std::collections::BTreeMap;

use foreshock::demo::market::{MadeUpMarket, MarketSettings};
use foreshock_operators::time::{SECOND, Time, parse_rfc3339};
use serde_json::Value;

use crate::support::{Backtest, Ran};

/// 2026-01-02T03:04:05Z, and as many nanoseconds.
const START: Time = Time(1_767_323_045_000_000_007);

fn market(seed: u64) -> MadeUpMarket {
    MadeUpMarket::new(MarketSettings { seed, start: START, ..MarketSettings::default() })
}

/// Runs the first so many seconds of the market of a seed.
fn run(seed: u64, seconds: i64) -> Ran {
    let end = START.plus(seconds * SECOND);
    let mut lines = Vec::new();
    for message in market(seed).take_while(|message| message.time < end) {
        lines.extend_from_slice(&message.bytes);
        lines.push(b'\n');
    }
    Backtest::of_stdin(lines).run()
}

/// Seconds from the market's opening to a time in an output.
fn since_start(time: &Value) -> f64 {
    let (time, _) = parse_rfc3339(time.as_str().unwrap()).unwrap();
    time.since(START) as f64 / 1e9
}

/// When each instrument's alerts of the rule `volatility` came to a state, by the instrument.
fn alerts(ran: &Ran, state: &str, at: &str) -> BTreeMap<String, Vec<f64>> {
    let mut found = BTreeMap::<String, Vec<f64>>::new();
    for alert in ran.records("alerts") {
        if alert["rule"] == "volatility" && alert["state"] == state {
            let instrument = alert["instrument"].as_str().unwrap().to_owned();
            found.entry(instrument).or_default().push(since_start(&alert[at]));
        }
    }
    found
}

#[test]
fn every_seed_alerts_within_a_minute_and_loses_no_row() {
    for seed in 1..=8 {
        let ran = run(seed, 60);
        let active = alerts(&ran, "active", "triggered_at");
        assert!(active["SYN-A"].iter().any(|at| (30.0..50.0).contains(at)), "seed {seed}: {active:?}");
        for fate in ["duplicate", "late", "deadlettered"] {
            assert_eq!(ran.count(&format!("rows.{fate}")), 0, "seed {seed}: {fate}");
        }
        assert!(ran.lines("gaps").is_empty(), "seed {seed}");
        assert_eq!(ran.count("messages.rows"), ran.count("messages_in"), "seed {seed}");
    }
}

#[test]
fn bursts_take_turns_and_their_alerts_are_resolved() {
    let ran = run(1, 260);
    let active = alerts(&ran, "active", "triggered_at");
    let resolved = alerts(&ran, "resolved", "resolved_at");
    assert_eq!(active.len(), 5, "{active:?}");
    let mut firsts: Vec<f64> = active.values().map(|times| times[0]).collect();
    assert!(firsts.is_sorted(), "{active:?}");
    firsts.dedup();
    assert!(firsts.windows(2).all(|pair| (12.0..40.0).contains(&(pair[1] - pair[0]))), "{firsts:?}");
    let first = active["SYN-A"][0];
    assert!(resolved["SYN-A"].iter().any(|at| *at > first + 60.0), "{resolved:?}");
    assert!(resolved.len() >= 3, "{resolved:?}");
}

#[test]
fn the_same_seed_makes_the_same_market() {
    let first = |seed| market(seed).take(5_000).collect::<Vec<_>>();
    assert!(first(7) == first(7));
    assert!(first(7) != first(8));
}

#[test]
fn messages_come_in_order_at_the_rate_asked_for() {
    let end = START.plus(30 * SECOND);
    let messages: Vec<_> = market(3).take_while(|message| message.time < end).collect();
    assert!(messages.is_sorted_by_key(|message| message.time));
    let mut counts = BTreeMap::<(String, bool), usize>::new();
    for message in &messages {
        let value: Value = serde_json::from_slice(&message.bytes).unwrap();
        assert_eq!(message.key, format!("demo:{}", value["instrument"].as_str().unwrap()));
        *counts.entry((message.key.clone(), value["type"] == "quote")).or_default() += 1;
    }
    assert_eq!(counts.len(), 10);
    for ((key, is_quote), count) in counts {
        let expected = if is_quote { 1_800 } else { 600 };
        assert!(count.abs_diff(expected) < expected / 10, "{key} {is_quote}: {count}");
    }
}
