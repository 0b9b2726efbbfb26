//! A volatility-spike model as data (SPEC 7).

use std::sync::Arc;

use crate::stages::{Features, MAX_HORIZONS};
use crate::time::Nanos;

/// A feature that a model may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    None,
    Abs,
    /// Natural logarithm; a tick with a value of 0 or below is refused.
    Log,
    Square,
}

/// What stands in for a null.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NullPolicy {
    Value(f64),
    /// No prediction; counted as refused.
    Refuse,
}

/// One term of a logistic model: `weight * (transform(feature) - mean) / scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    pub feature: FeatureRef,
    pub null: NullPolicy,
    pub transform: Transform,
    /// Mean and scale, where the model standardises this feature.
    pub standardise: Option<(f64, f64)>,
    pub weight: f64,
}

/// How a model comes to its probability.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// sigmoid(`volatility_z` - threshold); null `volatility_z` is handled by the policy.
    Baseline { threshold: f64, null: NullPolicy },
    /// sigmoid(intercept + the terms, summed in their order).
    Logistic { intercept: f64, terms: Vec<Term> },
}

/// A model that was read whole and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub name: Arc<str>,
    pub version: Arc<str>,
    pub kind: Kind,
    /// Probability from which a tick counts as a spike: in 0..=1.
    pub decision_threshold: f64,
    /// How far ahead the model looks.
    pub horizon: Nanos,
    /// SHA-256 of the file, in hex.
    pub sha256: Arc<str>,
}

impl Model {
    /// `baseline` or `ml`.
    pub fn variant(&self) -> &'static str {
        match self.kind {
            Kind::Baseline { .. } => "baseline",
            Kind::Logistic { .. } => "ml",
        }
    }
}
