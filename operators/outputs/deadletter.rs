//! `deadletter`: each message or row that was refused, and why.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Output;
use super::field::{FieldValue, OutputField, write_line};
use crate::account::{DeadLetter, Reason};
use crate::time::TimeText;

pub const OUTPUT: Output = Output {
    name: "deadletter",
    topic: Some("ticks.deadletter"),
    has_file: true,
    key: "that of the refused message",
    one_for: "each message or row that was refused, and each late row",
};

/// How much of a refused message is kept.
pub const ORIGINAL_MAX: usize = 64 * 1024;

/// A refused message or row, with the message that it stood in.
#[derive(Clone, Debug)]
pub struct DeadLetterRow {
    reason: Reason,
    detail: String,
    source: String,
    length: u64,
    is_truncated: bool,
    is_text: bool,
    original: String,
}

impl DeadLetterRow {
    /// Keeps the message's first 64 KiB; `source_name` says which file or partition it stood in.
    pub fn of(letter: &DeadLetter, source_name: &str, message: &[u8]) -> DeadLetterRow {
        let kept = &message[..message.len().min(ORIGINAL_MAX)];
        // A cut may fall inside a character: what is whole before it is still text.
        let text = match std::str::from_utf8(kept) {
            Ok(text) => Some(text),
            Err(error) if error.error_len().is_none() && kept.len() < letter.extent.length as usize => {
                std::str::from_utf8(&kept[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        DeadLetterRow {
            reason: letter.reason,
            detail: letter.detail.clone(),
            source: format!("{source_name}/{}/{}", letter.source.line, letter.index),
            length: letter.extent.length.into(),
            is_truncated: text.map_or(kept.len(), str::len) < letter.extent.length as usize,
            is_text: text.is_some(),
            original: text.map_or_else(|| STANDARD.encode(kept), str::to_owned),
        }
    }
}

pub fn fields() -> Vec<OutputField<DeadLetterRow>> {
    vec![
        OutputField::new("reason", "see below", |row: &DeadLetterRow| FieldValue::Text(row.reason.name())),
        OutputField::new("detail", "what was found and what is allowed", |row: &DeadLetterRow| {
            FieldValue::Text(&row.detail)
        }),
        OutputField::new(
            "source",
            "`file/line/row` (in an array `file/element/row`), or `topic/partition/offset/row`",
            |row: &DeadLetterRow| FieldValue::Text(&row.source),
        ),
        OutputField::new("length", "of the original, in bytes", |row: &DeadLetterRow| {
            FieldValue::Count(row.length)
        }),
        OutputField::new("truncated", "whether `original` is less than all of it", |row: &DeadLetterRow| {
            FieldValue::Flag(row.is_truncated)
        }),
        OutputField::new("encoding", "`utf-8`, or `base64` where it is not UTF-8", |row: &DeadLetterRow| {
            FieldValue::Text(if row.is_text { "utf-8" } else { "base64" })
        }),
        OutputField::new("original", "the message, at most 64 KiB of it", |row: &DeadLetterRow| {
            FieldValue::Text(&row.original)
        }),
    ]
}

/// Appends the line of a refused message or row.
pub fn dead_letter(letter: &DeadLetter, source_name: &str, message: &[u8], line: &mut Vec<u8>) {
    static FIELDS: LazyLock<Vec<OutputField<DeadLetterRow>>> = LazyLock::new(fields);
    let row = DeadLetterRow::of(letter, source_name, message);
    write_line(b"{", &FIELDS, &row, &mut TimeText::default(), line);
}
