//! OKX v5. Its acknowledgements are told from its data; no channel is used yet, so all data is ignored.

use serde::Deserialize;

use super::detect::{Shape, is_envelope, is_list};
use super::format::WireFormat;
use super::rows::Rows;
use super::shift::{MovablePlace, id};
use super::subject::{OneSymbol, Subject};
use super::{Exchange, Format, Trades, Venue, Verdict, tells_nothing};
use crate::json::field::{Field, FieldProblem};
use crate::json::message::{fill, message};

/// OKX: all of its markets are one exchange.
pub static VENUE: Venue = Venue {
    formats: &[&WIRE],
    exchanges: &[Exchange::named(EXCHANGE, Trades::Both)],
    exchange_of: tells_nothing,
    exchange_of_url: tells_nothing,
};

pub const OKX: Format = Format(&WIRE);

const EXCHANGE: &str = "okx";

static WIRE: WireFormat = WireFormat {
    name: "okx",
    decode,
    time_digits: Some(3),
    begins: &[],
    detects,
    subject: |text, exchange| Subject::of(exchange.unwrap_or(EXCHANGE), symbol(text)),
    movable: |_| movable,
};

message! {
    Message {
        event: "event",
        op: "op",
        arg: "arg",
        data: "data",
    }
}

/// Reads one message.
pub(crate) fn decode(text: &str, _: &mut Rows) -> Result<Verdict, FieldProblem> {
    // Signs of life of the connection, which are no JSON.
    if matches!(text, "ping" | "pong") {
        return Ok(Verdict::Control);
    }
    let mut message = Message::default();
    fill(text, &mut message)?;
    if message.event.text().is_some() || message.op.text().is_some() {
        return Ok(Verdict::Control);
    }
    match message.data {
        Field::List => Ok(Verdict::Ignored),
        other => Err(other.wrong("data", "a list")),
    }
}

/// Data or an acknowledgement, with its subscription.
fn detects(shape: &Shape, text: &str) -> bool {
    let mut message = Message::default();
    let is_subscription = |field: &Field| matches!(field, Field::Object);
    shape.kind.text().is_none()
        && !is_envelope(shape)
        && fill(text, &mut message).is_ok()
        && is_subscription(&message.arg)
        && (is_list(&message.data) || message.event.text().is_some())
}

message! {
    Named {
        id: "instId",
    }
}

message! {
    /// The macro wants a field here too.
    Entries {
        arg: "arg",
        [data: Named: "data"],
    }
}

fn symbol(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Subscribed<'a> {
        #[serde(borrow, default)]
        arg: Named<'a>,
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
    let mut entries = Entries::default();
    fill(text, &mut entries).ok()?;
    let mut one = OneSymbol::default();
    entries.data.items("data").unwrap_or_default().iter().for_each(|entry| one.add(&entry.id));
    one.symbol()
}

fn movable(_: &[u8], key: &[u8]) -> Option<MovablePlace> {
    match key {
        b"ts" => Some(MovablePlace::Time),
        b"tradeId" => id("tradeId"),
        b"seqId" | b"prevSeqId" => id("seqId"),
        _ => None,
    }
}
