//! Fields of JSON messages, taken as they come and judged afterwards.
//!
//! Venues write numbers as strings or as numbers and leave fields out. If serde judged types, one odd field
//! would end the parse without telling what stood there; so a [`Field`] accepts any JSON value, and the
//! functions here say what is wrong with it, in the words of the dead letter.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::decimal::Decimal;
use crate::account::Reason;
use crate::row::{Quote, Side};

/// Why something can't be used: the whole message, or one row of it.
#[derive(Debug)]
pub(crate) enum FieldProblem {
    /// The message is refused.
    Message(Reason, String),
    /// The row is refused.
    Row(Reason, String),
}

/// The value of one field.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Field<'a> {
    #[default]
    Missing,
    Null,
    Text(&'a str),
    /// Text with a quote, backslash or control character, which none of the fields that are read can have.
    /// (Other escapes are gone before a message is parsed, see [`unescape`].)
    Escaped,
    Whole(u64),
    /// Any other number.
    Number(f64),
    Bool(bool),
    List,
    Object,
}

impl Field<'_> {
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Field::Missing)
    }

    /// Missing, null or empty text: the ways in which venues write that there is nothing.
    pub(crate) fn is_blank(&self) -> bool {
        match self {
            Field::Missing | Field::Null => true,
            Field::Text(text) => text.is_empty(),
            _ => false,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Field::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a field that must have one.
    pub(crate) fn need_text(&self, name: &str) -> Result<&str, FieldProblem> {
        self.text().ok_or_else(|| self.wrong(name, "text"))
    }

    /// A whole number from 0, as a number or as text, of a field that must have one.
    pub(crate) fn need_whole(&self, name: &str) -> Result<u64, FieldProblem> {
        self.whole().ok_or_else(|| self.wrong(name, "a whole number from 0"))
    }

    pub(crate) fn whole(&self) -> Option<u64> {
        match self {
            Field::Whole(number) => Some(*number),
            Field::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        }
    }

    /// A finite number, as a number or as plain decimal text.
    fn finite(&self, name: &str) -> Result<f64, FieldProblem> {
        let number = match self {
            Field::Whole(number) => Some(*number as f64),
            Field::Number(number) => Some(*number),
            Field::Text(text) => parse_number(text),
            _ => None,
        };
        match number {
            Some(number) if number.is_finite() => Ok(number),
            Some(_) => Err(self.refused(Reason::NonFinite, name, "a finite number")),
            None => Err(self.wrong(name, "a number")),
        }
    }

    /// A price of a row that can't do without.
    pub(crate) fn price(&self, name: &str) -> Result<f64, FieldProblem> {
        let price = self.finite(name)?;
        if price > 0.0 { Ok(price) } else { Err(self.refused(Reason::NotPositive, name, "a price above 0")) }
    }

    /// A price that may be missing: NaN.
    pub(crate) fn optional_price(&self, name: &str) -> Result<f64, FieldProblem> {
        if self.is_blank() { Ok(f64::NAN) } else { self.price(name) }
    }

    /// A size; NaN where there is none.
    pub(crate) fn size(&self, name: &str) -> Result<f64, FieldProblem> {
        if self.is_blank() {
            return Ok(f64::NAN);
        }
        let size = self.finite(name)?;
        if size < 0.0 {
            return Err(self.refused(Reason::NegativeSize, name, "a size from 0"));
        }
        // Adding 0 turns a negative zero into a plain one.
        Ok(size + 0.0)
    }

    /// A side, in either case, as the venue names it; `None` where it names none.
    pub(crate) fn side(&self, name: &str) -> Result<Option<Side>, FieldProblem> {
        match self.text() {
            _ if self.is_blank() => Ok(None),
            Some(text) if text.eq_ignore_ascii_case("buy") => Ok(Some(Side::Buy)),
            Some(text) if text.eq_ignore_ascii_case("sell") => Ok(Some(Side::Sell)),
            // What Advanced Trade writes where it does not know.
            Some("UNKNOWN_ORDER_SIDE") => Ok(None),
            _ => Err(self.wrong(name, "\"buy\" or \"sell\"")),
        }
    }

    pub(crate) fn wrong(&self, name: &str, allowed: &str) -> FieldProblem {
        FieldProblem::Message(Reason::WrongType, format!("{name} is {self}: {allowed} is allowed"))
    }

    pub(crate) fn refused(&self, reason: Reason, name: &str, allowed: &str) -> FieldProblem {
        FieldProblem::Row(reason, format!("{name} is {self}: {allowed} is allowed"))
    }
}

/// At most so many characters of a text are shown in a detail.
const SHOWN: usize = 40;

/// The value as a detail shows it.
impl fmt::Display for Field<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Missing => out.write_str("missing"),
            Field::Null => out.write_str("null"),
            Field::Text(text) => match text.char_indices().nth(SHOWN) {
                None => write!(out, "{text:?}"),
                Some((end, _)) => write!(out, "{:?}…", &text[..end]),
            },
            Field::Escaped => out.write_str("text with a quote, backslash or control character"),
            Field::Whole(number) => number.fmt(out),
            Field::Number(number) => out.write_str(zmij::Buffer::new().format(*number)),
            Field::Bool(value) => value.fmt(out),
            Field::List => out.write_str("a list"),
            Field::Object => out.write_str("an object"),
        }
    }
}

