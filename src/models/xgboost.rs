//! Reads the trees of a model that XGBoost saved as JSON.
//!
//! Only what is understood whole is taken: one probability of `binary:logistic` or `reg:logistic`, the boosters of
//! trees, splits at numbers. Whatever else could change the sum is looked at, and refused by name.
//!
//! ```text
//! bytes ─► which program's? ─► Head (all but trees) ─► what it is, refused by name ─► File ─► trees that count
//! ```

use std::collections::BTreeMap;

use foreshock_operators::feature::Feature;
use foreshock_operators::model::forest::{Split, TreeNode, Trees, logit};
use foreshock_operators::time::Nanos;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::foreign;

/// What is wrong, and at which key.
#[derive(Debug)]
pub struct TreeFileProblem {
    pub path: String,
    pub problem: String,
}

/// The versions of XGBoost whose files mean what this reader takes them to mean.
const VERSIONS: [u64; 2] = [2, 3];

/// Boosters of trees.
const GBTREE: &str = "gbtree";
const DART: &str = "dart";
/// Objectives whose prediction is the sigmoid of the sum.
const OBJECTIVES: [&str; 2] = ["binary:logistic", "reg:logistic"];

const MODEL: &str = "learner.gradient_booster.model";
const DART_MODEL: &str = "learner.gradient_booster.gbtree.model";
/// What early stopping notes.
const BEST_ITERATION: &str = "best_iteration";
const BEST: &str = "learner.attributes.best_iteration";

const ONE_PROBABILITY: &str =
    "; a model has one probability, that of a spike: train on labels 0 and 1 with objective binary:logistic";

/// What to do about an objective that isn't read.
fn objective_way_out(name: &str) -> &'static str {
    match name {
        "binary:logitraw" => {
            "; it is trained alike, so set_param({\"objective\": \"binary:logistic\"}) and save it again"
        }
        "multi:softprob" | "multi:softmax" => ONE_PROBABILITY,
        _ => "; its predictions are no probabilities: train on labels 0 and 1 with objective binary:logistic",
    }
}

/// What to do about a booster that isn't read.
fn booster_way_out(name: &str) -> &'static str {
    match name {
        "gblinear" => {
            "; it has weights and no trees: write them as a model of kind logistic (docs/models.md)"
        }
        _ => "",
    }
}

/// The place of a child where there is none.
const NONE: i64 = -1;

/// All but the trees: what is in it decides whether there is a use in reading those.
#[derive(Deserialize)]
struct Head {
    /// `None` where it is none of XGBoost's.
    #[serde(default, deserialize_with = "version")]
    version: Option<Vec<u64>>,
    learner: Option<Learner>,
    // By what follows files of other programs show themselves.
    tree_info: Option<IgnoredAny>,
    oblivious_trees: Option<IgnoredAny>,
    features_info: Option<IgnoredAny>,
    #[serde(rename = "Config")]
    config: Option<IgnoredAny>,
    #[serde(rename = "Model")]
    model: Option<IgnoredAny>,
    nodeid: Option<IgnoredAny>,
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u64>>, D::Error> {
    let version = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(version).ok())
}

impl Head {
    /// What a file without a learner is.
    fn stranger(&self) -> String {
        if self.tree_info.is_some() {
            foreign::finding("a model of LightGBM", foreign::TRAIN)
        } else if self.oblivious_trees.is_some() || self.features_info.is_some() {
            foreign::finding("a model of CatBoost", foreign::TRAIN)
        } else if self.config.is_some() || self.model.is_some() {
            foreign::finding("a snapshot of XGBoost, configuration and model together", foreign::AS_JSON)
        } else if self.nodeid.is_some() {
            foreign::finding(foreign::DUMP, foreign::AS_JSON)
        } else {
            foreign::finding("JSON without a learner, expected a model of XGBoost", foreign::AS_JSON)
        }
    }
}

