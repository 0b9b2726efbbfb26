//! Reads the body of a request for predictions in one pass, scoring each row as it ends.
//!
//! ```text
//! {"ret_std": 0.001, "n": 40}                         one row
//! {"rows": [{"ret_std": 0.001}, {"ret_std": null}]}   several
//! {"instances": [{"ret_std": 0.001}]}                 several, as KServe's clients send them (protocol v1)
//! ```
//! A row of which no name is a feature is refused: all its features would be null, and its score would say nothing.
//! serde says what is wrong with a value; what is kept here is which value it was.

use std::collections::BTreeSet;
use std::fmt;

use axum::http::StatusCode;
use foreshock_operators::feature::Feature;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::answer::{ErrorBody, HttpProblem};
use super::fields::{FieldKey, LISTS, NUMBER, Name, Number};
use super::scorer::{PostedRow, ScoreRefusal, Scorer};
use crate::documents::suggest;

/// The most different names in one row that are no features.
const MAX_UNKNOWN: usize = 1000;
/// The most such names that an answer lists.
const MAX_LISTED: usize = 20;
/// The most such names that a refusal quotes.
const SHOWN_NAMES: usize = 5;
/// Names and texts from a request are quoted up to this many characters.
const MAX_SHOWN: usize = 200;
/// How rows are written.
const EXAMPLE: &str = r#"one row is {"ret_std": 0.001, "n": 40}, several are {"rows": [{...}, {...}]}"#;
/// What `n` may be.
const COUNT: &str = "a whole number from 0 to 4294967295, or null";

/// What was asked and the model's answer.
#[derive(Debug)]
pub struct Read {
    /// One for each row, with whether it reaches the decision threshold.
    pub predictions: Vec<(f64, bool)>,
    /// The key under which rows came as a list, if they did.
    pub list: Option<&'static str>,
    /// Names that are no features, in the order of the request: the first few.
    pub unknown: Vec<String>,
    /// Names of features that the model doesn't look at.
    pub unused: Vec<String>,
}

/// Reads a body and scores its rows.
pub fn read(body: &[u8], scorer: &Scorer, max_rows: usize) -> Result<Read, HttpProblem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        HttpProblem::new(StatusCode::BAD_REQUEST, format!("the body is not UTF-8: {error}"))
    })?;
    let mut reader = Reader::new(scorer, max_rows);
    reader.is_json = matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'['));
    let mut json = serde_json::Deserializer::from_str(text);
    let object = Object { reader: &mut reader, is_row: false };
    match object.deserialize(&mut json).and_then(|()| json.end()) {
        Ok(()) => {
            let unused = scorer.unused(reader.names);
            Ok(Read { unused, ..reader.read })
        }
        Err(error) => Err(reader.problem(&error)),
    }
}

struct Reader<'a> {
    scorer: &'a Scorer,
    max_rows: usize,
    read: Read,
    /// The names of features that were in any row, as bits by their numbers.
    names: u64,
    /// Whether the body begins as JSON that holds rows.
    is_json: bool,
    /// The row being read, where there is a list of them.
    row: Option<usize>,
    /// The name of the value being read.
    field: Option<Field>,
    /// What is wrong, where it was found here and not by serde.
    refused: Option<ScoreRefusal>,
}

/// What a row was given so far.
#[derive(Default)]
struct Given {
    row: PostedRow,
    /// The names that were there, as bits by their numbers.
    names: u64,
    /// Names that are no features.
    unknown: BTreeSet<String>,
}

