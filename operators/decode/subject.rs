//! What a message is about: the exchange and the one symbol that it names, rows or not.
//!
//! Whoever writes messages to a partitioned log asks this, so that all of an instrument's messages share a
//! partition, those of channels that no decoder uses yet included.

use serde::Deserialize;

use super::binance_event::Event;
use super::field::Field;
use super::message::{Few, fill, message, unescape};
use super::rows::is_name;
use super::{Format, binance, coinbase_exchange, has_backslash};

/// The exchange that speaks OKX's format.
const OKX: &str = "okx";

/// An instrument as its venue names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub exchange: String,
    /// The venue's own symbol; `None` where the message names none or several: acknowledgements, signs of life of
    /// the connection, lists of tickers, and what can't be parsed.
    pub symbol: Option<String>,
}

/// What a message is about. `exchange` is the one that the message's source names. `None` where neither it nor the
/// format nor the message itself names an exchange.
///
/// The symbol is the one that [`super::decode`] resolves for the message's rows, where all of them have the same.
pub fn subject(format: Format, message: &[u8], exchange: Option<&str>) -> Option<Subject> {
    let text = std::str::from_utf8(message).unwrap_or_default();
    if has_backslash(message) {
        find(format, &unescape(text), exchange)
    } else {
        find(format, text, exchange)
    }
}

fn find(format: Format, text: &str, exchange: Option<&str>) -> Option<Subject> {
    let of = |exchange: &str, symbol: Option<String>| {
        let symbol = symbol.filter(|symbol| is_name(symbol));
        Some(Subject { exchange: exchange.to_owned(), symbol })
    };
    match format {
        Format::CoinbaseExchange => {
            of(exchange.unwrap_or(coinbase_exchange::EXCHANGE), coinbase_exchange_symbol(text))
        }
        Format::CoinbaseAdvancedTrade => {
            of(exchange.unwrap_or(coinbase_exchange::EXCHANGE), advanced_trade_symbol(text))
        }
        Format::Binance => {
            let event = Event::parse(text).unwrap_or_default();
            of(exchange.unwrap_or_else(|| binance::exchange_of(&event)), binance_symbol(&event, text))
        }
        Format::Okx => of(exchange.unwrap_or(OKX), okx_symbol(text)),
        Format::Canonical => {
            let mut message = Canonical::default();
            if fill(text, &mut message).is_err() {
                message = Canonical::default();
            }
            let is_exchange = |name: &&str| is_name(name) && !name.contains(':');
            // The message's own exchange is the one that counts.
            match message.exchange.text().filter(is_exchange) {
                Some(own) => of(own, message.instrument.text().map(str::to_owned)),
                None => of(exchange?, None),
            }
        }
    }
}

message! {
    Canonical {
        exchange: "exchange",
        instrument: "instrument",
    }
}

message! {
    CoinbaseExchange {
        product_id: "product_id",
    }
}

fn coinbase_exchange_symbol(text: &str) -> Option<String> {
    let mut message = CoinbaseExchange::default();
    fill(text, &mut message).ok()?;
    message.product_id.text().map(str::to_owned)
}

message! {
    /// The macro wants a field, looked at or not.
    Envelope {
        kind: "type",
        [events: Entry: "events"],
    }
}

message! {
    /// An event of an envelope, in which some channels name the product and others have entries that do.
    Entry {
        product_id: "product_id",
        [tickers: Product: "tickers"],
        [trades: Product: "trades"],
        [candles: Product: "candles"],
        [products: Listed: "products"],
    }
}

message! {
    Product {
        product_id: "product_id",
    }
}

message! {
    Listed {
        id: "id",
    }
}

fn advanced_trade_symbol(text: &str) -> Option<String> {
    let mut message = Envelope::default();
    fill(text, &mut message).ok()?;
    let mut one = One::default();
    fn items<T>(list: &Few<T>) -> &[T] {
        list.items("").unwrap_or_default()
    }
    for event in items(&message.events) {
        one.add(&event.product_id);
        for list in [&event.tickers, &event.trades, &event.candles] {
            items(list).iter().for_each(|entry| one.add(&entry.product_id));
        }
        items(&event.products).iter().for_each(|product| one.add(&product.id));
    }
    one.symbol()
}

/// The one symbol of several places that may name it.
#[derive(Default)]
struct One<'a> {
    found: Option<&'a str>,
    several: bool,
}

