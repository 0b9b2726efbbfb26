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
        "learner.objective.name: found \"reg:squarederror\", expected \"binary:logistic\"",
    );
    with(
        "/learner/gradient_booster/name",
        json!("dart"),
        "learner.gradient_booster.name: found \"dart\", expected \"gbtree\"",
    );
    with("/version", json!([1, 7, 6]), "version: found [1, 7, 6], expected a version 2 or 3 of XGBoost");
    with("/version", json!([]), "version: found [], expected a version 2 or 3 of XGBoost");
    let parameters = "/learner/learner_model_param";
    let shown = "learner.learner_model_param";
    with(
        &format!("{parameters}/num_class"),
        json!("3"),
        &format!("{shown}.num_class: found \"3\", expected \"0\" or \"1\""),
    );
    with(
        &format!("{parameters}/num_target"),
        json!("2"),
        &format!("{shown}.num_target: found \"2\", expected \"1\""),
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
        "learner.feature_types[1]: found \"c\", a category, expected numbers alone",
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
    check(b"", "EOF while parsing a value at line 1 column 0");
    check(b"{}", "missing field `version` at line 1 column 2");
    check(b"{L\x00\x00", "key must be a string at line 1 column 2");
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
        .with("/learner/gradient_booster/name", json!("dart"))
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
