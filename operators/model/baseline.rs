//! The baseline: a z-score of volatility against a threshold.

use serde::{Deserialize, Serialize};

use super::{FeatureUse, KindOfModel, ModelShape, NullPolicy, Refusal, check_numbers, sigmoid};
use crate::feature::Feature;

/// sigmoid(`volatility_z` - threshold); null `volatility_z` is handled by the policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    pub threshold: f64,
    pub null: NullPolicy,
}

impl KindOfModel for Baseline {
    const NAME: &'static str = "baseline";
    const VARIANT: &'static str = "baseline";

    fn probability(&self, value: impl Fn(Feature) -> f64) -> Result<f64, Refusal> {
        let z = self.null.value_or(Feature::VolatilityZ, value(Feature::VolatilityZ))?;
        Ok(sigmoid(z - self.threshold))
    }

    fn check(&self, _: usize) -> Result<(), String> {
        check_numbers(&[self.threshold, self.null.number()])
    }

    fn describe(&self) -> ModelShape {
        let features = vec![FeatureUse::plain(Feature::VolatilityZ, Some(self.null))];
        ModelShape { features, threshold: Some(self.threshold), ..ModelShape::default() }
    }
}
