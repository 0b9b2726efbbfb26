//! Decoders against real messages, and against what no venue should send.
//!
//! A message's fate is compared as one line of text: `control`, `ignored`, `refused wrong_type`, `contradiction
//! binance`, or its rows in order, each `quote`, `trade`, `heartbeat` or the reason why it was refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use foreshock_operators::account::Reason;
use foreshock_operators::row::{Body, Channel, Extent, InstrumentId, Quote, Row, Side, Source, Trade};
use foreshock_operators::time::{SECOND, Time, parse_rfc3339};
use foreshock_operators::venues::binance::BINANCE;
use foreshock_operators::venues::canonical::CANONICAL;
use foreshock_operators::venues::coinbase::{COINBASE_ADVANCED_TRADE, COINBASE_EXCHANGE};
use foreshock_operators::venues::okx::OKX;
use foreshock_operators::venues::{
    ClockSource, Envelope, Format, Line, RefusedRow, Resolve, Resolved, Verdict, decode, detect, exchange_of,
    exchange_of_url, split_line,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const TICKER: &str = r#"{"type":"ticker","sequence":38332655422,"product_id":"BTC-USD","price":"29940.91","open_24h":"31677.61","volume_24h":"27783.70216674","low_24h":"29308.01","high_24h":"31888","volume_30d":"778633.19135445","best_bid":"29940.90","best_bid_size":"0.03416000","best_ask":"29943.41","best_ask_size":"0.20000000","side":"sell","time":"2022-06-01T20:31:23.469151Z","trade_id":345622431,"last_size":"0.00016"}"#;
const MATCH: &str = r#"{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e","taker_order_id":"3c82abaa","side":"sell","size":"985","price":"0.00001305","product_id":"SKL-BTC","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}"#;
const HEARTBEAT: &str = r#"{"type":"heartbeat","last_trade_id":1052119293,"product_id":"BTC-USD","sequence":132235026653,"time":"2026-07-07T22:58:18.000000Z"}"#;
const ADVANCED_TICKER: &str = r#"{"channel":"ticker","client_id":"","timestamp":"2023-02-09T20:30:37.167359596Z","sequence_num":0,"events":[{"type":"update","tickers":[{"type":"ticker","product_id":"ETH-USDT","price":"21932.98","best_bid":"21931.98","best_bid_quantity":"8000.21","best_ask":"21933.98","best_ask_quantity":"8038.07770938"}]}]}"#;
const MARKET_TRADES: &str = r#"{"channel":"market_trades","client_id":"","timestamp":"2024-10-04T07:13:31.158696Z","sequence_num":2,"events":[{"type":"update","trades":[{"product_id":"ETH-USDT","trade_id":"22381691","price":"2375.56","size":"0.5","time":"2024-10-04T07:13:31.088388Z","side":"BUY"},{"product_id":"ETH-USDT","trade_id":"x-1","price":"2375.55","size":"1","time":"2024-10-04T07:13:31.088388Z","side":"UNKNOWN_ORDER_SIDE"}]}]}"#;
const SPOT_QUOTE: &str = r#"{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54698000"}}"#;
const USDM_QUOTE: &str = r#"{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT","b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256314}}"#;
const COINM_QUOTE: &str = r#"{"stream":"bchusd_perp@bookTicker","data":{"u":167006084895,"e":"bookTicker","s":"BCHUSD_PERP","ps":"BCHUSD","b":"427.84","B":"24","a":"427.90","A":"669","T":1626916403864,"E":1626916403871}}"#;
const SPOT_TRADE: &str = r#"{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","b":88,"a":50,"T":1672515782135,"m":true,"M":true}"#;
const USDM_TRADE: &str = r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256321,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}"#;
const SPOT_AGGREGATE: &str = r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1616176861895,"s":"BTCUSDT","a":640283266,"p":"58942.01000000","q":"0.00035600","f":716849523,"l":716849523,"T":1616176861893,"m":false,"M":true}}"#;
const USDM_AGGREGATE: &str = r#"{"e":"aggTrade","E":1626992741575,"a":16599292,"s":"CTKUSDT","p":"1.01100","q":"10","f":23961322,"l":23961322,"T":1626992741421,"m":false}"#;
const SPOT_DEPTH: &str = r#"{"stream":"nknusdt@depth@100ms","data":{"e":"depthUpdate","E":1633998512068,"s":"NKNUSDT","U":499869750,"u":499869752,"b":[["0.3513","6195.0"]],"a":[]}}"#;
const USDM_DEPTH: &str = r#"{"e":"depthUpdate","E":1626992741037,"T":1626992741024,"s":"SUSHIUSDT","U":600859599090,"u":600859600917,"pu":600859598061,"b":[["7.5040","813"]],"a":[["7.6150","1563"]]}"#;
const PLAIN_QUOTE: &str = r#"{"type":"quote","exchange":"x","instrument":"BTC-USD","event_time":"2026-01-02T03:04:05.678901Z","sequence":7,"bid":1.0,"bid_size":2.0,"ask":1.1,"ask_size":3.0}"#;
const PLAIN_TRADE: &str = r#"{"type":"trade","exchange":"x","instrument":"BTC-USD","event_time":"2026-01-02T03:04:05Z","price":1.05,"size":0.1,"side":"buy"}"#;
const PLAIN_HEARTBEAT: &str =
    r#"{"type":"heartbeat","exchange":"x","instrument":"BTC-USD","event_time":"2026-01-02T03:04:05.678Z"}"#;