#[derive(Clone, Copy)]
enum Field {
    /// By its number.
    Feature(usize),
    Rows(&'static str),
}

impl<'a> Reader<'a> {
    fn new(scorer: &'a Scorer, max_rows: usize) -> Reader<'a> {
        let read = Read { predictions: Vec::new(), list: None, unknown: Vec::new(), unused: Vec::new() };
        Reader { scorer, max_rows, read, names: 0, is_json: true, row: None, field: None, refused: None }
    }

    /// Notes what is wrong; the error only ends the reading.
    fn refuse<E: Error>(&mut self, field: Option<&str>, why: impl Into<String>) -> E {
        self.refused = Some(ScoreRefusal { field: field.map(shown), why: why.into() });
        E::custom("refused")
    }

    fn score<E: Error>(&mut self, given: &Given) -> Result<(), E> {
        if given.names == 0 && !given.unknown.is_empty() {
            return Err(self.refuse_names(given));
        }
        self.names |= given.names;
        match self.scorer.score(&given.row) {
            Ok(prediction) => self.read.predictions.push(prediction),
            Err(refused) => {
                self.refused = Some(refused);
                return Err(E::custom("refused"));
            }
        }
        Ok(())
    }

    /// Takes the value of a feature into its row.
    fn take_value<E: Error>(
        &mut self,
        given: &mut Given,
        name: usize,
        feature: Feature,
        value: f64,
    ) -> Result<(), E> {
        let scorer = self.scorer;
        let refuse = |reader: &mut Self, why: String| Err(reader.refuse(Some(scorer.name(name)), why));
        if given.names & (1 << name) != 0 {
            return refuse(self, "found a second time".to_owned());
        }
        let is_count = value >= 0.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0;
        if feature == Feature::N && !value.is_nan() && !is_count {
            return refuse(self, format!("found {value}, expected {COUNT}"));
        }
        let other = given.row.get(feature);
        let is_same = other == value || (other.is_nan() && value.is_nan());
        if !is_same && given.names & scorer.names_of(feature) != 0 {
            let why = "ret_std and volatility are the same feature, but were given two values";
            return refuse(self, why.to_owned());
        }
        given.names |= 1 << name;
        given.row.set(feature, value);
        Ok(())
    }

    /// Lists a name that is no feature.
    fn pass_over<E: Error>(&mut self, given: &mut Given, name: String) -> Result<(), E> {
        if given.unknown.contains(&name) {
            return Err(self.refuse(Some(&name), "found a second time"));
        }
        if given.unknown.len() == MAX_UNKNOWN {
            let why = format!("found more than {MAX_UNKNOWN} names that are no features");
            return Err(self.refuse(None, why));
        }
        let listed = &mut self.read.unknown;
        let quoted = shown(&name);
        if listed.len() < MAX_LISTED && !listed.contains(&quoted) {
            listed.push(quoted);
        }
        given.unknown.insert(name);
        Ok(())
    }

    /// Refuses a row of which no name is a feature.
    fn refuse_names<E: Error>(&mut self, given: &Given) -> E {
        let known: Vec<&str> = self.scorer.names().collect();
        let quoted: Vec<String> =
            given.unknown.iter().take(SHOWN_NAMES).map(|name| format!("{:?}", shown(name))).collect();
        let more = if given.unknown.len() > SHOWN_NAMES { " and more" } else { "" };
        // Of a letter or two every name of one letter would be near.
        let mut hints = given
            .unknown
            .iter()
            .take(SHOWN_NAMES)
            .filter(|name| name.len() > 2)
            .map(|name| suggest::hint(name, known.iter().copied()));
        let hint = hints.find(|hint| !hint.is_empty()).unwrap_or_default();
        let wrapper = given.unknown.iter().find_map(|name| wrapper(name)).unwrap_or_default();
        let (field, verdict) = match given.unknown.len() {
            1 => (given.unknown.first().cloned(), "which is no feature"),
            _ => (None, "of which none is a feature"),
        };
        let why = format!(
            "found {}{more}, {verdict}, expected some of {}{hint}{wrapper}; {EXAMPLE}",
            quoted.join(", "),
            known.join(", "),
        );
        self.refuse(field.as_deref(), why)
    }

    /// What to tell the client.
    fn problem(self, error: &serde_json::Error) -> HttpProblem {
        let name = self.field.map(|field| match field {
            Field::Feature(at) => self.scorer.name(at),
            Field::Rows(list) => list,
        });
        let ScoreRefusal { field, why } = self.refused.unwrap_or_else(|| {
            let found = shown(&error.to_string());
            let why = match (self.field, error.is_data()) {
                (_, true) => found,
                (Some(Field::Feature(_)), false) => format!("{found}, expected {NUMBER}"),
                (None, false) if !self.is_json => format!("not JSON: {found}, expected JSON: {EXAMPLE}"),
                (_, false) => format!("not JSON: {found}"),
            };
            ScoreRefusal { field: name.map(str::to_owned), why }
        });
        let list = self.read.list.unwrap_or(LISTS[0]);
        let place = match (self.row, &field) {
            (Some(row), Some(field)) => format!("{list}[{row}].{field}: "),
            (Some(row), None) => format!("{list}[{row}]: "),
            (None, Some(field)) => format!("{field}: "),
            (None, None) => String::new(),
        };
        let body = ErrorBody { error: format!("{place}{why}"), field, row: self.row };
        HttpProblem { status: StatusCode::BAD_REQUEST, body }
    }
}

/// What to do about a name that other servers of models expect rows under.
fn wrapper(name: &str) -> Option<&'static str> {
    match name {
        "inputs" | "outputs" | "parameters" => Some(
            "; tensors (KServe's protocol v2, Triton, MLflow) are not read: send {\"instances\": [{...}]} of protocol v1",
        ),
        "dataframe_records" | "dataframe_split" | "columns" | "ndarray" => {
            Some("; tables (MLflow, Seldon) are not read: rows are objects with a name for each value")
        }
        "features" | "feature" | "data" | "input" | "row" | "values" | "params" | "body" | "x" | "X" => {
            Some("; features stand at the top of the object, not below another name")
        }
        "instance" | "samples" | "records" | "items" | "examples" => {
            Some("; a list of rows is called rows or instances")
        }
        _ => None,
    }
}

/// A text of a request, cut to what an answer may quote.
fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Reads an object of features: the body, or a row of its list.
struct Object<'r, 'a> {
    reader: &'r mut Reader<'a>,
    is_row: bool,
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_row {
            true => f.write_str("an object of features by name, such as {\"ret_std\": 0.001}"),
            false => write!(f, "an object of features: {EXAMPLE}"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Object { reader, is_row } = self;
        let mut given = Given::default();
        while let Some(key) = map.next_key_seed(Name { scorer: reader.scorer, is_row })? {
            match key {
                FieldKey::Feature(name, feature) => {
                    reader.field = Some(Field::Feature(name));
                    let value = map.next_value_seed(Number)?;
                    reader.field = None;
                    reader.take_value(&mut given, name, feature, value)?;
                }
                FieldKey::Rows(list) if reader.read.list == Some(list) => {
                    return Err(reader.refuse(Some(list), "found a second time"));
                }
                FieldKey::Rows(list) if reader.read.list.is_some() => {
                    let why = format!(
                        "found beside {}, expected one or the other",
                        reader.read.list.unwrap_or_default()
                    );
                    return Err(reader.refuse(Some(list), why));
                }
                FieldKey::Rows(list) => {
                    reader.read.list = Some(list);
                    reader.field = Some(Field::Rows(list));
                    map.next_value_seed(List { reader })?;
                    reader.field = None;
                }
                FieldKey::Unknown(name) => {
                    map.next_value::<IgnoredAny>()?;
                    reader.pass_over(&mut given, name)?;
                }
            }
        }
        match reader.read.list {
            Some(list) if !is_row && given.names != 0 => {
                Err(reader.refuse(Some(list), "found beside features, expected one or the other"))
            }
            Some(_) if !is_row => Ok(()),
            _ => reader.score(&given),
        }
    }
}

/// Reads the list of rows.
struct List<'r, 'a> {
    reader: &'r mut Reader<'a>,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects of features")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let List { reader } = self;
        reader.field = None;
        for at in 0.. {
            reader.row = Some(at);
            if at == reader.max_rows {
                // One more is refused before it is read.
                if rows.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                reader.row = None;
                let why = format!("found more than {at} rows, expected at most {at} (http.max_rows)");
                return Err(reader.refuse(reader.read.list, why));
            }
            if rows.next_element_seed(Object { reader, is_row: true })?.is_none() {
                break;
            }
        }
        reader.row = None;
        if reader.read.predictions.is_empty() {
            return Err(reader.refuse(reader.read.list, "found an empty list, expected at least one row"));
        }
        Ok(())
    }
}
