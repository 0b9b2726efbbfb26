//! Coinbase Advanced Trade's websocket feed: envelopes of events.
//!
//! ```text
//! {channel, timestamp, sequence_num, events: [{type, tickers: [{…}] or trades: [{…}]}]}
//! ```
//! `timestamp` is the event time of all rows inside; `sequence_num` counts the connection's messages, so it
//! is no row's id.

use super::{EXCHANGE, movable, opposite};
use crate::json::field::{Field, FieldProblem, quote};
use crate::json::message::{Few, fill, message};
use crate::row::{Body, Channel, Quote};
use crate::venues::Verdict;
use crate::venues::detect::{Shape, is_envelope, is_list};
use crate::venues::format::WireFormat;
use crate::venues::rows::{Draft, Rows, Stamp};
use crate::venues::subject::{OneSymbol, Subject};

pub(crate) static WIRE: WireFormat = WireFormat {
    name: "coinbase-advanced-trade",
    decode,
    time_digits: None,
    begins: &[b"{\"channel\""],
    detects,
    subject: |text, exchange| Subject::of(exchange.unwrap_or(EXCHANGE), symbol(text)),
    movable: |_| movable,
};

message! {
    Message {
        channel: "channel",
        timestamp: "timestamp",
        kind: "type",
        [events: Event: "events"],
    }
}

message! {
    Event {
        kind: "type",
        [tickers: Ticker: "tickers"],
        [trades: Trade: "trades"],
    }
}

message! {
    Ticker {
        product_id: "product_id",
        price: "price",
        best_bid: "best_bid",
        best_bid_quantity: "best_bid_quantity",
        best_ask: "best_ask",
        best_ask_quantity: "best_ask_quantity",
    }
}

message! {
    Trade {
        product_id: "product_id",
        price: "price",
        size: "size",
        side: "side",
    }
}

/// Reads one message.
pub(crate) fn decode(text: &str, rows: &mut Rows) -> Result<Verdict, FieldProblem> {
    let mut message = Message::default();
    fill(text, &mut message)?;
    // Only what is no envelope has a type: errors, and the requests that a recorder sent.
    if let Some("error" | "subscribe" | "unsubscribe" | "control") = message.kind.text() {
        return Ok(Verdict::Control);
    }
    let channel = match message.channel.need_text("channel")? {
        "ticker" => Channel::Ticker,
        "market_trades" => Channel::Trade,
        "subscriptions" => return Ok(Verdict::Control),
        // `ticker_batch` has no quote in many of its messages, `heartbeats` are the connection's.
        _ => return Ok(Verdict::Ignored),
    };
    let exchange = rows.envelope.exchange.unwrap_or(EXCHANGE);
    let head = Head { exchange, stamp: Stamp::of_coinbase("timestamp", &message.timestamp), channel };
    for event in message.events.items("events")? {
        let update = match event.kind.need_text("type")? {
            "update" => true,
            "snapshot" => false,
            _ => return Err(event.kind.wrong("type", "\"snapshot\" or \"update\"")),
        };
        if channel == Channel::Ticker {
            for entry in event.tickers.items("tickers")? {
                ticker(entry, update, &head, rows)?;
            }
        } else if update {
            // A snapshot repeats trades of before the subscription.
            for entry in event.trades.items("trades")? {
                trade(entry, &head, rows)?;
            }
        }
    }
    Ok(Verdict::Rows)
}

fn ticker(entry: &Ticker, update: bool, head: &Head, rows: &mut Rows) -> Result<(), FieldProblem> {
    rows.add(&head.draft(&entry.product_id), || {
        let sides = [&entry.best_bid, &entry.best_bid_quantity, &entry.best_ask, &entry.best_ask_quantity];
        let quote = quote(&["best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity"], sides)?;
        let price = entry.price.optional_price("price")?;
        Ok(Body::Quote(Quote { price, trade: update && !price.is_nan(), ..quote }))
    })
}

/// The side is the maker's, as everywhere at Coinbase ("the `side` of a trade indicates the maker order side").
fn trade(entry: &Trade, head: &Head, rows: &mut Rows) -> Result<(), FieldProblem> {
    rows.add(&head.draft(&entry.product_id), || {
        Ok(Body::Trade(crate::row::Trade {
            price: entry.price.price("price")?,
            size: entry.size.size("size")?,
            side: entry.side.side("side")?.map(opposite),
        }))
    })
}

/// What all rows of a message share.
struct Head<'m> {
    exchange: &'m str,
    stamp: Stamp,
    channel: Channel,
}

impl Head<'_> {
    /// Rows of this feed have no id: equal prints are legal (docs/definitions.md, "Order").
    fn draft<'f, 'a>(&'f self, symbol: &'f Field<'a>) -> Draft<'f, 'a> {
        let Head { exchange, stamp, channel } = self;
        Draft {
            exchange,
            symbol_name: "product_id",
            symbol,
            stamp,
            channel: *channel,
            id: None,
            quotes_have_time: true,
        }
    }
}

fn detects(shape: &Shape, _: &str) -> bool {
    shape.kind.text().is_none() && is_envelope(shape) && is_list(&shape.events)
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
        [tickers: NamedProduct: "tickers"],
        [trades: NamedProduct: "trades"],
        [candles: NamedProduct: "candles"],
        [products: Listed: "products"],
    }
}

message! {
    NamedProduct {
        product_id: "product_id",
    }
}

message! {
    Listed {
        id: "id",
    }
}

fn symbol(text: &str) -> Option<String> {
    let mut message = Envelope::default();
    fill(text, &mut message).ok()?;
    let mut one = OneSymbol::default();
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
