//! Model files: what is read, and what is refused.

use std::fs;
use std::path::PathBuf;

use foreshock::config::{Config, Mode};
use foreshock::documents::file::Document;
use foreshock::models::{read, sha256};
use foreshock_operators::feature::Feature;
use foreshock_operators::model::{Baseline, Logistic, Model, ModelKind, NullPolicy, Term, Transform};
use foreshock_operators::time::{Nanos, SECOND};

const HORIZONS: [Nanos; 4] = [SECOND, 5 * SECOND, 30 * SECOND, 60 * SECOND];

fn parse(bytes: &[u8]) -> Result<Model, String> {
    let document = Document { name: "m.yaml".into(), folder: PathBuf::new(), bytes: bytes.to_vec() };
    read(&document, &HORIZONS).map_err(|errors| errors.to_string())
}

fn bundled(name: &str) -> String {
    fs::read_to_string(format!("config/models/{name}.yaml")).unwrap()
}

fn term(feature: Feature, transform: Transform, weight: f64) -> Term {
    Term { feature, null: NullPolicy::Value(0.0), transform, standardise: None, weight }
}

#[test]
fn the_bundled_model_is_that_of_the_reference_workload() {
    let model = parse(bundled("logistic").as_bytes()).unwrap();
    let terms = vec![
        term(Feature::RetStd, Transform::None, 800.0),
        term(Feature::Return(1), Transform::Abs, 50.0),
        term(Feature::OrderBookImbalance, Transform::None, 0.3),
        term(Feature::SpreadZ, Transform::None, 0.2),
        term(Feature::TradeIntensity, Transform::None, 0.01),
    ];
    assert_eq!(model.kind, ModelKind::Logistic(Logistic { intercept: -2.0, terms }));
    assert_eq!((model.decision_threshold, model.horizon), (0.5, 60 * SECOND));
    assert_eq!((&*model.name, &*model.version), ("reference-logistic", "1"));
}

#[test]
fn the_bundled_baseline_waits_for_three_standard_deviations() {
    let model = parse(bundled("baseline").as_bytes()).unwrap();
    assert_eq!(model.kind, ModelKind::Baseline(Baseline { threshold: 3.0, null: NullPolicy::Refuse }));
}

#[test]
fn the_hash_is_that_of_the_files_bytes() {
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(
        *parse(bundled("logistic").as_bytes()).unwrap().sha256,
        sha256(bundled("logistic").as_bytes())
    );
}

#[test]
fn a_model_cut_short_at_any_byte_is_refused() {
    for name in ["logistic", "baseline"] {
        let text = bundled(name);
        for length in 0..text.len() {
            let cut = &text.as_bytes()[..length];
            assert!(parse(cut).is_err(), "{name} cut to {length} bytes: {}", String::from_utf8_lossy(cut));
        }
    }
}

const FEATURE: &str = "name: ret_std, weight: 800, null: 0";

fn logistic(feature: &str) -> String {
    format!(
        "name: m\nversion: \"1\"\nkind: logistic\nfeatures:\n  - {{{feature}}}\nintercept: -2\ndecision_threshold: 0.5\n\
         horizon: 60s\n"
    )
}

#[track_caller]
fn check_refused(text: &str, message: &str) {
    assert_eq!(parse(text.as_bytes()).expect_err(text), message, "{text}");
}

#[track_caller]
fn check_refused_feature(feature: &str, message: &str) {
    check_refused(&logistic(feature), &format!("m.yaml:5: features[0].{message}"));
}

#[test]
fn bad_features_are_refused() {
    parse(logistic(FEATURE).as_bytes()).unwrap();
    let names = Feature::names(&HORIZONS).join(", ");
    check_refused_feature(
        &FEATURE.replace("ret_std", "ret_sd"),
        &format!("name: found \"ret_sd\", expected one of {names}; did you mean ret_std?"),
    );
    check_refused_feature(
        &FEATURE.replace("ret_std", "return_10s"),
        &format!(
            "name: found \"return_10s\", expected one of {names} (returns are those of features.return_horizons)"
        ),
    );
    check_refused_feature(&FEATURE.replace("800", ".inf"), "weight: found inf, expected a finite number");
    check_refused_feature(&FEATURE.replace("800", ".nan"), "weight: found NaN, expected a finite number");
    check_refused_feature(&FEATURE.replace("800", "1e999"), "weight: found inf, expected a finite number");
    check_refused_feature(
        &FEATURE.replace("800", "\"800\""),
        "weight: found \"800\", expected a finite number",
    );
    check_refused_feature(&FEATURE.replace(", weight: 800", ""), "weight: missing, expected a finite number");
    check_refused_feature(
        &FEATURE.replace(", null: 0", ""),
        "null: missing, expected a finite number or refuse",
    );
    check_refused_feature(
        &FEATURE.replace("null: 0", "null: zero"),
        "null: found \"zero\", expected a finite number or refuse",
    );
    check_refused_feature(
        &format!("{FEATURE}, transform: sqrt"),
        "transform: found \"sqrt\", expected one of none, abs, log, square",
    );
    check_refused_feature(
        &format!("{FEATURE}, transform: log"),
        "null: found 0, expected a number above 0 or refuse, since its logarithm is taken",
    );
    check_refused_feature(
        &format!("{FEATURE}, mean: 1, scale: 0"),
        "scale: found 0, expected a finite number above 0",
    );
    check_refused_feature(
        &format!("{FEATURE}, mean: 1"),
        "mean: found without scale, expected both or neither",
    );
    check_refused_feature(
        &format!("{FEATURE}, scale: 1"),
        "scale: found without mean, expected both or neither",
    );
    check_refused_feature(
        &format!("{FEATURE}, wieght: 1"),
        "wieght: unknown key, expected one of name, weight, null, transform, mean, scale; did you mean weight?",
    );
}

