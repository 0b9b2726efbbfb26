//! Formats by name and by shape, and what no venue should send.

use foreshock_operators::venues::binance::BINANCE;
use foreshock_operators::venues::coinbase::{COINBASE_ADVANCED_TRADE, COINBASE_EXCHANGE};
use foreshock_operators::venues::{Format, detect, exchange_of, exchange_of_url, split_line};
use proptest::prelude::*;
use serde_json::Value;

use crate::decode::messages::{SPOT_DEPTH, TICKER, USDM_DEPTH, WITH_ROWS};
use crate::decode::run::{Run, check};

#[test]
fn formats_are_known_by_shape() {
    for (format, message) in WITH_ROWS {
        assert_eq!(detect(message.as_bytes()), Some(format), "{message}");
    }
    for message in [SPOT_DEPTH, USDM_DEPTH, r#"{"stream":"!ticker@arr","data":[]}"#] {
        assert_eq!(detect(message.as_bytes()), Some(BINANCE), "{message}");
    }
    let telling_nothing = [
        "",
        "{}",
        "[]",
        "{",
        r#"{"type":"control"}"#,
        r#"{"type":"error","message":"x"}"#,
        r#"{"result":null,"id":1}"#,
        r#"{"arg":{"channel":"books","instId":"BTC-USDT"}}"#,
        r#"{"arg":"books","data":[]}"#,
        r#"{"event":"error","code":"60012","msg":"Invalid request"}"#,
        r#"{"channel":"x","timestamp":"t","e":"trade","E":1}"#,
        r#"{"channel":"x","timestamp":"t","arg":{},"data":[]}"#,
    ];
    for message in telling_nothing {
        assert_eq!(detect(message.as_bytes()), None, "{message}");
    }
}

#[test]
fn names_of_formats() {
    for format in Format::all() {
        assert_eq!(Format::parse(format.name()), Some(format));
    }
    assert_eq!(Format::parse("kraken"), None);
    assert_eq!(COINBASE_EXCHANGE.name(), "coinbase-exchange");
}

#[test]
fn no_message_at_all() {
    for format in Format::all() {
        for message in ["", "null", " null\n", "  "] {
            check(format, message, "refused empty");
        }
        for message in ["7", "\"x\"", "true"] {
            check(format, message, "refused wrong_type");
        }
        for message in ["{", "nul", "{}x", "{} {}", "x", "\u{feff}{}"] {
            check(format, message, "refused broken_json");
        }
        assert_eq!(Run::new(format).fate(b"{\"type\":\"\xff\"}"), "refused broken_json");
        assert_eq!(Run::new(format).fate(b"{\"ignored\":\"\xc3\"}"), "refused broken_json");
        let list = if format == BINANCE { "ignored" } else { "refused wrong_type" };
        check(format, "[1,2]", list);
        check(format, "[1,2", "refused broken_json");
    }
}

