//! Model files: read whole and checked, or refused.
//!
//! A model is never half read. Required keys must follow the list of features and the file must end with a
//! line break, so that a file which was cut short, at any byte, is refused too.

mod baseline;
mod foreign;
mod logistic;
mod trees;
mod xgboost;

use foreshock_operators::feature::Feature;
use foreshock_operators::model::{
    Baseline, BoostedTrees, KindOfModel, Logistic, Model, ModelKind, NullPolicy,
};
use foreshock_operators::time::{Nanos, SECOND};
use sha2::{Digest, Sha256};

use crate::documents::duration::LONGEST;
use crate::documents::error::ConfigErrors;
use crate::documents::file::Document;
use crate::documents::kind::{Charset, NumberRange, Setting, ValueKind};
use crate::documents::section::{Report, Section};
use crate::documents::suggest;
use crate::documents::yaml::Value;
use crate::hex::hex;

/// Kinds of models, those included that other builds read.
const KINDS: [&str; 4] = [Baseline::NAME, Logistic::NAME, BoostedTrees::NAME, "onnx"];

/// What a model is read from.
struct Sources<'a> {
    /// The model file.
    document: &'a Document,
    /// Return horizons of the job.
    horizons: &'a [Nanos],
    /// Of all files read so far.
    hash: Sha256,
    /// What is wrong with files that the model file names.
    errors: ConfigErrors,
}

/// Reads a model file, and the file of trees that it may name, for a job with these return horizons.
pub fn read(document: &Document, horizons: &[Nanos]) -> Result<Model, ConfigErrors> {
    let report = Report::new(document.name.clone());
    if let Some(problem) = foreign::recognise_model_file(&document.bytes) {
        report.add(0, "", problem);
        return Err(report.into_errors());
    }
    if document.bytes.last().is_some_and(|last| *last != b'\n') {
        let lines = document.bytes.iter().filter(|b| **b == b'\n').count() + 1;
        report.add(lines as u32, "", "no line break at the end, so the file may have been cut short");
    }
    let hash = Sha256::new_with_prefix(&document.bytes);
    let mut sources = Sources { document, horizons, hash, errors: ConfigErrors::default() };
    let node = report.parse(document);
    let model = node
        .as_ref()
        .and_then(|node| Section::open(&report, "", node.line, node))
        .and_then(|section| model(section, &mut sources));
    let mut errors = report.into_errors();
    errors.absorb(sources.errors);
    match model {
        Some(model) if errors.is_empty() => {
            Ok(Model { sha256: hex(&sources.hash.finalize()).into(), ..model })
        }
        _ => Err(errors),
    }
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Reads all of a model but its hash.
fn model(mut section: Section, sources: &mut Sources) -> Option<Model> {
    let horizons = sources.horizons;
    let name = section.text("name", Charset::Id);
    let version = section.text("version", Charset::Id);
    let kind = match section.required("kind", ValueKind::Choice(&KINDS)) {
        Some(Setting::Word("onnx")) => {
            section.refuse("kind", "onnx comes later: this build reads baseline, logistic and trees");
            return None;
        }
        Some(Setting::Word(word)) => word,
        _ => return None,
    };
    let decision_threshold = section.number("decision_threshold", NumberRange::Fraction);
    let horizon =
        match section.required("horizon", ValueKind::Duration { min: SECOND, max: LONGEST, words: &[] }) {
            Some(Setting::Duration(length)) => length,
            _ => 0,
        };
    if let Some(mut training) = section.section("training") {
        training.each(ValueKind::Note);
        training.finish();
    }
    let kind = match kind {
        Baseline::NAME => Some(ModelKind::Baseline(baseline::read(&mut section, horizons))),
        BoostedTrees::NAME => trees::read(&mut section, sources).map(ModelKind::Trees),
        Logistic::NAME => Some(ModelKind::Logistic(logistic::read(&mut section, horizons))),
        _ => None,
    };
    if section.keys().last() == Some("features") {
        let problem =
            "the last key, expected another one after the features, so that a file cut short is noticed";
        section.refuse("features", problem);
    }
    section.finish();
    Some(Model {
        name: name.into(),
        version: version.into(),
        kind: kind?,
        decision_threshold,
        horizon,
        sha256: "".into(),
    })
}

/// The entries of the list of features; none, noted, where there are more than `most`, or none.
fn features<'a>(section: &mut Section<'a>, most: usize) -> Vec<Section<'a>> {
    let features = section.sections("features");
    if features.len() > most {
        section.refuse("features", format!("found {} features, expected at most {most}", features.len()));
        return Vec::new();
    }
    if features.is_empty()
        && section.node("features").is_some_and(|node| node.value == Value::List(Vec::new()))
    {
        section.refuse("features", "found an empty list, expected at least one feature");
    }
    features
}

fn reference(section: &mut Section, horizons: &[Nanos]) -> Option<Feature> {
    let Some(Setting::Text(name)) = section.required("name", ValueKind::Text(Charset::Id)) else {
        return None;
    };
    let feature = Feature::named(&name, horizons);
    if feature.is_none() {
        section.refuse("name", unknown_feature(&name, horizons));
    }
    feature
}

fn unknown_feature(name: &str, horizons: &[Nanos]) -> String {
    let names = Feature::names(horizons);
    // A return over another horizon is no slip of the pen.
    let hint = match name.starts_with("return_") {
        true => " (returns are those of features.return_horizons)".to_owned(),
        false => suggest::hint(name, names.iter().map(String::as_str)),
    };
    format!("found {name:?}, expected one of {}{hint}", names.join(", "))
}

fn null_policy(section: &mut Section) -> NullPolicy {
    match section.required("null", ValueKind::NumberOr(NumberRange::Any, &["refuse"])) {
        Some(Setting::Number(v)) => NullPolicy::Value(v),
        _ => NullPolicy::Refuse,
    }
}
