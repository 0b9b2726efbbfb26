//! Reads the names and values of one row's features.

use std::fmt;

use foreshock_operators::feature::Feature;
use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};

use super::scorer::Scorer;

/// The key under which rows come as a list.
pub const ROWS: &str = "rows";
/// What a feature may be.
pub const NUMBER: &str = "a finite number or null";

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
    Rows,
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
        Ok(match self.scorer.feature(name) {
            Some((at, feature)) => FieldKey::Feature(at, feature),
            None if name == ROWS && !self.is_row => FieldKey::Rows,
            None => FieldKey::Unknown(name.to_owned()),
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

    fn visit_unit<E: Error>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }
}
