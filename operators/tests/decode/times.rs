//! Times of every format, and clocks.

use foreshock_operators::venues::Verdict;
use foreshock_operators::venues::binance::BINANCE;
use foreshock_operators::venues::canonical::CANONICAL;
use foreshock_operators::venues::coinbase::{COINBASE_ADVANCED_TRADE, COINBASE_EXCHANGE};
use serde_json::json;

use crate::decode::messages::{
    ADVANCED_TICKER, HEARTBEAT, MATCH, PLAIN_HEARTBEAT, PLAIN_QUOTE, TICKER, USDM_QUOTE, WITH_ROWS,
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
        for value in
            ["absent", "null", "\"\"", "7", "[]", "\"2022-02-30T00:00:00Z\"", "\"2022-06-01 20:31:23Z\""]
        {
            check(format, &with(message, pointer, value), "no_time");
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
    for value in ["\"1723161256313\"", "1723161256313.5", "-1", "[]", "true"] {
        check(BINANCE, &with(USDM_QUOTE, "/data/T", value), "no_time");
    }
    for value in ["0", "946684799999", "4102444800000", "18446744073709551615"] {
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

#[test]
fn times_ahead_of_their_receipt() {
    let fate = |received: &str| Run::new(COINBASE_EXCHANGE).received(received).fate(TICKER.as_bytes());
    assert_eq!(fate("2022-06-01T19:31:23.469151Z"), "quote");
    assert_eq!(fate("2022-06-01T19:31:23.469150Z"), "time_ahead");
    assert_eq!(fate("2030-01-01T00:00:00Z"), "quote");
}
