//! The short way through a message: one pass over plain JSON, with serde as the judge of everything else.
//!
//! ```text
//! text ─scan─► fields          nearly all messages
//!        └─no─► serde ─► fields, or what is wrong
//! ```
//! It takes an object of texts, plain decimals, `true`, `false`, `null` and lists of these, with spaces after
//! colons and commas, and objects where the message asks for one. Backslashes, control characters, exponents,
//! numbers of many digits, duplicate keys, other objects and whatever is no JSON are left to serde, which begins
//! anew: what is taken here gives the same fields as there, and what is refused is refused in serde's words.

use std::ops::Range;

use wide::u8x16;

use super::decimal::Decimal;
use super::field::Field;

/// A message whose fields are found by their keys.
pub(crate) trait Fields<'a>: Default {
    /// Its lists of further messages: with any, it is not scanned.
    const LISTS: &'static [&'static str];

    /// What stands under a key; `top` is whether in the message itself or in an object inside.
    fn place(&mut self, key: &[u8], top: bool) -> FieldPlace<'_, 'a>;
}

/// Where a value belongs.
pub(crate) enum FieldPlace<'m, 'a> {
    Field(&'m mut Field<'a>),
    /// It must be an object, and the fields inside are the message's.
    Object,
    Unused,
}

/// Fills a message from all of a text, or tells that serde has to: then some fields may be filled already.
pub(crate) fn scan<'a, M: Fields<'a>>(text: &'a str, message: &mut M) -> bool {
    if !M::LISTS.is_empty() {
        return false;
    }
    let mut scanner = Scanner { text, quotes: Quotes::of(text.as_bytes()) };
    scanner.object(0, message, true) == Some(text.len())
}

/// Deeper lists are left to serde.
const DEEPEST: usize = 4;

/// Reads a text from its beginning on, so that each quote is looked for once.
struct Scanner<'a> {
    text: &'a str,
    quotes: Quotes<'a>,
}

