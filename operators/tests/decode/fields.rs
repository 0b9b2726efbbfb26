//! Single fields of every format: missing, of a wrong type, twice, out of bounds.

use foreshock_operators::account::Reason;
use foreshock_operators::venues::Format;
use foreshock_operators::venues::binance::BINANCE;
use foreshock_operators::venues::canonical::CANONICAL;
use foreshock_operators::venues::coinbase::{COINBASE_ADVANCED_TRADE, COINBASE_EXCHANGE};

use crate::decode::messages::{
    ADVANCED_TICKER, HEARTBEAT, MARKET_TRADES, MATCH, PLAIN_QUOTE, PLAIN_TRADE, SPOT_AGGREGATE, TICKER,
    USDM_QUOTE, USDM_TRADE, WITH_ROWS,
};
use crate::decode::run::{Run, check, with};

/// Where the needed fields of each shape stand, and what happens to a message where they are missing.
const NEEDED: &[(Format, &str, &str, &str)] = &[
    (COINBASE_EXCHANGE, TICKER, "/type", "refused wrong_type"),
    (COINBASE_EXCHANGE, TICKER, "/product_id", "refused wrong_type"),
    (COINBASE_EXCHANGE, TICKER, "/sequence", "refused wrong_type"),
    (COINBASE_EXCHANGE, TICKER, "/best_bid", "empty_side"),
    (COINBASE_EXCHANGE, TICKER, "/best_ask", "empty_side"),
    (COINBASE_EXCHANGE, TICKER, "/best_bid_size", "quote"),
    (COINBASE_EXCHANGE, TICKER, "/best_ask_size", "quote"),
    (COINBASE_EXCHANGE, TICKER, "/price", "quote"),
    (COINBASE_EXCHANGE, MATCH, "/product_id", "refused wrong_type"),
    (COINBASE_EXCHANGE, MATCH, "/trade_id", "refused wrong_type"),
    (COINBASE_EXCHANGE, MATCH, "/price", "refused wrong_type"),
    (COINBASE_EXCHANGE, MATCH, "/size", "trade"),
    (COINBASE_EXCHANGE, MATCH, "/side", "trade"),
    (COINBASE_EXCHANGE, HEARTBEAT, "/product_id", "refused wrong_type"),
    (COINBASE_ADVANCED_TRADE, ADVANCED_TICKER, "/channel", "refused wrong_type"),
    (COINBASE_ADVANCED_TRADE, ADVANCED_TICKER, "/events", "refused wrong_type"),
    (COINBASE_ADVANCED_TRADE, ADVANCED_TICKER, "/events/0/type", "refused wrong_type"),
    (COINBASE_ADVANCED_TRADE, ADVANCED_TICKER, "/events/0/tickers", "refused wrong_type"),
    (COINBASE_ADVANCED_TRADE, ADVANCED_TICKER, "/events/0/tickers/0/product_id", "refused wrong_type"),
    (COINBASE_ADVANCED_TRADE, ADVANCED_TICKER, "/events/0/tickers/0/best_bid", "empty_side"),
    (COINBASE_ADVANCED_TRADE, ADVANCED_TICKER, "/events/0/tickers/0/best_bid_quantity", "quote"),
    (COINBASE_ADVANCED_TRADE, MARKET_TRADES, "/events/0/trades", "refused wrong_type"),
    (COINBASE_ADVANCED_TRADE, MARKET_TRADES, "/events/0/trades/0/price", "refused wrong_type"),
    (BINANCE, USDM_QUOTE, "/data/u", "refused wrong_type"),
    (BINANCE, USDM_QUOTE, "/data/s", "refused wrong_type"),
    (BINANCE, USDM_QUOTE, "/data/b", "empty_side"),
    (BINANCE, USDM_QUOTE, "/data/a", "empty_side"),
    (BINANCE, USDM_QUOTE, "/data/A", "quote"),
    (BINANCE, USDM_TRADE, "/data/t", "refused wrong_type"),
    (BINANCE, USDM_TRADE, "/data/p", "refused wrong_type"),
    (BINANCE, USDM_TRADE, "/data/q", "trade"),
    (BINANCE, USDM_TRADE, "/data/m", "trade"),
    (BINANCE, SPOT_AGGREGATE, "/data/a", "refused wrong_type"),
    (CANONICAL, PLAIN_QUOTE, "/type", "refused wrong_type"),
    (CANONICAL, PLAIN_QUOTE, "/exchange", "refused wrong_type"),
    (CANONICAL, PLAIN_QUOTE, "/instrument", "refused wrong_type"),
    (CANONICAL, PLAIN_QUOTE, "/bid", "empty_side"),
    (CANONICAL, PLAIN_QUOTE, "/ask", "empty_side"),
    (CANONICAL, PLAIN_QUOTE, "/sequence", "quote"),
    (CANONICAL, PLAIN_TRADE, "/price", "refused wrong_type"),
    (CANONICAL, PLAIN_TRADE, "/side", "trade"),
];

