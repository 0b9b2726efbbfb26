//! From a venue's bytes to rows. One file a venue; only these files know wire formats.
//!
//! ```text
//! line ─line─► message ─venue─► fields ─field─► numbers ─rows─► Row or Refused
//! ```
//! A message is parsed once, into borrowed fields, by a scanner or, where that finds anything unusual, by serde;
//! what they hold is judged afterwards, so that a refusal can name the field, what was found and what is allowed.

mod binance;
mod binance_event;
mod canonical;
mod coinbase_advanced_trade;
mod coinbase_exchange;
mod decimal;
mod detect;
mod field;
mod line;
mod message;
mod okx;
mod rows;
mod scan;
mod shift;
mod subject;

pub use binance::{market, market_of_url};
pub use detect::{detect, format_of};
pub use line::{Line, split_line};
pub use shift::{Id, Shift, ids, shift};
pub use subject::{Subject, subject};

use crate::account::Reason;
use crate::row::{Extent, InstrumentId, Row, Source};
use crate::time::{Nanos, Time};
use field::FieldProblem;
use message::unescape;
use rows::Rows;

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    CoinbaseExchange,
    CoinbaseAdvancedTrade,
    Binance,
    Okx,
    Canonical,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 5] = [
        Format::CoinbaseExchange,
        Format::CoinbaseAdvancedTrade,
        Format::Binance,
        Format::Okx,
        Format::Canonical,
    ];

    /// The name used on the command line and in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Format::CoinbaseExchange => "coinbase-exchange",
            Format::CoinbaseAdvancedTrade => "coinbase-advanced-trade",
            Format::Binance => "binance",
            Format::Okx => "okx",
            Format::Canonical => "canonical",
        }
    }

    /// The format of that name.
    pub fn parse(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// The exchanges that have a name of their own; `canonical` messages may name others.
pub const EXCHANGES: [&str; 5] = ["coinbase", "binance", "binance-usdm", "binance-coinm", "okx"];

/// Which of a row's times its instrument runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockSource {
    /// The exchange's time, as the format defines it.
    Exchange,
    /// The time of receipt.
    Received,
    /// The time of receipt where the format's quotes carry no exchange time, else the exchange's.
    Auto,
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
    /// Whether a message whose shape is of another market than `exchange` is a [`Verdict::Contradiction`]; else
    /// it is taken for one of `exchange`.
    pub checked: bool,
    pub source: Source,
    pub extent: Extent,
    /// How far a row's time may lie ahead of `received`.
    pub max_ahead: Nanos,
}

/// A row that was read but can't be used.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedRow {
    pub index: u32,
    /// The row's time; `None` where the row was refused before or because of it.
    pub event_time: Option<Time>,
    pub reason: Reason,
    /// What was found and what was expected.
    pub detail: String,
}

/// What a message turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It holds rows: those appended to `rows` and `refused`, at least one.
    Rows,
    /// An acknowledgement, an error message, a line of the recorder's.
    Control,
    /// A type or channel that the job has no use for.
    Ignored,
    /// It can't be taken apart.
    RefusedRow { reason: Reason, detail: String },
    /// It is of another market than its source was taken for.
    Contradiction { found: &'static str },
}

/// Reads one message: appends its rows to `rows` and those that can't be used to `refused`.
///
/// Both stay as they were unless the verdict is [`Verdict::Rows`].
pub fn decode(
    format: Format,
    message: &[u8],
    envelope: &Envelope,
    resolve: &mut dyn Resolve,
    rows: &mut Vec<Row>,
    refused: &mut Vec<RefusedRow>,
) -> Verdict {
    let before = (rows.len(), refused.len());
    let mut taken = Rows { envelope, resolve, rows, refused, index: 0 };
    let verdict = match simdutf8::basic::from_utf8(message) {
        // Says where.
        Err(_) => match std::str::from_utf8(message) {
            Err(error) => Err(FieldProblem::Message(Reason::BrokenJson, error.to_string())),
            Ok(text) => decode_text(format, &unescape(text), &mut taken),
        },
        Ok(text) if has_backslash(message) => decode_text(format, &unescape(text), &mut taken),
        Ok(text) => decode_text(format, text, &mut taken),
    };
    match verdict {
        // An envelope without entries.
        Ok(Verdict::Rows) if before == (rows.len(), refused.len()) => Verdict::Ignored,
        Ok(verdict) => verdict,
        Err(FieldProblem::Message(reason, detail) | FieldProblem::Row(reason, detail)) => {
            rows.truncate(before.0);
            refused.truncate(before.1);
            Verdict::RefusedRow { reason, detail }
        }
    }
}

fn has_backslash(text: &[u8]) -> bool {
    memchr::memchr(b'\\', text).is_some()
}

fn decode_text(format: Format, text: &str, rows: &mut Rows) -> Result<Verdict, FieldProblem> {
    match format {
        Format::CoinbaseExchange => coinbase_exchange::decode(text, rows),
        Format::CoinbaseAdvancedTrade => coinbase_advanced_trade::decode(text, rows),
        Format::Binance => binance::decode(text, rows),
        Format::Okx => okx::decode(text),
        Format::Canonical => canonical::decode(text, rows),
    }
}