impl<'a> One<'a> {
    fn add(&mut self, field: &Field<'a>) {
        // Text that can't be a name is of another instrument too.
        let text = match field {
            Field::Missing | Field::Null => return,
            Field::Text(text) => text,
            _ => "",
        };
        self.several |= self.found.is_some_and(|found| found != text);
        self.found = Some(text);
    }

    fn symbol(self) -> Option<String> {
        self.found.filter(|_| !self.several).map(str::to_owned)
    }
}

fn binance_symbol(event: &Event, text: &str) -> Option<String> {
    if matches!(event.data, Field::List) {
        return None;
    }
    match &event.symbol {
        Field::Text(symbol) => return Some((*symbol).to_owned()),
        Field::Missing => {}
        _ => return None,
    }
    // Partial books name no symbol, but their stream does: `btcusdt@depth20@100ms`.
    if let Some((symbol, _)) = event.stream.text().and_then(|stream| stream.split_once('@'))
        && !symbol.starts_with('!')
    {
        return Some(symbol.to_ascii_uppercase());
    }
    // What is left is rare: answers to REST requests, and events about orders.
    #[derive(Deserialize)]
    struct Rare<'a> {
        symbol: Option<&'a str>,
        #[serde(borrow)]
        data: Option<Order<'a>>,
        o: Option<Named<'a>>,
    }
    #[derive(Deserialize)]
    struct Order<'a> {
        #[serde(borrow)]
        o: Option<Named<'a>>,
    }
    #[derive(Deserialize)]
    struct Named<'a> {
        s: Option<&'a str>,
    }
    let rare: Rare = serde_json::from_str(text).ok()?;
    let order = rare.o.or(rare.data.and_then(|data| data.o));
    rare.symbol.or(order.and_then(|order| order.s)).map(str::to_owned)
}

message! {
    OkxNamed {
        id: "instId",
    }
}

message! {
    /// The macro wants a field here too.
    OkxEntries {
        arg: "arg",
        [data: OkxNamed: "data"],
    }
}

