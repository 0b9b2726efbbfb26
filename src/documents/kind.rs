//! What a value may be: one check and one way to say it, for every key of every file.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use foreshock_operators::time::Nanos;
use foreshock_operators::venues::is_name;

use super::duration;
use super::suggest;
use super::yaml::{Node, Value, YamlKey};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The type and limits of a value.
#[derive(Clone, Copy, Debug)]
pub enum ValueKind {
    /// A duration, or one of the words that stand for one.
    Duration {
        min: Nanos,
        max: Nanos,
        words: &'static [&'static str],
    },
    /// A list of distinct durations, ascending.
    Durations {
        min: Nanos,
        max: Nanos,
        most: usize,
    },
    /// A list of distinct durations, ascending, down to microseconds: the upper bounds of a histogram's buckets.
    Latencies {
        min: Nanos,
        max: Nanos,
        most: usize,
    },
    /// An integer from `min` to `max`.
    Integer {
        min: i64,
        max: i64,
    },
    /// An integer, or one of the words that stand for one.
    IntegerOr {
        min: i64,
        max: i64,
        words: &'static [&'static str],
    },
    /// A number of bytes.
    Bytes {
        min: u64,
        max: u64,
    },
    Number(NumberRange),
    /// A number, or one of the words that stand for one.
    NumberOr(NumberRange, &'static [&'static str]),
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    Text(Charset),
    /// A file, or `builtin:NAME`.
    File,
    /// A folder, or the URL of an object store.
    Store,
    /// A file that is read when it is needed, or null.
    OptionalFile,
    /// A SHA-256 in hex, or null.
    Digest,
    /// Text, a finite number, true or false: a remark.
    Note,
    /// A log level, or a list of `module=level`.
    LogLevel,
    /// Names with a text, number or flag each, handed on as they are.
    Properties,
    /// The name of a Kafka topic.
    Topic,
    /// Names of Kafka topics, each once.
    Topics,
    /// Addresses `host:port` with commas between them.
    Addresses,
    /// One address `ip:port` to listen at, or off.
    Listen,
}

/// Which numbers are allowed; infinities and NaN never are.
#[derive(Clone, Copy, Debug)]
pub enum NumberRange {
    Any,
    Positive,
    /// Above 0 and below 1.
    Fraction,
}

/// Which characters a text may have.
#[derive(Clone, Copy, Debug)]
pub enum Charset {
    /// Letters, digits, `.`, `_` and `-`.
    Id,
    /// The same in lower case.
    Name,
    /// What venues call their instruments: printable characters without quotes and backslashes.
    Symbol,
    /// Patterns `<exchange>:<instrument>`.
    Pattern,
}

/// A value that was checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    Absent,
    Duration(Nanos),
    Durations(Vec<Nanos>),
    Integer(i64),
    Number(f64),
    Bool(bool),
    Word(&'static str),
    Text(String),
    Texts(Vec<String>),
    Properties(Vec<(String, String)>),
}

/// The longest text that is taken for a name.
const MAX_NAME: usize = 64;

impl ValueKind {
    /// Checks a value; the error says what was found and what is allowed.
    pub fn read(&self, value: &Value) -> Result<Setting, String> {
        self.accept(value).ok_or_else(|| {
            let words = match (self, value) {
                (ValueKind::Choice(words) | ValueKind::Duration { words, .. }, Value::Text(text)) => {
                    suggest::hint(text, words.iter().copied())
                }
                (
                    ValueKind::Text(_) | ValueKind::Digest,
                    Value::Integer(_) | Value::Number(_) | Value::Bool(_),
                ) => "; put it in quotes to make it text".to_owned(),
                _ => String::new(),
            };
            format!("found {value}, expected {self}{words}")
        })
    }

