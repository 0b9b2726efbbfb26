//! Models of trees: what XGBoost saved is read whole or refused, and scored to the last bit as XGBoost does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use foreshock::config::{Config, Mode};
use foreshock::documents::file::FileRef;
use foreshock::models::{read, sha256};
use foreshock_operators::feature::Feature;
use foreshock_operators::model::float32;
use foreshock_operators::model::forest::logit;
use foreshock_operators::model::{BoostedTrees, Model, ModelKind, NullPolicy};
use foreshock_operators::score::predict_by;
use foreshock_operators::time::{Nanos, SECOND};
use serde_json::{Value, json};

use crate::support::{Backtest, Files, Ran, assert_same, data, finish, foreshock, slice};

const HORIZONS: [Nanos; 4] = [SECOND, 5 * SECOND, 30 * SECOND, 60 * SECOND];

/// The folders with a model, and rows that XGBoost scored.
fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(data("models")).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 2);
    folders
}

fn load(path: &Path) -> Result<Model, String> {
    let document = FileRef::OnDisk(path.to_owned()).read().unwrap();
    read(&document, &HORIZONS).map_err(|errors| errors.to_string())
}

#[test]
fn probabilities_are_xgboosts_to_the_last_bit() {
    for folder in folders() {
        let model = load(&folder.join("model.yaml")).unwrap();
        let ModelKind::Trees(BoostedTrees { features, .. }) = &model.kind else { panic!("trees") };
        let rows = zstd::decode_all(fs::File::open(folder.join("rows.csv.zst")).unwrap()).unwrap();
        let rows = String::from_utf8(rows).unwrap();
        assert!(rows.lines().count() >= 500);
        for line in rows.lines() {
            let (row, bits) = line.rsplit_once(',').unwrap();
            let given =
                row.split(',').map(|text| if text.is_empty() { f64::NAN } else { text.parse().unwrap() });
            let row: Vec<(Feature, f64)> = features.iter().map(|one| one.feature).zip(given).collect();
            let value = |feature| row.iter().find(|(name, _)| *name == feature).unwrap().1;
            let expected = f64::from(f32::from_bits(u32::from_str_radix(bits, 16).unwrap()));
            let got = predict_by(&model, value).probability;
            assert_eq!(got.to_bits(), expected.to_bits(), "{}: {line}", folder.display());
        }
    }
}