#[derive(Deserialize)]
struct Learner {
    objective: Named,
    learner_model_param: Parameters,
    /// Without its model: boosters of other names have other models, or none.
    gradient_booster: Named,
    /// What was noted of the model, by XGBoost or by hand.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    feature_names: Vec<String>,
    #[serde(default)]
    feature_types: Vec<String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// XGBoost writes numbers as text here.
#[derive(Deserialize)]
struct Parameters {
    base_score: String,
    num_feature: String,
    #[serde(default)]
    num_class: Option<String>,
    #[serde(default)]
    num_target: Option<String>,
}

/// The trees of a file of which the rest is understood.
#[derive(Deserialize)]
struct File {
    learner: TreeLearner,
}

#[derive(Deserialize)]
struct TreeLearner {
    gradient_booster: TreeBooster,
}

#[derive(Deserialize)]
struct TreeBooster {
    #[serde(default)]
    model: Option<Forest>,
    #[serde(default)]
    gbtree: Option<Inner>,
    /// What each tree of `dart` counts.
    #[serde(default)]
    weight_drop: Option<Vec<f32>>,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    model: Option<Forest>,
}

#[derive(Deserialize)]
struct Forest {
    trees: Vec<Tree>,
    /// Where each iteration's trees begin, and where the last one's end.
    #[serde(default)]
    iteration_indptr: Vec<usize>,
    gbtree_model_param: Option<ForestParameters>,
}

#[derive(Deserialize)]
struct ForestParameters {
    #[serde(default)]
    num_parallel_tree: Option<String>,
}

/// A tree, its nodes in parallel lists.
#[derive(Deserialize)]
struct Tree {
    left_children: Vec<i64>,
    right_children: Vec<i64>,
    split_indices: Vec<u64>,
    /// Thresholds, and the values of leaves: read as 32-bit floats at once, since rounding twice may go astray.
    split_conditions: Vec<f32>,
    default_left: Vec<Flag>,
    #[serde(default)]
    split_type: Vec<u8>,
    tree_param: TreeParameters,
}

#[derive(Deserialize)]
struct TreeParameters {
    #[serde(default)]
    size_leaf_vector: Option<String>,
}

/// A number or a truth value, as the version has it.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Flag {
    Number(u8),
    Truth(bool),
}

impl Flag {
    fn is_set(self) -> bool {
        match self {
            Flag::Number(number) => number != 0,
            Flag::Truth(truth) => truth,
        }
    }
}

/// Reads the trees for a model of these features, which a job with these return horizons names.
///
/// # Errors
/// All that keeps the file from being read as such a model.
pub fn read(bytes: &[u8], features: &[Feature], horizons: &[Nanos]) -> Result<Trees, Vec<TreeFileProblem>> {
    let refused = |path: &str, problem: String| vec![TreeFileProblem { path: path.to_owned(), problem }];
    if let Some(problem) = foreign::recognise(bytes) {
        return Err(refused("", problem));
    }
    let unread = |error: serde_json::Error| {
        let expected = "expected a model that XGBoost saved as JSON, with save_model(\"model.json\")";
        refused("", format!("{error}; {expected}"))
    };
    let head: Head = serde_json::from_slice(bytes).map_err(unread)?;
    let Some(learner) = &head.learner else { return Err(refused("", head.stranger())) };
    let mut problems = Problems::default();
    let base_margin = problems.check(head.version.as_deref(), learner, features, horizons);
    // The trees of something else can't be judged.
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    let file: File = serde_json::from_slice(bytes).map_err(unread)?;
    let booster = file.learner.gradient_booster;
    let is_dart = learner.gradient_booster.name == DART;
    let (forest_path, model) = match is_dart {
        true => (DART_MODEL, booster.gbtree.and_then(|inner| inner.model)),
        false => (MODEL, booster.model),
    };
    let Some(mut forest) = model else {
        let problem = format!("missing: this is a configuration without its model; {}", foreign::AS_JSON);
        return Err(refused(forest_path, problem));
    };
    let all = forest.trees.len();
    let weights = match booster.weight_drop {
        _ if !is_dart => Vec::new(),
        Some(weights) if weights.len() == all => weights,
        weights => {
            let found = weights.map_or(0, |weights| weights.len());
            let problem = format!("found {found} entries, expected {all}, one for each tree");
            return Err(refused("learner.gradient_booster.weight_drop", problem));
        }
    };
    let best_iteration = learner.attributes.get(BEST_ITERATION);
    let count = forest.trees_that_count(best_iteration).map_err(|problem| refused(BEST, problem))?;
    forest.trees.truncate(count);
    let mut trees = Vec::with_capacity(forest.trees.len());
    for (at, tree) in forest.trees.iter().enumerate() {
        // XGBoost multiplies what a leaf gives before it adds it, in 32 bits too.
        match tree.nodes(features.len(), weights.get(at).copied()) {
            Ok(nodes) => trees.push(nodes),
            Err((key, problem)) => problems.add(format!("{forest_path}.trees[{at}].{key}"), problem),
        }
    }
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    Trees::new(base_margin, &trees).map_err(|problem| refused(&format!("{forest_path}.trees"), problem))
}