    fn accept(&self, value: &Value) -> Option<Setting> {
        match (self, value) {
            (
                ValueKind::Duration { words, .. }
                | ValueKind::IntegerOr { words, .. }
                | ValueKind::NumberOr(_, words)
                | ValueKind::Choice(words),
                Value::Text(text),
            ) if words.contains(&text.as_str()) => {
                words.iter().find(|word| *word == text).map(|word| Setting::Word(word))
            }
            (ValueKind::Duration { min, max, .. }, value) => length(value, *min, *max).map(Setting::Duration),
            (ValueKind::Durations { min, max, most }, Value::List(items)) => {
                ascending(items, *most, |value| length(value, *min, *max))
            }
            (ValueKind::Latencies { min, max, most }, Value::List(items)) => {
                let latency = |value: &Value| match value {
                    Value::Text(text) => duration::parse_latency(text),
                    _ => None,
                };
                ascending(items, *most, |value| {
                    latency(value).filter(|length| (*min..=*max).contains(length))
                })
            }
            (ValueKind::Integer { min, max } | ValueKind::IntegerOr { min, max, .. }, Value::Integer(v))
                if (*min..=*max).contains(v) =>
            {
                Some(Setting::Integer(*v))
            }
            (ValueKind::Bytes { min, max }, value) => bytes(value)
                .filter(|v| (*min..=*max).contains(v))
                .and_then(|v| i64::try_from(v).ok())
                .map(Setting::Integer),
            (ValueKind::Number(range) | ValueKind::NumberOr(range, _), Value::Integer(v)) => {
                range.accept(*v as f64)
            }
            (ValueKind::Number(range) | ValueKind::NumberOr(range, _), Value::Number(v)) => range.accept(*v),
            (ValueKind::Bool, Value::Bool(v)) => Some(Setting::Bool(*v)),
            (ValueKind::Text(charset), Value::Text(text)) if charset.allows(text) => {
                Some(Setting::Text(text.clone()))
            }
            (ValueKind::File | ValueKind::Store | ValueKind::OptionalFile, Value::Text(text))
                if !text.is_empty() && !text.contains('\0') =>
            {
                Some(Setting::Text(text.clone()))
            }
            (ValueKind::Digest | ValueKind::OptionalFile, Value::Null) => Some(Setting::Absent),
            (ValueKind::Digest, Value::Text(text))
                if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) =>
            {
                Some(Setting::Text(text.to_ascii_lowercase()))
            }
            (ValueKind::Note, Value::Text(text)) => Some(Setting::Text(text.clone())),
            (ValueKind::Note, Value::Integer(v)) => Some(Setting::Integer(*v)),
            (ValueKind::Note, Value::Number(v)) => NumberRange::Any.accept(*v),
            (ValueKind::Note, Value::Bool(v)) => Some(Setting::Bool(*v)),
            (ValueKind::LogLevel, Value::Text(text)) if levels(text) => {
                Some(Setting::Text(text.to_ascii_lowercase()))
            }
            (ValueKind::Properties, Value::Map(entries)) => properties(entries).map(Setting::Properties),
            (ValueKind::Topic, Value::Text(text)) if is_topic(text) => Some(Setting::Text(text.clone())),
            (ValueKind::Topics, Value::List(items)) => topics(items).map(Setting::Texts),
            (ValueKind::Addresses, Value::Text(text)) if text.split(',').all(is_address) => {
                Some(Setting::Text(text.clone()))
            }
            (ValueKind::Listen, Value::Text(text)) if text == "off" => Some(Setting::Word("off")),
            (ValueKind::Listen, Value::Text(text)) if text.parse::<SocketAddr>().is_ok() => {
                Some(Setting::Text(text.clone()))
            }
            _ => None,
        }
    }

    /// An environment variable's text as the value that a file would hold.
    pub fn from_variable(&self, text: &str) -> Value {
        let item = |text: &str| Node { line: 0, value: Value::Text(text.trim().to_owned()) };
        match self {
            ValueKind::Durations { .. } | ValueKind::Latencies { .. } => {
                let list = text.trim().trim_start_matches('[').trim_end_matches(']');
                Value::List(list.split(',').map(item).collect())
            }
            ValueKind::Integer { .. } | ValueKind::IntegerOr { .. } | ValueKind::Bytes { .. } => {
                text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer)
            }
            ValueKind::Bool => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Bool),
            ValueKind::Digest | ValueKind::OptionalFile if text == "null" => Value::Null,
            ValueKind::Topics => Value::List(text.split(',').map(item).collect()),
            ValueKind::Properties => {
                let entry = |part: &str| {
                    let (name, text) = part.split_once('=').unwrap_or((part, ""));
                    (YamlKey { line: 0, name: name.trim().to_owned() }, item(text))
                };
                Value::Map(text.split(',').filter(|part| !part.trim().is_empty()).map(entry).collect())
            }
            _ => Value::Text(text.to_owned()),
        }
    }
}

