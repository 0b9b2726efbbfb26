//! What a message is about: the exchange and the one symbol that it names, rows or not.
//!
//! Whoever writes messages to a partitioned log asks this, so that all of an instrument's messages share a
//! partition, those of channels that no decoder uses yet included.

use super::rows::is_name;
use super::{Format, has_backslash};
use crate::json::field::Field;
use crate::json::message::unescape;

/// An instrument as its venue names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub exchange: String,
    /// The venue's own symbol; `None` where the message names none or several: acknowledgements, signs of life of
    /// the connection, lists of tickers, and what can't be parsed.
    pub symbol: Option<String>,
}

impl Subject {
    /// Names that can't be one are none.
    pub(crate) fn of(exchange: &str, symbol: Option<String>) -> Option<Subject> {
        let symbol = symbol.filter(|symbol| is_name(symbol));
        Some(Subject { exchange: exchange.to_owned(), symbol })
    }
}

/// What a message is about. `exchange` is the one that the message's source names. `None` where neither it nor the
/// format nor the message itself names an exchange.
///
/// The symbol is the one that [`super::decode`] resolves for the message's rows, where all of them have the same.
pub fn subject(format: Format, message: &[u8], exchange: Option<&str>) -> Option<Subject> {
    let text = std::str::from_utf8(message).unwrap_or_default();
    if has_backslash(message) {
        (format.0.subject)(&unescape(text), exchange)
    } else {
        (format.0.subject)(text, exchange)
    }
}

/// The one symbol of several places that may name it.
#[derive(Default)]
pub(crate) struct OneSymbol<'a> {
    found: Option<&'a str>,
    several: bool,
}

impl<'a> OneSymbol<'a> {
    pub(crate) fn add(&mut self, field: &Field<'a>) {
        // Text that can't be a name is of another instrument too.
        let text = match field {
            Field::Missing | Field::Null => return,
            Field::Text(text) => text,
            _ => "",
        };
        self.several |= self.found.is_some_and(|found| found != text);
        self.found = Some(text);
    }

    pub(crate) fn symbol(self) -> Option<String> {
        self.found.filter(|_| !self.several).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venues::binance::BINANCE;
    use crate::venues::canonical::CANONICAL;
    use crate::venues::coinbase::COINBASE_ADVANCED_TRADE;
    use crate::venues::coinbase::COINBASE_EXCHANGE;
    use crate::venues::okx::OKX;

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
            check(COINBASE_EXCHANGE, message, None, Some(("coinbase", symbol)));
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
            check(COINBASE_ADVANCED_TRADE, &message, None, Some(("coinbase", symbol)));
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
        let check = |message, symbol| check(BINANCE, message, Some("binance"), Some(("binance", symbol)));
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
        let check = |message, exchange| check(BINANCE, message, None, Some((exchange, Some("X"))));
        check(r#"{"e":"depthUpdate","s":"X","pu":1}"#, "binance-usdm");
        check(r#"{"e":"kline","s":"X"}"#, "binance");
    }

    #[test]
    fn okx() {
        let check = |message, symbol| check(OKX, message, None, Some(("okx", symbol)));
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
        let format = CANONICAL;
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
