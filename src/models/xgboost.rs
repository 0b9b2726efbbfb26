//! Reads the trees of a model that XGBoost saved as JSON.
//!
//! Only what is understood whole is taken: one probability from `binary:logistic`, the plain booster, splits at
//! numbers. Whatever else could change the sum is looked at, and refused by name.

use foreshock_operators::feature::Feature;
use foreshock_operators::model::forest::{Split, TreeNode, Trees, logit};
use foreshock_operators::time::Nanos;
use serde::Deserialize;

/// What is wrong, and at which key.
#[derive(Debug)]
pub struct TreeFileProblem {
    pub path: String,
    pub problem: String,
}

/// The versions of XGBoost whose files mean what this reader takes them to mean.
const VERSIONS: [u64; 2] = [2, 3];

/// The place of a child where there is none.
const NONE: i64 = -1;

#[derive(Deserialize)]
struct File {
    version: Vec<u64>,
    learner: Learner,
}

#[derive(Deserialize)]
struct Learner {
    objective: Named,
    learner_model_param: Parameters,
    gradient_booster: Booster,
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

#[derive(Deserialize)]
struct Booster {
    name: String,
    /// Boosters of other names have other models, or none.
    #[serde(default)]
    model: Option<Forest>,
}

#[derive(Deserialize)]
struct Forest {
    trees: Vec<Tree>,
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
    let file: File = serde_json::from_slice(bytes).map_err(|error| {
        let expected = "expected a model that XGBoost saved as JSON, with save_model(\"model.json\")";
        vec![TreeFileProblem { path: String::new(), problem: format!("{error}; {expected}") }]
    })?;
    let mut problems = Problems::default();
    let base_margin = problems.check(&file, features, horizons);
    // The trees of something else can't be judged.
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    let forest = file.learner.gradient_booster.model.map_or(Vec::new(), |model| model.trees);
    let mut trees = Vec::with_capacity(forest.len());
    for (at, tree) in forest.iter().enumerate() {
        match tree.nodes(features.len()) {
            Ok(nodes) => trees.push(nodes),
            Err((key, problem)) => {
                problems.add(format!("learner.gradient_booster.model.trees[{at}].{key}"), problem);
            }
        }
    }
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    Trees::new(base_margin, &trees).map_err(|problem| {
        vec![TreeFileProblem { path: "learner.gradient_booster.model.trees".to_owned(), problem }]
    })
}

#[derive(Default)]
struct Problems(Vec<TreeFileProblem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, problem: impl Into<String>) {
        self.0.push(TreeFileProblem { path: path.into(), problem: problem.into() });
    }

    /// Notes whatever is there beside the trees and isn't understood; gives the base margin.
    fn check(&mut self, file: &File, features: &[Feature], horizons: &[Nanos]) -> f32 {
        let Learner { objective, learner_model_param: parameters, gradient_booster: booster, .. } =
            &file.learner;
        if !file.version.first().is_some_and(|major| VERSIONS.contains(major)) {
            self.add("version", format!("found {:?}, expected a version 2 or 3 of XGBoost", file.version));
        }
        self.expect("learner.objective.name", Some(&objective.name), &["binary:logistic"]);
        self.expect("learner.gradient_booster.name", Some(&booster.name), &["gbtree"]);
        let key = |name: &str| format!("learner.learner_model_param.{name}");
        self.expect(&key("num_class"), parameters.num_class.as_deref(), &["0", "1"]);
        self.expect(&key("num_target"), parameters.num_target.as_deref(), &["1"]);
        self.names(&file.learner, features, horizons);
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

    /// Refuses a text that is none of these, where there is one.
    fn expect(&mut self, path: &str, found: Option<&str>, expected: &[&str]) {
        if let Some(found) = found.filter(|found| !expected.contains(found)) {
            let words: Vec<String> = expected.iter().map(|word| format!("{word:?}")).collect();
            self.add(path, format!("found {found:?}, expected {}", words.join(" or ")));
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
            let problem = "found \"c\", a category, expected numbers alone";
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
    /// The nodes of a tree over so many features; where that fails the key to blame, and why.
    fn nodes(&self, features: usize) -> Result<Vec<TreeNode>, (&'static str, String)> {
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
        (0..count).map(|at| self.node(at, features)).collect()
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
