//! Binance: spot and two sorts of futures, one wire format.

pub(crate) mod event;
mod stream;

use serde::Deserialize;

use super::detect::{Shape, is_envelope};
use super::format::{Movable, WireFormat};
use super::shift::{MovablePlace, id};
use super::subject::Subject;
use super::{Exchange, Format, Trades, Venue, has_backslash};
use crate::json::field::Field;
use crate::json::message::unescape;
use event::Event;

pub static VENUE: Venue = Venue {
    formats: &[&WIRE],
    exchanges: &[
        Exchange {
            about_clock: "The clock that rows run on: the spot bookTicker has no exchange time, so auto means the receipt where it is used.",
            ..Exchange::named(SPOT, Trades::Spot)
        },
        Exchange::named(USD_MARGINED, Trades::Contracts),
        Exchange::named(COIN_MARGINED, Trades::Contracts),
    ],
    exchange_of: market,
    exchange_of_url: market_of_url,
};

pub const BINANCE: Format = Format(&WIRE);

static WIRE: WireFormat = WireFormat {
    name: "binance",
    decode: stream::decode,
    time_digits: Some(3),
    begins: &[b"{\"stream\"", b"{\"e\""],
    detects,
    subject,
    movable: |message| Kind::of(message).movable(),
};

const SPOT: &str = "binance";
const USD_MARGINED: &str = "binance-usdm";
const COIN_MARGINED: &str = "binance-coinm";

/// The exchange of an event whose source names none.
fn exchange_of(event: &Event) -> &'static str {
    event.market().unwrap_or(SPOT)
}

/// The market that a message can only be of, if its shape tells.
fn market(message: &[u8]) -> Option<&'static str> {
    Event::parse(std::str::from_utf8(message).ok()?).ok()?.market()
}

/// The market behind an address, for recordings that begin with the one they are of.
fn market_of_url(line: &[u8]) -> Option<&'static str> {
    let scheme = line.windows(3).position(|part| part == b"://")?;
    let host = line[scheme + 3..].split(|byte| matches!(byte, b':' | b'/' | b'?' | b' ')).next()?;
    match host {
        b"stream.binance.com" | b"data-stream.binance.vision" | b"api.binance.com" => Some(SPOT),
        b"stream.binance.us" | b"api.binance.us" => Some(SPOT),
        b"fstream.binance.com" | b"fapi.binance.com" => Some(USD_MARGINED),
        b"dstream.binance.com" | b"dapi.binance.com" => Some(COIN_MARGINED),
        _ => None,
    }
}

fn detects(shape: &Shape, text: &str) -> bool {
    if shape.kind.text().is_some() || is_envelope(shape) {
        return false;
    }
    let Ok(event) = Event::parse(text) else { return false };
    let combined = event.stream.text().is_some() && !event.data.is_missing();
    let named = event.kind.text().is_some() && !event.event_time.is_missing();
    combined || named || event.is_bare_quote()
}

fn subject(text: &str, exchange: Option<&str>) -> Option<Subject> {
    let event = Event::parse(text).unwrap_or_default();
    Subject::of(exchange.unwrap_or_else(|| exchange_of(&event)), symbol(&event, text))
}

fn symbol(event: &Event, text: &str) -> Option<String> {
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

/// The events of Binance in which a letter is an id: elsewhere it is a price, a time, or an order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Book,
    Trade,
    AggTrade,
    Other,
}

impl Kind {
    fn of(message: &[u8]) -> Kind {
        let Ok(text) = std::str::from_utf8(message) else { return Kind::Other };
        let plain;
        let text = if has_backslash(message) {
            plain = unescape(text);
            &plain
        } else {
            text
        };
        let Ok(event) = Event::parse(text) else { return Kind::Other };
        match event.kind.text() {
            Some("bookTicker" | "depthUpdate") => Kind::Book,
            Some("trade") => Kind::Trade,
            Some("aggTrade") => Kind::AggTrade,
            Some(_) => Kind::Other,
            // Spot quotes, partial books and snapshots.
            None => Kind::Book,
        }
    }

    /// Where times and ids of such an event stand.
    fn movable(self) -> Movable {
        match self {
            Kind::Book => |parent, key| movable(Kind::Book, parent, key),
            Kind::Trade => |parent, key| movable(Kind::Trade, parent, key),
            Kind::AggTrade => |parent, key| movable(Kind::AggTrade, parent, key),
            Kind::Other => |parent, key| movable(Kind::Other, parent, key),
        }
    }
}

fn movable(kind: Kind, parent: &[u8], key: &[u8]) -> Option<MovablePlace> {
    let of_event = parent.is_empty() || parent == b"data";
    match (kind, key) {
        (_, b"E" | b"T") => Some(MovablePlace::Time),
        // A candle's beginning.
        (Kind::Other, b"t") if parent == b"k" => Some(MovablePlace::Time),
        (Kind::Book, b"u" | b"U" | b"pu" | b"lastUpdateId") if of_event => id("u"),
        (Kind::Trade, b"t") if of_event => id("t"),
        (Kind::AggTrade, b"a") if of_event => id("a"),
        (Kind::AggTrade, b"f" | b"l") if of_event => id("t"),
        _ => None,
    }
}
