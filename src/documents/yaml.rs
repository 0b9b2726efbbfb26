//! YAML text as a tree in which every node knows its line.
//!
//! What a file may cost is bounded: bytes, nodes and depth, and there are no anchors, aliases, merge keys or
//! tags. A configuration has no need of them, and without them a small file cannot stand for a large one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Spanned};

/// The longest text that is read.
pub const MAX_BYTES: usize = 4 << 20;
/// The most values, keys and sections a text may hold.
pub const MAX_NODES: usize = 1_000_000;
/// The deepest nesting.
pub const MAX_DEPTH: usize = 16;
/// Text found in a file is quoted in errors up to this many characters.
const MAX_SHOWN: usize = 60;

/// A value and the line it stands on, counted from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub line: u32,
    pub value: Value,
}

/// The name of a value in its section, as written, and the line it stands on.
#[derive(Clone, Debug, PartialEq)]
pub struct YamlKey {
    pub line: u32,
    pub name: String,
}

/// What YAML knows.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// A number that is no integer of 64 bits; infinities and NaN included, for the checks to refuse.
    Number(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys in the order of the text, duplicates included: whoever reads a section refuses them.
    Map(Vec<(YamlKey, Node)>),
}

/// Why a text is no YAML that we take, and where; line 0 where nothing better is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    pub line: u32,
    pub problem: String,
}

/// Reads a YAML text.
pub fn parse(text: &str) -> Result<Node, Unreadable> {
    if text.len() > MAX_BYTES {
        return Err(Unreadable {
            line: 0,
            problem: format!("too large, expected at most {MAX_BYTES} bytes"),
        });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 2 * MAX_NODES,
            max_nodes: MAX_NODES,
            max_depth: MAX_DEPTH,
            max_documents: 1,
            max_anchors: 0,
            max_aliases: 0,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let spanned: Spanned<Value> = serde_saphyr::from_str_with_options(text, options).map_err(unreadable)?;
    Ok(spanned.into())
}

/// The parser's error in our words, without the place, which errors show in front.
fn unreadable(error: Error) -> Unreadable {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let problem = match &error {
        Error::Budget { breach: BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. }, .. } => {
            "found an anchor or alias (& or *), which configuration does not use".to_owned()
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("nested too deeply, expected at most {MAX_DEPTH} levels")
        }
        Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "found a second document, expected one to a file".to_owned()
        }
        Error::Budget { .. } => format!("too large, expected at most {MAX_NODES} values"),
        Error::MergeKeyNotAllowed { .. } => {
            "found a merge key (<<), which configuration does not use".to_owned()
        }
        _ => {
            let message = error.to_string().replace('\n', " ");
            let place = format!(" at line {line}, column {column}");
            format!("not readable as YAML: {}", message.strip_suffix(&place).unwrap_or(&message))
        }
    };
    Unreadable { line: line as u32, problem }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Node {
        Node { line: spanned.referenced.line() as u32, value: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        Spanned::<Value>::deserialize(deserializer).map(Node::from)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value, a list or a section")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Integer(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(i64::try_from(v).map_or(Value::Number(v as f64), Value::Integer))
    }

    fn visit_i128<E>(self, v: i128) -> Result<Value, E> {
        Ok(Value::Number(v as f64))
    }

    fn visit_u128<E>(self, v: u128) -> Result<Value, E> {
        Ok(Value::Number(v as f64))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Number(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Text(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::Text(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Node>()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, node)) = entries.next_entry::<Spanned<Option<String>>, Node>()? {
            // The one word that YAML takes for something else, and that model files use as a key.
            let name = key.value.unwrap_or_else(|| "null".to_owned());
            map.push((YamlKey { line: key.referenced.line() as u32, name }, node));
        }
        Ok(Value::Map(map))
    }
}

/// As an error tells what was found.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Value::Null => f.write_str("nothing"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::Integer(v) => write!(f, "{v}"),
            Value::Number(v) => write!(f, "{v:?}"),
            Value::Text(v) if v.chars().count() > MAX_SHOWN => {
                let start: String = v.chars().take(MAX_SHOWN).collect();
                write!(f, "{start:?}...")
            }
            Value::Text(v) => write!(f, "{v:?}"),
            Value::List(_) => f.write_str("a list"),
            Value::Map(_) => f.write_str("a section"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Value) {
        assert_eq!(parse(text).map(|node| node.value), Ok(expected), "{text:?}");
    }

    #[track_caller]
    fn check_refused(text: &str, line: u32, problem: &str) {
        assert_eq!(parse(text), Err(Unreadable { line, problem: problem.to_owned() }), "{text:?}");
    }

    #[test]
    fn words_are_text_unless_they_are_true_or_false() {
        let words = ["off", "on", "no", "yes", "y", "1s", "007", "1_000", "0:30", "2026-01-02"];
        let list = words.iter().map(|w| Node { line: 1, value: Value::Text((*w).to_owned()) }).collect();
        check(&format!("[{}]", words.join(", ")), Value::List(list));
        check("true", Value::Bool(true));
        check("\"true\"", Value::Text("true".to_owned()));
    }

    #[test]
    fn numbers_keep_whether_they_are_integers() {
        check("12", Value::Integer(12));
        check("-1.0", Value::Number(-1.0));
        check("5e-5", Value::Number(5e-5));
        check("1e999", Value::Number(f64::INFINITY));
        check("99999999999999999999", Value::Number(1e20));
    }

    #[test]
    fn nodes_and_keys_know_their_lines() {
        let Value::Map(map) = parse("a: 1\n\nb:\n  c: x\nnull: 3\n").unwrap().value else {
            panic!("a section")
        };
        let lines: Vec<_> = map.iter().map(|(key, node)| (key.name.as_str(), key.line, node.line)).collect();
        assert_eq!(lines, [("a", 1, 1), ("b", 3, 4), ("null", 5, 5)]);
    }

    #[test]
    fn what_configuration_does_not_use_is_refused() {
        check_refused(
            "a: &x 1\nb: *x\n",
            1,
            "found an anchor or alias (& or *), which configuration does not use",
        );
        check_refused("a: 1\n<<: {b: 1}\n", 2, "found a merge key (<<), which configuration does not use");
        check_refused("a: 1\n---\nb: 2\n", 2, "found a second document, expected one to a file");
        check_refused("a: !secret 1\n", 1, "not readable as YAML: unsupported tag `!secret`");
        check_refused("a: [1\n", 1, "not readable as YAML: unclosed bracket '['");
    }

    #[test]
    fn what_a_text_costs_is_bounded() {
        check_refused(&"- ".repeat(100_000), 1, "nested too deeply, expected at most 16 levels");
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        check_refused(&nested(MAX_DEPTH + 1), 1, "nested too deeply, expected at most 16 levels");
        check_refused(&"#".repeat(MAX_BYTES + 1), 0, "too large, expected at most 4194304 bytes");
        check_refused(&"[".repeat(MAX_BYTES), 1, "not readable as YAML: recursion limit exceeded");
        let bomb = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\n";
        assert!(parse(bomb).is_err());
    }
}