/// Each of these reads what stands at a place and gives the place behind it, `None` where it is left to serde.
impl<'a> Scanner<'a> {
    fn object<M: Fields<'a>>(&mut self, at: usize, message: &mut M, top: bool) -> Option<usize> {
        let mut at = self.skip(at, b'{')?;
        loop {
            let (key, end) = self.string(at)?;
            at = self.skip(end, b':')?;
            if self.peek(at)? == b' ' {
                at = self.skip_spaces(at);
            }
            at = match message.place(&self.text.as_bytes()[key], top) {
                FieldPlace::Field(field) if !field.is_missing() => return None,
                FieldPlace::Field(field) => self.value(at, field)?,
                FieldPlace::Object => self.object(at, message, false)?,
                FieldPlace::Unused => self.unused(at)?,
            };
            match self.peek(at)? {
                b',' => at += 1,
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    #[inline(always)]
    fn value(&mut self, at: usize, field: &mut Field<'a>) -> Option<usize> {
        if self.peek(at)? == b'"' {
            let (string, end) = self.string(at)?;
            *field = Field::Text(&self.text[string]);
            return Some(end);
        }
        self.other_value(at, field, DEEPEST)
    }

    #[inline(always)]
    fn unused(&mut self, at: usize) -> Option<usize> {
        if self.peek(at)? == b'"' {
            return self.string(at).map(|(_, end)| end);
        }
        self.other_value(at, &mut Field::Missing, DEEPEST)
    }

    /// A value that is no text, or an entry of a list.
    fn other_value(&mut self, at: usize, field: &mut Field<'a>, depth: usize) -> Option<usize> {
        let (found, end) = match self.peek(at)? {
            b'-' | b'0'..=b'9' => {
                let (decimal, length) = Decimal::read(&self.text.as_bytes()[at..])?;
                let number =
                    decimal.whole().map(Field::Whole).or_else(|| decimal.number().map(Field::Number));
                (number?, at + length)
            }
            b'"' => self.string(at).map(|(string, end)| (Field::Text(&self.text[string]), end))?,
            b't' => (Field::Bool(true), self.literal(at, "true")?),
            b'f' => (Field::Bool(false), self.literal(at, "false")?),
            b'n' => (Field::Null, self.literal(at, "null")?),
            b'[' => (Field::List, self.list(at, depth.checked_sub(1)?)?),
            _ => return None,
        };
        *field = found;
        Some(end)
    }

    /// A list, whose entries only have to be JSON.
    fn list(&mut self, at: usize, depth: usize) -> Option<usize> {
        let mut at = self.skip(at, b'[')?;
        if self.peek(at)? == b']' {
            return Some(at + 1);
        }
        loop {
            at = self.other_value(at, &mut Field::Missing, depth)?;
            match self.peek(at)? {
                b',' => at = self.skip_spaces(at + 1),
                b']' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// A text, between its quotes; spaces may stand before it.
    #[inline(always)]
    fn string(&mut self, at: usize) -> Option<(Range<usize>, usize)> {
        let start = self.quotes.next()?;
        if start != at && self.skip_spaces(at) != start {
            return None;
        }
        let end = self.quotes.next()?;
        Some((start + 1..end, end + 1))
    }

    fn literal(&self, at: usize, name: &str) -> Option<usize> {
        self.text.as_bytes()[at..].starts_with(name.as_bytes()).then_some(at + name.len())
    }

    #[inline]
    fn peek(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    #[inline]
    fn skip(&self, at: usize, byte: u8) -> Option<usize> {
        (self.peek(at)? == byte).then_some(at + 1)
    }

    #[inline]
    fn skip_spaces(&self, mut at: usize) -> usize {
        while self.peek(at) == Some(b' ') {
            at += 1;
        }
        at
    }
}

/// The places of all quotes of a text, one after the other, found 64 bytes at a time. Ends where bytes are not plain:
/// without backslashes and control characters, a text ends at the next quote.
struct Quotes<'a> {
    blocks: std::slice::Iter<'a, [u8; BLOCK]>,
    rest: &'a [u8],
    /// Where the block stands that is being looked at.
    at: usize,
    /// A bit for each of its bytes that is a quote and was not given yet.
    found: u64,
}

const BLOCK: usize = 64;

impl<'a> Quotes<'a> {
    fn of(text: &'a [u8]) -> Quotes<'a> {
        let (blocks, rest) = text.as_chunks();
        // One block before the text.
        Quotes { blocks: blocks.iter(), rest, at: 0_usize.wrapping_sub(BLOCK), found: 0 }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            self.at = self.at.wrapping_add(BLOCK);
            self.found = match self.blocks.next() {
                Some(block) => quotes_in(block)?,
                None if self.rest.is_empty() => return None,
                None => {
                    let mut block = [b' '; BLOCK];
                    block[..self.rest.len()].copy_from_slice(self.rest);
                    self.rest = &[];
                    quotes_in(&block)?
                }
            };
        }
        let place = self.at + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(place)
    }
}

/// A bit for each byte that is a quote; `None` where there is a backslash or control character.
#[inline(always)]
fn quotes_in(block: &[u8; BLOCK]) -> Option<u64> {
    let (parts, _) = block.as_chunks::<16>();
    let [quote, backslash, space] = [b'"', b'\\', b' '].map(u8x16::splat);
    let (mut found, mut odd) = (0, u8x16::splat(0));
    for part in parts.iter().rev() {
        let part = u8x16::new(*part);
        found = found << 16 | u64::from(part.simd_eq(quote).to_bitmask());
        odd |= part.simd_eq(backslash) | part.simd_lt(space);
    }
    (odd.to_bitmask() == 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::super::message::{Message, fill_by_serde};
    use super::*;
    use crate::venues::binance::event as binance_event;
    use crate::venues::coinbase::exchange as coinbase_exchange;
    use crate::venues::{canonical, detect, okx};

    /// Whether a text is taken; what is taken must be what serde makes of it.
    #[track_caller]
    fn takes<'a, M: Message<'a> + Debug>(text: &'a str) -> bool {
        let mut scanned = M::default();
        let taken = scan(text, &mut scanned);
        if taken {
            let mut judged = M::default();
            if let Err(problem) = fill_by_serde(text, &mut judged) {
                panic!("serde refuses {text}: {problem:?}");
            }
            assert_eq!(format!("{scanned:?}"), format!("{judged:?}"), "{text}");
        }
        taken
    }

    /// Holds a text against serde as a message of every kind; how many take it.
    #[track_caller]
    fn check(text: &str) -> usize {
        [
            takes::<coinbase_exchange::Message>(text),
            takes::<canonical::Message>(text),
            takes::<binance_event::Event>(text),
            takes::<detect::Shape>(text),
            takes::<okx::Message>(text),
        ]
        .into_iter()
        .filter(|taken| *taken)
        .count()
    }

    /// All that the test data has of messages, whoever sent them.
    fn real_messages() -> Vec<String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/decode");
        let mut messages = Vec::new();
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let content = std::fs::read_to_string(&file).unwrap();
            for line in content.lines() {
                match serde_json::from_str(line) {
                    Ok(serde_json::Value::Object(row)) if row.contains_key("raw") => {
                        messages.push(row["raw"].as_str().unwrap().to_owned());
                    }
                    _ => messages.extend(line.find('{').map(|start| line[start..].to_owned())),
                }
            }
        }
        messages
    }

    #[test]
    fn real_messages_are_taken() {
        let (mut quotes_and_trades, mut all, mut taken) = (0, 0, 0);
        for message in real_messages() {
            let count = check(&message);
            let is_flat = !message.contains("\"channel\"") && !message.contains("\"k\"");
            let marks = ["\"ticker\"", "match\"", "@bookTicker", "@trade", "@aggTrade", "@depth", "l2update"];
            if is_flat && message.ends_with('}') && marks.iter().any(|mark| message.contains(mark)) {
                let is_taken =
                    takes::<coinbase_exchange::Message>(&message) || takes::<binance_event::Event>(&message);
                quotes_and_trades += 1;
                assert!(is_taken || message.contains("subscri") || message.contains("[{"), "{message}");
            }
            all += 1;
            taken += usize::from(count > 0);
        }
        assert!(quotes_and_trades > 200, "{quotes_and_trades}");
        assert!(4 * taken > 3 * all, "{taken} of {all}");
    }

    #[test]
    fn what_is_taken() {
        for value in [
            "1",
            "0",
            "-0",
            "1.50",
            "-5",
            "\"\"",
            "\"é😀\"",
            "true",
            "false",
            "null",
            "[]",
            "[[\"1\", 2],[]]",
            "18446744073709551615".get(..19).unwrap(),
            "[[[[]]]]",
        ] {
            assert_eq!(check(&format!("{{\"type\":{value}}}")), 5, "{value}");
            assert_eq!(check(&format!("{{\"x\": {value}, \"type\": {value}}}")), 5, "{value}");
        }
        assert!(takes::<binance_event::Event>(r#"{"data":{"data":1,"a":2},"stream":"x"}"#));
    }

    #[test]
    fn what_is_left_to_serde() {
        for value in [
            "",
            "01",
            "1.",
            ".5",
            "-",
            "1e",
            "1e5",
            "+1",
            "1.5.5",
            "NaN",
            "nul",
            "truex",
            "\"\\n\"",
            "\"\u{1}\"",
            "\"",
            "{}",
            "{\"a\":1}",
            "[1,]",
            "[,]",
            "[",
            "[1",
            "[1 2]",
            "1 ",
            "\t1",
            "18446744073709551616",
            "-x",
            "123456789012345678901234567890",
            "9007199254740993.5",
            "[[[[[]]]]]",
            "[{}]",
            "1}",
            "1,",
            "1,,",
            "'a'",
        ] {
            assert_eq!(check(&format!("{{\"type\":{value}}}")), 0, "{value}");
            assert_eq!(check(&format!("{{\"x\":{value}}}")), 0, "{value}");
        }
        for text in [
            "",
            "{",
            "{}",
            "null",
            "[]",
            " {\"a\":1}",
            "{\"a\":1} ",
            "{\"a\":1}{",
            "{\"a\" :1}",
            "{a:1}",
            "{\"a\"}",
            "{\"type\":1,\"type\":1}{",
            "{\"a\":1,\"b\"",
            "{\"a\":1;\"b\":2}",
            "{,\"a\":1}",
        ] {
            assert_eq!(check(text), 0, "{text}");
        }
        assert!(!takes::<coinbase_exchange::Message>(r#"{"type":1,"type":1}"#));
        for text in [r#"{"data":{"a":1},"data":{"b":1}}"#, r#"{"data":{"a":1},"a":1}"#, r#"{"data":[]}"#] {
            assert!(!takes::<binance_event::Event>(text), "{text}");
        }
    }

    fn key() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "type",
            "sequence",
            "price",
            "side",
            "best_bid",
            "event_time",
            "bid",
            "ask",
            "exchange",
            "channel",
            "events",
            "stream",
            "e",
            "E",
            "T",
            "s",
            "a",
            "A",
            "b",
            "u",
            "pu",
            "m",
            "result",
            "error",
            "arg",
            "op",
            "open_24h",
            "",
            "x",
            "é",
            "typ",
            "types",
            "data",
            "a\\u0062",
            "\\",
            "a\nb",
        ])
    }

    fn value() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            4 => "\"[-a-z0-9.:é😀 ]{0,20}\"",
            3 => "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,22})?",
            1 => "-?[0-9.eE+-]{0,6}",
            1 => "-?[0-9]{1,3}(\\.[0-9]{1,3})?[eE][+-]?[0-9]{1,3}",
            1 => "\"[a\\\\u0\"\u{1}\n\u{7f}]{0,4}\"",
            2 => prop::sample::select(vec!["true", "false", "null", "nulL", "tru", "{}", "[", "]", "18446744073709551615"])
                .prop_map(str::to_owned),
        ];
        scalar.prop_recursive(5, 12, 3, |inner| {
            let entries = prop::collection::vec(inner.clone(), 0..3);
            let object = prop::collection::vec((key(), space(), inner), 0..3);
            prop_oneof![
                entries.prop_map(|entries| format!("[{}]", entries.join(","))),
                object.prop_map(object_of),
            ]
        })
    }

    fn space() -> impl Strategy<Value = &'static str> {
        prop_oneof![12 => Just(""), 3 => Just(" "), 1 => prop::sample::select(vec!["  ", "\t", "\n", "\u{a0}", ",", ":"])]
    }

    fn object_of(entries: Vec<(&str, &str, String)>) -> String {
        let entries: Vec<_> =
            entries.iter().map(|(key, space, value)| format!("\"{key}\":{space}{value}")).collect();
        format!("{{{}}}", entries.join(","))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        #[test]
        fn made_objects(entries in prop::collection::vec((key(), space(), value()), 0..8), cut in 0..60usize) {
            let text = object_of(entries);
            check(&text);
            check(text.get(..text.len().saturating_sub(cut)).unwrap_or(""));
        }

        #[test]
        fn changed_real_messages(
            message in prop::sample::select(real_messages()),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4, any::<u8>(), 0..24usize), 1..4),
        ) {
            let mut bytes = message.into_bytes();
            for (place, what, any_byte, byte) in changes {
                if bytes.is_empty() {
                    break;
                }
                let place = place.index(bytes.len());
                let byte = *br#"{}[]",:\.-+eE019 nutf"#.get(byte).unwrap_or(&any_byte);
                match what {
                    0 => bytes[place] = byte,
                    1 => bytes.insert(place, byte),
                    2 => drop(bytes.remove(place)),
                    _ => bytes.truncate(place.max(bytes.len().saturating_sub(3))),
                }
            }
            if let Ok(text) = std::str::from_utf8(&bytes) {
                check(text);
            }
        }
    }
}