#[test]
fn every_proper_prefix_is_broken() {
    for (format, message) in WITH_ROWS.into_iter().chain(
        [SPOT_DEPTH, USDM_DEPTH, r#"{"result":null,"id":1}"#, r#"{"stream":"x","data":[{"a":"\u0041"}]}"#]
            .map(|message| (BINANCE, message)),
    ) {
        for end in 0..message.len() {
            let expected = if end == 0 { "refused empty" } else { "refused broken_json" };
            let fate = Run::new(format).fate(&message.as_bytes()[..end]);
            assert_eq!(fate, expected, "{}", &message[..end]);
        }
        let padded = format!(" {message}\r\n");
        assert_eq!(Run::new(format).fate(padded.as_bytes()), Run::new(format).fate(message.as_bytes()));
    }
}

#[test]
fn escapes_mean_what_they_stand_for() {
    let escaped = TICKER
        .replace("\"ticker\"", "\"t\\u0069cker\"")
        .replace("\"BTC-USD\"", "\"\\u0042TC\\u002dUSD\"")
        .replace("\"price\"", "\"\\u0070rice\"")
        .replace("\"29940.90\"", "\"29940\\u002e90\"")
        .replace("\"last_size\":\"0.00016\"", "\"last_size\":\"\\\"\\ud83d\\ude00\\n\"");
    assert_eq!(Run::new(COINBASE_EXCHANGE).row(&escaped), Run::new(COINBASE_EXCHANGE).row(TICKER));
    check(COINBASE_EXCHANGE, &TICKER.replace("BTC-USD", "BTC\\ud83d\\ude00"), "quote");
    check(COINBASE_EXCHANGE, &TICKER.replace("BTC-USD", "BTC\\u200bUSD"), "unknown_instrument");
    check(COINBASE_EXCHANGE, &TICKER.replace("BTC-USD", "BTC\\u00zz"), "refused broken_json");
    check(COINBASE_EXCHANGE, &TICKER.replace("BTC-USD", "BTC\\q"), "refused broken_json");
}

#[test]
fn deep_nesting_overflows_nothing() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (format, message) in WITH_ROWS {
        let received = || Run::new(format).received("2024-08-08T23:54:15.5Z");
        let ignored = message.replacen('{', &format!("{{\"deep\":{deep},"), 1);
        let mut run = received();
        let fate = run.fate(message.as_bytes());
        assert_eq!(run.fate(ignored.as_bytes()), fate);
        let used = message.replacen("\"20", &format!("\"x\":{deep},\"20"), 1);
        run.fate(used.as_bytes());
        assert_eq!(run.fate("[".repeat(100_000).as_bytes()), "refused broken_json");
    }
    check(COINBASE_EXCHANGE, &TICKER.replace("\"29940.90\"", &deep), "refused wrong_type");
    check(
        COINBASE_ADVANCED_TRADE,
        &format!(r#"{{"channel":"ticker","events":{deep}}}"#),
        "refused wrong_type",
    );
    check(
        COINBASE_ADVANCED_TRADE,
        &format!(r#"{{"channel":"ticker","events":{}"#, "[{\"tickers\":".repeat(50_000)),
        "refused broken_json",
    );
    check(BINANCE, &format!(r#"{{"stream":"x","data":{deep}}}"#), "ignored");
    check(BINANCE, &format!("{}{}", r#"{"data":"#.repeat(50_000), "}".repeat(49_999)), "refused broken_json");
}

#[test]
fn ten_megabytes() {
    let long = "x".repeat(10_000_000);
    check(COINBASE_EXCHANGE, &TICKER.replace("\"31888\"", &format!("\"{long}\"")), "quote");
    check(COINBASE_EXCHANGE, &TICKER.replace("BTC-USD", &long), "unknown_instrument");
    check(COINBASE_EXCHANGE, &TICKER.replace("29940.90", &long), "refused wrong_type");
    check(
        COINBASE_EXCHANGE,
        &TICKER.replace("29940.90", &format!("0.{}1", "0".repeat(10_000_000))),
        "not_positive",
    );
    let levels = "[\"0.3513\",\"6195.0\"],".repeat(500_000);
    check(BINANCE, &SPOT_DEPTH.replace("[[", &format!("[{levels}[")), "ignored");
    check(COINBASE_EXCHANGE, &TICKER.replace("BTC-USD", &"\\u0041".repeat(1_500_000)), "unknown_instrument");
}

/// A message, changed at a few places.
fn changed() -> impl Strategy<Value = (Format, Vec<u8>)> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(br#"{}[]",:\.-+eE019 nutf"#.to_vec())];
    let change = (any::<prop::sample::Index>(), 0..3, byte);
    (prop::sample::select(WITH_ROWS.to_vec()), prop::collection::vec(change, 1..6)).prop_map(
        |((format, message), changes)| {
            let mut message = message.as_bytes().to_vec();
            for (place, what, byte) in changes {
                let place = place.index(message.len());
                match what {
                    0 => message[place] = byte,
                    1 => message.insert(place, byte),
                    _ => drop(message.remove(place)),
                }
            }
            (format, message)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// `fate` checks the rows.
    #[test]
    fn changed_messages_give_sound_rows_or_none((_, message) in changed(), receipt: bool) {
        for format in Format::all() {
            let run = Run::new(format).received("2022-06-01T20:31:23Z");
            let mut run = if receipt { run.by_receipt() } else { run };
            let fate = run.fate(&message);
            prop_assert_eq!(run.fate(&message), fate.clone(), "decoding has no memory");
            if std::str::from_utf8(&message).is_err() || serde_json::from_slice::<serde::de::IgnoredAny>(&message).is_err() {
                prop_assert_eq!(fate, "refused broken_json");
            } else if fate == "refused broken_json" {
                // Only what serde_json can't read as a value either: a number out of range, half a surrogate pair.
                prop_assert!(serde_json::from_slice::<Value>(&message).is_err());
            }
        }
        let _ = detect(&message);
        let _ = exchange_of(&message);
        let _ = exchange_of_url(&message);
        let _ = split_line(&message);
    }
}