/// One message of each shape that has rows.
const WITH_ROWS: [(Format, &str); 15] = [
    (COINBASE_EXCHANGE, TICKER),
    (COINBASE_EXCHANGE, MATCH),
    (COINBASE_EXCHANGE, HEARTBEAT),
    (COINBASE_ADVANCED_TRADE, ADVANCED_TICKER),
    (COINBASE_ADVANCED_TRADE, MARKET_TRADES),
    (BINANCE, SPOT_QUOTE),
    (BINANCE, USDM_QUOTE),
    (BINANCE, COINM_QUOTE),
    (BINANCE, SPOT_TRADE),
    (BINANCE, USDM_TRADE),
    (BINANCE, SPOT_AGGREGATE),
    (BINANCE, USDM_AGGREGATE),
    (CANONICAL, PLAIN_QUOTE),
    (CANONICAL, PLAIN_TRADE),
    (CANONICAL, PLAIN_HEARTBEAT),
];

/// Gives every symbol a number, in the order of their first mention, except `NONE`.
struct Instruments {
    clock: ClockSource,
    names: Vec<String>,
}

impl Resolve for Instruments {
    fn resolve(&mut self, exchange: &str, symbol: &str) -> Option<Resolved> {
        let name = format!("{exchange}:{symbol}");
        let known = self.names.iter().position(|known| *known == name);
        let index = known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        (symbol != "NONE").then_some(Resolved { instrument: InstrumentId(index as u32), clock: self.clock })
    }
}

/// What surrounds the messages of a test, and what came out.
struct Run {
    format: Format,
    envelope: Envelope<'static>,
    instruments: Instruments,
    rows: Vec<Row>,
    refused: Vec<RefusedRow>,
}

impl Run {
    fn new(format: Format) -> Run {
        let envelope = Envelope {
            received: None,
            exchange: None,
            checked: false,
            source: Source { file: 3, line: 14 },
            extent: Extent { start: 15, length: 92 },
            max_ahead: 3_600 * SECOND,
        };
        let instruments = Instruments { clock: ClockSource::Auto, names: Vec::new() };
        Run { format, envelope, instruments, rows: Vec::new(), refused: Vec::new() }
    }

    fn received(mut self, time: &str) -> Run {
        self.envelope.received = Some(at(time));
        self
    }

    fn by_receipt(mut self) -> Run {
        self.instruments.clock = ClockSource::Received;
        self
    }

    fn of(mut self, exchange: &'static str, checked: bool) -> Run {
        self.envelope.exchange = Some(exchange);
        self.envelope.checked = checked;
        self
    }

    fn decode(&mut self, message: &[u8]) -> Verdict {
        self.rows.clear();
        self.refused.clear();
        let Run { format, envelope, instruments, rows, refused } = self;
        decode(*format, message, envelope, instruments, rows, refused)
    }

