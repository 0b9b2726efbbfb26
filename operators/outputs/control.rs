//! `control`: what became of control records.

use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::Output;
use super::field::{FieldValue, OutputField, text_or_null, write_line};
use crate::time::{Time, TimeText};

pub const OUTPUT: Output = Output {
    name: "control",
    topic: Some("market.control"),
    has_file: false,
    key: "the record's id",
    one_for: "each control record: what became of it",
};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It holds from here on; each instrument takes it at its next row (or its first at `effective_at`).
    Applied,
    /// The shard has taken one of this id before.
    Duplicate,
    Refused,
}

impl Fate {
    /// The name printed.
    pub fn name(self) -> &'static str {
        match self {
            Fate::Applied => "applied",
            Fate::Duplicate => "duplicate",
            Fate::Refused => "refused",
        }
    }
}

/// The word of a shard on a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Position of the record in the batch.
    pub order: u32,
    pub offset: u64,
    pub id: Option<Arc<str>>,
    pub kind: Option<String>,
    pub fate: Fate,
    /// Why it was refused.
    pub reason: Option<String>,
    pub effective_at: Option<(Time, u8)>,
    /// Of a model.
    pub name: Option<Arc<str>>,
    pub version: Option<Arc<str>>,
}

/// An answer, and `topic/partition` of its shard.
pub struct ShardAnswer {
    pub shard: String,
    pub answer: Answer,
}

pub fn fields() -> Vec<OutputField<ShardAnswer>> {
    fn text_or_absent(text: Option<&str>) -> FieldValue<'_> {
        text.map_or(FieldValue::Absent, FieldValue::Text)
    }
    vec![
        OutputField::new("id", "of the record", |row: &ShardAnswer| text_or_null(row.answer.id.as_deref())),
        OutputField::new("kind", "`model`, `rules` or `settings`", |row: &ShardAnswer| {
            text_or_null(row.answer.kind.as_deref())
        }),
        OutputField::new("state", "`applied`, `duplicate` or `refused`", |row: &ShardAnswer| {
            FieldValue::Text(row.answer.fate.name())
        }),
        OutputField::new("reason", "why it was refused; else left out", |row: &ShardAnswer| {
            text_or_absent(row.answer.reason.as_deref())
        }),
        OutputField::new("shard", "`topic/partition` that the record was found in", |row: &ShardAnswer| {
            FieldValue::Text(&row.shard)
        }),
        OutputField::new("offset", "of the record", |row: &ShardAnswer| FieldValue::Count(row.answer.offset)),
        OutputField::new(
            "effective_at",
            "from when on it holds; left out where at once",
            |row: &ShardAnswer| {
                row.answer
                    .effective_at
                    .map_or(FieldValue::Absent, |(time, digits)| FieldValue::Time(time, digits))
            },
        ),
        OutputField::new("name", "of a model; else left out", |row: &ShardAnswer| {
            text_or_absent(row.answer.name.as_deref())
        }),
        OutputField::new("version", "of a model; else left out", |row: &ShardAnswer| {
            text_or_absent(row.answer.version.as_deref())
        }),
    ]
}

impl Answer {
    /// Appends the line of this answer by `topic/partition`.
    pub fn line(&self, shard: &str, line: &mut Vec<u8>) {
        static FIELDS: LazyLock<Vec<OutputField<ShardAnswer>>> = LazyLock::new(fields);
        let row = ShardAnswer { shard: shard.to_owned(), answer: self.clone() };
        write_line(b"{", &FIELDS, &row, &mut TimeText::default(), line);
    }
}