#[test]
fn missing_fields() {
    for (format, message, pointer, expected) in NEEDED {
        check(*format, &with(message, pointer, "absent"), expected);
    }
}

#[test]
fn fields_of_a_wrong_type() {
    for (format, message, pointer, _) in NEEDED {
        for value in ["[[]]", "{\"x\":[]}", "true", "\"a\\\"b\""] {
            // A truth value is right for one of them, and text is for symbols, even where it names none.
            let expected = match (value, pointer.rsplit('/').next().unwrap()) {
                ("true", "m") => "trade",
                ("\"a\\\"b\"", "product_id" | "s") => "unknown_instrument",
                _ => "refused wrong_type",
            };
            check(*format, &with(message, pointer, value), expected);
        }
    }
    check(COINBASE_EXCHANGE, &TICKER.replace("\"29940.90\"", "1e999"), "refused broken_json");
    check(BINANCE, &USDM_QUOTE.replace("\"61800.20\"", "-1e999"), "refused broken_json");
    check(CANONICAL, &PLAIN_QUOTE.replace("1.0", "1e999"), "refused broken_json");
    check(COINBASE_EXCHANGE, &with(TICKER, "/sequence", "-1"), "refused wrong_type");
    check(COINBASE_EXCHANGE, &with(TICKER, "/sequence", "1.5"), "refused wrong_type");
    check(COINBASE_EXCHANGE, &with(TICKER, "/sequence", "\"7\""), "quote");
    check(COINBASE_EXCHANGE, &with(TICKER, "/best_bid", "\"abc\""), "refused wrong_type");
    check(COINBASE_EXCHANGE, &with(TICKER, "/best_bid", "\"+1\""), "refused wrong_type");
    check(COINBASE_EXCHANGE, &with(TICKER, "/best_bid_size", "\"0x1\""), "refused wrong_type");
    check(COINBASE_EXCHANGE, &with(MATCH, "/price", "\"\""), "refused wrong_type");
    check(COINBASE_EXCHANGE, &with(MATCH, "/side", "\"up\""), "refused wrong_type");
}

