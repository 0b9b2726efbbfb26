//! Our own format, for feeds that no decoder knows: one object, one row (docs/definitions.md, "Input").

use super::Verdict;
use super::field::{FieldProblem, quote};
use super::message::{fill, message};
use super::rows::{Draft, Rows, Stamp, is_name};
use crate::row::{Body, Channel, Quote, Trade};

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
pub(super) fn decode(text: &str, rows: &mut Rows) -> Result<Verdict, FieldProblem> {
    let mut message = Message::default();
    fill(text, &mut message)?;
    let channel = match message.kind.need_text("type")? {
        "quote" => Channel::BookTicker,
        "trade" => Channel::Trade,
        "heartbeat" => Channel::Heartbeat,
        "control" => return Ok(Verdict::Control),
        _ => return Ok(Verdict::Ignored),
    };
    let allowed = "a name of 1 to 64 printable ASCII characters";
    let exchange = message.exchange.need_text("exchange")?;
    // A colon would make the key `exchange:instrument` ambiguous.
    if !is_name(exchange) || exchange.contains(':') {
        return Err(message.exchange.wrong("exchange", allowed));
    }
    if !is_name(message.instrument.need_text("instrument")?) {
        return Err(message.instrument.wrong("instrument", allowed));
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