    /// The message's fate as one line.
    fn fate(&mut self, message: &[u8]) -> String {
        let verdict = self.decode(message);
        let mut rows = BTreeMap::new();
        for row in &self.rows {
            assert_invariants(row);
            let name = match row.body {
                Body::Quote(_) => "quote",
                Body::Trade(_) => "trade",
                Body::Book(_) => "book",
                Body::Heartbeat => "heartbeat",
            };
            assert!(rows.insert(row.index, name).is_none(), "each row has its own index");
        }
        for refused in &self.refused {
            assert!(!refused.detail.is_empty() && refused.detail.len() < 250, "{}", refused.detail);
            assert!(
                rows.insert(refused.index, refused.reason.name()).is_none(),
                "each row has its own index"
            );
        }
        assert_eq!(
            matches!(verdict, Verdict::Rows),
            !rows.is_empty(),
            "rows come with the verdict Rows alone"
        );
        assert!(rows.keys().copied().eq(0..rows.len() as u32), "indices count from 0");
        match verdict {
            Verdict::Rows => rows.into_values().collect::<Vec<_>>().join(" "),
            Verdict::Control => "control".to_owned(),
            Verdict::Ignored => "ignored".to_owned(),
            Verdict::RefusedRow { reason, detail } => {
                assert!(!detail.is_empty() && detail.len() < 250, "{detail}");
                format!("refused {}", reason.name())
            }
            Verdict::Contradiction { found } => format!("contradiction {found}"),
        }
    }

    /// The one row of a message.
    #[track_caller]
    fn row(&mut self, message: &str) -> Row {
        assert_eq!(self.decode(message.as_bytes()), Verdict::Rows, "{message}");
        assert_eq!(self.refused, [], "{message}");
        let [row] = self.rows[..] else { panic!("{message} has one row, not {}", self.rows.len()) };
        row
    }

    /// Reason and detail of a refused message or of the one row of a message.
    #[track_caller]
    fn refusal(&mut self, message: &str) -> (Reason, String) {
        match self.decode(message.as_bytes()) {
            Verdict::RefusedRow { reason, detail } => (reason, detail),
            verdict => {
                let [refused] = &self.refused[..] else { panic!("{message} is not refused: {verdict:?}") };
                (refused.reason, refused.detail.clone())
            }
        }
    }
}

fn at(time: &str) -> Time {
    parse_rfc3339(time).expect("a time of a test").0
}

#[track_caller]
fn assert_invariants(row: &Row) {
    let price = |price: f64| price.is_finite() && price > 0.0;
    let size = |size: f64| size.is_nan() || (size.is_finite() && size >= 0.0 && size.is_sign_positive());
    match row.body {
        Body::Quote(quote) => {
            assert!(price(quote.bid) && price(quote.ask) && quote.bid <= quote.ask, "{row:?}");
            assert!(size(quote.bid_size) && size(quote.ask_size), "{row:?}");
            assert!(quote.price.is_nan() || price(quote.price), "{row:?}");
            assert!(!quote.trade || !quote.price.is_nan(), "{row:?}");
        }
        Body::Trade(trade) => assert!(price(trade.price) && size(trade.size), "{row:?}"),
        Body::Book(_) | Body::Heartbeat => {}
    }
    assert!((at("2000-01-01T00:00:00Z")..at("2100-01-01T00:00:00Z")).contains(&row.event_time), "{row:?}");
    assert!(row.clock == row.event_time && row.digits <= 9, "{row:?}");
}

#[track_caller]
fn check(format: Format, message: &str, expected: &str) {
    assert_eq!(Run::new(format).fate(message.as_bytes()), expected, "{}", &message[..message.len().min(600)]);
}

/// The message with one value replaced, or taken out where the value is `absent`.
#[track_caller]
fn with(message: &str, pointer: &str, value: &str) -> String {
    let mut tree: Value = serde_json::from_str(message).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = tree.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        "absent" => assert!(parent.remove(key).is_some(), "{pointer} is in {message}"),
        value => drop(parent.insert(key.to_owned(), serde_json::from_str(value).unwrap())),
    }
    tree.to_string()
}

