//! Predictions over HTTP.

use std::path::Path;

use foreshock_operators::feature::Feature;
use foreshock_operators::time::{SECOND, parse_rfc3339};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::http::client::{Asked, serving, settings};
use crate::support::{Backtest, Files, data};

#[test]
fn one_row() {
    let asked = Asked::start();
    let mut answer = asked.predict(r#"{"ret_mean": 0.0, "ret_std": 0.0025, "n": 40}"#).ok();
    assert!(parse_rfc3339(answer["timestamp"].as_str().unwrap()).is_some());
    answer["timestamp"].take();
    // -2 + 800 * 0.0025 = 0
    let expected = json!({
        "prediction": 1, "probability": 0.5, "model_name": "reference-logistic", "model_version": "1", "timestamp": null,
        "unused_features": ["n", "ret_mean"]
    });
    assert_eq!(answer, expected);
}

#[test]
fn several_rows() {
    let asked = Asked::start();
    let mut answer = asked.predict(r#" {"rows": [{"ret_std": 0.0025}, {}, {"volatility": 2.5e-3}]} "#).ok();
    answer["timestamp"].take();
    let none = json!({"prediction": 0, "probability": 0.11920292202211755});
    let spike = json!({"prediction": 1, "probability": 0.5});
    let expected = json!({
        "predictions": [spike, none, spike], "model_name": "reference-logistic", "model_version": "1", "timestamp": null
    });
    assert_eq!(answer, expected);
}

/// Every tick of the golden cases, as a backtest printed it: the probability must have the same bits.
#[test]
fn as_the_dataflow_scores() {
    for name in ["canonical", "coinbase"] {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let config = case.join("config.yaml");
        let ran = Backtest::of([case.join("input.ndjson")]).arg("--config").arg(&config).run();
        let asked = Asked::with(settings(), Some(serving(Some(&config), &[])));
        let mut connection = asked.connect();
        let (mut scored, mut refused) = (Vec::new(), 0);
        for line in ran.lines("scored") {
            let expected: Value = serde_json::from_str(line).unwrap();
            let answer = connection.ask("POST", "/predict", line.as_bytes());
            if expected["probability"].is_null() {
                answer.error(400);
                refused += 1;
                continue;
            }
            let answer = answer.ok();
            let bits = |value: &Value| value["probability"].as_f64().unwrap().to_bits();
            assert_eq!(bits(&answer), bits(&expected), "{line}");
            assert_eq!(answer["prediction"], expected["prediction"], "{line}");
            scored.push((line, answer));
        }
        assert!(scored.len() > 20 && refused > 0, "{name}: {} scored, {refused} refused", scored.len());

        scored.truncate(settings().max_rows);
        let rows: Vec<&str> = scored.iter().map(|(line, _)| *line).collect();
        let answer =
            connection.ask("POST", "/predict", format!(r#"{{"rows":[{}]}}"#, rows.join(",")).as_bytes()).ok();
        for (found, (line, expected)) in answer["predictions"].as_array().unwrap().iter().zip(scored) {
            assert_eq!(found["probability"], expected["probability"], "{line}");
        }
    }
}

#[test]
fn a_number_written_in_any_way_is_that_number() {
    let asked = Asked::start();
    let probability =
        |text: &str| asked.predict(format!(r#"{{"trade_intensity": {text}}}"#)).ok()["probability"].take();
    assert_eq!(probability("100"), probability("1e2"));
    assert_eq!(probability("100"), probability("100.0"));
    assert_eq!(probability("-0"), probability("null"));
    assert_eq!(probability("-100"), probability("-1E+2"));
    assert_eq!(probability("18446744073709551616"), 1.0);
    let escaped = asked.predict(r#"{"ret\u005fstd": 0.0025}"#).ok();
    assert_eq!((&escaped["probability"], &escaped["unknown_features"]), (&json!(0.5), &Value::Null));
}

#[test]
fn names_that_are_no_features_are_listed() {
    let asked = Asked::start();
    let listed = |body: &str| asked.predict(body).ok()["unknown_features"].take();
    assert_eq!(listed(r#"{"price": 1, "midprice": null, "n": 3, "return_60s": 0}"#), Value::Null);
    assert_eq!(
        listed(r#"{"n": 1, "retstd": 1, "symbol": "BTC", "a": {"ret_std": [1e999]}}"#),
        json!(["retstd", "symbol", "a"])
    );
    assert_eq!(
        listed(r#"{"n": 1, "return_2s": 1, "return_05s": 1, "rows_": 1}"#),
        json!(["return_2s", "return_05s", "rows_"])
    );
    assert_eq!(
        listed(r#"{"rows": [{"n": 1, "a": 1, "b": 1}, {}, {"b": 1, "rows": 1, "n": 1}], "c": 1}"#),
        json!(["a", "b", "rows", "c"])
    );
    let many: Vec<String> = (0..900).map(|n| format!(r#""x{n}": {n}"#)).collect();
    assert_eq!(listed(&format!("{{\"n\": 1, {}}}", many.join(","))).as_array().unwrap().len(), 20);
    let long = listed(&format!(r#"{{"n": 1, "{}": 1}}"#, "é".repeat(5000)));
    assert_eq!(long[0].as_str().unwrap().chars().count(), 203);
}

#[test]
fn features_that_the_model_does_not_use_are_listed() {
    let asked = Asked::start();
    let mut alone = asked.predict(r#"{"price": 50000.0}"#).ok();
    assert_eq!(alone["unused_features"].take(), json!(["price"]));
    assert_eq!(alone["probability"], asked.predict("{}").ok()["probability"]);
    let listed = |body: &str| asked.predict(body).ok()["unused_features"].take();
    assert_eq!(listed(r#"{"ret_std": 1, "return_5s": 0, "trade_intensity": null}"#), Value::Null);
    assert_eq!(listed(r#"{"volatility": 0.001}"#), Value::Null, "ret_std by its other name");
    assert_eq!(
        listed(r#"{"rows": [{"ret_std": 1, "price": 1}, {}, {"return_1s": 0, "price": null}]}"#),
        json!(["price", "return_1s"])
    );
    asked.job_status.serve(serving(None, &[("MODEL_VARIANT", "baseline")]));
    assert_eq!(listed(r#"{"volatility_z": 1, "volatility": 2}"#), json!(["volatility"]));
    let trees = data("models/xgboost-3/model.yaml");
    asked.job_status.serve(serving(None, &[("FORESHOCK_MODEL__ML", trees.to_str().unwrap())]));
    assert_eq!(listed(r#"{"ret_std": 1, "midprice": 2, "n": 3}"#), json!(["midprice"]));
}

#[test]
fn a_row_of_which_no_name_is_a_feature_is_refused() {
    let asked = Asked::start();
    let names = Feature::names(&[SECOND, 5 * SECOND, 30 * SECOND, 60 * SECOND]).join(", ");
    let example = r#"; one row is {"ret_std": 0.001, "n": 40}, several are {"rows": [{...}, {...}]}"#;
    let check = |body: &str, field, row, error: &str| check_refused(&asked, body, field, row, error);
    check(
        r#"{"retstd": 0.1}"#,
        Some("retstd"),
        None,
        &format!(
            "retstd: found \"retstd\", which is no feature, expected some of {names}; did you mean ret_std?{example}"
        ),
    );
    check(
        r#"{"symbol": "BTC", "Price": 1}"#,
        None,
        None,
        &format!(
            "found \"Price\", \"symbol\", of which none is a feature, expected some of {names}; did you mean price?{example}"
        ),
    );
    check(r#"{"RET_STD": 1}"#, Some("RET_STD"), None, "; did you mean ret_std?");
    check(r#"{"return_2s": 1}"#, Some("return_2s"), None, "which is no feature");
    check(
        r#"{"rows": [{"n": 1}, {"vol": 1, "x": 2}]}"#,
        None,
        Some(1),
        "rows[1]: found \"vol\", \"x\", of which none is a feature",
    );
    check(
        r#"{"rows": [{"rows": [{}]}]}"#,
        Some("rows"),
        Some(0),
        "rows[0].rows: found \"rows\", which is no feature",
    );
    let many: Vec<String> = (0..900).map(|n| format!(r#""x{n}": {n}"#)).collect();
    check(
        &format!("{{{}}}", many.join(",")),
        None,
        None,
        "\"x100\", \"x101\" and more, of which none is a feature",
    );
    let long = "é".repeat(5000);
    let told = asked.predict(format!(r#"{{"{long}": 1}}"#)).error(400).0;
    assert!(told.chars().count() < 2000, "{told}");
    // Nothing was given, so nothing was misspelt.
    asked.predict(r#"{"rows": [{}, {"n": null}]}"#).ok();
}

#[test]
fn what_other_servers_of_models_are_sent_is_read_or_named() {
    let asked = Asked::start();
    let ours = asked.predict(r#"{"rows": [{"ret_std": 0.0025}, {}, {"volatility": 2.5e-3}]}"#).ok();
    let theirs = asked.predict(r#"{"instances": [{"ret_std": 0.0025}, {}, {"volatility": 2.5e-3}]}"#).ok();
    assert_eq!(theirs["predictions"], ours["predictions"]);
    let one = asked.predict(r#"{"signature_name": "x", "instances": [{"ret_std": 0.0025}]}"#).ok();
    assert_eq!(one["predictions"], json!([{"prediction": 1, "probability": 0.5}]));

    let check = |body: &str, field, row, error: &str| check_refused(&asked, body, field, row, error);
    check(
        r#"{"instances": [{"n": 1}, {"ret_std": "high"}]}"#,
        Some("ret_std"),
        Some(1),
        "instances[1].ret_std: invalid type: string \"high\"",
    );
    check(r#"{"instances": []}"#, Some("instances"), None, "instances: found an empty list");
    check(r#"{"instances": {"n": 1}}"#, Some("instances"), None, "expected a list of objects of features");
    check(r#"{"instances": [{}], "n": 1}"#, Some("instances"), None, "found beside features");
    check(r#"{"rows": [{}], "instances": [{}]}"#, Some("instances"), None, "found beside rows");
    check(r#"{"instances": [{}], "instances": [{}]}"#, Some("instances"), None, "found a second time");
    for body in [r#"{"instances": [[0.1, 0.2]]}"#, r#"{"rows": [[0.1, 0.2]]}"#, r#"{"instances": [0.1]}"#] {
        check(body, None, Some(0), "expected an object of features by name, such as {\"ret_std\": 0.001}");
    }
    let v2 = r#"{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [0.1, 0.2]}]}"#;
    check(v2, Some("inputs"), None, "tensors (KServe's protocol v2, Triton, MLflow) are not read");
    for body in [
        r#"{"dataframe_split": {"columns": ["ret_std"], "data": [[1]]}}"#,
        r#"{"dataframe_records": [{"ret_std": 1}]}"#,
    ] {
        check(body, body.split('"').nth(1), None, "tables (MLflow, Seldon) are not read");
    }
    for body in [
        r#"{"features": {"ret_std": 0.001}}"#,
        r#"{"data": [{"ret_std": 0.001}]}"#,
        r#"{"input": {"ret_std": 0.001}}"#,
        r#"{"X": [[1, 2]]}"#,
    ] {
        check(body, body.split('"').nth(1), None, "features stand at the top of the object");
    }
    check(r#"[{"ret_std": 0.001}]"#, None, None, r#"several are {"rows": [{...}, {...}]}"#);
    check("[[0.1, 0.2]]", None, None, r#"expected an object of features: one row is {"ret_std": 0.001"#);
    check(
        "ret_std=0.001&n=40",
        None,
        None,
        r#"not JSON: expected value at line 1 column 1, expected JSON: one row is"#,
    );
    check("0.1,0.2", None, None, "expected an object of features: one row is");
    for text in ["0.001", " 1 ", "1e-3"] {
        check(
            &format!(r#"{{"ret_std": "{text}"}}"#),
            Some("ret_std"),
            None,
            &format!(
                "ret_std: invalid type: string {text:?}, expected a finite number or null, without quotes"
            ),
        );
    }
    for path in ["/v1/models/spikes:predict", "/v2/models/spikes/infer", "/invocations"] {
        let (error, _) = asked.connect().ask("POST", path, b"{}").error(404);
        assert_eq!(
            error,
            format!("there is nothing at {path}; rows are scored at POST /predict; / lists what is where")
        );
    }
}

#[track_caller]
fn check_refused(asked: &Asked, body: impl AsRef<[u8]>, field: Option<&str>, row: Option<u64>, error: &str) {
    let answer = asked.predict(body.as_ref());
    let shown = String::from_utf8_lossy(body.as_ref()).chars().take(200).collect::<String>();
    let (found, named) = answer.error(400);
    assert!(found.contains(error), "{shown}: {found}");
    assert_eq!((named.as_deref(), answer.json()["row"].as_u64()), (field, row), "{shown}: {found}");
}

#[test]
fn what_is_no_number_is_refused_with_its_name() {
    let asked = Asked::start();
    for (value, found) in [
        (r#""0.1""#, r#"ret_std: invalid type: string "0.1", expected a finite number or null"#),
        ("true", "ret_std: invalid type: boolean `true`, expected a finite number or null"),
        ("[1]", "ret_std: invalid type: sequence, expected a finite number or null"),
        ("{}", "ret_std: invalid type: map, expected a finite number or null"),
        ("1e999", "ret_std: number out of range at line 1 column"),
        ("-1e999", "expected a finite number or null"),
        ("NaN", "expected a finite number or null"),
        ("Infinity", "expected a finite number or null"),
        ("0x1", "ret_std"),
        ("01", "ret_std"),
    ] {
        // A wrong digit after a whole number is met as the end of the value.
        let field = if matches!(value, "0x1") { None } else { Some("ret_std") };
        let found = if field.is_none() { "not JSON" } else { found };
        check_refused(&asked, format!(r#"{{"n": 1, "ret_std": {value}}}"#), field, None, found);
        let error = if field.is_none() { "rows[1]: not JSON" } else { "rows[1].ret_std: " };
        let body = format!(r#"{{"rows": [{{}}, {{"n": 1, "ret_std": {value}}}]}}"#);
        check_refused(&asked, body, field, Some(1), error);
    }
}

#[test]
fn what_is_no_row_is_refused() {
    let asked = Asked::start();
    let check = |body: &str, field, row, error: &str| check_refused(&asked, body, field, row, error);
    for body in ["", " ", "{", "{}{}", "{} x", r#"{"n":1,}"#, "{n:1}", r#"{"n":1"#, "'{}'", "{\"a\":\"\n\"}"]
    {
        check(body, None, None, "not JSON: ");
    }
    for body in ["null", "1", "\"{}\"", "true", "[]", "[{}]"] {
        check(body, None, None, "expected an object of features");
    }
    check(r#"{"rows": [{}"#, None, Some(1), "not JSON: ");
    check(r#"{"n": }"#, Some("n"), None, "expected");
    check(r#"{"rows": []}"#, Some("rows"), None, "rows: found an empty list, expected at least one row");
    check(r#"{"rows": {}}"#, Some("rows"), None, "expected a list of objects of features");
    check(r#"{"rows": null}"#, Some("rows"), None, "expected a list of objects of features");
    check(
        r#"{"rows": [{}, 7]}"#,
        None,
        Some(1),
        "rows[1]: invalid type: integer `7`, expected an object of features",
    );
    check(r#"{"rows": [{}, null]}"#, None, Some(1), "expected an object of features");
    for body in [r#"{"rows": [{}], "n": 1}"#, r#"{"n": 1, "rows": [{}]}"#] {
        check(body, Some("rows"), None, "rows: found beside features, expected one or the other");
    }
    check_refused(&asked, b"{\"n\": 1, \"\xff\": 2}", None, None, "the body is not UTF-8");
    check_refused(&asked, "{\"a\":".repeat(200_000), None, None, "not JSON");
    check_refused(&asked, format!(r#"{{"n": "{}"}}"#, "x".repeat(100_000)), Some("n"), None, "xxx...");
}

#[test]
fn what_stands_twice_is_refused() {
    let asked = Asked::start();
    let check = |body: &str, field, row, error: &str| check_refused(&asked, body, Some(field), row, error);
    check(r#"{"n": 1, "n": 1}"#, "n", None, "n: found a second time");
    check(r#"{"n": null, "n": 1}"#, "n", None, "n: found a second time");
    check(r#"{"a": 1, "n": 1, "a": 1}"#, "a", None, "a: found a second time");
    check(r#"{"rows": [{}], "rows": [{}]}"#, "rows", None, "rows: found a second time");
    check(r#"{"rows": [{"n": 1}, {"n": 1, "\u006e": 2}]}"#, "n", Some(1), "rows[1].n: found a second time");
    asked.predict(r#"{"rows": [{"n": 1, "a": 1}, {"n": 1, "a": 1}]}"#).ok();

    for body in [r#"{"ret_std": 1, "volatility": 2}"#, r#"{"volatility": null, "ret_std": 0}"#] {
        check(body, if body.contains("null") { "ret_std" } else { "volatility" }, None, "the same feature");
    }
    asked.predict(r#"{"ret_std": 0.5, "volatility": 5e-1}"#).ok();
    asked.predict(r#"{"ret_std": null, "volatility": null}"#).ok();
}

#[test]
fn n_is_a_count() {
    let asked = Asked::start();
    for n in ["-1", "0.5", "4294967296", "1e300"] {
        check_refused(
            &asked,
            format!(r#"{{"n": {n}}}"#),
            Some("n"),
            None,
            "expected a whole number from 0 to 4294967295",
        );
    }
    for n in ["0", "3.0", "4294967295", "null", "1e2"] {
        asked.predict(format!(r#"{{"n": {n}}}"#)).ok();
    }
}

#[test]
fn a_model_may_refuse_a_row() {
    let files = Files::new();
    files.add(
        "model.yaml",
        "name: m\nversion: \"2\"\nkind: logistic\nfeatures:\n\
         - {name: return_1s, transform: log, weight: 1, null: 1}\n\
         - {name: n, weight: 0.5, null: 0.25}\n\
         - {name: ret_std, transform: square, weight: 1e9, null: refuse}\n\
         - {name: price, transform: square, weight: -1e9, null: 0}\n\
         intercept: 0\ndecision_threshold: 0.5\nhorizon: 1500ms\n",
    );
    let config = files.add("config.yaml", "model: {ml: model.yaml}\n");
    let asked = Asked::with(settings(), Some(serving(Some(&config), &[])));
    let check = |body: &str, field, row, error: &str| check_refused(&asked, body, field, row, error);
    check(
        "{}",
        Some("ret_std"),
        None,
        "ret_std: missing or null, expected a finite number: the model m needs it",
    );
    check(r#"{"volatility": null}"#, Some("ret_std"), None, "missing or null");
    check(
        r#"{"rows": [{"ret_std": 0}, {"n": 1}]}"#,
        Some("ret_std"),
        Some(1),
        "rows[1].ret_std: missing or null",
    );
    check(r#"{"ret_std": 0, "return_1s": 0}"#, Some("return_1s"), None, "found 0, expected a number above 0");
    check(r#"{"ret_std": 1e300, "price": 1e300}"#, None, None, "no number");
    // Without n what stands in for it counts, though no tick has a quarter of a return.
    let quarter = asked.predict(r#"{"ret_std": 0}"#).ok()["probability"].as_f64().unwrap();
    assert_eq!(quarter, 1.0 / (1.0 + libm_exp(-0.125)));
    assert_eq!(asked.get("/model/info").ok()["horizon_s"], 1.5);

    asked.job_status.serve(serving(None, &[("MODEL_VARIANT", "baseline")]));
    check("{}", Some("volatility_z"), None, "missing or null");
    assert_eq!(asked.predict(r#"{"volatility_z": 3}"#).ok()["probability"], 0.5);
}

#[allow(clippy::disallowed_methods, reason = "this one value is the same everywhere")]
fn libm_exp(x: f64) -> f64 {
    x.exp()
}

#[test]
fn any_body_gets_an_answer() {
    let asked =
        Asked::with(foreshock::config::Http { max_body_bytes: 200, ..settings() }, Some(serving(None, &[])));
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"n\"",
        "\"ret_std\"",
        "\"volatility\"",
        "\"rows\"",
        "\"x\"",
        "1",
        "-",
        "0.5",
        "1e999",
        "null",
        "true",
        "\\u00",
        "\u{7f}",
        "é",
        " ",
        "{\"rows\":[{",
        "{\"n\":",
    ];
    let jsonish = proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..40);
    let bytes = proptest::collection::vec(any::<u8>(), 0..300);
    let body = prop_oneof![jsonish.prop_map(|words| words.concat().into_bytes()), bytes];
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let check = |body: Vec<u8>| {
        let answer = asked.predict(&body);
        prop_assert!([200, 400, 413].contains(&answer.status), "{}", answer.status);
        prop_assert!(answer.json().is_object());
        prop_assert_eq!(answer.status == 413, body.len() > 200);
        Ok(())
    };
    runner.run(&body, check).unwrap();
}
