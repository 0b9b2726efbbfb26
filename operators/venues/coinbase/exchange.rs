//! Coinbase Exchange's websocket feed: flat objects told apart by `type`.

use super::{EXCHANGE, movable, opposite};
use crate::json::field::{FieldProblem, quote};
use crate::json::message::{fill, message};
use crate::row::{Body, Channel, Quote, Trade};
use crate::venues::detect::{Shape, is_list};
use crate::venues::format::WireFormat;
use crate::venues::rows::{Draft, Rows, Stamp};
use crate::venues::subject::Subject;
use crate::venues::{Verdict, canonical};

pub(crate) static WIRE: WireFormat = WireFormat {
    name: "coinbase-exchange",
    decode,
    time_digits: None,
    begins: &[b"{\"type\":\"ticker\"", b"{\"type\":\"match\""],
    detects,
    subject: |text, exchange| Subject::of(exchange.unwrap_or(EXCHANGE), symbol(text)),
    movable: |_| movable,
};

message! {
    /// All fields that any of the used types needs.
    Message {
        kind: "type",
        product_id: "product_id",
        sequence: "sequence",
        trade_id: "trade_id",
        time: "time",
        price: "price",
        size: "size",
        side: "side",
        best_bid: "best_bid",
        best_bid_size: "best_bid_size",
        best_ask: "best_ask",
        best_ask_size: "best_ask_size",
    }
}

/// Reads one message.
pub(crate) fn decode(text: &str, rows: &mut Rows) -> Result<Verdict, FieldProblem> {
    let mut message = Message::default();
    fill(text, &mut message)?;
    match message.kind.need_text("type")? {
        "ticker" => ticker(&message, rows)?,
        "match" => trade(&message, rows)?,
        "heartbeat" => row(&message, Channel::Heartbeat, None, rows, || Ok(Body::Heartbeat))?,
        // `subscribe` and `unsubscribe` are what a recorder sent.
        "subscriptions" | "error" | "subscribe" | "unsubscribe" | "control" => return Ok(Verdict::Control),
        // `last_match` repeats on subscription a trade of before; the book's messages and the full channel's
        // are not used yet.
        _ => return Ok(Verdict::Ignored),
    }
    Ok(Verdict::Rows)
}

fn ticker(message: &Message, rows: &mut Rows) -> Result<(), FieldProblem> {
    let id = message.sequence.need_whole("sequence")?;
    row(message, Channel::Ticker, Some(id), rows, || {
        let sides = [&message.best_bid, &message.best_bid_size, &message.best_ask, &message.best_ask_size];
        let quote = quote(&["best_bid", "best_bid_size", "best_ask", "best_ask_size"], sides)?;
        let price = message.price.optional_price("price")?;
        Ok(Body::Quote(Quote { price, trade: !price.is_nan(), ..quote }))
    })
}

/// The row's id is the trade's, which is unique within a product. `sequence` is too, but it counts all messages
/// of the product's full feed: a `match` and the `ticker` of the same trade have the same one.
fn trade(message: &Message, rows: &mut Rows) -> Result<(), FieldProblem> {
    let id = message.trade_id.need_whole("trade_id")?;
    row(message, Channel::Trade, Some(id), rows, || {
        Ok(Body::Trade(Trade {
            price: message.price.price("price")?,
            size: message.size.size("size")?,
            side: message.side.side("side")?.map(opposite),
        }))
    })
}

/// Adds the message's one row. Tickers that old feeds sent on subscription have no `time`: they say what was,
/// not when, and are refused.
fn row(
    message: &Message,
    channel: Channel,
    id: Option<u64>,
    rows: &mut Rows,
    body: impl FnOnce() -> Result<Body, FieldProblem>,
) -> Result<(), FieldProblem> {
    let stamp = &Stamp::of_coinbase("time", &message.time);
    let (exchange, symbol) = (rows.envelope.exchange.unwrap_or(EXCHANGE), &message.product_id);
    rows.add(
        &Draft { exchange, symbol_name: "product_id", symbol, stamp, channel, id, quotes_have_time: true },
        body,
    )
}

fn detects(shape: &Shape, text: &str) -> bool {
    match shape.kind.text() {
        Some("subscriptions") if is_list(&shape.channels) => true,
        Some(_) => shape.product_id.text().is_some() && !canonical::detects(shape, text),
        None => false,
    }
}

message! {
    Named {
        product_id: "product_id",
    }
}

fn symbol(text: &str) -> Option<String> {
    let mut message = Named::default();
    fill(text, &mut message).ok()?;
    message.product_id.text().map(str::to_owned)
}
