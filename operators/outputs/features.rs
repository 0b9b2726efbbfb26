//! `features`: all features of each tick.

use std::sync::Arc;

use super::field::{FieldValue, OutputField};
use super::{INSTRUMENT, Output};
use crate::feature::Feature;
use crate::model::Model;
use crate::stages::{Features, MAX_HORIZONS, Prediction};
use crate::time::Nanos;

pub const OUTPUT: Output = Output {
    name: "features",
    topic: Some("ticks.features"),
    has_file: true,
    key: INSTRUMENT,
    one_for: "each tick",
};

/// A tick with all that is known of it.
#[derive(Clone, Debug)]
pub struct TickRow {
    pub features: Features,
    pub prediction: Prediction,
    /// The model that made the prediction.
    pub model: Arc<Model>,
}

/// The fields of a job with these return horizons. Each tick has two or three such lines, so
/// [`crate::encode::Encoder`] writes them by hand; a test holds it to this table.
pub fn fields(horizons: &[Nanos]) -> Vec<OutputField<TickRow>> {
    let mut fields = vec![event_time()];
    let mut add = |feature: Feature, name: &str| {
        fields.push(OutputField::new(name, feature.meaning(), move |row: &TickRow| match feature {
            Feature::N => FieldValue::Count(row.features.n.into()),
            _ => FieldValue::Number(feature.get(&row.features)),
        }));
    };
    for feature in Feature::FIXED {
        if feature == Feature::N {
            let returns = (0..horizons.len().min(MAX_HORIZONS)).map(|at| Feature::Return(at as u8));
            returns.for_each(|feature| add(feature, &feature.name(horizons)));
        }
        add(feature, &feature.name(horizons));
        if feature == Feature::RetStd {
            add(feature, Feature::VOLATILITY);
        }
    }
    fields
}

/// When a tick happened.
pub(super) fn event_time() -> OutputField<TickRow> {
    OutputField::new("event_time", "when it happened", |row: &TickRow| {
        FieldValue::Time(row.features.event_time, row.features.digits)
    })
}
