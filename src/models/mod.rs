//! Model files: read whole and checked, or refused.
//!
//! A model is never half read. Required keys must follow the list of features and the file must end with a
//! line break, so that a file which was cut short, at any byte, is refused too.

mod xgboost;

use foreshock_operators::model::{
    FeatureRef, Model, ModelKind, NullPolicy, Term, Transform, TreeFeature, return_name,
};
use foreshock_operators::time::{Nanos, SECOND};
use foreshock_operators::trees;
use sha2::{Digest, Sha256};

use crate::documents::duration::LONGEST;
use crate::documents::error::ConfigErrors;
use crate::documents::file::{Document, FileRef};
use crate::documents::kind::{Charset, NumberRange, Setting, ValueKind};
use crate::documents::section::{Report, Section};
use crate::documents::suggest;
use crate::documents::yaml::Value;
use crate::hex::hex;

/// The most features a logistic model may have.
const MAX_FEATURES: usize = 1000;
/// The largest file of trees: XGBoost writes about 80 bytes a node.
const MAX_TREES_BYTES: usize = 64 << 20;
/// Kinds of models, those included that other builds read.
const KINDS: [&str; 4] = ["baseline", "logistic", "trees", "onnx"];

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

/// The kind of a model, as its file names it.
pub fn kind_name(model: &Model) -> &'static str {
    match model.kind {
        ModelKind::Baseline { .. } => "baseline",
        ModelKind::Logistic { .. } => "logistic",
        ModelKind::Trees { .. } => "trees",
    }
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
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
        "baseline" => Some(baseline(&mut section, horizons)),
        "trees" => trees(&mut section, sources),
        _ => Some(logistic(&mut section, horizons)),
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

fn baseline(section: &mut Section, horizons: &[Nanos]) -> ModelKind {
    let threshold = section.number("threshold", NumberRange::Any);
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
    let intercept = section.number("intercept", NumberRange::Any);
    let mut terms: Vec<Term> = Vec::new();
    for mut feature in features(section, MAX_FEATURES) {
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

/// Trees, and the file of XGBoost that they stand in: `None`, noted, where that can't be read.
fn trees(section: &mut Section, sources: &mut Sources) -> Option<ModelKind> {
    let mut known: Vec<TreeFeature> = Vec::new();
    let entries = features(section, trees::FEATURES_MAX);
    let count = entries.len();
    for mut entry in entries {
        if let Some(feature) = tree_feature(&mut entry, sources.horizons) {
            if known.iter().any(|other| other.feature == feature.feature) {
                entry.refuse("name", "found a second time");
            }
            known.push(feature);
        }
        entry.finish();
    }
    let Some(Setting::Text(file)) = section.required("trees", ValueKind::File) else { return None };
    let file = FileRef::named(&file, &sources.document.folder)
        .and_then(|file| file.read_up_to(MAX_TREES_BYTES))
        .map_err(|problem| section.refuse("trees", problem))
        .ok()?;
    sources.hash.update(&file.bytes);
    // Without all features their number would be blamed, too.
    if known.len() < count || count == 0 {
        return None;
    }
    let names: Vec<FeatureRef> = known.iter().map(|feature| feature.feature).collect();
    match xgboost::read(&file.bytes, &names, sources.horizons) {
        Ok(trees) => Some(ModelKind::Trees { features: known, trees }),
        Err(problems) => {
            let report = Report::new(file.name);
            problems
                .into_iter()
                .for_each(|xgboost::TreeFileProblem { path, problem }| report.add(0, &path, problem));
            sources.errors.absorb(report.into_errors());
            None
        }
    }
}

fn tree_feature(section: &mut Section, horizons: &[Nanos]) -> Option<TreeFeature> {
    let feature = reference(section, horizons);
    let null = match section.required("null", ValueKind::NumberOr(NumberRange::Any, &["missing", "refuse"])) {
        Some(Setting::Number(v)) => Some(NullPolicy::Value(v)),
        Some(Setting::Word("missing")) => None,
        _ => Some(NullPolicy::Refuse),
    };
    Some(TreeFeature { feature: feature?, null })
}

fn term(section: &mut Section, horizons: &[Nanos]) -> Option<Term> {
    let feature = reference(section, horizons);
    let weight = section.number("weight", NumberRange::Any);
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
    let mean = section.optional_number("mean", NumberRange::Any);
    let scale = section.optional_number("scale", NumberRange::Positive);
    let given = |key| section.keys().any(|name| name == key);
    if given("mean") != given("scale") {
        let (there, missing) = if given("mean") { ("mean", "scale") } else { ("scale", "mean") };
        section.refuse(there, format!("found without {missing}, expected both or neither"));
    }
    Some(Term { feature: feature?, null, transform, standardise: mean.zip(scale), weight })
}

fn reference(section: &mut Section, horizons: &[Nanos]) -> Option<FeatureRef> {
    let Some(Setting::Text(name)) = section.required("name", ValueKind::Text(Charset::Id)) else {
        return None;
    };
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
    match section.required("null", ValueKind::NumberOr(NumberRange::Any, &["refuse"])) {
        Some(Setting::Number(v)) => NullPolicy::Value(v),
        _ => NullPolicy::Refuse,
    }
}
