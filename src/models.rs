//! Model files: read whole and checked, or refused.
//!
//! A model is never half read. Required keys must follow the list of features and the file must end with a
//! line break, so that a file which was cut short, at any byte, is refused too.

use foreshock_operators::model::{
    FeatureRef, Kind as ModelKind, Model, NullPolicy, Term, Transform, return_name,
};
use foreshock_operators::time::{Nanos, SECOND};
use sha2::{Digest, Sha256};

use crate::config::keys::LONGEST;
use crate::config::kind::{Charset, Kind, Range, Setting};
use crate::config::section::{Report, Section};
use crate::config::suggest;
use crate::config::yaml::Value;
use crate::config::{ConfigErrors, Document};

/// The most features a model may have.
const MAX_FEATURES: usize = 1000;
/// Kinds of models, those included that other builds read.
const KINDS: [&str; 4] = ["baseline", "logistic", "trees", "onnx"];

/// Reads a model file for a job with these return horizons.
pub fn read(document: &Document, horizons: &[Nanos]) -> Result<Model, ConfigErrors> {
    let report = Report::new(document.name.clone());
    if document.bytes.last().is_some_and(|last| *last != b'\n') {
        let lines = document.bytes.iter().filter(|b| **b == b'\n').count() + 1;
        report.add(lines as u32, "", "no line break at the end, so the file may have been cut short");
    }
    let node = report.parse(document);
    let model = node
        .as_ref()
        .and_then(|node| Section::open(&report, "", node.line, node))
        .and_then(|section| model(section, sha256(&document.bytes), horizons));
    let errors = report.into_errors();
    match model {
        Some(model) if errors.is_empty() => Ok(model),
        _ => Err(errors),
    }
}

/// The kind of a model, as its file names it.
pub fn kind_name(model: &Model) -> &'static str {
    match model.kind {
        ModelKind::Baseline { .. } => "baseline",
        ModelKind::Logistic { .. } => "logistic",
    }
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All features that a model may name in a job with these return horizons.
pub fn feature_names(horizons: &[Nanos]) -> Vec<String> {
    let fixed = [
        "price",
        "midprice",
        "spread_abs",
        "spread_rel",
        "spread_bps",
        "order_book_imbalance",
        "n",
        "ret_mean",
        "ret_std",
        "volatility",
        "trade_intensity",
        "volatility_z",
        "spread_z",
    ];
    fixed.into_iter().map(str::to_owned).chain(horizons.iter().map(|horizon| return_name(*horizon))).collect()
}

/// The name of a feature in a job with these return horizons; `ret_std`, never its other name.
pub fn feature_name(feature: FeatureRef, horizons: &[Nanos]) -> String {
    let name =
        feature_names(horizons).into_iter().find(|name| FeatureRef::named(name, horizons) == Some(feature));
    // A return of a job with more horizons has no name here.
    name.unwrap_or_else(|| format!("{feature:?}"))
}

fn model(mut section: Section, sha256: String, horizons: &[Nanos]) -> Option<Model> {
    let name = section.text("name", Charset::Id);
    let version = section.text("version", Charset::Id);
    let kind = match section.required("kind", Kind::Choice(&KINDS)) {
        Some(Setting::Word(word @ ("trees" | "onnx"))) => {
            section.refuse("kind", format!("{word} comes later: this build reads baseline and logistic"));
            return None;
        }
        Some(Setting::Word(word)) => word,
        _ => return None,
    };
    let decision_threshold = section.number("decision_threshold", Range::Fraction);
    let horizon = match section.required("horizon", Kind::Duration { min: SECOND, max: LONGEST, words: &[] })
    {
        Some(Setting::Duration(length)) => length,
        _ => 0,
    };
    if let Some(mut training) = section.section("training") {
        training.each(Kind::Note);
        training.finish();
    }
    let kind = match kind {
        "baseline" => baseline(&mut section, horizons),
        _ => logistic(&mut section, horizons),
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
        kind,
        decision_threshold,
        horizon,
        sha256: sha256.into(),
    })
}

