//! A volatility-spike model as data (docs/definitions.md, "Scoring").

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::stages::{Features, MAX_HORIZONS};
use crate::time::Nanos;
use crate::trees::{FEATURES_MAX, Trees};

/// The most features a model may have.
pub const TERMS_MAX: usize = 1_000;

/// The longest name of a model.
const NAME_MAX: usize = 256;

/// A feature that a model may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureRef {
    Price,
    Midprice,
    SpreadAbs,
    SpreadRel,
    SpreadBps,
    OrderBookImbalance,
    /// A return; the number is the position of its horizon in the job's list.
    Return(u8),
    N,
    RetMean,
    RetStd,
    TradeIntensity,
    VolatilityZ,
    SpreadZ,
}

impl FeatureRef {
    /// Reads the feature from a tick; NaN is null.
    pub fn of(self, features: &Features) -> f64 {
        match self {
            FeatureRef::Price => features.price,
            FeatureRef::Midprice => features.midprice,
            FeatureRef::SpreadAbs => features.spread_abs,
            FeatureRef::SpreadRel => features.spread_rel,
            FeatureRef::SpreadBps => features.spread_bps,
            FeatureRef::OrderBookImbalance => features.order_book_imbalance,
            FeatureRef::Return(horizon) => features.returns[horizon as usize],
            FeatureRef::N => f64::from(features.n),
            FeatureRef::RetMean => features.ret_mean,
            FeatureRef::RetStd => features.ret_std,
            FeatureRef::TradeIntensity => features.trade_intensity,
            FeatureRef::VolatilityZ => features.volatility_z,
            FeatureRef::SpreadZ => features.spread_z,
        }
    }

    /// Whether a job with this many return horizons has it.
    fn check(self, horizons: usize) -> Result<(), String> {
        match self {
            FeatureRef::Return(at) if at as usize >= horizons => {
                Err(format!("a model names return {at}, but the job has {horizons} return horizons"))
            }
            _ => Ok(()),
        }
    }

    /// Finds a feature by its printed name (`volatility` is `ret_std`); `horizons` are the job's return
    /// horizons.
    pub fn named(name: &str, horizons: &[Nanos]) -> Option<FeatureRef> {
        Some(match name {
            "price" => FeatureRef::Price,
            "midprice" => FeatureRef::Midprice,
            "spread_abs" => FeatureRef::SpreadAbs,
            "spread_rel" => FeatureRef::SpreadRel,
            "spread_bps" => FeatureRef::SpreadBps,
            "order_book_imbalance" => FeatureRef::OrderBookImbalance,
            "n" => FeatureRef::N,
            "ret_mean" => FeatureRef::RetMean,
            "ret_std" | "volatility" => FeatureRef::RetStd,
            "trade_intensity" => FeatureRef::TradeIntensity,
            "volatility_z" => FeatureRef::VolatilityZ,
            "spread_z" => FeatureRef::SpreadZ,
            _ => {
                let at = horizons.iter().take(MAX_HORIZONS).position(|h| return_name(*h) == name)?;
                FeatureRef::Return(at as u8)
            }
        })
    }
}

/// The printed name of the return over `horizon`: `return_5s`, or `return_250ms` below whole seconds.
pub fn return_name(horizon: Nanos) -> String {
    if horizon % crate::time::SECOND == 0 {
        format!("return_{}s", horizon / crate::time::SECOND)
    } else {
        format!("return_{}ms", horizon / crate::time::MILLISECOND)
    }
}

/// What happens to a feature's value before it is weighed, nulls already replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    None,
    Abs,
    /// Natural logarithm; a tick with a value of 0 or below is refused.
    Log,
    Square,
}

/// What stands in for a null.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullPolicy {
    Value(f64),
    /// No prediction; counted as refused.
    Refuse,
}

/// One term of a logistic model: `weight * (transform(feature) - mean) / scale`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    pub feature: FeatureRef,
    pub null: NullPolicy,
    pub transform: Transform,
    /// Mean and scale, where the model standardises this feature.
    pub standardise: Option<(f64, f64)>,
    pub weight: f64,
}

/// A feature that trees look at, as a 32-bit float.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeFeature {
    pub feature: FeatureRef,
    /// `None`: a null stays one, and each split sends it the way that it learnt.
    pub null: Option<NullPolicy>,
}

/// How a model comes to its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// sigmoid(`volatility_z` - threshold); null `volatility_z` is handled by the policy.
    Baseline { threshold: f64, null: NullPolicy },
    /// sigmoid(intercept + the terms, summed in their order).
    Logistic { intercept: f64, terms: Vec<Term> },
    /// sigmoid(base margin + the leaves, summed in the order of the trees), in 32 bits.
    Trees { features: Vec<TreeFeature>, trees: Trees },
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
        match self.kind {
            ModelKind::Baseline { .. } => "baseline",
            ModelKind::Logistic { .. } | ModelKind::Trees { .. } => "ml",
        }
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
        match &self.kind {
            ModelKind::Baseline { threshold, null } => check_numbers(&[*threshold, null.number()]),
            ModelKind::Logistic { intercept, terms } => {
                if terms.is_empty() || terms.len() > TERMS_MAX {
                    return Err(format!("a model has 1 to {TERMS_MAX} features"));
                }
                check_numbers(&[*intercept])?;
                terms.iter().try_for_each(|term| term.check(horizons))
            }
            ModelKind::Trees { features, trees } => {
                if features.is_empty() || features.len() > FEATURES_MAX {
                    return Err(format!("a model of trees has 1 to {FEATURES_MAX} features"));
                }
                if trees.features() > features.len() {
                    let (last, count) = (trees.features() - 1, features.len());
                    return Err(format!("a tree looks at feature {last} of {count}, counted from 0"));
                }
                features.iter().try_for_each(|feature| feature.check(horizons))
            }
        }
    }
}

impl Term {
    fn check(&self, horizons: usize) -> Result<(), String> {
        let (mean, scale) = self.standardise.unwrap_or((0.0, 1.0));
        check_numbers(&[self.weight, self.null.number(), mean, scale])?;
        if scale <= 0.0 {
            return Err("a feature's scale is above 0".to_string());
        }
        self.feature.check(horizons)
    }
}

impl TreeFeature {
    fn check(&self, horizons: usize) -> Result<(), String> {
        check_numbers(&[self.null.map_or(0.0, NullPolicy::number)])?;
        self.feature.check(horizons)
    }
}

impl NullPolicy {
    fn number(self) -> f64 {
        match self {
            NullPolicy::Value(value) => value,
            NullPolicy::Refuse => 0.0,
        }
    }
}

fn check_numbers(numbers: &[f64]) -> Result<(), String> {
    match numbers.iter().all(|number| number.is_finite()) {
        true => Ok(()),
        false => Err("a model's numbers are finite".to_string()),
    }
}
