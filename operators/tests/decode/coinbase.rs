//! What Coinbase's two formats say.

use foreshock_operators::row::{Body, Channel, Extent, InstrumentId, Quote, Row, Side, Source, Trade};
use foreshock_operators::venues::coinbase::{COINBASE_ADVANCED_TRADE, COINBASE_EXCHANGE};
use foreshock_operators::venues::decode;
use serde_json::json;

use crate::decode::messages::{ADVANCED_TICKER, HEARTBEAT, MARKET_TRADES, MATCH, TICKER};
use crate::decode::run::{Run, at, check, with};

#[test]
fn a_coinbase_ticker_is_a_quote_and_a_trade() {
    let mut run = Run::new(COINBASE_EXCHANGE);
    let body = Body::Quote(Quote {
        bid: 29940.90,
        bid_size: 0.03416,
        ask: 29943.41,
        ask_size: 0.2,
        price: 29940.91,
        trade: true,
    });
    let expected = Row {
        instrument: InstrumentId(0),
        channel: Channel::Ticker,
        digits: 6,
        index: 0,
        // Set by whoever decodes the whole message.
        alone: false,
        event_time: at("2022-06-01T20:31:23.469151Z"),
        clock: at("2022-06-01T20:31:23.469151Z"),
        received: None,
        id: Some(38332655422),
        source: Source { file: 3, line: 14 },
        extent: Extent { start: 15, length: 92 },
        behind: 0,
        body,
    };
    assert_eq!(run.row(TICKER), expected);
    assert_eq!(run.instruments.names, ["coinbase:BTC-USD"]);
}

#[test]
fn an_old_ticker_has_no_sizes() {
    let old = with(&with(TICKER, "/best_bid_size", "absent"), "/best_ask_size", "absent");
    let Body::Quote(quote) = Run::new(COINBASE_EXCHANGE).row(&old).body else {
        panic!("a ticker is a quote")
    };
    assert!(quote.bid_size.is_nan() && quote.ask_size.is_nan());
    assert_eq!((quote.bid, quote.ask, quote.price, quote.trade), (29940.90, 29943.41, 29940.91, true));
}

#[test]
fn a_ticker_without_a_trade_tells_of_none() {
    for message in [with(TICKER, "/price", "\"\""), with(TICKER, "/price", "null")] {
        let Body::Quote(quote) = Run::new(COINBASE_EXCHANGE).row(&message).body else { panic!("a quote") };
        assert!(quote.price.is_nan() && !quote.trade);
    }
}

#[test]
fn a_coinbase_match_names_the_maker() {
    let row = Run::new(COINBASE_EXCHANGE).row(MATCH);
    assert_eq!((row.channel, row.id, row.digits), (Channel::Trade, Some(280232), 6));
    assert_eq!(row.body, Body::Trade(Trade { price: 0.00001305, size: 985.0, side: Some(Side::Buy) }));
    let row = Run::new(COINBASE_EXCHANGE).row(&with(MATCH, "/side", "\"buy\""));
    assert_eq!(row.body, Body::Trade(Trade { price: 0.00001305, size: 985.0, side: Some(Side::Sell) }));
}

#[test]
fn a_coinbase_heartbeat_has_no_id() {
    let row = Run::new(COINBASE_EXCHANGE).row(HEARTBEAT);
    assert_eq!((row.channel, row.id, row.body), (Channel::Heartbeat, None, Body::Heartbeat));
    assert_eq!(row.event_time, at("2026-07-07T22:58:18Z"));
}

#[test]
fn an_advanced_ticker_has_its_envelopes_time() {
    let mut run = Run::new(COINBASE_ADVANCED_TRADE);
    let row = run.row(ADVANCED_TICKER);
    assert_eq!((row.channel, row.id, row.digits), (Channel::Ticker, None, 9));
    assert_eq!(row.event_time, at("2023-02-09T20:30:37.167359596Z"));
    let quote = Quote {
        bid: 21931.98,
        bid_size: 8000.21,
        ask: 21933.98,
        ask_size: 8038.07770938,
        price: 21932.98,
        trade: true,
    };
    assert_eq!(row.body, Body::Quote(quote));
    assert_eq!(run.instruments.names, ["coinbase:ETH-USDT"]);
    let snapshot = ADVANCED_TICKER.replace("\"update\"", "\"snapshot\"");
    assert_eq!(run.row(&snapshot).body, Body::Quote(Quote { trade: false, ..quote }));
}