fn baseline(section: &mut Section, horizons: &[Nanos]) -> ModelKind {
    let threshold = section.number("threshold", Range::Any);
    let features = section.sections("features");
    let count = features.len();
    let Ok([mut feature]) = <[Section; 1]>::try_from(features) else {
        if section.node("features").is_some_and(|node| matches!(node.value, Value::List(_))) {
            section.refuse("features", format!("found {count} features, expected volatility_z alone"));
        }
        return ModelKind::Baseline { threshold, null: NullPolicy::Refuse };
    };
    if reference(&mut feature, horizons).is_some_and(|feature| feature != FeatureRef::VolatilityZ) {
        feature.refuse("name", "expected volatility_z, the only feature of a baseline");
    }
    let null = null_policy(&mut feature);
    feature.finish();
    ModelKind::Baseline { threshold, null }
}

fn logistic(section: &mut Section, horizons: &[Nanos]) -> ModelKind {
    let intercept = section.number("intercept", Range::Any);
    let features = section.sections("features");
    let mut terms: Vec<Term> = Vec::new();
    if features.len() > MAX_FEATURES {
        section.refuse(
            "features",
            format!("found {} features, expected at most {MAX_FEATURES}", features.len()),
        );
        return ModelKind::Logistic { intercept, terms };
    }
    if features.is_empty()
        && section.node("features").is_some_and(|node| node.value == Value::List(Vec::new()))
    {
        section.refuse("features", "found an empty list, expected at least one feature");
    }
    for mut feature in features {
        if let Some(term) = term(&mut feature, horizons) {
            if terms.iter().any(|other| other.feature == term.feature && other.transform == term.transform) {
                feature.refuse("name", "found a second time with the same transform");
            }
            terms.push(term);
        }
        feature.finish();
    }
    ModelKind::Logistic { intercept, terms }
}

fn term(section: &mut Section, horizons: &[Nanos]) -> Option<Term> {
    let feature = reference(section, horizons);
    let weight = section.number("weight", Range::Any);
    let null = null_policy(section);
    let transform = match section.choice("transform", &["none", "abs", "log", "square"]) {
        Some("abs") => Transform::Abs,
        Some("log") => Transform::Log,
        Some("square") => Transform::Square,
        _ => Transform::None,
    };
    if let (Transform::Log, NullPolicy::Value(v)) = (transform, null)
        && v <= 0.0
    {
        section.refuse(
            "null",
            format!("found {v}, expected a number above 0 or refuse, since its logarithm is taken"),
        );
    }
    let mean = section.optional_number("mean", Range::Any);
    let scale = section.optional_number("scale", Range::Positive);
    let given = |key| section.keys().any(|name| name == key);
    if given("mean") != given("scale") {
        let (there, missing) = if given("mean") { ("mean", "scale") } else { ("scale", "mean") };
        section.refuse(there, format!("found without {missing}, expected both or neither"));
    }
    Some(Term { feature: feature?, null, transform, standardise: mean.zip(scale), weight })
}

fn reference(section: &mut Section, horizons: &[Nanos]) -> Option<FeatureRef> {
    let Some(Setting::Text(name)) = section.required("name", Kind::Text(Charset::Id)) else { return None };
    let feature = FeatureRef::named(&name, horizons);
    if feature.is_none() {
        section.refuse("name", unknown_feature(&name, horizons));
    }
    feature
}

fn unknown_feature(name: &str, horizons: &[Nanos]) -> String {
    let names = feature_names(horizons);
    // A return over another horizon is no slip of the pen.
    let hint = match name.starts_with("return_") {
        true => " (returns are those of features.return_horizons)".to_owned(),
        false => suggest::hint(name, names.iter().map(String::as_str)),
    };
    format!("found {name:?}, expected one of {}{hint}", names.join(", "))
}

fn null_policy(section: &mut Section) -> NullPolicy {
    match section.required("null", Kind::NumberOr(Range::Any, &["refuse"])) {
        Some(Setting::Number(v)) => NullPolicy::Value(v),
        _ => NullPolicy::Refuse,
    }
}