/// Librdkafka checks names and values itself; what it calls them is not ours to know.
fn properties(entries: &[(YamlKey, Node)]) -> Option<Vec<(String, String)>> {
    let mut seen = BTreeSet::new();
    let property = |(key, node): &(YamlKey, Node)| {
        let text = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Integer(v) => v.to_string(),
            Value::Number(v) if v.is_finite() => v.to_string(),
            Value::Bool(v) => v.to_string(),
            _ => return None,
        };
        let is_name = !key.name.is_empty()
            && key.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        (is_name && seen.insert(key.name.clone())).then(|| (key.name.clone(), text))
    };
    entries.iter().map(property).collect()
}

/// What Kafka allows.
pub(crate) fn is_topic(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=249).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

fn topics(items: &[Node]) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let topic = |item: &Node| match &item.value {
        Value::Text(name) if is_topic(name) && seen.insert(name.clone()) => Some(name.clone()),
        _ => None,
    };
    let names: Vec<String> = items.iter().map(topic).collect::<Option<_>>()?;
    (!names.is_empty()).then_some(names)
}

/// `host:port`, or `protocol://host:port` as librdkafka takes it too.
pub(crate) fn is_address(text: &str) -> bool {
    let text = text.trim();
    let address = text.split_once("://").map_or(text, |(_, rest)| rest);
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_[]:".contains(&b))
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// Lengths of time, each longer than the one before, from 1 to so many.
fn ascending(items: &[Node], most: usize, length: impl Fn(&Value) -> Option<Nanos>) -> Option<Setting> {
    let lengths: Vec<Nanos> = items.iter().map(|item| length(&item.value)).collect::<Option<_>>()?;
    let is_good = (1..=most).contains(&lengths.len()) && lengths.windows(2).all(|pair| pair[0] < pair[1]);
    is_good.then_some(Setting::Durations(lengths))
}

fn length(value: &Value, min: Nanos, max: Nanos) -> Option<Nanos> {
    let Value::Text(text) = value else { return None };
    duration::parse(text).filter(|length| (min..=max).contains(length))
}

/// Units of bytes by their text.
const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn bytes(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(v) => u64::try_from(*v).ok(),
        Value::Text(text) => {
            let (name, unit) = BYTE_UNITS.iter().find(|(name, _)| text.ends_with(name))?;
            let number = text.strip_suffix(name)?;
            let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            number.parse::<u64>().ok().filter(|_| plain)?.checked_mul(*unit)
        }
        _ => None,
    }
}

fn show_bytes(v: u64) -> String {
    let (name, unit) = BYTE_UNITS.iter().find(|(_, unit)| v.is_multiple_of(*unit)).unwrap_or(&("B", 1));
    format!("{}{name}", v / unit)
}

/// `info`, or `warn,foreshock=debug`: a level for all and levels by module.
fn levels(text: &str) -> bool {
    let level = |text: &str| LEVELS.iter().any(|name| text.eq_ignore_ascii_case(name));
    let module = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b':')
    };
    text.split(',').all(|part| match part.split_once('=') {
        Some((name, at)) => module(name) && level(at),
        None => level(part),
    })
}

impl NumberRange {
    fn accept(self, v: f64) -> Option<Setting> {
        let inside = match self {
            NumberRange::Any => true,
            NumberRange::Positive => v > 0.0,
            NumberRange::Fraction => v > 0.0 && v < 1.0,
        };
        (v.is_finite() && inside).then_some(Setting::Number(v))
    }
}