#[test]
fn bad_models_are_refused() {
    let good = logistic(FEATURE);
    let check = |from: &str, to: &str, message: &str| {
        assert!(good.contains(from), "{from}");
        check_refused(&good.replace(from, to), message);
    };
    check(
        "kind: logistic",
        "kind: onnx",
        "m.yaml:3: kind: onnx comes later: this build reads baseline, logistic and trees",
    );
    check(
        "kind: logistic",
        "kind: logistics",
        "m.yaml:3: kind: found \"logistics\", expected one of baseline, logistic, trees, onnx; did you mean logistic?",
    );
    let text = "expected text of 1 to 64 letters, digits, \".\", \"_\" and \"-\"";
    check(
        "version: \"1\"",
        "version: 1",
        &format!("m.yaml:2: version: found 1, {text}; put it in quotes to make it text"),
    );
    check("name: m\n", "", &format!("m.yaml:1: name: missing, {text}"));
    for bad in ["0", "1", "1.5", "-0.5", ".nan"] {
        let errors = parse(good.replace("0.5", bad).as_bytes()).unwrap_err();
        assert!(errors.ends_with("expected a number above 0 and below 1"), "{errors}");
    }
    check(
        "horizon: 60s",
        "horizon: 60",
        "m.yaml:8: horizon: found 60, expected a duration with a unit such as \"60s\" (1s to 24h)",
    );
    check("intercept: -2", "intercept: -.inf", "m.yaml:6: intercept: found -inf, expected a finite number");
    check(
        "horizon: 60s\n",
        "horizon: 60s",
        "m.yaml:8: no line break at the end, so the file may have been cut short",
    );
    check(
        "horizon: 60s\n",
        "horizon: 60s\ntraining: {rows: [1]}\n",
        "m.yaml:9: training.rows: found a list, expected text, a finite number, true or false",
    );
    check(
        "horizon: 60s\n",
        "horizon: 60s\ndecision_treshold: 3\n",
        "m.yaml:9: decision_treshold: unknown key, expected one of name, version, kind, decision_threshold, horizon, \
         training, intercept, features; did you mean decision_threshold?",
    );
    let list = format!("features:\n  - {{{FEATURE}}}");
    check(&list, "features: []", "m.yaml:4: features: found an empty list, expected at least one feature");
    check(&list, "features: 3", "m.yaml:4: features: found 3, expected a list");
    check(
        &list,
        &format!("{list}\n  - {{name: volatility, weight: 1, null: refuse}}"),
        "m.yaml:6: features[1].name: found a second time with the same transform",
    );
    let last = good.replace(&list, "").replace("\n\n", "\n") + &list + "\n";
    check_refused(
        &last,
        "m.yaml:7: features: the last key, expected another one after the features, so that a file cut short is noticed",
    );
    check_refused("", "m.yaml:1: found nothing, expected a section of keys and values");
}

#[test]
fn all_errors_of_a_model_are_told_at_once() {
    let text = logistic("name: x, weight: a").replace("-2", "b");
    assert_eq!(parse(text.as_bytes()).unwrap_err().lines().count(), 4);
}

#[test]
fn the_same_feature_may_come_twice_with_different_transforms() {
    let two = format!(
        "{FEATURE}}}\n  - {{name: ret_std, weight: 2, null: refuse, transform: square, mean: 1, scale: 2"
    );
    let ModelKind::Logistic(Logistic { terms, .. }) = parse(logistic(&two).as_bytes()).unwrap().kind else {
        panic!("logistic")
    };
    let second = Term {
        feature: Feature::RetStd,
        null: NullPolicy::Refuse,
        transform: Transform::Square,
        standardise: Some((1.0, 2.0)),
        weight: 2.0,
    };
    assert_eq!(terms[1], second);
}

