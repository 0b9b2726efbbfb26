//! A volatility-spike model as data (docs/definitions.md, "Scoring"): a file for each kind.

pub mod baseline;
pub mod float32;
pub mod forest;
pub mod logistic;
pub mod trees;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use baseline::Baseline;
pub use logistic::{Logistic, Term, Transform};
pub use trees::{BoostedTrees, TreeFeature};

use crate::feature::Feature;
use crate::time::Nanos;

/// The longest name of a model.
const NAME_MAX: usize = 256;

/// What every kind of model can do.
pub trait KindOfModel {
    /// The name in model files.
    const NAME: &'static str;
    /// `baseline` or `ml`.
    const VARIANT: &'static str;

    /// The probability of a spike given these values, NaN being null.
    ///
    /// # Errors
    /// Says which value the model refuses.
    fn probability(&self, value: impl Fn(Feature) -> f64) -> Result<f64, Refusal>;

    /// What a job with this many return horizons could not score by, if anything.
    ///
    /// # Errors
    /// Says which rule is broken.
    fn check(&self, horizons: usize) -> Result<(), String>;

    /// What it is made of, for people.
    fn describe(&self) -> ModelShape;
}

/// How a model comes to its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    Baseline(Baseline),
    Logistic(Logistic),
    Trees(BoostedTrees),
}

/// Does the same with the model of whatever kind.
macro_rules! of_each_kind {
    ($kind:expr, $model:ident => $does:expr) => {
        match $kind {
            ModelKind::Baseline($model) => $does,
            ModelKind::Logistic($model) => $does,
            ModelKind::Trees($model) => $does,
        }
    };
}

impl ModelKind {
    /// All kinds: the name in model files, and the variant.
    pub const ALL: [(&str, &str); 3] = [
        (Baseline::NAME, Baseline::VARIANT),
        (Logistic::NAME, Logistic::VARIANT),
        (BoostedTrees::NAME, BoostedTrees::VARIANT),
    ];

    /// The name in model files.
    pub fn name(&self) -> &'static str {
        fn name<K: KindOfModel>(_: &K) -> &'static str {
            K::NAME
        }
        of_each_kind!(self, model => name(model))
    }
}

/// What stands in for a null.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullPolicy {
    Value(f64),
    /// No prediction; counted as refused.
    Refuse,
}

impl NullPolicy {
    /// The value of the feature, or what stands in for it.
    fn value_or(self, feature: Feature, value: f64) -> Result<f64, Refusal> {
        match self {
            _ if !value.is_nan() => Ok(value),
            NullPolicy::Value(value) => Ok(value),
            NullPolicy::Refuse => Err(Refusal::Null(feature)),
        }
    }

    /// The number that has to be finite.
    fn number(self) -> f64 {
        match self {
            NullPolicy::Value(value) => value,
            NullPolicy::Refuse => 0.0,
        }
    }
}

/// Why a model has no word on a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal {
    /// This feature is null, and the model needs it.
    Null(Feature),
    /// The model takes the logarithm of this feature, which has this value.
    NotPositive(Feature, f64),
    /// The values are so large that the model's sum is no number.
    NotANumber,
}

/// What a model is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelShape {
    /// In the order in which they are added, or in which trees count them.
    pub features: Vec<FeatureUse>,
    /// Where the sum of a logistic model starts.
    pub intercept: Option<f64>,
    /// The z-score at which a baseline's probability is one half.
    pub threshold: Option<f64>,
    /// What a model of trees consists of.
    pub trees: Option<ForestSize>,
}

/// The size of a model of trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForestSize {
    /// How many trees.
    pub count: usize,
    /// Of all trees together, leaves included.
    pub nodes: usize,
    /// The most splits from a root to a leaf.
    pub depth: usize,
}

/// How a model takes one feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureUse {
    pub feature: Feature,
    /// `None`: trees send a null the way that they learnt.
    pub null: Option<NullPolicy>,
    pub transform: Transform,
    /// Mean and scale, where the model standardises it.
    pub standardise: Option<(f64, f64)>,
    /// `None` where the model has no weights.
    pub weight: Option<f64>,
}

impl FeatureUse {
    /// Taken as it is.
    fn plain(feature: Feature, null: Option<NullPolicy>) -> FeatureUse {
        FeatureUse { feature, null, transform: Transform::None, standardise: None, weight: None }
    }
}

/// A model that was read whole and checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub name: Arc<str>,
    pub version: Arc<str>,
    pub kind: ModelKind,
    /// Probability from which a tick counts as a spike: in 0..=1.
    pub decision_threshold: f64,
    /// How far ahead the model looks.
    pub horizon: Nanos,
    /// SHA-256 of the file, in hex; of trees: of the file and that of the trees, one behind the other.
    pub sha256: Arc<str>,
}

impl Model {
    /// `baseline` or `ml`.
    pub fn variant(&self) -> &'static str {
        fn variant<K: KindOfModel>(_: &K) -> &'static str {
            K::VARIANT
        }
        of_each_kind!(&self.kind, model => variant(model))
    }

    /// The probability of a spike given these values, NaN being null, and whether it reaches the decision threshold.
    ///
    /// # Errors
    /// Says what the model refuses.
    pub fn score(&self, value: impl Fn(Feature) -> f64) -> Result<(f64, bool), Refusal> {
        let probability = of_each_kind!(&self.kind, model => model.probability(value))?;
        if probability.is_nan() {
            return Err(Refusal::NotANumber);
        }
        Ok((probability, probability >= self.decision_threshold))
    }

    /// What it is made of, for people.
    pub fn describe(&self) -> ModelShape {
        of_each_kind!(&self.kind, model => model.describe())
    }

    /// What a job with this many return horizons could not score by, if anything.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn check(&self, horizons: usize) -> Result<(), String> {
        let lengths = [self.name.len(), self.version.len(), self.sha256.len()];
        if lengths[..2].contains(&0) || lengths.iter().any(|length| *length > NAME_MAX) {
            return Err(format!("a model's name and version have 1 to {NAME_MAX} characters"));
        }
        if !(0.0..=1.0).contains(&self.decision_threshold) {
            return Err("a model's decision threshold lies in 0..=1".to_string());
        }
        if self.horizon <= 0 {
            return Err("a model looks ahead".to_string());
        }
        of_each_kind!(&self.kind, model => model.check(horizons))
    }
}

fn check_numbers(numbers: &[f64]) -> Result<(), String> {
    match numbers.iter().all(|number| number.is_finite()) {
        true => Ok(()),
        false => Err("a model's numbers are finite".to_string()),
    }
}

/// 1 / (1 + e^-x).
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}