impl Charset {
    fn allows(self, text: &str) -> bool {
        let id = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let allowed = match self {
            Charset::Id => text.bytes().all(id),
            Charset::Name => text.bytes().all(|b| id(b) && !b.is_ascii_uppercase()),
            Charset::Symbol => return is_name(text),
            // Symbols may have colons.
            Charset::Pattern => {
                return text
                    .split_once(':')
                    .is_some_and(|(exchange, instrument)| is_name(exchange) && is_name(instrument));
            }
        };
        allowed && !text.is_empty() && text.len() <= MAX_NAME
    }
}

impl fmt::Display for NumberRange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            NumberRange::Any => "a finite number",
            NumberRange::Positive => "a finite number above 0",
            NumberRange::Fraction => "a number above 0 and below 1",
        })
    }
}

/// As an error tells what is allowed.
impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ValueKind::Duration { min, max, words } => {
                for word in *words {
                    write!(f, "{word} or ")?;
                }
                let (min, max) = (duration::show(*min), duration::show(*max));
                write!(f, "a duration with a unit such as \"60s\" ({min} to {max})")
            }
            ValueKind::Durations { min, max, most } => {
                let (min, max) = (duration::show(*min), duration::show(*max));
                write!(
                    f,
                    "a list of 1 to {most} durations such as [1s, 5s], ascending and distinct ({min} to {max} each)"
                )
            }
            ValueKind::Latencies { min, max, most } => {
                let (min, max) = (duration::show_latency(*min), duration::show_latency(*max));
                write!(
                    f,
                    "a list of 1 to {most} durations such as [500us, 45ms, 1s], ascending and distinct ({min} to {max} each)"
                )
            }
            ValueKind::Integer { min, max } => write!(f, "an integer from {min} to {max}"),
            ValueKind::IntegerOr { min, max, words } => {
                write!(f, "an integer from {min} to {max} or {}", words.join(" or "))
            }
            ValueKind::Bytes { min, max } => {
                write!(f, "a size such as \"256KiB\" ({} to {})", show_bytes(*min), show_bytes(*max))
            }
            ValueKind::Number(range) => write!(f, "{range}"),
            ValueKind::NumberOr(range, words) => write!(f, "{range} or {}", words.join(" or ")),
            ValueKind::Bool => f.write_str("true or false"),
            ValueKind::Choice(words) => write!(f, "one of {}", words.join(", ")),
            ValueKind::Text(Charset::Id) => {
                write!(f, "text of 1 to {MAX_NAME} letters, digits, \".\", \"_\" and \"-\"")
            }
            ValueKind::Text(Charset::Name) => {
                write!(f, "text of 1 to {MAX_NAME} lower-case letters, digits, \".\", \"_\" and \"-\"")
            }
            ValueKind::Text(Charset::Symbol) => {
                write!(f, "text of 1 to {MAX_NAME} printable characters without quotes and backslashes")
            }
            ValueKind::Text(Charset::Pattern) => {
                f.write_str("a pattern such as \"binance:*\" or \"*:BTC-USD\"")
            }
            ValueKind::File => f.write_str("a file name, or builtin:NAME"),
            ValueKind::Store => f.write_str("a folder, or a URL such as s3://bucket/prefix"),
            ValueKind::OptionalFile => f.write_str("a file name, or null"),
            ValueKind::Digest => f.write_str("a SHA-256 of 64 hex digits as text, or null"),
            ValueKind::Properties => {
                f.write_str("names of properties, each once, with a text, number or flag")
            }
            ValueKind::Topic => {
                f.write_str("a topic name of 1 to 249 letters, digits, \".\", \"_\" and \"-\"")
            }
            ValueKind::Topics => f.write_str("a list of topic names, each once"),
            ValueKind::Addresses => f.write_str("addresses host:port with commas between them"),
            ValueKind::Listen => f.write_str("an address such as \"127.0.0.1:8000\" or off"),
            ValueKind::Note => f.write_str("text, a finite number, true or false"),
            ValueKind::LogLevel => {
                write!(f, "one of {}, or a list such as \"info,foreshock=debug\"", LEVELS.join(", "))
            }
        }
    }
}
