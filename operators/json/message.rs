//! How messages are parsed: every field under its key, into a message that stands where it is.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::error::Category;

use super::field::{Field, FieldProblem};
use super::scan::{Fields, scan};
use crate::account::Reason;

/// Defines a message: its fields, each under its key, and its lists of further messages.
///
/// What serde derives for the same would do, but this one is filled in place and has one call for all fields,
/// which makes a ticker 15 % cheaper. It is read from an object only, where a derived one takes a list too.
macro_rules! message {
    (
        $(#[$meta:meta])*
        $name:ident { $($field:ident: $key:literal,)* $([$list:ident: $item:ident: $list_key:literal],)* }
    ) => {
        $(#[$meta])*
        #[derive(Default)]
        #[cfg_attr(test, derive(Debug))]
        pub(crate) struct $name<'a> {
            $(pub(crate) $field: $crate::json::field::Field<'a>,)*
            $(pub(crate) $list: $crate::json::message::Few<$item<'a>>,)*
        }

        const _: () = {
            use std::fmt;

            use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

            use $crate::json::scan::{Fields, FieldPlace};

            impl<'a> Fields<'a> for $name<'a> {
                const LISTS: &'static [&'static str] = &[$($list_key),*];

                #[inline]
                fn place(&mut self, key: &[u8], _: bool) -> FieldPlace<'_, 'a> {
                    $(if key == $key.as_bytes() {
                        return FieldPlace::Field(&mut self.$field);
                    })*
                    FieldPlace::Unused
                }
            }

            impl<'a> $crate::json::message::Message<'a> for $name<'a> {
                fn seed(&mut self) -> impl DeserializeSeed<'a> {
                    self
                }
            }

            #[derive(serde::Deserialize)]
            #[serde(field_identifier)]
            #[allow(non_camel_case_types, reason = "the names are the fields' own")]
            enum Key {
                $(#[serde(rename = $key)] $field,)*
                $(#[serde(rename = $list_key)] $list,)*
                #[serde(other)]
                Other,
            }

            impl<'de> DeserializeSeed<'de> for &mut $name<'de> {
                type Value = ();

                fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                    deserializer.deserialize_map(self)
                }
            }

            impl<'de: 'a, 'a> Deserialize<'de> for $name<'a> {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let mut message = $name::default();
                    (&mut message).deserialize(deserializer)?;
                    Ok(message)
                }
            }

            impl<'de> Visitor<'de> for &mut $name<'de> {
                type Value = ();

                fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                    out.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
                    while let Some(key) = object.next_key()? {
                        let (name, field) = match key {
                            $(Key::$field => ($key, &mut self.$field),)*
                            $(Key::$list => {
                                if !self.$list.is_missing() {
                                    return Err(A::Error::duplicate_field($list_key));
                                }
                                self.$list = object.next_value()?;
                                continue;
                            })*
                            Key::Other => {
                                object.next_value::<IgnoredAny>()?;
                                continue;
                            }
                        };
                        if !field.is_missing() {
                            return Err(A::Error::duplicate_field(name));
                        }
                        *field = object.next_value()?;
                    }
                    Ok(())
                }
            }
        };
    };
}
pub(crate) use message;

/// What [`fill`] fills.
pub(crate) trait Message<'a>: Fields<'a> {
    /// How serde fills it.
    fn seed(&mut self) -> impl DeserializeSeed<'a>;
}

/// A list that mostly has one entry, which is kept without allocating.
#[derive(Default)]
#[cfg_attr(test, derive(Debug))]
pub(crate) enum Few<T> {
    #[default]
    Missing,
    None,
    One(T),
    Many(Vec<T>),
}

impl<T> Few<T> {
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Few::Missing)
    }

    /// The entries of a list that must be there.
    pub(crate) fn items(&self, name: &str) -> Result<&[T], FieldProblem> {
        match self {
            Few::Missing => Err(Field::Missing.wrong(name, "a list")),
            Few::None => Ok(&[]),
            Few::One(item) => Ok(std::slice::from_ref(item)),
            Few::Many(items) => Ok(items),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

struct FewVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FewVisitor<T> {
    type Value = Few<T>;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Some(first) = list.next_element()? else { return Ok(Few::None) };
        let Some(second) = list.next_element()? else { return Ok(Few::One(first)) };
        let mut items = vec![first, second];
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Few::Many(items))
    }
}

