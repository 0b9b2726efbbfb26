//! The fields of a record: name, meaning, and how to get the value from the row.

use serde::Serialize;

use crate::encode::push_number;
use crate::time::{Time, TimeText};

/// What a field of one record holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// NaN is null.
    Number(f64),
    Count(u64),
    Text(&'a str),
    /// A time and its fraction digits.
    Time(Time, u8),
    Flag(bool),
    Null,
    /// The record has no such field.
    Absent,
}

type Get<R> = Box<dyn for<'a> Fn(&'a R) -> FieldValue<'a> + Send + Sync>;

/// A field of the records made from rows `R`.
pub struct OutputField<R> {
    doc: FieldDoc,
    /// `"name":`
    key: Vec<u8>,
    get: Get<R>,
}

/// What people are told of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDoc {
    pub name: String,
    pub meaning: &'static str,
}

impl<R> OutputField<R> {
    /// A field of this name and meaning, which reads its value from a row.
    pub fn new(
        name: impl Into<String>,
        meaning: &'static str,
        get: impl for<'a> Fn(&'a R) -> FieldValue<'a> + Send + Sync + 'static,
    ) -> OutputField<R> {
        let name = name.into();
        let key = format!("\"{name}\":").into_bytes();
        OutputField { doc: FieldDoc { name, meaning }, key, get: Box::new(get) }
    }

    pub fn name(&self) -> &str {
        &self.doc.name
    }

    /// Its value in the record of this row.
    pub fn get<'a>(&self, row: &'a R) -> FieldValue<'a> {
        (self.get)(row)
    }

    /// Only what people are told of it.
    pub fn into_doc(self) -> FieldDoc {
        self.doc
    }
}

/// An optional text; null where there is none.
pub fn text_or_null(text: Option<&str>) -> FieldValue<'_> {
    text.map_or(FieldValue::Null, FieldValue::Text)
}

/// Appends a row's record as a line. `begun` is what stands before its first field: a brace, or an open object.
pub fn write_line<R>(
    begun: &[u8],
    fields: &[OutputField<R>],
    row: &R,
    times: &mut TimeText,
    line: &mut Vec<u8>,
) {
    line.extend_from_slice(begun);
    let mut is_first = begun == b"{";
    for field in fields {
        let value = field.get(row);
        if value == FieldValue::Absent {
            continue;
        }
        if !std::mem::replace(&mut is_first, false) {
            line.push(b',');
        }
        line.extend_from_slice(&field.key);
        match value {
            FieldValue::Number(number) => push_number(number, line),
            FieldValue::Count(count) => line.extend_from_slice(itoa::Buffer::new().format(count).as_bytes()),
            FieldValue::Text(text) => push_json(text, line),
            FieldValue::Time(time, digits) => {
                line.push(b'"');
                times.write(time, digits, line);
                line.push(b'"');
            }
            FieldValue::Flag(flag) => push_json(&flag, line),
            FieldValue::Null | FieldValue::Absent => line.extend_from_slice(b"null"),
        }
    }
    line.extend_from_slice(b"}\n");
}

fn push_json<T: Serialize + ?Sized>(value: &T, line: &mut Vec<u8>) {
    serde_json::to_writer(line, value).expect("a text or a flag is JSON");
}