/// One model after the other, with what XGBoost says of the rows: those that stop at their best iteration, and every
/// other sort that is read.
#[test]
fn every_sort_of_model_gives_xgboosts_probabilities_to_the_last_bit() {
    for folder in ["trees/xgboost-2", "trees/xgboost-3"].map(data) {
        let told: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
        let names: Vec<&str> =
            told["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let models = told["probabilities"].as_object().unwrap();
        assert_eq!(models.len(), 17);
        for (name, expected) in models {
            let model =
                load_with(&names, &fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()).unwrap();
            for (row, bits) in told["rows"].as_array().unwrap().iter().zip(expected.as_array().unwrap()) {
                let got = score(&model, &names, row);
                let expected = f32::from_bits(u32::from_str_radix(bits.as_str().unwrap(), 16).unwrap());
                assert_eq!(
                    got.to_bits(),
                    f64::from(expected).to_bits(),
                    "{name} of {}: {row}",
                    folder.display()
                );
            }
        }
        let count = |name: &str| {
            let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
            load_with(&names, &text).unwrap().describe().trees.unwrap().count
        };
        let counts = [
            "stopped",
            "stopped-at-once",
            "stopped-parallel",
            "parallel",
            "sliced",
            "continued",
            "dart-stopped",
        ];
        assert_eq!(counts.map(count), [4, 1, 12, 12, 4, 4, 8]);
    }
}

/// A model of these features and this file of XGBoost.
fn load_with(names: &[&str], json: &str) -> Result<Model, String> {
    let files = Files::new();
    files.add("model.json", json);
    let listed: String = names.iter().map(|name| format!("  - {{name: {name}, null: missing}}\n")).collect();
    let yaml = format!(
        "name: m\nversion: \"1\"\nkind: trees\nfeatures:\n{listed}trees: model.json\ndecision_threshold: 0.5\nhorizon: 60s\n"
    );
    let path = files.add("model.yaml", yaml);
    load(&path).map_err(|errors| errors.replace(&format!("{}/", files.path().display()), ""))
}

/// The probability of a row of numbers and nulls.
fn score(model: &Model, names: &[&str], row: &Value) -> f64 {
    let values: Vec<(Feature, f64)> = names
        .iter()
        .zip(row.as_array().unwrap())
        .map(|(name, value)| (Feature::named(name, &HORIZONS).unwrap(), value.as_f64().unwrap_or(f64::NAN)))
        .collect();
    predict_by(model, |feature| values.iter().find(|(one, _)| *one == feature).unwrap().1).probability
}

const SMALL: [&str; 4] = ["ret_std", "return_1s", "spread_z", "trade_intensity"];

/// A small model with another word in it.
fn small(name: &str, change: impl FnOnce(&mut Value)) -> Result<Model, String> {
    let text = fs::read(data("trees/xgboost-3").join(format!("{name}.json"))).unwrap();
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    change(&mut json["learner"]);
    load_with(&SMALL, &json.to_string())
}

#[test]
fn a_best_iteration_must_be_one_of_the_model() {
    for bad in ["9", "-1", "3.0", "", "all", "99999999999999999999"] {
        let errors =
            small("stopped", |learner| learner["attributes"]["best_iteration"] = json!(bad)).unwrap_err();
        let expected = "expected an iteration of the model, 0 to 8; set_attr(best_iteration=None) in Python takes it away, and \
                        all trees count";
        assert_eq!(
            errors,
            format!("model.json: learner.attributes.best_iteration: found {bad:?}, {expected}")
        );
    }
    let count =
        |name: &str, change: fn(&mut Value)| small(name, change).unwrap().describe().trees.unwrap().count;
    assert_eq!(count("stopped", |learner| learner["attributes"]["best_iteration"] = json!("8")), 9);
    let all =
        |learner: &mut Value| drop(learner["attributes"].as_object_mut().unwrap().remove("best_iteration"));
    assert_eq!(count("stopped", all), 9);
    assert_eq!(count("stopped-parallel", all), 24);
    // Where the file doesn't say where iterations begin, they are all alike.
    let without = |learner: &mut Value| {
        learner["gradient_booster"]["model"].as_object_mut().unwrap().remove("iteration_indptr").unwrap();
    };
    assert_eq!(count("stopped-parallel", without), 12);
    // Other attributes are remarks.
    assert_eq!(
        count("plain", |learner| learner["attributes"] = json!({"best_score": "0.1", "mine": "x"})),
        8
    );
}

#[test]
fn dart_has_a_weight_for_each_tree() {
    let errors = small("dart", |learner| {
        drop(learner["gradient_booster"]["weight_drop"].as_array_mut().unwrap().pop())
    });
    let path = "learner.gradient_booster.weight_drop";
    assert_eq!(
        errors.unwrap_err(),
        format!("model.json: {path}: found 11 entries, expected 12, one for each tree")
    );
    let one = |learner: &mut Value| {
        learner["gradient_booster"]["gbtree"]["model"]["trees"][3]["split_type"][0] = json!(1)
    };
    let errors = small("dart", one).unwrap_err();
    assert!(
        errors.starts_with("model.json: learner.gradient_booster.gbtree.model.trees[3].split_type: "),
        "{errors}"
    );
}

#[test]
fn files_of_other_programs_are_named_with_the_way_out() {
    let with_bytes = |bytes: &[u8]| {
        let files = Files::new();
        files.add("model.json", bytes);
        let yaml = "name: m\nversion: \"1\"\nkind: trees\nfeatures:\n  - {name: n, null: missing}\ntrees: model.json\n\
                    decision_threshold: 0.5\nhorizon: 60s\n";
        let path = files.add("model.yaml", yaml);
        let errors = load(&path).unwrap_err();
        let given = Config::load(
            &[],
            [("FORESHOCK_MODEL__ML".into(), files.path().join("model.json").display().to_string())],
            Mode::Run,
        );
        (errors, given.unwrap_err().to_string())
    };
    let as_json = "save the model as JSON, in Python with save_model(\"model.json\")";
    let train = "trees are read from XGBoost alone: train the model with XGBoost (docs/models.md)";
    let cases: [(&[u8], &str, &str); 21] = [
        (b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L", "a model in UBJSON (.ubj)", as_json),
        (b"{i\x07learner{", "a model in UBJSON (.ubj)", as_json),
        (b"binf\x06\x1e\x05?\x04\0\0\0", "a model in XGBoost's old binary format", "load it with XGBoost 2"),
        (
            b"\0\0\0?\x04\0\0\0\0\0\0\0\x0f\0\0\0binary:logistic\x06\0",
            "a model in XGBoost's old binary format",
            "load it",
        ),
        (
            b"\x80\x04\x95\xdc\x12\0\0\0\0\0\0\x8c\x0cxgboost.core reg:",
            "a Python pickle",
            "if it holds a model of XGBoost, load it in Python",
        ),
        (b"\x1f\x8b\x08\0\0\0\0\0", "a compressed file", "unpack it first"),
        (b"x^\xdd\x57", "a compressed file", "unpack it first"),
        (b"PK\x03\x04\0\0", "a zip archive", "if it holds a model of XGBoost, load it in Python"),
        (b"CBM1\x10\0\0\0", "a model of CatBoost", train),
        (b"tree\nversion=v4\nnum_class=1\n", "a model of LightGBM", train),
        (b"{\"name\": \"tree\", \"version\": \"v4\", \"tree_info\": [{}]}", "a model of LightGBM", train),
        (b"{\"oblivious_trees\": [], \"model_info\": {}}", "a model of CatBoost", train),
        (
            b"\x08\x08\x12\x08skl2onnx\x1a\x061.17.0",
            "an ONNX model",
            "trees are read from XGBoost's own file",
        ),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file", train),
        (b"<?xml version=\"1.0\"?><PMML version=\"4.4\">", "a model in PMML", train),
        (b"booster[0]:\n0:[f0<0.0081] yes=1,no=2", "a dump of XGBoost, whose numbers are rounded", as_json),
        (b"[\n  { \"nodeid\": 0, \"depth\": 0 }]", "a dump of XGBoost, whose numbers are rounded", as_json),
        (b"\xff\xfe{\0\"\0", "text in UTF-16", "save the file as UTF-8"),
        (b"\xef\xbb\xbf{\"learner\": {}}", "a byte order mark", "save the file as UTF-8 without one"),
        (b"{\"Config\": {}, \"Model\": {\"learner\": {}}}", "", as_json),
        (b"\x01\x02\0\x04", "a binary file", as_json),
    ];
    for (bytes, what, way_out) in cases {
        let (named, given) = with_bytes(bytes);
        let shown = String::from_utf8_lossy(bytes);
        assert!(
            named.contains(&format!(".json: found {what}")) && named.contains(&format!("; {way_out}")),
            "{shown}: {named}"
        );
        assert_eq!(named.lines().count(), 1, "{named}");
        // It is as good as named where a model file should be.
        let expected =
            "; expected a model file in YAML, which names a file of trees under trees (docs/models.md)";
        let is_told = !what.is_empty() && what != "a byte order mark";
        assert!(!is_told || given.contains(&format!(".json: found {what}")), "{shown}: {given}");
        assert!(given.ends_with(expected) && given.lines().count() == 1, "{shown}: {given}");
    }
    assert!(with_bytes(b"").0.ends_with(&format!("model.json: found an empty file; {as_json}")));
    assert!(with_bytes(b" \n").0.ends_with(&format!("model.json: found nothing but spaces; {as_json}")));
    let (named, _) = with_bytes(b"{}");
    assert!(
        named.ends_with(&format!(
            "model.json: found JSON without a learner, expected a model of XGBoost; {as_json}"
        )),
        "{named}"
    );
    let model = fs::read(data("trees/xgboost-3/plain.json")).unwrap();
    let (_, given) = with_bytes(&model);
    let expected =
        ".json: found a model that XGBoost saved; expected a model file in YAML, which names a file of trees";
    assert!(given.contains(expected), "{given}");
}

#[test]
fn a_linear_booster_and_a_bare_configuration_are_named() {
    let linear = json!({
        "learner": {
            "attributes": {}, "feature_names": SMALL, "feature_types": [],
            "gradient_booster": {"model": {"boosted_rounds": 10, "weights": [3.1, 3.4, 0.1, 0.1, -0.6]}, "name": "gblinear"},
            "learner_model_param": {
                "base_score": "[4.25E-1]", "boost_from_average": "1", "num_class": "0", "num_feature": "4", "num_target": "1"
            },
            "objective": {"name": "binary:logistic", "reg_loss_param": {"scale_pos_weight": "1"}}
        },
        "version": [3, 2, 0]
    });
    assert_eq!(
        load_with(&SMALL, &linear.to_string()).unwrap_err(),
        "model.json: learner.gradient_booster.name: found \"gblinear\", expected \"gbtree\" or \"dart\"; it has weights and \
         no trees: write them as a model of kind logistic (docs/models.md)"
    );
    let bare =
        small("plain", |learner| drop(learner["gradient_booster"].as_object_mut().unwrap().remove("model")));
    assert_eq!(
        bare.unwrap_err(),
        "model.json: learner.gradient_booster.model: missing: this is a configuration without its model; save the model as \
         JSON, in Python with save_model(\"model.json\")"
    );
    for objective in
        ["rank:ndcg", "survival:cox", "survival:aft", "count:poisson", "reg:gamma", "binary:hinge"]
    {
        let errors = small("plain", |learner| learner["objective"]["name"] = json!(objective)).unwrap_err();
        assert!(
            errors
                .starts_with(&format!("model.json: learner.objective.name: found {objective:?}, expected ")),
            "{errors}"
        );
        assert!(errors.ends_with("train on labels 0 and 1 with objective binary:logistic"), "{errors}");
    }
}

/// XGBoost's file, walked node by node as its documentation tells it.
struct Plain {
    features: Vec<String>,
    base_margin: f32,
    trees: Vec<Value>,
}

impl Plain {
    fn read(path: &Path) -> Plain {
        let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let learner = &file["learner"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let score = text(&learner["learner_model_param"]["base_score"]);
        Plain {
            features: learner["feature_names"].as_array().unwrap().iter().map(text).collect(),
            base_margin: logit(score.trim_matches(['[', ']']).parse().unwrap()),
            trees: learner["gradient_booster"]["model"]["trees"].as_array().unwrap().clone(),
        }
    }

    fn leaf(tree: &Value, row: &[f32]) -> f32 {
        let number = |key: &str, at: usize| tree[key][at].as_f64().unwrap();
        let mut at = 0;
        while number("left_children", at) >= 0.0 {
            let value = row[number("split_indices", at) as usize];
            let goes_left = match value.is_nan() {
                true => number("default_left", at) == 1.0,
                false => value < number("split_conditions", at) as f32,
            };
            at = number(if goes_left { "left_children" } else { "right_children" }, at) as usize;
        }
        number("split_conditions", at) as f32
    }

    /// Of a line of `scored`.
    fn probability(&self, scored: &Value) -> f32 {
        let row: Vec<f32> =
            self.features.iter().map(|name| scored[name].as_f64().unwrap_or(f64::NAN) as f32).collect();
        let margin = self.trees.iter().fold(self.base_margin, |sum, tree| sum + Plain::leaf(tree, &row));
        1.0 / (float32::exp((-margin).min(88.7)) + 1.0)
    }
}

fn backtest(model: &Path, workers: usize) -> Ran {
    let model = model.to_str().unwrap();
    let backtest = Backtest::of([data("btcusdt-usdm.log.zst")]).workers(workers);
    backtest.env("FORESHOCK_MODEL__ML", model).env("FORESHOCK_BACKTEST__CHUNK_BYTES", "64KiB").run()
}

#[test]
fn a_backtest_scores_every_tick_as_the_plain_walk_does() {
    let folder = data("models/xgboost-3");
    let plain = Plain::read(&folder.join("model.json"));
    let ran = backtest(&folder.join("model.yaml"), 1);
    assert_same(&ran, &backtest(&folder.join("model.yaml"), 2));
    let scored = ran.records("scored");
    assert_eq!(ran.count("predictions"), scored.len() as i64);
    let mut seen = BTreeMap::<u64, usize>::new();
    for tick in &scored {
        let probability = tick["probability"].as_f64().unwrap();
        assert_eq!(probability.to_bits(), f64::from(plain.probability(tick)).to_bits(), "{tick}");
        *seen.entry(probability.to_bits()).or_default() += 1;
    }
    assert!(scored.iter().any(|tick| tick["volatility_z"].is_null()) && seen.len() > 50, "{}", seen.len());
}

/// The bundled model with other words in it.
struct Model3 {
    files: Files,
    yaml: String,
    json: Value,
}

impl Model3 {
    fn new() -> Model3 {
        let folder = data("models/xgboost-3");
        Model3 {
            files: Files::new(),
            yaml: fs::read_to_string(folder.join("model.yaml")).unwrap(),
            json: serde_json::from_slice(&fs::read(folder.join("model.json")).unwrap()).unwrap(),
        }
    }

    fn with(mut self, pointer: &str, value: Value) -> Model3 {
        *self.json.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        self
    }

    fn yaml(mut self, from: &str, to: &str) -> Model3 {
        assert!(self.yaml.contains(from), "{from}");
        self.yaml = self.yaml.replace(from, to);
        self
    }

    fn load(&self) -> Result<Model, String> {
        self.files.add("model.json", self.json.to_string());
        let path = self.files.add("model.yaml", &self.yaml);
        load(&path).map_err(|errors| errors.replace(&format!("{}/", self.files.path().display()), ""))
    }

    #[track_caller]
    fn check_refused(self, message: &str) {
        assert_eq!(self.load().expect_err(message), message);
    }
}

#[test]
fn what_is_not_understood_whole_is_refused_by_name() {
    let with = |pointer: &str, value: Value, message: &str| {
        Model3::new().with(pointer, value).check_refused(&format!("model.json: {message}"));
    };
    with(
        "/learner/objective/name",
        json!("reg:squarederror"),
        "learner.objective.name: found \"reg:squarederror\", expected \"binary:logistic\" or \"reg:logistic\"; its \
         predictions are no probabilities: train on labels 0 and 1 with objective binary:logistic",
    );
    let one = "; a model has one probability, that of a spike: train on labels 0 and 1 with objective binary:logistic";
    with(
        "/learner/objective/name",
        json!("multi:softprob"),
        &format!(
            "learner.objective.name: found \"multi:softprob\", expected \"binary:logistic\" or \"reg:logistic\"{one}"
        ),
    );
    with(
        "/learner/objective/name",
        json!("binary:logitraw"),
        "learner.objective.name: found \"binary:logitraw\", expected \"binary:logistic\" or \"reg:logistic\"; it is \
         trained alike, so set_param({\"objective\": \"binary:logistic\"}) and save it again",
    );
    with(
        "/learner/gradient_booster/name",
        json!("gblinear"),
        "learner.gradient_booster.name: found \"gblinear\", expected \"gbtree\" or \"dart\"; it has weights and no trees: \
         write them as a model of kind logistic (docs/models.md)",
    );
    let version = "expected a version 2 or 3 of XGBoost; load the model with one of them and save it again";
    with("/version", json!([1, 7, 6]), &format!("version: found [1, 7, 6], {version}"));
    with("/version", json!([]), &format!("version: found [], {version}"));
    with("/version", Value::Null, &format!("version: found nothing, {version}"));
    let parameters = "/learner/learner_model_param";
    let shown = "learner.learner_model_param";
    with(
        &format!("{parameters}/num_class"),
        json!("3"),
        &format!("{shown}.num_class: found \"3\", expected \"0\" or \"1\"{one}"),
    );
    with(
        &format!("{parameters}/num_target"),
        json!("2"),
        &format!("{shown}.num_target: found \"2\", expected \"1\"{one}"),
    );
    for bad in ["[1E-1,2E-1]", "0", "1", "nan", "-5E-1", "half", ""] {
        with(
            &format!("{parameters}/base_score"),
            json!(bad),
            &format!("{shown}.base_score: found {bad:?}, expected one probability above 0 and below 1"),
        );
    }
    with(
        &format!("{parameters}/num_feature"),
        json!("13"),
        &format!(
            "{shown}.num_feature: found \"13\", expected \"12\", the number of features in the model file"
        ),
    );
    with(
        "/learner/feature_names/1",
        json!("return_5s"),
        "learner.feature_names[1]: found \"return_5s\", expected \"return_1s\", which has this place in the model file",
    );
    with(
        "/learner/feature_types",
        json!(["float", "c"]),
        "learner.feature_types[1]: found \"c\", a category, expected numbers alone; train without enable_categorical",
    );
    let tree = "/learner/gradient_booster/model/trees/7";
    let shown = "learner.gradient_booster.model.trees[7]";
    with(
        &format!("{tree}/split_type/2"),
        json!(1),
        &format!("{shown}.split_type: found a split by category at node 2, expected splits at numbers alone"),
    );
    with(
        &format!("{tree}/split_indices/0"),
        json!(12),
        &format!("{shown}.split_indices: found 12 at node 0, expected 0 to 11"),
    );
    with(
        &format!("{tree}/left_children/0"),
        json!(-2),
        &format!("{shown}.left_children: found -2 at node 0, expected a node"),
    );
    with(
        &format!("{tree}/tree_param/size_leaf_vector"),
        json!("3"),
        &format!("{shown}.tree_param.size_leaf_vector: found \"3\", expected \"1\": leaves of one number"),
    );
    let trees = "learner.gradient_booster.model.trees";
    with(&format!("{tree}/left_children/0"), json!(0), &format!("{trees}: tree 7: two ways lead to node 0"));
    with(
        &format!("{tree}/right_children/0"),
        json!(100_000),
        &format!("{trees}: tree 7: there is no node 100000"),
    );
    with(
        "/learner/gradient_booster/model/trees",
        json!([]),
        &format!("{trees}: found 0 trees, expected 1 to 10000"),
    );
    with(
        &format!("{tree}/default_left"),
        json!([1]),
        &format!("{shown}.default_left: found 1 entries, expected 119, as in left_children"),
    );
}

#[test]
fn a_file_of_another_sort_is_refused() {
    let model = Model3::new();
    let advice = "; expected a model that XGBoost saved as JSON, with save_model(\"model.json\")";
    let check = |text: &[u8], message: &str| {
        let path = model.files.add("model.yaml", &model.yaml);
        model.files.add("model.json", text);
        let errors = load(&path).unwrap_err();
        let (_, errors) = errors.split_once("model.json: ").unwrap();
        assert_eq!(errors, format!("{message}{advice}"));
    };
    check(b"no: json", "expected ident at line 1 column 2");
    let text = model.json.to_string();
    check(
        &text.as_bytes()[..text.len() / 2],
        &format!("EOF while parsing a list at line 1 column {}", text.len() / 2),
    );
    let text = text.replacen("\"binary:logistic\"", "3", 1);
    let column = text.find("\"name\":3").unwrap() + "\"name\":3".len();
    check(
        text.as_bytes(),
        &format!("invalid type: integer `3`, expected a string at line 1 column {column}"),
    );
}

#[test]
fn all_that_is_wrong_with_an_xgboost_file_is_told_at_once() {
    let model = Model3::new()
        .with("/learner/objective/name", json!("rank:ndcg"))
        .with("/learner/gradient_booster/name", json!("gblinear"))
        .with("/learner/gradient_booster/model/trees/3/split_type/0", json!(1));
    assert_eq!(
        model.load().unwrap_err().lines().count(),
        2,
        "of the trees only where the rest is understood"
    );
    let trees = "/learner/gradient_booster/model/trees";
    let model = Model3::new()
        .with(&format!("{trees}/3/split_type/0"), json!(1))
        .with(&format!("{trees}/5/split_indices/0"), json!(99));
    assert_eq!(model.load().unwrap_err().lines().count(), 2);
}

#[test]
fn bad_model_files_are_refused() {
    let check = |from: &str, to: &str, message: &str| Model3::new().yaml(from, to).check_refused(message);
    check(
        "trees: model.json",
        "trees: other.json",
        "model.yaml:19: trees: could not read \"other.json\": No such file or directory (os error 2)",
    );
    check("trees: model.json", "trees: .", "model.yaml:19: trees: could not read \".\": it is a folder");
    check("trees: model.json\n", "", "model.yaml:2: trees: missing, expected a file name, or builtin:NAME");
    check(
        "{name: n, null: missing}",
        "{name: n, null: gone}",
        "model.yaml:18: features[11].null: found \"gone\", expected a finite number or missing or refuse",
    );
    check(
        "{name: n, null: missing}",
        "{name: ret_std, null: missing}",
        "model.yaml:18: features[11].name: found a second time\n\
         model.json: learner.feature_names[11]: found \"n\", expected \"ret_std\", which has this place in the model file",
    );
    check(
        "{name: n, null: missing}",
        "{name: n, null: missing, weight: 1}",
        "model.yaml:18: features[11].weight: unknown key, expected one of name, null",
    );
    check(
        "  - {name: n, null: missing}\n",
        "",
        "model.json: learner.learner_model_param.num_feature: found \"12\", expected \"11\", \
         the number of features in the model file",
    );
}

#[test]
fn a_model_without_names_and_one_with_other_names_for_the_same_are_read() {
    Model3::new().with("/learner/feature_names", json!([])).load().unwrap();
    Model3::new().with("/learner/feature_names/0", json!("volatility")).load().unwrap();
    Model3::new().yaml("name: ret_std", "name: volatility").load().unwrap();
    Model3::new().with("/learner/learner_model_param/base_score", json!("5E-1")).load().unwrap();
}

#[test]
fn nulls_follow_the_models_policy() {
    let probability = |yaml: &str| {
        let model = Model3::new().yaml("{name: ret_std, null: missing}", yaml).load().unwrap();
        predict_by(&model, |feature| if feature == Feature::RetStd { f64::NAN } else { 0.5 })
    };
    let given = |value: f64| {
        let model = Model3::new().load().unwrap();
        predict_by(&model, |feature| if feature == Feature::RetStd { value } else { 0.5 }).probability
    };
    assert_eq!(probability("{name: ret_std, null: missing}").probability, given(f64::NAN));
    assert_eq!(probability("{name: ret_std, null: 0}").probability, given(0.0));
    assert_eq!(probability("{name: ret_std, null: 1}").probability, given(1.0));
    assert!(given(0.0) != given(1.0));
    let refused = probability("{name: ret_std, null: refuse}");
    assert!(refused.probability.is_nan() && refused.spike.is_none());
}

#[test]
fn a_model_that_passes_its_check_has_all_that_its_trees_look_at() {
    let good = Model3::new().load().unwrap();
    let check = |change: fn(&mut ModelKind), problem: &str| {
        let mut model = good.clone();
        change(&mut model.kind);
        assert_eq!(model.check(HORIZONS.len()).unwrap_err(), problem);
    };
    good.check(HORIZONS.len()).unwrap();
    assert_eq!(good.check(3).unwrap_err(), "a model names return 3, but the job has 3 return horizons");
    macro_rules! features {
        ($features:ident, $change:expr) => {
            |kind| {
                let ModelKind::Trees(BoostedTrees { features: $features, .. }) = kind else {
                    panic!("trees")
                };
                $change;
            }
        };
    }
    check(features!(features, features.truncate(5)), "a tree looks at feature 11 of 5, counted from 0");
    check(features!(features, features.clear()), "a model of trees has 1 to 31 features");
    check(
        features!(features, features.extend(features.clone().repeat(2))),
        "a model of trees has 1 to 31 features",
    );
    check(
        features!(features, features[0].null = Some(NullPolicy::Value(f64::NAN))),
        "a model's numbers are finite",
    );
}

#[test]
fn the_hash_is_of_both_files_and_can_be_pinned() {
    let model = Model3::new();
    let hash = model.load().unwrap().sha256;
    let both = [model.yaml.as_bytes(), model.json.to_string().as_bytes()].concat();
    assert_eq!(*hash, *sha256(&both));
    let config = |pin: &str| {
        let main = model.files.add("my.yaml", format!("model: {{ml: model.yaml, sha256: \"{pin}\"}}"));
        Config::load(&[main], [], Mode::Backtest)
    };
    assert_eq!(config(&hash).unwrap().settings.parameters.model.sha256, hash);
    model.files.add("model.json", model.json.to_string().replacen("0.1", "0.2", 1));
    assert!(config(&hash).unwrap_err().to_string().contains("model.sha256: found"));
}

#[test]
fn check_config_names_the_kind_and_hash() {
    let model = data("models/xgboost-3/model.yaml");
    let mut command = foreshock();
    command.arg("check-config").env("FORESHOCK_MODEL__ML", &model);
    let ended = finish(command, None);
    let shown = String::from_utf8(ended.stdout).unwrap();
    let hash = load(&model).unwrap().sha256;
    assert!(shown.contains(&format!("# model: spikes 1 (trees), sha256 {hash}")), "{shown}");
}

#[test]
fn a_control_record_carries_the_trees() {
    let model = data("models/xgboost-3/model.yaml");
    let mut command = foreshock();
    command.args(["control", "model", "--dry-run", "--id", "t"]).arg(&model);
    let ended = finish(command, None);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let record = String::from_utf8(ended.stdout).unwrap();
    assert!(record.len() < 40_000, "{} bytes", record.len());

    let files = Files::new();
    let lines = slice("btcusdt-usdm.log.zst");
    let at = 4_000;
    let line = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
    let mut changed: Vec<String> = lines.iter().map(|bytes| line(bytes)).collect();
    changed.insert(at, record);
    let path = files.add("btcusdt-usdm.log", changed.concat());
    let plain = files.add("plain/btcusdt-usdm.log", lines.concat());
    let head = files.add("head/btcusdt-usdm.log", lines[..at].concat());
    let ran = Backtest::of([&path]).workers(1).run();
    assert_same(&ran, &Backtest::of([&path]).workers(2).run());
    let (before, head) = (Backtest::of([&plain]).run(), Backtest::of([&head]).run());
    let trees = Backtest::of([&plain]).env("FORESHOCK_MODEL__ML", model.to_str().unwrap()).run();
    let ticks = head.lines("scored").len();
    let expected = [&before.lines("scored")[..ticks], &trees.lines("scored")[ticks..]].concat();
    assert!(ticks > 100 && ran.lines("scored") == expected);
}
