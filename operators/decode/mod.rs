//! From a venue's bytes to rows. One file a venue; only these files know wire formats.

use crate::account::Reason;
use crate::row::{Extent, InstrumentId, Row, Source};
use crate::time::{Nanos, Time};

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    CoinbaseExchange,
    CoinbaseAdvancedTrade,
    Binance,
    Canonical,
}

/// Which of a row's times its instrument runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockSource {
    /// The exchange's time, as the format defines it.
    Exchange,
    /// The time of receipt.
    Received,
}

/// What a symbol stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub instrument: InstrumentId,
    pub clock: ClockSource,
}

/// Finds the instrument behind an exchange's symbol.
pub trait Resolve {
    /// `None`: not a listed instrument, and only listed ones are taken.
    fn resolve(&mut self, exchange: &str, symbol: &str) -> Option<Resolved>;
}

/// What surrounds a message.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// When it was received, where known.
    pub received: Option<Time>,
    /// The exchange, where the message's source names it; otherwise the format's only one or the message's own.
    pub exchange: Option<&'a str>,
    pub source: Source,
    pub extent: Extent,
    /// How far a row's time may lie ahead of `received`.
    pub max_ahead: Nanos,
}

/// A row that was read but can't be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    pub index: u32,
    pub reason: Reason,
    /// What was found and what was expected.
    pub detail: String,
}

/// What a message turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It holds rows: those appended to `rows` and `refused`.
    Rows,
    /// An acknowledgement, an error message, a line of the recorder's.
    Control,
    /// A type or channel that the job has no use for.
    Ignored,
    /// It can't be taken apart.
    Refused { reason: Reason, detail: String },
    /// It is of another market than its source was taken for.
    Contradiction { found: &'static str },
}
