//! The baseline of a model file.

use foreshock_operators::feature::Feature;
use foreshock_operators::model::{Baseline, NullPolicy};
use foreshock_operators::time::Nanos;

use super::{null_policy, reference};
use crate::documents::kind::NumberRange;
use crate::documents::section::Section;
use crate::documents::yaml::Value;

/// Reads the keys of this kind.
pub fn read(section: &mut Section, horizons: &[Nanos]) -> Baseline {
    let threshold = section.number("threshold", NumberRange::Any);
    let features = section.sections("features");
    let count = features.len();
    let Ok([mut feature]) = <[Section; 1]>::try_from(features) else {
        if section.node("features").is_some_and(|node| matches!(node.value, Value::List(_))) {
            section.refuse("features", format!("found {count} features, expected volatility_z alone"));
        }
        return Baseline { threshold, null: NullPolicy::Refuse };
    };
    if reference(&mut feature, horizons).is_some_and(|feature| feature != Feature::VolatilityZ) {
        feature.refuse("name", "expected volatility_z, the only feature of a baseline");
    }
    let null = null_policy(&mut feature);
    feature.finish();
    Baseline { threshold, null }
}