#[test]
fn bad_baselines_are_refused() {
    let good = bundled("baseline");
    let check = |from: &str, to: &str, message: &str| {
        assert!(good.contains(from), "{from}");
        let errors = parse(good.replace(from, to).as_bytes()).unwrap_err();
        let at = errors.split_once(": ").unwrap().1;
        assert_eq!(at, message);
    };
    check("threshold: 3", "threshold: .inf", "threshold: found inf, expected a finite number");
    check(
        "- name: volatility_z",
        "- name: spread_z",
        "features[0].name: expected volatility_z, the only feature of a baseline",
    );
    check(
        "- name: volatility_z",
        "- name: volatility_z\n    weight: 1",
        "features[0].weight: unknown key, expected one of name, null",
    );
    check(
        "threshold: 3",
        "  - {name: spread_z, null: 0}\nthreshold: 3",
        "features: found 2 features, expected volatility_z alone",
    );
}

#[test]
fn every_listed_feature_can_be_named() {
    for name in Feature::names(&HORIZONS) {
        assert!(Feature::named(&name, &HORIZONS).is_some(), "{name}");
    }
}

/// Loads a configuration with this text beside the given model file.
fn load(yaml: &str, model: Option<&[u8]>) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("my.yaml");
    fs::write(&main, yaml).unwrap();
    if let Some(bytes) = model {
        fs::write(folder.path().join("m.yaml"), bytes).unwrap();
    }
    Config::load(&[main], [], Mode::Backtest)
        .map_err(|errors| errors.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn files_that_hold_no_model_are_refused_at_the_key_that_names_them() {
    let own = "model: {ml: m.yaml}";
    let at = "my.yaml:1: model.ml: could not read \"m.yaml\": ";
    assert_eq!(load(own, None).unwrap_err(), format!("{at}No such file or directory (os error 2)"));
    let huge = vec![b'#'; 5 << 20];
    assert_eq!(load(own, Some(&huge)).unwrap_err(), format!("{at}it is larger than 4194304 bytes"));
    let config = Config::load(&[], [("FORESHOCK_MODEL__ML".to_owned(), "config".to_owned())], Mode::Run);
    assert!(config.unwrap_err().to_string().ends_with("could not read \"config\": it is a folder"));
    let json = load(own, Some(b"\x80\x04\x95")).unwrap_err();
    assert!(
        json.starts_with("m.yaml: found a Python pickle, as scikit-learn and joblib write them; "),
        "{json}"
    );
    let bytes = load(own, Some(b"\xfe\xfd\xfc")).unwrap_err();
    assert_eq!(bytes.lines().last().unwrap(), "m.yaml:1: found bytes that are not UTF-8");
}

#[test]
fn a_model_must_be_of_its_variants_kind() {
    let baseline = bundled("baseline");
    assert_eq!(
        load("model: {ml: m.yaml}", Some(baseline.as_bytes())).unwrap_err(),
        "my.yaml:1: model.ml: found a model of kind baseline, expected logistic or trees, since model.variant is ml"
    );
}

#[test]
fn a_returns_horizon_must_be_one_of_the_jobs() {
    let errors = load("features: {return_horizons: [1s]}", None).unwrap_err();
    assert!(
        errors.starts_with("builtin:models/logistic.yaml:16: features[1].name: found \"return_5s\""),
        "{errors}"
    );
}

#[test]
fn a_pinned_hash_must_be_the_files() {
    let hash = sha256(bundled("logistic").as_bytes());
    load(&format!("model: {{sha256: \"{hash}\"}}"), None).unwrap();
    load(&format!("model: {{sha256: \"{}\"}}", hash.to_uppercase()), None).unwrap();
    let other = "0".repeat(64);
    assert_eq!(
        load(&format!("model: {{sha256: \"{other}\"}}"), None).unwrap_err(),
        format!("my.yaml:1: model.sha256: found {other}, but builtin:models/logistic.yaml has {hash}")
    );
    assert!(load(&format!("model: {{variant: baseline, baseline_sha256: \"{other}\"}}"), None).is_err());
}

#[test]
fn the_way_back_to_the_baseline_is_open_when_the_model_is_broken() {
    let pin = "0".repeat(64);
    let yaml = format!("model: {{variant: baseline, ml: none.yaml, sha256: \"{pin}\"}}");
    assert_eq!(load(&yaml, None).unwrap().settings.parameters.model.variant(), "baseline");
}

#[test]
fn the_documents_models_are_read() {
    let doc = fs::read_to_string(PathBuf::from("docs/models.md")).unwrap();
    let blocks: Vec<&str> =
        doc.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let models: Vec<&str> = blocks.into_iter().filter(|block| block.contains("kind:")).collect();
    let (trees, models): (Vec<&str>, Vec<&str>) =
        models.into_iter().partition(|text| text.contains("kind: trees"));
    assert_eq!((trees.len(), models.len()), (1, 2));
    for text in models {
        parse(text.as_bytes()).unwrap();
    }
    // It names a file that isn't there, and nothing else is wrong with it.
    let missing = "m.yaml:14: trees: could not read \"model.json\": No such file or directory (os error 2)";
    assert_eq!(parse(trees[0].as_bytes()).unwrap_err(), missing);
}
