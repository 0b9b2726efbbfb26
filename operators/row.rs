//! Rows: what a venue's message says about one instrument, as numbers.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// A small integer that stands for an (exchange, instrument) pair within one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstrumentId(pub u32);

/// The stream of a venue that a row came in on (docs/definitions.md, "Input"). Of the channels that carry quotes, and of those that
/// carry trades, the smaller is the better: it says more of the market, or says it sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Channel {
    /// Best bid and ask, each change.
    BookTicker,
    /// Single trades.
    Trade,
    /// Trades of one taker order at one price, summed.
    AggTrade,
    /// Best bid and ask with the last trade.
    Ticker,
    /// Quotes taken from a book's top.
    Book,
    /// Signs of life without a price.
    Heartbeat,
}

impl Channel {
    /// How many channels there are; `channel as usize` is below it.
    pub const COUNT: usize = 6;

    /// The name used in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Channel::BookTicker => "bookTicker",
            Channel::Ticker => "ticker",
            Channel::Book => "book",
            Channel::Trade => "trade",
            Channel::AggTrade => "aggTrade",
            Channel::Heartbeat => "heartbeat",
        }
    }
}

/// Where a message stands in its log: `file` is the position in the list of sources, `line` counts from 1
/// (or is a Kafka offset).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    pub file: u32,
    pub line: u64,
}

/// Where something stands in what its batch owns: a message's bytes, or levels of a book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    pub start: u32,
    pub length: u32,
}

impl Extent {
    /// What stands there, as much of it as is there: of a message that is too long only the beginning is kept.
    pub fn of<T>(self, owned: &[T]) -> &[T] {
        let start = (self.start as usize).min(owned.len());
        &owned[start..owned.len().min(start + self.length as usize)]
    }
}

/// One level of an order book.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    pub price: f64,
    /// 0: the level is gone.
    pub size: f64,
}

/// Which side took liquidity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    Buy,
    Sell,
}

/// One row, validated: prices are finite and above 0, sizes finite and not negative, bid <= ask.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub instrument: InstrumentId,
    pub channel: Channel,
    /// Fraction digits with which the row's times are printed: as many as its format has.
    pub digits: u8,
    /// Position of the row in its message.
    pub index: u32,
    /// Whether the message holds no other row.
    pub alone: bool,
    /// The row's own time, by the clock its instrument uses.
    pub event_time: Time,
    /// The instrument's clock when the row is processed: set by the order operator, `event_time` before it.
    pub clock: Time,
    /// When the row was received, where the data itself says so and its time is another than that.
    pub received: Option<Time>,
    /// The venue's id of the row within its channel, where it has one.
    pub id: Option<u64>,
    pub source: Source,
    pub extent: Extent,
    /// The number of the newest change that stands before the row in its log: set by the chain, 0 before it.
    pub behind: u32,
    pub body: Body,
}

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    Quote(Quote),
    Trade(Trade),
    /// Levels of the instrument's book, as they stand in the levels of the batch.
    Book(Extent),
    Heartbeat,
}

/// Best bid and ask. Sizes are NaN where the feed has none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quote {
    pub bid: f64,
    pub bid_size: f64,
    pub ask: f64,
    pub ask_size: f64,
    /// Price of the last trade, for tickers; NaN where the row carries none.
    pub price: f64,
    /// Whether the row tells of a new trade too (a ticker update, not a snapshot). The order operator clears
    /// it where the instrument's trades come from another channel.
    pub trade: bool,
}

/// A trade.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trade {
    pub price: f64,
    /// NaN where the feed has none.
    pub size: f64,
    /// Side of the aggressor; `None` where the feed does not say.
    pub side: Option<Side>,
}