/// The names that a venue gives to the fields of a quote, in the order bid, bid size, ask, ask size.
pub(crate) type QuoteNames = [&'static str; 4];

/// The quote of four fields, without a price.
pub(crate) fn quote(names: &QuoteNames, fields: [&Field; 4]) -> Result<Quote, FieldProblem> {
    let [bid, bid_size, ask, ask_size] = fields;
    let (bid_price, bid_size) = quote_side(names[0], bid, names[1], bid_size)?;
    let (ask_price, ask_size) = quote_side(names[2], ask, names[3], ask_size)?;
    if bid_price > ask_price {
        let detail = format!("{} is {bid} and {} is {ask}: bid <= ask is allowed", names[0], names[2]);
        return Err(FieldProblem::Row(Reason::Crossed, detail));
    }
    Ok(Quote { bid: bid_price, bid_size, ask: ask_price, ask_size, price: f64::NAN, trade: false })
}

fn quote_side(
    price_name: &str,
    price: &Field,
    size_name: &str,
    size: &Field,
) -> Result<(f64, f64), FieldProblem> {
    let empty = |price: &Field| price.refused(Reason::EmptySide, price_name, "a price above 0");
    if price.is_blank() {
        return Err(empty(price));
    }
    let level = (price.finite(price_name)?, size.size(size_name)?);
    // A price of 0 over nothing is how a venue shows an empty side.
    match level {
        (0.0, size) if size == 0.0 || size.is_nan() => Err(empty(price)),
        (0.0, _) => Err(price.refused(Reason::NotPositive, price_name, "a price above 0")),
        (number, _) if number < 0.0 => Err(price.refused(Reason::NotPositive, price_name, "a price above 0")),
        level => Ok(level),
    }
}

/// Reads a number written as JSON writes them. Names of what is no finite number ("NaN", "-inf") give NaN, so
/// that they are refused for what they are; any other text gives `None`.
fn parse_number(text: &str) -> Option<f64> {
    if let Some((decimal, length)) = Decimal::read(text.as_bytes())
        && length == text.len()
        && let Some(number) = decimal.number()
    {
        return Some(number);
    }
    if is_json_number(text.as_bytes()) {
        return text.parse().ok();
    }
    let name = text.strip_prefix(['+', '-']).unwrap_or(text);
    ["nan", "inf", "infinity"].iter().any(|known| name.eq_ignore_ascii_case(known)).then_some(f64::NAN)
}

/// Whether a text is a number by JSON's grammar: `parse` takes more, like "+1", ".5" and "inf".
fn is_json_number(text: &[u8]) -> bool {
    let digits = |at: usize| text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return false;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return false;
        }
        at += 1 + fraction;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at.min(text.len()));
        if exponent == 0 {
            return false;
        }
        at += exponent;
    }
    at == text.len()
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyField)
    }
}

struct AnyField;

impl<'de> Visitor<'de> for AnyField {
    type Value = Field<'de>;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Field::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Field::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Field::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Field::Number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Field::Text(text))
    }

    /// Only text with escapes comes here: it can't be borrowed.
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Field::Escaped)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_what_json_calls_numbers() {
        for text in
            ["0", "-0", "1", "10", "0.5", "1.50", "1e5", "1E+5", "1.5e-05", "123456789012345678901234567890"]
        {
            assert_eq!(parse_number(text), Some(text.parse().unwrap()), "{text}");
        }
        for text in [
            "", "-", "+1", ".5", "5.", "1.e5", "01", "-01", "1e", "1e+", "1_0", "0x1", " 1", "1 ", "1,5", "١",
        ] {
            assert_eq!(parse_number(text), None, "{text}");
        }
        for text in ["NaN", "inf", "-Infinity", "+INF", "1e400"] {
            assert!(!parse_number(text).unwrap().is_finite(), "{text}");
        }
    }

    #[test]
    fn a_long_text_is_shown_in_part() {
        assert_eq!(Field::Text(&"é".repeat(50)).to_string(), format!("\"{}\"…", "é".repeat(40)));
    }

    proptest! {
        #[test]
        fn serde_json_has_the_same_grammar(text in "[-+0-9.eE]{0,8}") {
            let theirs = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_json_number(text.as_bytes()), theirs, "{}", text);
        }
    }
}
