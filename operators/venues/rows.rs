//! From judged fields to rows: the instrument behind a symbol, the time by its clock, and the checks that every
//! row passes whatever its venue.

use super::{ClockSource, Envelope, RefusedRow, Resolve};
use crate::account::Reason;
use crate::json::field::{Field, FieldProblem};
use crate::row::{Body, Channel, Row};
use crate::time::{Time, parse_rfc3339};

/// 2000-01-01: no feed that we read is older.
const FIRST: Time = Time(946_684_800_000_000_000);
/// 2100-01-01: from here on a time is an error of its sender.
const END: Time = Time(4_102_444_800_000_000_000);
/// Digits of a time of receipt.
const RECEIVED_DIGITS: u8 = 9;
/// Longest name of an exchange or instrument.
const LONGEST_NAME: usize = 64;

/// What a message says of its time.
pub(crate) enum Stamp {
    /// The exchange's time, and with how many digits it is printed.
    Exchange(Time, u8),
    /// The feed has no exchange time at all: the time of receipt stands in.
    Receipt,
    /// There should be one; why there is none.
    None(String),
}

impl Stamp {
    /// From RFC 3339 text, printed with 6 digits, or with 9 where it has more.
    pub(crate) fn of_coinbase(name: &str, field: &Field) -> Stamp {
        match Stamp::of_text(name, field) {
            Stamp::Exchange(time, digits) => Stamp::Exchange(time, if digits > 6 { 9 } else { 6 }),
            other => other,
        }
    }

    /// From RFC 3339 text, printed with as many digits as it has.
    pub(crate) fn of_text(name: &str, field: &Field) -> Stamp {
        match field.text().and_then(parse_rfc3339) {
            Some((time, digits)) => Stamp::Exchange(time, digits),
            None => Stamp::None(format!("{name} is {field}: RFC 3339 text is allowed")),
        }
    }
}

/// Collects the rows of one message.
pub(crate) struct Rows<'r, 'e> {
    pub(crate) envelope: &'r Envelope<'e>,
    pub(crate) resolve: &'r mut dyn Resolve,
    pub(crate) rows: &'r mut Vec<Row>,
    pub(crate) refused: &'r mut Vec<RefusedRow>,
    /// Position of the next row in the message, refused ones counted.
    pub(crate) index: u32,
}

/// A row before its instrument is known.
pub(crate) struct Draft<'f, 'a> {
    pub(crate) exchange: &'f str,
    pub(crate) symbol_name: &'static str,
    pub(crate) symbol: &'f Field<'a>,
    pub(crate) stamp: &'f Stamp,
    pub(crate) channel: Channel,
    pub(crate) id: Option<u64>,
    /// Whether the quotes of this venue carry an exchange time.
    pub(crate) quotes_have_time: bool,
}

impl Rows<'_, '_> {
    /// Adds a row, or its refusal. `body` is asked last, so that a row of an unknown instrument or without a
    /// time is refused as that.
    ///
    /// # Errors
    /// Where the whole message is to be refused.
    pub(crate) fn add(
        &mut self,
        draft: &Draft,
        body: impl FnOnce() -> Result<Body, FieldProblem>,
    ) -> Result<(), FieldProblem> {
        let index = self.index;
        self.index += 1;
        let mut event_time = None;
        match self.row(draft, index, body, &mut event_time) {
            Ok(row) => self.rows.push(row),
            Err(FieldProblem::Row(reason, detail)) => {
                self.refused.push(RefusedRow { index, event_time, reason, detail });
            }
            Err(problem) => return Err(problem),
        }
        Ok(())
    }

    fn row(
        &mut self,
        draft: &Draft,
        index: u32,
        body: impl FnOnce() -> Result<Body, FieldProblem>,
        read_time: &mut Option<Time>,
    ) -> Result<Row, FieldProblem> {
        let symbol = match draft.symbol {
            // Text all the same, but of no instrument.
            Field::Escaped => "",
            symbol => symbol.need_text(draft.symbol_name)?,
        };
        let known = is_name(symbol).then(|| self.resolve.resolve(draft.exchange, symbol)).flatten();
        let Some(resolved) = known else {
            let allowed = "a listed instrument";
            return Err(draft.symbol.refused(Reason::UnknownInstrument, draft.symbol_name, allowed));
        };
        let (event_time, digits) = self.event_time(resolved.clock, draft)?;
        *read_time = Some(event_time);
        let body = body()?;
        Ok(Row {
            instrument: resolved.instrument,
            channel: draft.channel,
            digits,
            index,
            alone: false,
            event_time,
            clock: event_time,
            id: draft.id,
            source: self.envelope.source,
            extent: self.envelope.extent,
            behind: 0,
            body,
        })
    }

    fn event_time(&self, clock: ClockSource, draft: &Draft) -> Result<(Time, u8), FieldProblem> {
        let is_exchange = match clock {
            ClockSource::Exchange => true,
            ClockSource::Received => false,
            ClockSource::Auto => draft.quotes_have_time,
        };
        let missing = |detail: String| Err(FieldProblem::Row(Reason::NoTime, detail));
        let (time, digits) = match (draft.stamp, self.envelope.received) {
            (Stamp::Exchange(time, digits), _) if is_exchange => (*time, *digits),
            (Stamp::None(detail), _) if is_exchange => return missing(detail.clone()),
            (Stamp::Receipt, _) if is_exchange => {
                return missing("there is no exchange time, and the clock is the exchange's".to_owned());
            }
            (_, Some(received)) => (received, RECEIVED_DIGITS),
            (_, None) => {
                return missing(
                    "the time of receipt is not known, and the clock is that of the receipt".to_owned(),
                );
            }
        };
        if !(FIRST..END).contains(&time) {
            let detail = format!("the event time is {}: 2000 to 2100 is allowed", Shown(time));
            return Err(FieldProblem::Row(Reason::TimeRange, detail));
        }
        if let Some(received) = self.envelope.received
            && time.since(received) > self.envelope.max_ahead
        {
            let (time, received) = (Shown(time), Shown(received));
            let seconds = self.envelope.max_ahead as f64 / 1e9;
            let detail = format!(
                "the event time is {time}, received at {received}: at most {seconds} s ahead is allowed"
            );
            return Err(FieldProblem::Row(Reason::TimeAhead, detail));
        }
        Ok((time, digits))
    }
}

/// Whether a text can name an exchange or an instrument: printable ASCII that JSON prints as it stands.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(plain)
}

/// A time as a detail shows it.
struct Shown(Time);

impl std::fmt::Display for Shown {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Vec::new();
        crate::time::write_rfc3339(self.0, 9, &mut text);
        out.write_str(&String::from_utf8_lossy(&text))
    }
}