/// Fills a message, empty so far, from all of a text.
pub(crate) fn fill<'a, M: Message<'a>>(text: &'a str, message: &mut M) -> Result<(), FieldProblem> {
    if scan(text, message) {
        return Ok(());
    }
    *message = M::default();
    fill_by_serde(text, message)
}

pub(crate) fn fill_by_serde<'a, M: Message<'a>>(text: &'a str, message: &mut M) -> Result<(), FieldProblem> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    message
        .seed()
        .deserialize(&mut deserializer)
        .and_then(|_| deserializer.end())
        .map_err(|error| unreadable(text, &error))
}

/// Why a message could not be parsed. Where serde stopped at a value that it could not use, what follows may
/// still be broken, and a broken message is called broken.
#[cold]
fn unreadable(text: &str, error: &serde_json::Error) -> FieldProblem {
    let content = text.trim_ascii();
    if content.is_empty() || content == "null" {
        return FieldProblem::Message(
            Reason::Empty,
            "there is no message: a JSON object is allowed".to_owned(),
        );
    }
    let broken = match error.classify() {
        Category::Data => serde_json::from_str::<IgnoredAny>(text).err(),
        Category::Syntax | Category::Eof | Category::Io => {
            return FieldProblem::Message(Reason::BrokenJson, error.to_string());
        }
    };
    match broken {
        Some(broken) => FieldProblem::Message(Reason::BrokenJson, broken.to_string()),
        None => FieldProblem::Message(Reason::WrongType, error.to_string()),
    }
}

/// Rewrites the escapes of a text that stand for plain characters (`\\u0041`, `\\/`) as these, so that fields
/// can be borrowed from it. Those of quotes, backslashes and control characters stay, and broken ones too: they
/// are the parser's to judge.
pub(crate) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        match escaped(rest) {
            Some((character, length)) if !character.is_control() && !matches!(character, '"' | '\\') => {
                plain.push(character);
                rest = &rest[length..];
            }
            // The escape is kept whole, so that its second character begins no other.
            _ => {
                let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                plain.push_str(&rest[..length]);
                rest = &rest[length..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// The character of the escape that `text` begins with, and the escape's length.
fn escaped(text: &str) -> Option<(char, usize)> {
    match text.as_bytes().get(1)? {
        b'/' => Some(('/', 2)),
        b'u' => {
            let unit = |at: usize| {
                let digits = text.get(at..at + 4)?;
                let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
            };
            let first = unit(2)?;
            if let Some(character) = char::from_u32(u32::from(first)) {
                return Some((character, 6));
            }
            let second = (text.get(6..8)? == "\\u").then(|| unit(8)).flatten()?;
            let character = char::decode_utf16([first, second]).next()?.ok()?;
            Some((character, 12))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_of_plain_characters_are_written_out() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(unescape(text), expected);
        }
        check(r#""\u0041\/b""#, r#""A/b""#);
        check(r#""\ud83d\ude00""#, r#""😀""#);
        check(r#""\u0022 \u005c \u0000 \" \\ \n""#, r#""\u0022 \u005c \u0000 \" \\ \n""#);
        check(r#""\\u0041""#, r#""\\u0041""#);
        check(r#""\ud83d \ud83d\u0041 \ude00 \u00g0 \u00""#, r#""\ud83d \ud83dA \ude00 \u00g0 \u00""#);
        check(r"\", r"\");
        check(r"\é\u00e9", r"\éé");
    }

    proptest! {
        #[test]
        fn unescaping_changes_no_meaning(text in r#"(\\(["\\/bfnrtu]|u[0-9a-fD]{4})|[a-zé😀 ]){0,12}"#) {
            let text = format!("\"{text}\"");
            let before = serde_json::from_str::<String>(&text).ok();
            let after = serde_json::from_str::<String>(&unescape(&text)).ok();
            prop_assert_eq!(before, after);
        }
    }
}
