//! Logistic regression: weighted features, summed in their order.

use serde::{Deserialize, Serialize};

use super::{FeatureUse, KindOfModel, ModelShape, NullPolicy, Refusal, check_numbers, sigmoid};
use crate::feature::Feature;

/// The most features a model may have.
pub const TERMS_MAX: usize = 1_000;

/// sigmoid(intercept + the terms, summed in their order).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    pub intercept: f64,
    pub terms: Vec<Term>,
}

/// One term of a logistic model: `weight * (transform(feature) - mean) / scale`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    pub feature: Feature,
    pub null: NullPolicy,
    pub transform: Transform,
    /// Mean and scale, where the model standardises this feature.
    pub standardise: Option<(f64, f64)>,
    pub weight: f64,
}

/// What happens to a feature's value before it is weighed, nulls already replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    #[default]
    None,
    Abs,
    /// Natural logarithm; a tick with a value of 0 or below is refused.
    Log,
    Square,
}

impl Transform {
    /// All transforms by the names printed and configured.
    pub const ALL: [Transform; 4] = [Transform::None, Transform::Abs, Transform::Log, Transform::Square];

    /// The name printed and configured.
    pub const fn name(self) -> &'static str {
        match self {
            Transform::None => "none",
            Transform::Abs => "abs",
            Transform::Log => "log",
            Transform::Square => "square",
        }
    }
}

impl KindOfModel for Logistic {
    const NAME: &'static str = "logistic";
    const VARIANT: &'static str = "ml";

    fn probability(&self, value: impl Fn(Feature) -> f64) -> Result<f64, Refusal> {
        let add = |sum, term: &Term| Ok(sum + term.weigh(value(term.feature))?);
        self.terms.iter().try_fold(self.intercept, add).map(sigmoid)
    }

    fn check(&self, horizons: usize) -> Result<(), String> {
        if self.terms.is_empty() || self.terms.len() > TERMS_MAX {
            return Err(format!("a model has 1 to {TERMS_MAX} features"));
        }
        check_numbers(&[self.intercept])?;
        self.terms.iter().try_for_each(|term| term.check(horizons))
    }

    fn describe(&self) -> ModelShape {
        let features = self.terms.iter().map(|term| FeatureUse {
            transform: term.transform,
            standardise: term.standardise,
            weight: Some(term.weight),
            ..FeatureUse::plain(term.feature, Some(term.null))
        });
        ModelShape { features: features.collect(), intercept: Some(self.intercept), ..ModelShape::default() }
    }
}

impl Term {
    /// What it adds to the sum.
    fn weigh(&self, value: f64) -> Result<f64, Refusal> {
        let value = self.null.value_or(self.feature, value)?;
        let value = match self.transform {
            Transform::None => value,
            Transform::Abs => value.abs(),
            Transform::Square => value * value,
            Transform::Log if value > 0.0 => libm::log(value),
            Transform::Log => return Err(Refusal::NotPositive(self.feature, value)),
        };
        let value = match self.standardise {
            Some((mean, scale)) => (value - mean) / scale,
            None => value,
        };
        Ok(self.weight * value)
    }

    fn check(&self, horizons: usize) -> Result<(), String> {
        let (mean, scale) = self.standardise.unwrap_or((0.0, 1.0));
        check_numbers(&[self.weight, self.null.number(), mean, scale])?;
        if scale <= 0.0 {
            return Err("a feature's scale is above 0".to_string());
        }
        self.feature.check(horizons)
    }
}