fn okx_symbol(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Subscribed<'a> {
        #[serde(borrow, default)]
        arg: OkxNamed<'a>,
        #[serde(borrow, default)]
        data: Field<'a>,
    }
    let message: Subscribed = serde_json::from_str(text).ok()?;
    // Acknowledgements name what was subscribed to, which is no news of it.
    if !matches!(message.data, Field::List) {
        return None;
    }
    if let Some(symbol) = message.arg.id.text() {
        return Some(symbol.to_owned());
    }
    let mut entries = OkxEntries::default();
    fill(text, &mut entries).ok()?;
    let mut one = One::default();
    entries.data.items("data").unwrap_or_default().iter().for_each(|entry| one.add(&entry.id));
    one.symbol()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: Format, message: &str, exchange: Option<&str>, expected: Option<(&str, Option<&str>)>) {
        let found = subject(format, message.as_bytes(), exchange);
        let expected = expected.map(|(exchange, symbol)| Subject {
            exchange: exchange.to_owned(),
            symbol: symbol.map(str::to_owned),
        });
        assert_eq!(found, expected, "{message}");
    }

    #[test]
    fn coinbase_exchange() {
        let check = |message, symbol| {
            check(Format::CoinbaseExchange, message, None, Some(("coinbase", symbol)));
        };
        check(r#"{"type":"ticker","product_id":"BTC-USD","price":1}"#, Some("BTC-USD"));
        check(r#"{"type":"snapshot","product_id":"BTC-USD","asks":[["1","2"]],"bids":[]}"#, Some("BTC-USD"));
        check(r#"{"type":"open","product_id":"BTC-USD"}"#, Some("BTC-USD"));
        check(r#"{"type":"ticker","product_id":"BTC\u002dUSD"}"#, Some("BTC-USD"));
        check(r#"{"type":"subscriptions","channels":[{"product_ids":["BTC-USD"]}]}"#, None);
        check(r#"{"type":"ticker","product_id":5}"#, None);
        check(r#"{"type":"ticker","product_id":""}"#, None);
        check(r#"{"type":"ticker","product_id":"BTC-USD""#, None);
        check("", None);
    }

    #[test]
    fn coinbase_advanced_trade() {
        let check = |events: &str, symbol| {
            let message = format!(r#"{{"channel":"x","timestamp":"t","sequence_num":1,"events":{events}}}"#);
            check(Format::CoinbaseAdvancedTrade, &message, None, Some(("coinbase", symbol)));
        };
        check(r#"[{"type":"update","tickers":[{"product_id":"A-B"}]}]"#, Some("A-B"));
        check(r#"[{"trades":[{"product_id":"A-B"},{"product_id":"A-B"}]}]"#, Some("A-B"));
        check(r#"[{"product_id":"A-B","updates":[]}]"#, Some("A-B"));
        check(r#"[{"candles":[{"product_id":"A-B"}]}]"#, Some("A-B"));
        check(r#"[{"products":[{"id":"A-B"}]}]"#, Some("A-B"));
        check(r#"[{"tickers":[{"product_id":"A-B"},{"product_id":"C-D"}]}]"#, None);
        check(r#"[{"tickers":[{"product_id":"A-B"},{"product_id":5}]}]"#, None);
        check(r#"[{"subscriptions":{"ticker":["A-B"]}}]"#, None);
        check("[]", None);
        check("5", None);
    }

    #[test]
    fn binance() {
        let check =
            |message, symbol| check(Format::Binance, message, Some("binance"), Some(("binance", symbol)));
        check(r#"{"u":4,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}"#, Some("BTCUSDT"));
        check(
            r#"{"stream":"btcusdt@kline_1m","data":{"e":"kline","s":"BTCUSDT","k":{"s":"X"}}}"#,
            Some("BTCUSDT"),
        );
        check(
            r#"{"stream":"btcusdt@depth5","data":{"lastUpdateId":1,"bids":[],"asks":[]}}"#,
            Some("BTCUSDT"),
        );
        check(r#"{"stream":"btcusd_perp@depth5@100ms","data":{"lastUpdateId":1}}"#, Some("BTCUSD_PERP"));
        check(
            r#"{"stream":"!forceOrder@arr","data":{"e":"forceOrder","o":{"s":"BTCUSDT"}}}"#,
            Some("BTCUSDT"),
        );
        check(r#"{"e":"forceOrder","o":{"s":"BTCUSDT"}}"#, Some("BTCUSDT"));
        check(r#"{"symbol":"BTCUSD_PERP","openInterest":"1"}"#, Some("BTCUSD_PERP"));
        check(r#"{"stream":"!ticker@arr","data":[{"s":"BTCUSDT"}]}"#, None);
        check(r#"[{"s":"BTCUSDT"}]"#, None);
        check(r#"{"lastUpdateId":1,"bids":[],"asks":[]}"#, None);
        check(r#"{"result":null,"id":1}"#, None);
        check("{", None);
    }

    #[test]
    fn a_binance_message_tells_its_market_where_nothing_else_does() {
        let check = |message, exchange| check(Format::Binance, message, None, Some((exchange, Some("X"))));
        check(r#"{"e":"depthUpdate","s":"X","pu":1}"#, "binance-usdm");
        check(r#"{"e":"kline","s":"X"}"#, "binance");
    }

    #[test]
    fn okx() {
        let check = |message, symbol| check(Format::Okx, message, None, Some(("okx", symbol)));
        check(r#"{"arg":{"channel":"books","instId":"A-B"},"data":[{"asks":[]}]}"#, Some("A-B"));
        check(r#"{"arg":{"channel":"trades","instId":"A-B"},"data":[{"instId":"A-B"}]}"#, Some("A-B"));
        check(r#"{"arg":{"channel":"tickers","instType":"SPOT"},"data":[{"instId":"A-B"}]}"#, Some("A-B"));
        check(r#"{"arg":{"channel":"tickers"},"data":[{"instId":"A-B"},{"instId":"C-D"}]}"#, None);
        check(r#"{"arg":{"channel":"candle1m","instId":"A-B"},"data":[["1","2"]]}"#, Some("A-B"));
        check(r#"{"event":"subscribe","arg":{"channel":"books","instId":"A-B"}}"#, None);
        check("pong", None);
    }

    #[test]
    fn canonical() {
        let format = Format::Canonical;
        check(format, r#"{"type":"quote","exchange":"x","instrument":"A"}"#, None, Some(("x", Some("A"))));
        check(
            format,
            r#"{"type":"quote","exchange":"x","instrument":"A"}"#,
            Some("y"),
            Some(("x", Some("A"))),
        );
        check(format, r#"{"type":"quote","exchange":"x"}"#, None, Some(("x", None)));
        check(format, r#"{"type":"quote","exchange":"x:y","instrument":"A"}"#, None, None);
        check(format, r#"{"type":"quote","instrument":"A"}"#, Some("y"), Some(("y", None)));
        check(format, "{", None, None);
    }
}
