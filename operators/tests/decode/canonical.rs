//! What our own format says.

use foreshock_operators::row::{Body, Channel, Side, Trade};
use foreshock_operators::venues::canonical::CANONICAL;
use foreshock_operators::venues::coinbase::COINBASE_EXCHANGE;

use crate::decode::messages::{PLAIN_HEARTBEAT, PLAIN_QUOTE, PLAIN_TRADE, TICKER};
use crate::decode::run::{Run, at, check, with};

#[test]
fn our_own_messages() {
    let mut run = Run::new(CANONICAL);
    let row = run.row(PLAIN_QUOTE);
    assert_eq!((row.channel, row.id, row.digits), (Channel::BookTicker, Some(7), 6));
    assert_eq!(row.event_time, at("2026-01-02T03:04:05.678901Z"));
    let Body::Quote(quote) = row.body else { panic!("a quote") };
    assert_eq!((quote.bid, quote.bid_size, quote.ask, quote.ask_size), (1.0, 2.0, 1.1, 3.0));
    assert!(quote.price.is_nan() && !quote.trade);
    let row = run.row(&with(PLAIN_QUOTE, "/price", "\"1.05\""));
    let Body::Quote(quote) = row.body else { panic!("a quote") };
    // Trades have messages of their own.
    assert_eq!((row.channel, quote.price, quote.trade), (Channel::BookTicker, 1.05, false));
    let row = run.row(PLAIN_TRADE);
    assert_eq!((row.channel, row.id, row.digits), (Channel::Trade, None, 0));
    assert_eq!(row.body, Body::Trade(Trade { price: 1.05, size: 0.1, side: Some(Side::Buy) }));
    let row = run.row(PLAIN_HEARTBEAT);
    assert_eq!((row.channel, row.id, row.digits, row.body), (Channel::Heartbeat, None, 3, Body::Heartbeat));
    assert_eq!(run.instruments.names, ["x:BTC-USD"]);
}

#[test]
fn prices_are_the_nearest_f64_however_they_are_written() {
    // Without serde_json's `float_roundtrip` the first of these comes out one bit beside.
    for price in ["51.248178375505404", "61800.30", "1e-05", "0.1", "123456789.123456789", "9007199254740993"]
    {
        for text in [price.to_owned(), format!("\"{price}\"")] {
            let message = with(PLAIN_TRADE, "/size", "absent").replace("1.05", &text);
            let Body::Trade(trade) = Run::new(CANONICAL).row(&message).body else { panic!("a trade") };
            assert_eq!(trade.price.to_bits(), price.parse::<f64>().unwrap().to_bits(), "{message}");
        }
    }
}

#[test]
fn kinds_of_our_own() {
    check(CANONICAL, r#"{"type":"control","id":"1"}"#, "control");
    check(CANONICAL, &with(PLAIN_QUOTE, "/type", "\"book\""), "ignored");
    check(CANONICAL, &with(PLAIN_QUOTE, "/type", "\"something new\""), "ignored");
    check(CANONICAL, &with(PLAIN_QUOTE, "/comment", "[{}]"), "quote");
    check(CANONICAL, &with(PLAIN_QUOTE, "/sequence", "absent"), "quote");
    check(CANONICAL, "{}", "refused wrong_type");
    for name in ["", "a\\\"b", "a:b", "a\\tb", "a\u{200b}b", "é:x", &"x".repeat(65)] {
        check(CANONICAL, &with(PLAIN_QUOTE, "/exchange", &format!("\"{name}\"")), "refused wrong_type");
    }
    for name in ["", "a\\\"b", "a\\\\b", "a\\u007fb", "a\u{202e}b", &"x".repeat(65)] {
        check(CANONICAL, &with(PLAIN_QUOTE, "/instrument", &format!("\"{name}\"")), "refused wrong_type");
        check(COINBASE_EXCHANGE, &with(TICKER, "/product_id", &format!("\"{name}\"")), "unknown_instrument");
    }
    for name in [
        "x".repeat(64),
        "é".repeat(64),
        "币安人生USDT".to_owned(),
        "a b".to_owned(),
        "a:b".to_owned(),
        "*".to_owned(),
    ] {
        check(CANONICAL, &with(PLAIN_QUOTE, "/instrument", &format!("\"{name}\"")), "quote");
        check(COINBASE_EXCHANGE, &with(TICKER, "/product_id", &format!("\"{name}\"")), "quote");
    }
}