fn slice(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/decode").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

// What each shape says.

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
fn binance_quotes_of_three_markets() {
    #[track_caller]
    fn check(message: &str, id: u64, time: &str, digits: u8, name: &str, quote: Quote) {
        let mut run = Run::new(BINANCE).received("2024-08-08T23:54:15.5Z");
        let row = run.row(message);
        assert_eq!((row.channel, row.id, row.digits), (Channel::BookTicker, Some(id), digits));
        assert_eq!(row.event_time, at(time));
        assert_eq!(run.instruments.names, [name]);
        let Body::Quote(found) = row.body else { panic!("a quote") };
        assert!(found.price.is_nan() && !found.trade);
        assert_eq!(Quote { price: 0.0, ..found }, quote);
    }
    let quote =
        |bid, bid_size, ask, ask_size| Quote { bid, bid_size, ask, ask_size, price: 0.0, trade: false };
    let spot = quote(61837.63, 3.78826, 61837.64, 1.54698);
    check(SPOT_QUOTE, 50093239212, "2024-08-08T23:54:15.5Z", 9, "binance:BTCUSDT", spot);
    let usdm = quote(61800.2, 2.507, 61800.3, 2.51);
    check(USDM_QUOTE, 5123107839020, "2024-08-08T23:54:16.313Z", 3, "binance-usdm:BTCUSDT", usdm);
    let coinm = quote(427.84, 24.0, 427.9, 669.0);
    check(COINM_QUOTE, 167006084895, "2021-07-22T01:13:23.864Z", 3, "binance-coinm:BCHUSD_PERP", coinm);
}

#[test]
fn binance_trades_name_the_maker() {
    #[track_caller]
    fn check(message: &str, channel: Channel, id: u64, time: &str, name: &str, trade: Trade) {
        let mut run = Run::new(BINANCE);
        run.instruments.clock = ClockSource::Exchange;
        let row = run.row(message);
        assert_eq!((row.channel, row.id, row.digits), (channel, Some(id), 3));
        assert_eq!((row.event_time, row.body), (at(time), Body::Trade(trade)));
        assert_eq!(run.instruments.names, [name]);
    }
    let trade = |price, size, side| Trade { price, size, side: Some(side) };
    let spot = trade(0.001, 100.0, Side::Sell);
    check(SPOT_TRADE, Channel::Trade, 12345, "2022-12-31T19:43:02.135Z", "binance:BNBBTC", spot);
    let usdm = trade(61800.3, 0.006, Side::Buy);
    check(USDM_TRADE, Channel::Trade, 5266583935, "2024-08-08T23:54:16.321Z", "binance-usdm:BTCUSDT", usdm);
    let spot = trade(58942.01, 0.000356, Side::Buy);
    check(SPOT_AGGREGATE, Channel::AggTrade, 640283266, "2021-03-19T18:01:01.893Z", "binance:BTCUSDT", spot);
    let usdm = trade(1.011, 10.0, Side::Buy);
    check(
        USDM_AGGREGATE,
        Channel::AggTrade,
        16599292,
        "2021-07-22T22:25:41.421Z",
        "binance-usdm:CTKUSDT",
        usdm,
    );
}

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

// Fates by kind.

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
fn kinds_of_binance() {
    check(BINANCE, r#"{"result":null,"id":1}"#, "control");
    check(BINANCE, r#"{"id":1,"error":{"code":2,"msg":"Invalid request: \"x\""}}"#, "control");
    check(BINANCE, r#"{"code":-1121,"msg":"Invalid symbol."}"#, "control");
    check(BINANCE, r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#, "control");
    check(BINANCE, SPOT_DEPTH, "ignored");
    check(BINANCE, USDM_DEPTH, "ignored");
    check(BINANCE, r#"{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}"#, "ignored");
    check(BINANCE, r#"{"stream":"!ticker@arr","data":[{"e":"24hrTicker","s":"BTCUSDT"}]}"#, "ignored");
    check(BINANCE, r#"[{"e":"24hrTicker","s":"BTCUSDT"}]"#, "ignored");
    check(BINANCE, r#"[{"e":"24hrTicker","s":"BTCUSDT"}"#, "refused broken_json");
    check(BINANCE, r#"{"stream":"!ticker@arr","data":[{"e":"24hrTicker",}]}"#, "refused broken_json");
    for kind in ["kline", "markPriceUpdate", "forceOrder", "24hrTicker", "24hrMiniTicker", "something new"] {
        check(BINANCE, &with(USDM_QUOTE, "/data/e", &json!(kind).to_string()), "ignored");
    }
    check(BINANCE, "{}", "ignored");
    check(BINANCE, r#"{"stream":"x@bookTicker","data":7}"#, "refused wrong_type");
    check(BINANCE, r#"{"stream":"x@bookTicker","data":null}"#, "refused wrong_type");
    check(BINANCE, &with(USDM_QUOTE, "/data/e", "7"), "refused wrong_type");
}

/// Trades of the insurance fund, of auto-deleveraging and of nothing at all are no market's.
#[test]
fn binance_trades_that_no_market_made() {
    check(BINANCE, &with(USDM_TRADE, "/data/X", "\"INSURANCE_FUND\""), "ignored");
    check(BINANCE, &with(USDM_TRADE, "/data/X", "\"ADL\""), "ignored");
    let nothing = with(&with(USDM_TRADE, "/data/X", "\"NA\""), "/data/p", "\"0\"");
    check(BINANCE, &with(&nothing, "/data/q", "\"0\""), "ignored");
    check(BINANCE, &with(USDM_TRADE, "/data/p", "\"0\""), "not_positive");
}

#[test]
fn a_bare_spot_quote_is_known_by_its_fields() {
    let mut run = Run::new(BINANCE).received("2024-08-08T23:54:15.5Z");
    let bare = serde_json::from_str::<Value>(SPOT_QUOTE).unwrap()["data"].to_string();
    assert_eq!(run.row(&bare).channel, Channel::BookTicker);
    let all = SPOT_QUOTE.replace("btcusdt@bookTicker", "!bookTicker");
    assert_eq!(run.row(&all).channel, Channel::BookTicker);
    assert_eq!(run.fate(with(&bare, "/u", "absent").as_bytes()), "ignored");
    assert_eq!(run.fate(with(&bare, "/b", "[]").as_bytes()), "ignored");
}

#[test]
fn kinds_of_our_own() {
    check(CANONICAL, r#"{"type":"control","id":"1"}"#, "control");
    check(CANONICAL, &with(PLAIN_QUOTE, "/type", "\"book\""), "ignored");
    check(CANONICAL, &with(PLAIN_QUOTE, "/type", "\"something new\""), "ignored");
    check(CANONICAL, &with(PLAIN_QUOTE, "/comment", "[{}]"), "quote");
    check(CANONICAL, &with(PLAIN_QUOTE, "/sequence", "absent"), "quote");
    check(CANONICAL, "{}", "refused wrong_type");
    for name in ["", "a\\\"b", "a:b", "a\\tb", "é", &"x".repeat(65)] {
        check(CANONICAL, &with(PLAIN_QUOTE, "/exchange", &format!("\"{name}\"")), "refused wrong_type");
    }
    for name in ["", "a\\\"b", "a\\\\b", "a\\u007fb", "é", &"x".repeat(65)] {
        check(CANONICAL, &with(PLAIN_QUOTE, "/instrument", &format!("\"{name}\"")), "refused wrong_type");
        check(COINBASE_EXCHANGE, &with(TICKER, "/product_id", &format!("\"{name}\"")), "unknown_instrument");
    }
    check(CANONICAL, &with(PLAIN_QUOTE, "/instrument", &format!("\"{}\"", "x".repeat(64))), "quote");
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
fn okx_data_is_ignored_and_its_acknowledgements_are_control_messages() {
    let data = r#"{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"px":"42219.9","sz":"0.1"}]}"#;
    let ack = r#"{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"},"connId":"a4d3ae55"}"#;
    let request = r#"{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"}]}"#;
    check(OKX, data, "ignored");
    for control in [ack, request, "ping", "pong", r#"{"event":"error","code":"60012"}"#] {
        check(OKX, control, "control");
    }
    check(OKX, r#"{"arg":{"channel":"trades"}}"#, "refused wrong_type");
    check(OKX, r#"{"arg":{"channel":"trades"},"data":{}}"#, "refused wrong_type");
    (1..data.len()).for_each(|cut| check(OKX, &data[..cut], "refused broken_json"));
    assert_eq!(detect(data.as_bytes()), Some(OKX));
    assert_eq!(detect(ack.as_bytes()), Some(OKX));
}

// Single fields.

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
fn a_ticker_without_a_trade_tells_of_none() {
    for message in [with(TICKER, "/price", "\"\""), with(TICKER, "/price", "null")] {
        let Body::Quote(quote) = Run::new(COINBASE_EXCHANGE).row(&message).body else { panic!("a quote") };
        assert!(quote.price.is_nan() && !quote.trade);
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

// Times.

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
fn binance_falls_back_from_t_to_e_but_mixes_no_clocks() {
    let mut run = Run::new(BINANCE).received("2024-08-08T23:54:15.123456789Z");
    let without_t = with(USDM_QUOTE, "/data/T", "absent");
    assert_eq!(run.row(&without_t).event_time, at("2024-08-08T23:54:16.314Z"));
    assert_eq!(run.row(&with(USDM_QUOTE, "/data/T", "null")).digits, 3);
    assert_eq!(run.fate(with(&without_t, "/data/E", "absent").as_bytes()), "no_time");
    // Spot quotes have no time, so that all of spot runs on the receipt.
    for spot in [SPOT_QUOTE, SPOT_TRADE] {
        let row = run.row(spot);
        assert_eq!((row.event_time, row.digits), (at("2024-08-08T23:54:15.123456789Z"), 9));
        check(BINANCE, spot, "no_time");
    }
    // Unless it is to run on the exchange's clock, which its quotes can't.
    run.instruments.clock = ClockSource::Exchange;
    assert_eq!(run.fate(SPOT_QUOTE.as_bytes()), "no_time");
    assert_eq!(run.row(SPOT_TRADE).digits, 3);
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

#[test]
fn digits_of_coinbase_times() {
    for (time, digits) in
        [("05Z", 6), ("05.1Z", 6), ("05.123456Z", 6), ("05.1234567Z", 9), ("05.123456789Z", 9)]
    {
        let message = with(TICKER, "/time", &format!("\"2022-06-01T20:31:{time}\""));
        assert_eq!(Run::new(COINBASE_EXCHANGE).row(&message).digits, digits, "{time}");
    }
}

// Markets and formats.

#[test]
fn what_tells_the_market() {
    #[track_caller]
    fn check(message: &str, expected: Option<&str>) {
        assert_eq!(exchange_of(message.as_bytes()), expected, "{message}");
    }
    check(SPOT_QUOTE, Some("binance"));
    check(USDM_QUOTE, Some("binance-usdm"));
    check(COINM_QUOTE, Some("binance-coinm"));
    check(SPOT_TRADE, Some("binance"));
    check(USDM_TRADE, Some("binance-usdm"));
    check(SPOT_AGGREGATE, Some("binance"));
    check(USDM_AGGREGATE, Some("binance-usdm"));
    check(SPOT_DEPTH, Some("binance"));
    check(USDM_DEPTH, Some("binance-usdm"));
    check(&with(USDM_DEPTH, "/pu", "absent"), Some("binance-usdm"));
    check(&with(USDM_DEPTH, "/T", "absent"), Some("binance-usdm"));
    check(&with(USDM_AGGREGATE, "/s", "\"BTCUSDT_210625\""), Some("binance-usdm"));
    check(&with(USDM_AGGREGATE, "/s", "\"ETHUSD_210924\""), Some("binance-coinm"));
    check(&with(USDM_AGGREGATE, "/s", "\"BNBUSD_PERP\""), Some("binance-coinm"));
    check(&with(USDM_AGGREGATE, "/s", "\"BTCUSDT_C\""), None);
    check(&with(SPOT_TRADE, "/M", "absent"), None);
    check(r#"{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1,"s":"BTCUSDT"}}"#, None);
    check(r#"{"lastUpdateId":160,"bids":[],"asks":[]}"#, None);
    check(r#"{"result":null,"id":1}"#, None);
    check("[]", None);
    check("{", None);
}

#[test]
fn a_market_that_is_checked_can_be_contradicted() {
    let run = || Run::new(BINANCE).received("2024-08-08T23:54:15.123456789Z");
    let fate = |exchange, checked| run().of(exchange, checked).fate(USDM_QUOTE.as_bytes());
    assert_eq!(fate("binance", true), "contradiction binance-usdm");
    assert_eq!(fate("binance-usdm", true), "quote");
    assert_eq!(fate("binance", false), "quote");
    let depth = Run::new(BINANCE).of("binance", true).fate(USDM_DEPTH.as_bytes());
    assert_eq!(depth, "contradiction binance-usdm");
    let mut named = Run::new(BINANCE).of("elsewhere", false);
    named.row(USDM_QUOTE);
    assert_eq!(named.instruments.names, ["elsewhere:BTCUSDT"]);
}

#[test]
fn addresses_tell_the_market() {
    #[track_caller]
    fn check(line: &str, expected: Option<&str>) {
        assert_eq!(exchange_of_url(line.as_bytes()), expected, "{line}");
    }
    check("wss://stream.binance.com:9443/stream?streams=a@trade <-> 1.5", Some("binance"));
    check("wss://stream.binance.us:9443/stream <-> 1.5", Some("binance"));
    check("wss://fstream.binance.com/stream?streams=a", Some("binance-usdm"));
    check("wss://dstream.binance.com", Some("binance-coinm"));
    check("wss://fstream.binance.com.example.org/", None);
    check("wss://ws-feed.pro.coinbase.com <-> 1.5", None);
    check("{}", None);
}

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

// What no venue should send.

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
    check(COINBASE_EXCHANGE, &TICKER.replace("BTC-USD", "BTC\\ud83d\\ude00"), "unknown_instrument");
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

// Real messages.

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
            Line::Message { body, received } => {
                run.envelope.received = received;
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