impl Forest {
    /// How many trees predictions are made of: those up to the best iteration, where the training noted one.
    fn trees_that_count(&self, best_iteration: Option<&String>) -> Result<usize, String> {
        let all = self.trees.len();
        let Some(text) = best_iteration else { return Ok(all) };
        let parallel =
            match self.gbtree_model_param.as_ref().and_then(|param| param.num_parallel_tree.as_deref()) {
                None => 1,
                Some(text) => text.parse::<usize>().ok().filter(|count| *count > 0).unwrap_or(1),
            };
        let ends: Vec<usize> = match self.iteration_indptr.get(1..) {
            Some(ends) if !ends.is_empty() => ends.to_vec(),
            _ => (1..=all / parallel).map(|iteration| iteration * parallel).collect(),
        };
        let end =
            text.parse::<usize>().ok().and_then(|best| ends.get(best)).filter(|end| (1..=all).contains(*end));
        end.copied().ok_or_else(|| {
            format!(
                "found {text:?}, expected an iteration of the model, 0 to {}; set_attr(best_iteration=None) in Python takes \
                 it away, and all trees count",
                ends.len().saturating_sub(1)
            )
        })
    }
}

#[derive(Default)]
struct Problems(Vec<TreeFileProblem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, problem: impl Into<String>) {
        self.0.push(TreeFileProblem { path: path.into(), problem: problem.into() });
    }

    /// Notes whatever is there beside the trees and isn't understood; gives the base margin.
    fn check(
        &mut self,
        version: Option<&[u64]>,
        learner: &Learner,
        features: &[Feature],
        horizons: &[Nanos],
    ) -> f32 {
        let Learner { objective, learner_model_param: parameters, gradient_booster: booster, .. } = learner;
        if !version.and_then(<[u64]>::first).is_some_and(|major| VERSIONS.contains(major)) {
            let found = version.map_or("nothing".to_owned(), |version| format!("{version:?}"));
            let way_out = "load the model with one of them and save it again";
            self.add("version", format!("found {found}, expected a version 2 or 3 of XGBoost; {way_out}"));
        }
        let path = "learner.objective.name";
        self.expect(path, Some(&objective.name), &OBJECTIVES, objective_way_out(&objective.name));
        let path = "learner.gradient_booster.name";
        self.expect(path, Some(&booster.name), &[GBTREE, DART], booster_way_out(&booster.name));
        let key = |name: &str| format!("learner.learner_model_param.{name}");
        self.expect(&key("num_class"), parameters.num_class.as_deref(), &["0", "1"], ONE_PROBABILITY);
        self.expect(&key("num_target"), parameters.num_target.as_deref(), &["1"], ONE_PROBABILITY);
        self.names(learner, features, horizons);
        let count = features.len().to_string();
        if parameters.num_feature != count {
            let expected = format!("expected {count:?}, the number of features in the model file");
            self.add(key("num_feature"), format!("found {:?}, {expected}", parameters.num_feature));
        }
        base_margin(&parameters.base_score).unwrap_or_else(|| {
            let found = &parameters.base_score;
            self.add(
                key("base_score"),
                format!("found {found:?}, expected one probability above 0 and below 1"),
            );
            0.0
        })
    }

    /// Refuses a text that is none of these, where there is one, and says what to do instead.
    fn expect(&mut self, path: &str, found: Option<&str>, expected: &[&str], way_out: &str) {
        if let Some(found) = found.filter(|found| !expected.contains(found)) {
            let words: Vec<String> = expected.iter().map(|word| format!("{word:?}")).collect();
            self.add(path, format!("found {found:?}, expected {}{way_out}", words.join(" or ")));
        }
    }

    fn names(&mut self, learner: &Learner, features: &[Feature], horizons: &[Nanos]) {
        for (at, (name, feature)) in learner.feature_names.iter().zip(features).enumerate() {
            if Feature::named(name, horizons) != Some(*feature) {
                let expected = feature.name(horizons);
                self.add(
                    format!("learner.feature_names[{at}]"),
                    format!("found {name:?}, expected {expected:?}, which has this place in the model file"),
                );
            }
        }
        if let Some(at) = learner.feature_types.iter().position(|kind| kind == "c") {
            let problem = "found \"c\", a category, expected numbers alone; train without enable_categorical";
            self.add(format!("learner.feature_types[{at}]"), problem);
        }
    }
}

