//! From judged fields to rows: the instrument behind a symbol, the time by its clock, and the checks that every
//! row passes whatever its venue.

use super::{ClockSource, Envelope, Receipt, RefusedRow, Resolve};
use crate::account::Reason;
use crate::json::field::{Field, FieldProblem};
use crate::row::{Body, Channel, Row};
use crate::time::{EARLIEST, Shown, TOO_LATE, Time, parse_epoch, parse_epoch_text, parse_rfc3339};

/// Digits of a time of receipt.
const RECEIVED_DIGITS: u8 = 9;
/// Longest name of an exchange or instrument, in characters.
const LONGEST_NAME: usize = 64;

/// What a message says of its time.
pub(crate) enum Stamp {
    /// The exchange's time, and with how many digits it is printed.
    Exchange(Time, u8),
    /// The feed has no exchange time at all: the time of receipt stands in.
    Receipt,
    /// There should be one; why there is none.
    None(String),
    /// There is one, but not from 2000 to 2100.
    OutOfRange(String),
}

impl Stamp {
    /// As [`Stamp::of_text`], printed with 6 digits, or with 9 where it has more.
    pub(crate) fn of_coinbase(name: &str, field: &Field) -> Stamp {
        match Stamp::of_text(name, field) {
            Stamp::Exchange(time, digits) => Stamp::Exchange(time, if digits > 6 { 9 } else { 6 }),
            other => other,
        }
    }

    /// From RFC 3339 text, printed with as many digits as it has, or from a number.
    pub(crate) fn of_text(name: &str, field: &Field) -> Stamp {
        match field.text().and_then(parse_rfc3339) {
            Some((time, digits)) if (EARLIEST..TOO_LATE).contains(&time) => Stamp::Exchange(time, digits),
            Some(_) => Stamp::OutOfRange(format!("{name} is {field}: a time from 2000 to 2100 is allowed")),
            None => Stamp::of_number(name, field),
        }
    }

    /// From a number since 1970 in the unit that its size tells, printed with that unit's digits.
    pub(crate) fn of_number(name: &str, field: &Field) -> Stamp {
        let (found, is_number) = match field {
            Field::Whole(number) => (parse_epoch(*number), true),
            Field::Text(text) => {
                (parse_epoch_text(text), !text.is_empty() && text.bytes().all(is_digit_or_point))
            }
            _ => (None, false),
        };
        match found {
            Some((time, digits)) => Stamp::Exchange(time, digits),
            None if is_number => Stamp::OutOfRange(format!(
                "{name} is {field}: a time from 2000 to 2100 in s, ms, µs or ns since 1970 is allowed"
            )),
            None => Stamp::None(format!(
                "{name} is {field}: RFC 3339 text or a whole number of s, ms, µs or ns since 1970 is allowed"
            )),
        }
    }
}

fn is_digit_or_point(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'.'
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
            let allowed = if is_name(symbol) { "a listed instrument" } else { NAMES };
            return Err(draft.symbol.refused(Reason::UnknownInstrument, draft.symbol_name, allowed));
        };
        let (event_time, digits, received) = self.event_time(resolved.clock, draft)?;
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
            received,
            id: draft.id,
            source: self.envelope.source,
            extent: self.envelope.extent,
            behind: 0,
            body,
        })
    }

    /// The row's time, the digits that it is printed with, and the receipt that its time can be held against.
    fn event_time(
        &self,
        clock: ClockSource,
        draft: &Draft,
    ) -> Result<(Time, u8, Option<Time>), FieldProblem> {
        let is_exchange = match clock {
            ClockSource::Exchange => true,
            ClockSource::Received => false,
            ClockSource::Auto => draft.quotes_have_time,
        };
        let missing = |detail: String| Err(FieldProblem::Row(Reason::NoTime, detail));
        let (time, digits, received) = match (draft.stamp, self.envelope.received) {
            (Stamp::Exchange(time, digits), Some(Receipt::Stated(received))) if is_exchange => {
                (*time, *digits, Some(received))
            }
            (Stamp::Exchange(time, digits), _) if is_exchange => (*time, *digits, None),
            (Stamp::None(detail), _) if is_exchange => return missing(detail.clone()),
            (Stamp::OutOfRange(detail), _) if is_exchange => {
                return Err(FieldProblem::Row(Reason::TimeRange, detail.clone()));
            }
            (Stamp::Receipt, _) if is_exchange => {
                return missing("there is no exchange time, and the clock is the exchange's".to_owned());
            }
            (_, Some(receipt)) => (receipt.time(), RECEIVED_DIGITS, None),
            (_, None) => {
                return missing(
                    "the time of receipt is not known, and the clock is that of the receipt".to_owned(),
                );
            }
        };
        if !(EARLIEST..TOO_LATE).contains(&time) {
            let detail = format!("it was received at {}: a time from 2000 to 2100 is allowed", Shown(time));
            return Err(FieldProblem::Row(Reason::TimeRange, detail));
        }
        Ok((time, digits, received))
    }
}

/// What [`is_name`] takes, as messages say it.
pub const NAMES: &str = "a name of 1 to 64 printable characters without quotes and backslashes";

/// Whether a text can name an exchange or an instrument: characters that are seen, and that JSON prints as they stand.
pub fn is_name(text: &str) -> bool {
    if text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')) {
        return (1..=LONGEST_NAME).contains(&text.len());
    }
    text.chars().all(is_printable) && (1..=LONGEST_NAME).contains(&text.chars().count())
}

fn is_printable(character: char) -> bool {
    match character {
        '"' | '\\' => false,
        ' ' => true,
        // Marks that are not seen and change how the text around them is: joiners, directions, line ends, tags, no characters.
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff0}'..='\u{ffff}'
        | '\u{e0000}'..='\u{10ffff}' => false,
        _ => !character.is_control() && !character.is_whitespace(),
    }
}
