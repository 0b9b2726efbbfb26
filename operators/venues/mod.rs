//! From a venue's bytes to rows. A folder for each venue, and nothing outside of it knows the venue's wire formats.
//!
//! ```text
//! line ─line─► message ─venue─► fields ─json─► numbers ─rows─► Row or Refused
//! ```

pub mod binance;
pub mod canonical;
pub mod coinbase;
pub(crate) mod detect;
mod format;
mod line;
pub mod okx;
pub(crate) mod rows;
mod shift;
mod subject;

pub use detect::{detect, format_of};
pub use format::Format;
pub use line::{Line, split_line};
pub use rows::{NAMES, is_name};
pub use shift::{Id, Shift, ids, shift};
pub use subject::{Subject, subject};

use std::sync::LazyLock;

use crate::account::Reason;
use crate::json::field::FieldProblem;
use crate::json::message::unescape;
use crate::row::{Extent, InstrumentId, Row, Source};
use crate::time::Time;
use format::WireFormat;
use rows::Rows;

/// All venues: what another one needs besides its folder is a line here.
pub static VENUES: [&Venue; 4] = [&coinbase::VENUE, &binance::VENUE, &okx::VENUE, &canonical::VENUE];

/// All that is known of a venue.
pub struct Venue {
    /// The formats that it speaks. The first is that of messages which tell nothing else.
    formats: &'static [&'static WireFormat],
    /// Its markets, each an exchange with a name of its own. None: its messages name the exchange.
    pub exchanges: &'static [Exchange],
    /// The exchange that a message can only be of, if its shape tells.
    exchange_of: fn(&[u8]) -> Option<&'static str>,
    /// The exchange behind an address, for recordings that begin with the one they are of.
    exchange_of_url: fn(&[u8]) -> Option<&'static str>,
}

/// One market of a venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// In keys, headers, `instruments.yaml` and outputs.
    pub name: &'static str,
    pub trades: Trades,
    /// The default of `exchanges.<name>.gap_after`.
    pub gap_after: &'static str,
    /// What the defaults' file says of that length, and of the exchange's clock.
    pub about_gap: &'static str,
    pub about_clock: &'static str,
}

/// What a market trades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trades {
    Spot,
    Contracts,
    Both,
}

impl Exchange {
    /// A market of which nothing special is known.
    const fn named(name: &'static str, trades: Trades) -> Exchange {
        Exchange {
            name,
            trades,
            gap_after: "inherit",
            about_gap: "The longest silence that is no gap; inherit takes gaps.after.",
            about_clock: "The clock that rows run on: the exchange's, that of the receipt, or auto to take the exchange's where there is one.",
        }
    }
}

/// Names of the exchanges that venues have; `canonical` messages may name others.
pub static EXCHANGES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| VENUES.iter().flat_map(|venue| venue.exchanges).map(|exchange| exchange.name).collect());

/// The venue that has an exchange of this name.
pub fn venue_of(exchange: &str) -> Option<&'static Venue> {
    let has = |venue: &&&Venue| venue.exchanges.iter().any(|own| own.name == exchange);
    VENUES.iter().find(has).copied()
}

impl Venue {
    /// Whether it has several markets, between which its messages tell.
    pub fn has_markets(&self) -> bool {
        self.exchanges.len() > 1
    }

    /// The format of messages which tell nothing else.
    pub fn default_format(&self) -> Format {
        Format(self.formats[0])
    }
}

/// The exchange that a message can only be of, if its shape tells.
pub fn exchange_of(message: &[u8]) -> Option<&'static str> {
    VENUES.iter().find_map(|venue| (venue.exchange_of)(message))
}

/// The exchange behind an address, for recordings that begin with the one they are of.
pub fn exchange_of_url(line: &[u8]) -> Option<&'static str> {
    VENUES.iter().find_map(|venue| (venue.exchange_of_url)(line))
}

/// A venue whose messages or addresses tell no exchange.
fn tells_nothing(_: &[u8]) -> Option<&'static str> {
    None
}

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
    pub received: Option<Receipt>,
    /// The exchange, where the message's source names it; otherwise the format's only one or the message's own.
    pub exchange: Option<&'a str>,
    /// Whether a message whose shape is of another market than `exchange` is a [`Verdict::Contradiction`]; else
    /// it is taken for one of `exchange`.
    pub checked: bool,
    pub source: Source,
    pub extent: Extent,
}

/// When a message was received, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The data itself: a prefix of the line, a header, a field. So it is the same in a file, a topic and a replay.
    Stated(Time),
    /// The broker, which stamped the record: it may stand in for a time, but judges none.
    Broker(Time),
}

impl Receipt {
    pub fn time(self) -> Time {
        match self {
            Receipt::Stated(time) | Receipt::Broker(time) => time,
        }
    }
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
            Ok(text) => (format.0.decode)(&unescape(text), &mut taken),
        },
        Ok(text) if has_backslash(message) => (format.0.decode)(&unescape(text), &mut taken),
        Ok(text) => (format.0.decode)(text, &mut taken),
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
