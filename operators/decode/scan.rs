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

use super::decimal::Decimal;
use super::field::Field;

/// A message whose fields are found by their keys.
pub(super) trait Fields<'a>: Default {
    /// Its lists of further messages: with any, it is not scanned.
    const LISTS: &'static [&'static str];

    /// What stands under a key; `top` is whether in the message itself or in an object inside.
    fn place(&mut self, key: &str, top: bool) -> Place<'_, 'a>;
}

/// Where a value belongs.
pub(super) enum Place<'m, 'a> {
    Field(&'m mut Field<'a>),
    /// It must be an object, and the fields inside are the message's.
    Object,
    Unused,
}

/// Fills a message from all of a text, or tells that serde has to: then some fields may be filled already.
pub(super) fn scan<'a, M: Fields<'a>>(text: &'a str, message: &mut M) -> bool {
    M::LISTS.is_empty() && is_plain(text.as_bytes()) && object(text, 0, message, true) == Some(text.len())
}

/// Whether a text has neither backslashes nor control characters, so that its texts end at the next quote. All
/// bytes are looked at, as the compiler then does many at once.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| plain & (*byte >= b' ') & (*byte != b'\\'))
}

/// Deeper lists are left to serde.
const DEEPEST: usize = 4;

// Each of these reads what stands at a place and gives the place behind it, `None` where it is left to serde.

fn object<'a, M: Fields<'a>>(text: &'a str, at: usize, message: &mut M, top: bool) -> Option<usize> {
    let mut at = skip(text, at, b'{')?;
    loop {
        let key;
        (key, at) = string(text, at)?;
        at = skip_spaces(text, skip(text, at, b':')?);
        let mut unused = Field::Missing;
        at = match message.place(key, top) {
            Place::Field(field) if !field.is_missing() => return None,
            Place::Field(field) => value(text, at, field)?,
            Place::Object => object(text, at, message, false)?,
            Place::Unused => value(text, at, &mut unused)?,
        };
        match peek(text, at)? {
            b',' => at = skip_spaces(text, at + 1),
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}

#[inline(always)]
fn value<'a>(text: &'a str, at: usize, field: &mut Field<'a>) -> Option<usize> {
    if peek(text, at)? == b'"' {
        let (string, end) = string(text, at)?;
        *field = Field::Text(string);
        return Some(end);
    }
    other_value(text, at, field, DEEPEST)
}

/// A value that is no text, or an entry of a list.
fn other_value<'a>(text: &'a str, at: usize, field: &mut Field<'a>, depth: usize) -> Option<usize> {
    let (found, end) = match peek(text, at)? {
        b'-' | b'0'..=b'9' => {
            let (decimal, length) = Decimal::read(&text.as_bytes()[at..])?;
            let number = decimal.whole().map(Field::Whole).or_else(|| decimal.number().map(Field::Number));
            (number?, at + length)
        }
        b'"' => string(text, at).map(|(string, end)| (Field::Text(string), end))?,
        b't' => (Field::Bool(true), literal(text, at, "true")?),
        b'f' => (Field::Bool(false), literal(text, at, "false")?),
        b'n' => (Field::Null, literal(text, at, "null")?),
        b'[' => (Field::List, list(text, at, depth.checked_sub(1)?)?),
        _ => return None,
    };
    *field = found;
    Some(end)
}

/// A list, whose entries only have to be JSON.
fn list(text: &str, at: usize, depth: usize) -> Option<usize> {
    let mut at = skip(text, at, b'[')?;
    if peek(text, at)? == b']' {
        return Some(at + 1);
    }
    loop {
        at = other_value(text, at, &mut Field::Missing, depth)?;
        match peek(text, at)? {
            b',' => at = skip_spaces(text, at + 1),
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// A text between its quotes.
#[inline(always)]
fn string(text: &str, at: usize) -> Option<(&str, usize)> {
    let start = skip(text, at, b'"')?;
    let end = quote_from(text.as_bytes(), start)?;
    Some((&text[start..end], end + 1))
}

fn literal(text: &str, at: usize, name: &str) -> Option<usize> {
    text.as_bytes()[at..].starts_with(name.as_bytes()).then_some(at + name.len())
}

#[inline]
fn peek(text: &str, at: usize) -> Option<u8> {
    text.as_bytes().get(at).copied()
}

#[inline]
fn skip(text: &str, at: usize, byte: u8) -> Option<usize> {
    (peek(text, at)? == byte).then_some(at + 1)
}

#[inline]
fn skip_spaces(text: &str, mut at: usize) -> usize {
    while peek(text, at) == Some(b' ') {
        at += 1;
    }
    at
}

/// The place of the first quote from a place on, eight bytes at a time: of a word in which quotes have become
/// zeros, the lowest zero byte is the lowest that borrows when each byte has 1 taken from it.
#[inline(always)]
fn quote_from(text: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    while let Some(word) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*word) ^ QUOTES;
        let zeros = word.wrapping_sub(ONES) & !word & HIGH;
        if zeros != 0 {
            return Some(at + zeros.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    while *text.get(at)? != b'"' {
        at += 1;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::super::message::{Message, fill_by_serde};
    use super::super::{binance_event, canonical, coinbase_exchange, detect, okx};
    use super::*;

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
