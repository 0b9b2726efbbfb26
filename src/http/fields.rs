//! Reads the names and values of one row's features.

use std::fmt;

use foreshock_operators::feature::Feature;
use serde::de::{DeserializeSeed, Deserializer, Error, Unexpected, Visitor};

use super::scorer::Scorer;

/// The keys under which rows come as a list: ours, and that of KServe's protocol v1 and of TensorFlow Serving.
pub const LISTS: [&str; 2] = ["rows", "instances"];
/// What a feature may be.
pub const NUMBER: &str = "a finite number or null";
/// The same of a number that came as text.
const WITHOUT_QUOTES: &str = "a finite number or null, without quotes";

/// Reads a name; only one that is unknown is kept.
pub struct Name<'a> {
    pub scorer: &'a Scorer,
    /// Whether it stands in a row of a list, which has no list of its own.
    pub is_row: bool,
}

/// What a name stands for.
pub enum FieldKey {
    /// By the number of the name.
    Feature(usize, Feature),
    /// The key of a list of rows.
    Rows(&'static str),
    Unknown(String),
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = FieldKey;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldKey, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = FieldKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<FieldKey, E> {
        let list = LISTS.into_iter().find(|list| *list == name && !self.is_row);
        Ok(match (self.scorer.feature(name), list) {
            (Some((at, feature)), _) => FieldKey::Feature(at, feature),
            (None, Some(list)) => FieldKey::Rows(list),
            (None, None) => FieldKey::Unknown(name.to_owned()),
        })
    }
}

/// Reads a number; null is NaN.
pub struct Number;

impl<'de> DeserializeSeed<'de> for Number {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Number {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NUMBER)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        let is_number = text.trim().parse::<f64>().is_ok_and(f64::is_finite);
        let expected = if is_number { WITHOUT_QUOTES } else { NUMBER };
        Err(E::invalid_type(Unexpected::Str(text), &expected))
    }

    fn visit_unit<E: Error>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }
}