/// The margin of a base score, which XGBoost writes as `5E-1` or `[5E-1]`.
fn base_margin(text: &str) -> Option<f32> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let score: f32 = bare.parse().ok()?;
    // XGBoost divides by it: of smaller ones it makes an infinite margin.
    (0.0 < score && score < 1.0 && (1.0 / score).is_finite()).then(|| logit(score))
}

impl Tree {
    /// The nodes of a tree over so many features, its leaves times a weight; where that fails the key to blame, and why.
    fn nodes(&self, features: usize, weight: Option<f32>) -> Result<Vec<TreeNode>, (&'static str, String)> {
        let count = self.left_children.len();
        let lengths = [
            ("right_children", self.right_children.len()),
            ("split_indices", self.split_indices.len()),
            ("split_conditions", self.split_conditions.len()),
            ("default_left", self.default_left.len()),
        ];
        if let Some((key, found)) = lengths.into_iter().find(|(_, length)| *length != count) {
            return Err((key, format!("found {found} entries, expected {count}, as in left_children")));
        }
        if let Some(at) = self.split_type.iter().position(|kind| *kind != 0) {
            let problem = format!("found a split by category at node {at}, expected splits at numbers alone");
            return Err(("split_type", problem));
        }
        let leaf_size = self.tree_param.size_leaf_vector.as_deref().unwrap_or("1");
        if !["0", "1"].contains(&leaf_size) {
            let problem = format!("found {leaf_size:?}, expected \"1\": leaves of one number");
            return Err(("tree_param.size_leaf_vector", problem));
        }
        let mut nodes: Vec<TreeNode> =
            (0..count).map(|at| self.node(at, features)).collect::<Result<_, _>>()?;
        if let Some(weight) = weight {
            for node in &mut nodes {
                if let TreeNode::Leaf(value) = node {
                    *value *= weight;
                }
            }
        }
        Ok(nodes)
    }

    fn node(&self, at: usize, features: usize) -> Result<TreeNode, (&'static str, String)> {
        let (left, right) = (self.left_children[at], self.right_children[at]);
        if (left, right) == (NONE, NONE) {
            return Ok(TreeNode::Leaf(self.split_conditions[at]));
        }
        let child = |key, place: i64| {
            usize::try_from(place).map_err(|_| (key, format!("found {place} at node {at}, expected a node")))
        };
        let feature = usize::try_from(self.split_indices[at]).unwrap_or(usize::MAX);
        if feature >= features {
            let problem =
                format!("found {feature} at node {at}, expected 0 to {}", features.saturating_sub(1));
            return Err(("split_indices", problem));
        }
        Ok(TreeNode::Split(Split {
            feature,
            threshold: self.split_conditions[at],
            left: child("left_children", left)?,
            right: child("right_children", right)?,
            null_left: self.default_left[at].is_set(),
        }))
    }
}
