//! Real messages: every line of recorded sessions, and single messages of all kinds.

use std::collections::BTreeMap;

use foreshock_operators::venues::binance::BINANCE;
use foreshock_operators::venues::coinbase::{COINBASE_ADVANCED_TRADE, COINBASE_EXCHANGE};
use foreshock_operators::venues::{Format, Line, Receipt, detect, exchange_of_url, split_line};
use serde_json::Value;

use crate::decode::run::{Run, slice};

/// What the collection's own words say of a message's fate.
fn expected_of(exchange: &str, channel: &str, kind: &str, raw: &Value) -> String {
    let rows = |name: &str, count: usize| vec![name; count].join(" ");
    // The documentation's examples have stamps like 123456785, which is 1970.
    let old = |raw: &Value, fate: &str| {
        let event = raw.get("data").unwrap_or(raw);
        if event["T"].as_u64().is_some_and(|time| time < 946_684_800_000) { "time_range" } else { fate }
            .to_owned()
    };
    match (exchange, kind, channel) {
        (_, "request" | "ack", _) => "control".to_owned(),
        ("binance", _, channel) => match channel.rsplit('@').next().unwrap() {
            "bookTicker" | "!bookTicker" => old(raw, "quote"),
            "trade" | "aggTrade" => old(raw, "trade"),
            _ => "ignored".to_owned(),
        },
        // Its kind says heartbeat, but it is the request for them.
        (_, "heartbeat", "heartbeats") if raw["type"] == "subscribe" => "control".to_owned(),
        (_, _, "ticker") => "quote".to_owned(),
        (_, _, "match") => "trade".to_owned(),
        (_, _, "market_trades") => {
            rows("trade", raw.pointer("/events/0/trades").and_then(Value::as_array).unwrap().len())
        }
        // A book from REST.
        (_, _, "") => "refused wrong_type".to_owned(),
        _ => "ignored".to_owned(),
    }
}

#[test]
fn single_messages_of_all_kinds() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for line in slice("protocol-messages.ndjson").lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| entry[name].as_str().unwrap();
        let raw = text("raw");
        let parsed = serde_json::from_str(raw);
        let expected = match &parsed {
            Ok(parsed) => expected_of(text("exchange"), text("channel"), text("kind"), parsed),
            Err(_) => "refused broken_json".to_owned(),
        };
        let format = match text("exchange") {
            "binance" => BINANCE,
            _ if raw.contains("\"channel\"") => COINBASE_ADVANCED_TRADE,
            _ => COINBASE_EXCHANGE,
        };
        // Spot quotes have no time of their own: they need one of receipt.
        let fate = Run::new(format).received("2026-08-01T00:00:00Z").fate(raw.as_bytes());
        assert_eq!(fate, expected, "message {}: {raw}", entry["id"]);
        // What has rows is known by its shape, and never taken for another.
        let detected = detect(raw.as_bytes());
        assert!(detected.is_none() || detected == Some(format), "message {}: {detected:?}", entry["id"]);
        assert!(detected.is_some() || !["quote", "trade"].contains(&&fate[..]), "message {}", entry["id"]);
        *seen.entry(fate).or_default() += 1;
    }
    let seen: Vec<_> = seen.iter().map(|(fate, count)| (&fate[..], *count)).collect();
    assert_eq!(seen, SINGLE_MESSAGES);
}

/// So that no kind is lost when the slice is cut anew.
const SINGLE_MESSAGES: [(&str, u32); 8] = [
    ("control", 33),
    ("ignored", 98),
    ("quote", 21),
    ("refused broken_json", 6),
    ("refused wrong_type", 1),
    ("time_range", 1),
    ("trade", 18),
    ("trade trade", 1),
];

/// Splits every line of a recorded session and decodes it: fates by the kind that the line shows.
#[track_caller]
fn check_session(
    name: &str,
    format: Format,
    exchange: &'static str,
    kinds: &[(&str, &str, u32)],
    others: [u32; 2],
) {
    let mut run = Run::new(format).of(exchange, true);
    let mut seen = vec![0; kinds.len()];
    let mut blank_and_control = [0, 0];
    for line in slice(name).split_terminator('\n') {
        match split_line(line.as_bytes()) {
            Line::Blank => blank_and_control[0] += 1,
            Line::Control => blank_and_control[1] += 1,
            Line::BadReceipt { .. } => panic!("{line} begins with no receipt"),
            Line::Message { body, received } => {
                run.envelope.received = received.map(Receipt::Stated);
                let message = &line[body];
                assert!(
                    message.starts_with('{') && received.is_some() == (name != "coinbase-matches.ndjson")
                );
                let kind = kinds.iter().position(|(mark, _, _)| message.contains(mark));
                let kind = kind.unwrap_or_else(|| panic!("{message} is of no listed kind"));
                assert_eq!(run.fate(message.as_bytes()), kinds[kind].1, "{message}");
                seen[kind] += 1;
            }
        }
    }
    assert_eq!(seen, kinds.iter().map(|(_, _, count)| *count).collect::<Vec<_>>(), "{name}");
    assert_eq!(blank_and_control, others, "{name}");
}

#[test]
fn recorded_sessions() {
    let kinds: &[_] = &[
        ("\"subscriptions\"", "control", 3),
        ("\"snapshot\"", "ignored", 1),
        ("\"ticker\"", "quote", 16),
        ("\"last_match\"", "ignored", 3),
        ("\"match\"", "trade", 12),
        ("\"l2update\"", "ignored", 10),
    ];
    check_session("coinbase-session.txt", COINBASE_EXCHANGE, "coinbase", kinds, [2, 4]);
    let kinds: &[_] = &[
        ("\"subscriptions\"", "control", 1),
        ("\"last_match\"", "ignored", 2),
        ("\"match\"", "trade", 6),
        ("\"l2update\"", "ignored", 6),
        ("\"heartbeat\"", "heartbeat", 6),
    ];
    check_session("coinbase-matches.ndjson", COINBASE_EXCHANGE, "coinbase", kinds, [0, 0]);
    let kinds = |depth, quotes, trades, bars| {
        [
            ("@depth", "ignored", depth),
            ("@bookTicker", "quote", quotes),
            ("rade\"", "trade", trades),
            ("@kline", "ignored", bars),
        ]
    };
    check_session("binance-session.txt", BINANCE, "binance", &kinds(14, 20, 2, 2), [1, 1]);
    check_session("binance-futures-session.txt", BINANCE, "binance-usdm", &kinds(14, 20, 12, 4), [0, 1]);
    check_session("binance-delivery-session.txt", BINANCE, "binance-coinm", &kinds(14, 20, 12, 4), [0, 1]);
    check_session("binance-recorded-spot.txt", BINANCE, "binance", &kinds(5, 5, 5, 0), [0, 0]);
    check_session("binance-recorded-usdm.txt", BINANCE, "binance-usdm", &kinds(5, 5, 5, 0), [0, 0]);
}

#[test]
fn the_market_of_a_session_stands_in_its_first_line() {
    for (name, expected) in [
        ("binance-session.txt", Some("binance")),
        ("binance-futures-session.txt", Some("binance-usdm")),
        ("binance-delivery-session.txt", Some("binance-coinm")),
        ("coinbase-session.txt", None),
    ] {
        assert_eq!(exchange_of_url(slice(name).lines().next().unwrap().as_bytes()), expected, "{name}");
    }
}