#[test]
fn market_trades_have_one_row_each() {
    let mut run = Run::new(COINBASE_ADVANCED_TRADE);
    assert_eq!(run.fate(MARKET_TRADES.as_bytes()), "trade trade");
    let [first, second] = run.rows[..] else { panic!("two trades") };
    assert_eq!((first.id, first.index, first.digits), (None, 0, 6));
    assert_eq!(first.event_time, at("2024-10-04T07:13:31.158696Z"));
    assert_eq!(first.body, Body::Trade(Trade { price: 2375.56, size: 0.5, side: Some(Side::Sell) }));
    assert_eq!((second.id, second.index), (None, 1));
    assert_eq!(second.body, Body::Trade(Trade { price: 2375.55, size: 1.0, side: None }));
    check(COINBASE_ADVANCED_TRADE, &MARKET_TRADES.replace("\"update\"", "\"snapshot\""), "ignored");
    check(COINBASE_ADVANCED_TRADE, &MARKET_TRADES.replace("2375.56", "-1"), "not_positive trade");
}

#[test]
fn a_row_of_a_wrong_type_refuses_its_whole_message() {
    let broken = MARKET_TRADES.replace("\"2375.55\"", "[]");
    check(COINBASE_ADVANCED_TRADE, &broken, "refused wrong_type");
    let mut run = Run::new(COINBASE_ADVANCED_TRADE);
    let kept = run.row(ADVANCED_TICKER);
    let Run { envelope, instruments, rows, refused, .. } = &mut run;
    decode(COINBASE_ADVANCED_TRADE, broken.as_bytes(), envelope, instruments, rows, refused);
    assert_eq!((&rows[..], &refused[..]), (&[kept][..], &[][..]));
}

#[test]
fn kinds_of_coinbase_exchange() {
    check(COINBASE_EXCHANGE, r#"{"type":"subscriptions","channels":[]}"#, "control");
    check(COINBASE_EXCHANGE, r#"{"type":"error","message":"no \"such\" product"}"#, "control");
    check(
        COINBASE_EXCHANGE,
        r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["ticker"]}"#,
        "control",
    );
    check(COINBASE_EXCHANGE, r#"{"type":"control","effective_at":"2026-01-02T03:04:05Z"}"#, "control");
    check(COINBASE_EXCHANGE, r#"{"type":"snapshot","product_id":"BTC-USD","asks":[],"bids":[]}"#, "ignored");
    check(
        COINBASE_EXCHANGE,
        r#"{"type":"l2update","product_id":"BTC-USD","changes":[["buy","1","2"]]}"#,
        "ignored",
    );
    check(COINBASE_EXCHANGE, &MATCH.replace("\"match\"", "\"last_match\""), "ignored");
    check(COINBASE_EXCHANGE, r#"{"type":"something new"}"#, "ignored");
    check(COINBASE_EXCHANGE, "{}", "refused wrong_type");
    check(COINBASE_EXCHANGE, r#"{"type":7}"#, "refused wrong_type");
    check(COINBASE_EXCHANGE, ADVANCED_TICKER, "refused wrong_type");
    check(COINBASE_EXCHANGE, &with(TICKER, "/time", "absent"), "no_time");
}

#[test]
fn kinds_of_coinbase_advanced_trade() {
    check(
        COINBASE_ADVANCED_TRADE,
        r#"{"channel":"subscriptions","events":[{"subscriptions":{"ticker":["A-B"]}}]}"#,
        "control",
    );
    check(COINBASE_ADVANCED_TRADE, r#"{"type":"error","message":"authentication failure"}"#, "control");
    check(
        COINBASE_ADVANCED_TRADE,
        r#"{"type":"subscribe","product_ids":["A-B"],"channel":"ticker"}"#,
        "control",
    );
    for channel in ["ticker_batch", "heartbeats", "l2_data", "candles", "status", "user", "something new"] {
        check(
            COINBASE_ADVANCED_TRADE,
            &with(ADVANCED_TICKER, "/channel", &json!(channel).to_string()),
            "ignored",
        );
    }
    check(COINBASE_ADVANCED_TRADE, &with(ADVANCED_TICKER, "/events", "[]"), "ignored");
    check(
        COINBASE_ADVANCED_TRADE,
        &with(ADVANCED_TICKER, "/events/0/tickers", "[]").replace("[[]]", "[]"),
        "ignored",
    );
    check(COINBASE_ADVANCED_TRADE, "{}", "refused wrong_type");
    check(COINBASE_ADVANCED_TRADE, TICKER, "refused wrong_type");
}

#[test]
fn digits_of_coinbase_times() {
    for (time, digits) in
        [("05Z", 6), ("05.1Z", 6), ("05.123456Z", 6), ("05.1234567Z", 9), ("05.123456789Z", 9)]
    {
        let message = with(TICKER, "/time", &format!("\"2022-06-01T20:31:{time}\""));
        assert_eq!(Run::new(COINBASE_EXCHANGE).row(&message).digits, digits, "{time}");
    }
}