#[test]
fn a_field_that_stands_twice() {
    for (format, message) in WITH_ROWS {
        let twice = message.replacen('{', r#"{"type":"a","type":"b","stream":"c","stream":"d","#, 1);
        check(format, &twice, "refused wrong_type");
        check(format, &twice[..twice.len() - 1], "refused broken_json");
    }
    check(BINANCE, r#"{"data":{},"data":{}}"#, "refused wrong_type");
    check(BINANCE, &USDM_QUOTE.replace("\"b\":", "\"b\":\"1\",\"b\":"), "refused wrong_type");
    check(
        COINBASE_ADVANCED_TRADE,
        &ADVANCED_TICKER.replace("\"events\":", "\"events\":[],\"events\":"),
        "refused wrong_type",
    );
    check(COINBASE_EXCHANGE, &TICKER.replace("\"low_24h\":", "\"high_24h\":"), "quote");
}

/// The prices and sizes of each shape: bid, bid size, ask, ask size, or price and size.
const QUOTES: [(Format, &str, [&str; 4]); 4] = [
    (COINBASE_EXCHANGE, TICKER, ["/best_bid", "/best_bid_size", "/best_ask", "/best_ask_size"]),
    (
        COINBASE_ADVANCED_TRADE,
        ADVANCED_TICKER,
        [
            "/events/0/tickers/0/best_bid",
            "/events/0/tickers/0/best_bid_quantity",
            "/events/0/tickers/0/best_ask",
            "/events/0/tickers/0/best_ask_quantity",
        ],
    ),
    (BINANCE, USDM_QUOTE, ["/data/b", "/data/B", "/data/a", "/data/A"]),
    (CANONICAL, PLAIN_QUOTE, ["/bid", "/bid_size", "/ask", "/ask_size"]),
];

#[test]
fn quotes_that_cannot_be() {
    for (format, message, [bid, bid_size, ask, ask_size]) in QUOTES {
        let set = |pairs: &[(&str, &str)]| {
            pairs.iter().fold(message.to_owned(), |message, (pointer, value)| with(&message, pointer, value))
        };
        for value in ["\"NaN\"", "\"1e400\"", "\"inf\"", "\"-Infinity\""] {
            for pointer in [bid, bid_size, ask, ask_size] {
                check(format, &set(&[(pointer, value)]), "non_finite");
            }
        }
        check(format, &set(&[(bid, "\"-1\"")]), "not_positive");
        check(format, &set(&[(ask, "-0.5")]), "not_positive");
        check(format, &set(&[(bid, "\"0\"")]), "not_positive");
        check(format, &set(&[(bid, "\"0\""), (bid_size, "\"0\"")]), "empty_side");
        check(format, &set(&[(ask, "0"), (ask_size, "0.0")]), "empty_side");
        check(format, &set(&[(ask, "0"), (ask_size, "absent")]), "empty_side");
        check(format, &set(&[(bid, "null")]), "empty_side");
        check(format, &set(&[(ask, "\"\""), (ask_size, "\"\"")]), "empty_side");
        check(format, &set(&[(bid_size, "-1")]), "negative_size");
        check(format, &set(&[(ask_size, "\"-0.1\"")]), "negative_size");
        check(format, &set(&[(ask_size, "-0.0")]), "quote");
        check(format, &set(&[(ask_size, "null")]), "quote");
        check(format, &set(&[(bid, "2"), (ask, "1")]), "crossed");
        check(format, &set(&[(bid, "\"2\""), (ask, "2.0")]), "quote");
    }
    check(COINBASE_EXCHANGE, &with(TICKER, "/price", "\"0\""), "not_positive");
    check(COINBASE_EXCHANGE, &with(TICKER, "/price", "\"NaN\""), "non_finite");
}

#[test]
fn trades_that_cannot_be() {
    let trades = [
        (COINBASE_EXCHANGE, MATCH, "/price", "/size"),
        (BINANCE, USDM_TRADE, "/data/p", "/data/q"),
        (CANONICAL, PLAIN_TRADE, "/price", "/size"),
    ];
    for (format, message, price, size) in trades {
        check(format, &with(message, price, "\"0\""), "not_positive");
        check(format, &with(message, price, "-1"), "not_positive");
        check(format, &with(message, price, "\"NaN\""), "non_finite");
        check(format, &with(message, size, "\"1e400\""), "non_finite");
        check(format, &with(message, size, "-1"), "negative_size");
        check(format, &with(message, size, "0"), "trade");
    }
}

#[test]
fn unknown_instruments() {
    for (format, message) in WITH_ROWS {
        let unknown = ["BTC-USD", "SKL-BTC", "ETH-USDT", "BTCUSDT", "BCHUSD_PERP", "BNBBTC", "CTKUSDT"]
            .iter()
            .fold(message.to_owned(), |message, name| message.replace(&format!("\"{name}\""), "\"NONE\""));
        let count = unknown.matches("NONE").count();
        check(format, &unknown, &vec!["unknown_instrument"; count].join(" "));
    }
}

#[test]
fn details_name_the_field_the_value_and_what_is_allowed() {
    #[track_caller]
    fn check(run: &mut Run, message: &str, reason: Reason, expected: &str) {
        let (found, detail) = run.refusal(message);
        assert_eq!((found, &detail[..]), (reason, expected), "{message}");
    }
    let exchange = &mut Run::new(COINBASE_EXCHANGE).received("2022-06-01T20:00:00Z");
    check(exchange, "{}", Reason::WrongType, "type is missing: text is allowed");
    let message = with(TICKER, "/sequence", "[]");
    check(exchange, &message, Reason::WrongType, "sequence is a list: a whole number from 0 is allowed");
    let message = with(TICKER, "/best_bid", "\"abc\"");
    check(exchange, &message, Reason::WrongType, "best_bid is \"abc\": a number is allowed");
    let message = with(TICKER, "/best_bid", "-1.5");
    check(exchange, &message, Reason::NotPositive, "best_bid is -1.5: a price above 0 is allowed");
    let message = with(TICKER, "/best_bid", "\"NaN\"");
    check(exchange, &message, Reason::NonFinite, "best_bid is \"NaN\": a finite number is allowed");
    let message = with(TICKER, "/best_bid", "\"29950\"");
    let crossed = "best_bid is \"29950\" and best_ask is \"29943.41\": bid <= ask is allowed";
    check(exchange, &message, Reason::Crossed, crossed);
    let message = with(TICKER, "/time", "\"today\"");
    check(exchange, &message, Reason::NoTime, "time is \"today\": RFC 3339 text is allowed");
    let message = with(TICKER, "/product_id", "\"NONE\"");
    check(
        exchange,
        &message,
        Reason::UnknownInstrument,
        "product_id is \"NONE\": a listed instrument is allowed",
    );
    let message = with(TICKER, "/time", "\"2022-06-01T21:00:00.000001Z\"");
    let ahead = "the event time is 2022-06-01T21:00:00.000001000Z, received at 2022-06-01T20:00:00.000000000Z: \
                 at most 3600 s ahead is allowed";
    check(exchange, &message, Reason::TimeAhead, ahead);
}
