//! What Binance's three markets say, and what tells them apart.

use foreshock_operators::row::{Body, Channel, Quote, Side, Trade};
use foreshock_operators::venues::binance::BINANCE;
use foreshock_operators::venues::{ClockSource, exchange_of, exchange_of_url};
use serde_json::{Value, json};

use crate::decode::messages::{
    COINM_QUOTE, SPOT_AGGREGATE, SPOT_DEPTH, SPOT_QUOTE, SPOT_TRADE, USDM_AGGREGATE, USDM_DEPTH, USDM_QUOTE,
    USDM_TRADE,
};
use crate::decode::run::{Run, at, check, with};

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
