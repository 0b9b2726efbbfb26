//! Our own format, for feeds that no decoder knows: one object, one row (docs/definitions.md, "Input").

use super::detect::Shape;
use super::format::WireFormat;
use super::rows::{Draft, NAMES, Rows, Stamp, is_name};
use super::shift::{MovablePlace, id};
use super::subject::Subject;
use super::{Format, Venue, Verdict, tells_nothing};
use crate::json::field::{FieldProblem, quote};
use crate::json::message::{fill, message};
use crate::row::{Body, Channel, Quote, Trade};

/// Feeds that no decoder knows: their messages name the exchange.
pub static VENUE: Venue =
    Venue { formats: &[&WIRE], exchanges: &[], exchange_of: tells_nothing, exchange_of_url: tells_nothing };

pub const CANONICAL: Format = Format(&WIRE);

static WIRE: WireFormat = WireFormat {
    name: "canonical",
    decode,
    time_digits: None,
    begins: &[b"{\"type\""],
    detects,
    subject,
    movable: |_| movable,
};

message! {
    Message {
        kind: "type",
        exchange: "exchange",
        instrument: "instrument",
        event_time: "event_time",
        sequence: "sequence",
        bid: "bid",
        bid_size: "bid_size",
        ask: "ask",
        ask_size: "ask_size",
        price: "price",
        size: "size",
        side: "side",
    }
}

/// Reads one message.
pub(crate) fn decode(text: &str, rows: &mut Rows) -> Result<Verdict, FieldProblem> {
    let mut message = Message::default();
    fill(text, &mut message)?;
    let channel = match message.kind.need_text("type")? {
        "quote" => Channel::BookTicker,
        "trade" => Channel::Trade,
        "heartbeat" => Channel::Heartbeat,
        "control" => return Ok(Verdict::Control),
        _ => return Ok(Verdict::Ignored),
    };
    let exchange = message.exchange.need_text("exchange")?;
    // A colon would make the key `exchange:instrument` ambiguous.
    if !is_name(exchange) || exchange.contains(':') {
        return Err(message.exchange.wrong("exchange", &format!("{NAMES}, and no colon,")));
    }
    if !is_name(message.instrument.need_text("instrument")?) {
        return Err(message.instrument.wrong("instrument", NAMES));
    }
    let id = match channel {
        Channel::Heartbeat => None,
        _ if message.sequence.is_blank() => None,
        _ => Some(message.sequence.need_whole("sequence")?),
    };
    let stamp = Stamp::of_text("event_time", &message.event_time);
    let symbol = &message.instrument;
    let draft = Draft {
        exchange,
        symbol_name: "instrument",
        symbol,
        stamp: &stamp,
        channel,
        id,
        quotes_have_time: true,
    };
    rows.add(&draft, || match channel {
        Channel::Heartbeat => Ok(Body::Heartbeat),
        Channel::Trade => Ok(Body::Trade(Trade {
            price: message.price.price("price")?,
            size: message.size.size("size")?,
            side: message.side.side("side")?,
        })),
        _ => {
            let sides = [&message.bid, &message.bid_size, &message.ask, &message.ask_size];
            let quote = quote(&["bid", "bid_size", "ask", "ask_size"], sides)?;
            let price = message.price.optional_price("price")?;
            // A quote may carry the last trade's price, but tells of no trade: trades have rows of their own.
            Ok(Body::Quote(Quote { price, trade: false, ..quote }))
        }
    })?;
    Ok(Verdict::Rows)
}

/// Whether a message names exchange and instrument, as only this format does.
pub(crate) fn detects(shape: &Shape, _: &str) -> bool {
    matches!(shape.kind.text(), Some("quote" | "trade" | "book" | "heartbeat"))
        && shape.exchange.text().is_some()
        && shape.instrument.text().is_some()
}

message! {
    Named {
        exchange: "exchange",
        instrument: "instrument",
    }
}

/// The message's own exchange is the one that counts.
fn subject(text: &str, exchange: Option<&str>) -> Option<Subject> {
    let mut message = Named::default();
    if fill(text, &mut message).is_err() {
        message = Named::default();
    }
    let is_exchange = |name: &&str| is_name(name) && !name.contains(':');
    match message.exchange.text().filter(is_exchange) {
        Some(own) => Subject::of(own, message.instrument.text().map(str::to_owned)),
        None => Subject::of(exchange?, None),
    }
}

fn movable(_: &[u8], key: &[u8]) -> Option<MovablePlace> {
    match key {
        b"event_time" => Some(MovablePlace::Time),
        b"sequence" => id("sequence"),
        _ => None,
    }
}
