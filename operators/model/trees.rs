//! Gradient-boosted trees over features.

use serde::{Deserialize, Serialize};

use super::forest::{FEATURES_MAX, Slots, Trees};
use super::{FeatureUse, ForestSize, KindOfModel, ModelShape, NullPolicy, Refusal, check_numbers};
use crate::feature::Feature;

/// sigmoid(base margin + the leaves, summed in the order of the trees), in 32 bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoostedTrees {
    pub features: Vec<TreeFeature>,
    pub trees: Trees,
}

/// A feature that trees look at, as a 32-bit float.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeFeature {
    pub feature: Feature,
    /// `None`: a null stays one, and each split sends it the way that it learnt.
    pub null: Option<NullPolicy>,
}

impl KindOfModel for BoostedTrees {
    const NAME: &'static str = "trees";
    const VARIANT: &'static str = "ml";

    fn probability(&self, value: impl Fn(Feature) -> f64) -> Result<f64, Refusal> {
        let mut refused = Ok(());
        let row = Slots::new(self.features.iter().map(|TreeFeature { feature, null }| {
            let value = value(*feature);
            match null.map_or(Ok(value), |null| null.value_or(*feature, value)) {
                Ok(value) => value as f32,
                Err(refusal) => {
                    refused = refused.and(Err(refusal));
                    f32::NAN
                }
            }
        }));
        refused.map(|()| f64::from(self.trees.probability(&row)))
    }

    fn check(&self, horizons: usize) -> Result<(), String> {
        let (features, trees) = (&self.features, &self.trees);
        if features.is_empty() || features.len() > FEATURES_MAX {
            return Err(format!("a model of trees has 1 to {FEATURES_MAX} features"));
        }
        if trees.features() > features.len() {
            let (last, count) = (trees.features() - 1, features.len());
            return Err(format!("a tree looks at feature {last} of {count}, counted from 0"));
        }
        features.iter().try_for_each(|TreeFeature { feature, null }| {
            check_numbers(&[null.map_or(0.0, NullPolicy::number)])?;
            feature.check(horizons)
        })
    }

    fn describe(&self) -> ModelShape {
        let features = self.features.iter().map(|one| FeatureUse::plain(one.feature, one.null));
        let size =
            ForestSize { count: self.trees.count(), nodes: self.trees.nodes(), depth: self.trees.depth() };
        ModelShape { features: features.collect(), trees: Some(size), ..ModelShape::default() }
    }
}
