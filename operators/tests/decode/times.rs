//! Times of every format, and clocks.

use foreshock_operators::venues::binance::BINANCE;
use foreshock_operators::venues::canonical::CANONICAL;
use foreshock_operators::venues::coinbase::{COINBASE_ADVANCED_TRADE, COINBASE_EXCHANGE};
use foreshock_operators::venues::{Line, Receipt, Verdict, split_line};
use serde_json::json;

use crate::decode::messages::{
    ADVANCED_TICKER, HEARTBEAT, MATCH, PLAIN_HEARTBEAT, PLAIN_QUOTE, SPOT_QUOTE, TICKER, USDM_QUOTE,
    WITH_ROWS,
};
use crate::decode::run::{Run, at, check, with};

#[test]
fn times_that_cannot_be() {
    let times = [
        (COINBASE_EXCHANGE, TICKER, "/time"),
        (COINBASE_EXCHANGE, MATCH, "/time"),
        (COINBASE_EXCHANGE, HEARTBEAT, "/time"),
        (COINBASE_ADVANCED_TRADE, ADVANCED_TICKER, "/timestamp"),
        (CANONICAL, PLAIN_QUOTE, "/event_time"),
        (CANONICAL, PLAIN_HEARTBEAT, "/event_time"),
    ];
    for (format, message, pointer) in times {
        for value in [
            "absent",
            "null",
            "\"\"",
            "[]",
            "true",
            "1654115483.5",
            "\"2022-02-30T00:00:00Z\"",
            "\"2022-06-01T20:31:23\"",
            "\"2022-06-01T20:31:60Z\"",
            "\"+1654115483\"",
            "\"1654115483 \"",
        ] {
            check(format, &with(message, pointer, value), "no_time");
        }
        for value in ["7", "0", "99999999999", "\"7\"", "\"946684799.9\"", "18446744073709551615"] {
            check(format, &with(message, pointer, value), "time_range");
        }
        for value in [
            "1999-12-31T23:59:59.999999Z",
            "2100-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T00:00:00Z",
        ] {
            check(format, &with(message, pointer, &json!(value).to_string()), "time_range");
        }
        for value in ["2000-01-01T00:00:00Z", "2099-12-31T23:59:59.999999Z", "2022-06-01T22:31:23+02:00"] {
            assert!(
                Run::new(format).fate(with(message, pointer, &json!(value).to_string()).as_bytes())
                    != "time_range"
            );
        }
    }
    for value in ["1723161256313.5", "-1", "[]", "true", "\"x\""] {
        check(BINANCE, &with(USDM_QUOTE, "/data/T", value), "no_time");
    }
    for value in [
        "0",
        "946684799",
        "946684799999",
        "4102444800",
        "4102444800000",
        "4102444800000000000",
        "18446744073709551615",
    ] {
        check(BINANCE, &with(USDM_QUOTE, "/data/T", value), "time_range");
    }
    check(BINANCE, &with(USDM_QUOTE, "/data/T", "4102444799999"), "quote");
}

#[test]
fn the_clock_of_receipt() {
    for (format, message) in WITH_ROWS {
        let mut run = Run::new(format).received("2024-08-08T23:54:15.123456789Z").by_receipt();
        assert_eq!(run.decode(message.as_bytes()), Verdict::Rows);
        for row in &run.rows {
            assert_eq!((row.event_time, row.digits), (at("2024-08-08T23:54:15.123456789Z"), 9));
        }
        let fate = Run::new(format).by_receipt().fate(message.as_bytes());
        assert!(fate.split(' ').all(|row| row == "no_time"), "{fate}");
        let fate = Run::new(format).received("1999-12-31T00:00:00Z").by_receipt().fate(message.as_bytes());
        assert!(fate.split(' ').all(|row| row == "time_range"), "{fate}");
    }
}

/// One moment in every unit, as a number and as text, in every format and before a line.
#[test]
fn the_size_of_a_number_tells_its_unit() {
    let moment = at("2024-08-08T23:54:16Z");
    let with_fraction = at("2024-08-08T23:54:16.313250Z");
    let cases = [
        ("1723161256", moment, 0),
        ("1723161256000", moment, 3),
        ("1723161256000000", moment, 6),
        ("1723161256000000000", moment, 9),
        ("\"1723161256000\"", moment, 3),
        ("\"1723161256.313250\"", with_fraction, 6),
        ("\"1723161256313.250\"", with_fraction, 6),
        ("\"1723161256313250.000999\"", with_fraction, 9),
        ("1723161256313250", with_fraction, 6),
        ("946684800", at("2000-01-01T00:00:00Z"), 0),
        ("4102444799999", at("2099-12-31T23:59:59.999Z"), 3),
    ];
    for (value, time, digits) in cases {
        for (format, message, pointer) in
            [(CANONICAL, PLAIN_QUOTE, "/event_time"), (BINANCE, USDM_QUOTE, "/data/T")]
        {
            let row = Run::new(format).row(&with(message, pointer, value));
            assert_eq!((row.event_time, row.digits), (time, digits), "{value}");
        }
        let row = Run::new(COINBASE_EXCHANGE).row(&with(TICKER, "/time", value));
        assert_eq!(row.event_time, time, "{value}");
        let stamp = value.trim_matches('"');
        let line = format!("{stamp} {USDM_QUOTE}");
        let Line::Message { received, body } = split_line(line.as_bytes()) else { panic!("{line}") };
        assert_eq!((received, &line[body]), (Some(time), USDM_QUOTE), "{stamp}");
    }
    for line in ["7 {}", "99999999999999999999 {}", "1970000: {}"] {
        assert!(matches!(split_line(line.as_bytes()), Line::BadReceipt { .. }), "{line}");
    }
}

#[test]
fn rfc_3339_as_it_is_written() {
    for (text, expected) in [
        ("2016-12-31t23:59:60z", "2017-01-01T00:00:00Z"),
        ("2017-01-01 00:59:60.5+01:00", "2017-01-01T00:00:00.5Z"),
        ("2022-06-01 20:31:23Z", "2022-06-01T20:31:23Z"),
        ("2022-06-01t20:31:23.469151-00:00", "2022-06-01T20:31:23.469151Z"),
    ] {
        let row = Run::new(CANONICAL).row(&with(PLAIN_QUOTE, "/event_time", &json!(text).to_string()));
        assert_eq!(row.event_time, at(expected), "{text}");
    }
}

/// Only a receipt that stands in the data can be held against a row, and none against a row that runs on it.
#[test]
fn receipts_of_rows() {
    let received = |run: Run, message: &str| {
        let mut run = run;
        run.row(message).received
    };
    let receipt = "2022-06-01T20:31:24Z";
    assert_eq!(received(Run::new(COINBASE_EXCHANGE).received(receipt), TICKER), Some(at(receipt)));
    assert_eq!(received(Run::new(COINBASE_EXCHANGE), TICKER), None);
    assert_eq!(received(Run::new(COINBASE_EXCHANGE).received(receipt).by_receipt(), TICKER), None);
    assert_eq!(received(Run::new(BINANCE).received(receipt), SPOT_QUOTE), None);
    let mut stamped = Run::new(COINBASE_EXCHANGE);
    stamped.envelope.received = Some(Receipt::Broker(at(receipt)));
    assert_eq!(received(stamped, TICKER), None);
}
