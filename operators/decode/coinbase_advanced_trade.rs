//! Coinbase Advanced Trade's websocket feed: envelopes of events.
//!
//! ```text
//! {channel, timestamp, sequence_num, events: [{type, tickers: [{…}] or trades: [{…}]}]}
//! ```
//! `timestamp` is the event time of all rows inside; `sequence_num` counts the connection's messages, so it
//! is no row's id.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::coinbase_exchange::{EXCHANGE, opposite};
use super::field::{Field, Object, Problem, quote};
use super::rows::{Draft, Rows, Stamp};
use super::{Verdict, parse};
use crate::row::{Body, Channel, Quote};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    channel: Field<'a>,
    #[serde(borrow)]
    timestamp: Field<'a>,
    /// Only errors and requests have one.
    #[serde(borrow, rename = "type")]
    kind: Field<'a>,
    #[serde(borrow)]
    events: Few<Object<Event<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Field<'a>,
    #[serde(borrow)]
    tickers: Few<Object<Ticker<'a>>>,
    #[serde(borrow)]
    trades: Few<Object<Trade<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ticker<'a> {
    #[serde(borrow)]
    product_id: Field<'a>,
    #[serde(borrow)]
    price: Field<'a>,
    #[serde(borrow)]
    best_bid: Field<'a>,
    #[serde(borrow)]
    best_bid_quantity: Field<'a>,
    #[serde(borrow)]
    best_ask: Field<'a>,
    #[serde(borrow)]
    best_ask_quantity: Field<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Trade<'a> {
    #[serde(borrow)]
    product_id: Field<'a>,
    #[serde(borrow)]
    trade_id: Field<'a>,
    #[serde(borrow)]
    price: Field<'a>,
    #[serde(borrow)]
    size: Field<'a>,
    #[serde(borrow)]
    side: Field<'a>,
}

/// Reads one message.
pub(super) fn decode(text: &str, rows: &mut Rows) -> Result<Verdict, Problem> {
    let Object(message) = parse::<Object<Message>>(text)?;
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
    for Object(event) in message.events.items("events")? {
        let update = match event.kind.need_text("type")? {
            "update" => true,
            "snapshot" => false,
            _ => return Err(event.kind.wrong("type", "\"snapshot\" or \"update\"")),
        };
        if channel == Channel::Ticker {
            for Object(entry) in event.tickers.items("tickers")? {
                ticker(entry, update, &head, rows)?;
            }
        } else if update {
            // A snapshot repeats trades of before the subscription.
            for Object(entry) in event.trades.items("trades")? {
                trade(entry, &head, rows)?;
            }
        }
    }
    Ok(Verdict::Rows)
}

fn ticker(entry: &Ticker, update: bool, head: &Head, rows: &mut Rows) -> Result<(), Problem> {
    rows.add(&head.draft(&entry.product_id, None), || {
        let sides = [&entry.best_bid, &entry.best_bid_quantity, &entry.best_ask, &entry.best_ask_quantity];
        let quote = quote(&["best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity"], sides)?;
        let price = entry.price.optional_price("price")?;
        Ok(Body::Quote(Quote { price, trade: update && !price.is_nan(), ..quote }))
    })
}

/// The side is the maker's, as everywhere at Coinbase ("the `side` of a trade indicates the maker order side").
fn trade(entry: &Trade, head: &Head, rows: &mut Rows) -> Result<(), Problem> {
    rows.add(&head.draft(&entry.product_id, entry.trade_id.whole()), || {
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
    fn draft<'f, 'a>(&'f self, symbol: &'f Field<'a>, id: Option<u64>) -> Draft<'f, 'a> {
        let Head { exchange, stamp, channel } = self;
        Draft { exchange, symbol_name: "product_id", symbol, stamp, channel: *channel, id }
    }
}

/// A list that mostly has one entry, which is kept without allocating.
#[derive(Default)]
enum Few<T> {
    #[default]
    Missing,
    None,
    One(T),
    Many(Vec<T>),
}

impl<T> Few<T> {
    /// The entries of a list that must be there.
    fn items(&self, name: &str) -> Result<&[T], Problem> {
        match self {
            Few::Missing => Err(Field::Missing.wrong(name, "a list")),
            Few::None => Ok(&[]),
            Few::One(item) => Ok(std::slice::from_ref(item)),
            Few::Many(items) => Ok(items),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

struct FewVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FewVisitor<T> {
    type Value = Few<T>;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Some(first) = list.next_element()? else { return Ok(Few::None) };
        let Some(second) = list.next_element()? else { return Ok(Few::One(first)) };
        let mut items = vec![first, second];
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Few::Many(items))
    }
}
