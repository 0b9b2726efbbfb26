//! `predictions`: the model's word on each tick.

use super::features::{TickRow, event_time};
use super::field::{FieldValue, OutputField};
use super::{INSTRUMENT, Output};
use crate::time::SECOND;

pub const OUTPUT: Output = Output {
    name: "predictions",
    topic: Some("ticks.predictions"),
    has_file: true,
    key: INSTRUMENT,
    one_for: "each tick that the model did not refuse",
};

/// The fields; written by hand as those of [`super::features`] are.
pub fn fields() -> Vec<OutputField<TickRow>> {
    let model = [
        OutputField::new("model_name", "of the model in force", |row: &TickRow| {
            FieldValue::Text(&row.model.name)
        }),
        OutputField::new("model_version", "of the model in force", |row: &TickRow| {
            FieldValue::Text(&row.model.version)
        }),
        OutputField::new("model_variant", "`ml` or `baseline`", |row: &TickRow| {
            FieldValue::Text(row.model.variant())
        }),
        OutputField::new("horizon_s", "how far ahead the model looks, in seconds", |row: &TickRow| {
            let (whole, rest) = (row.model.horizon / SECOND, row.model.horizon % SECOND);
            match (u64::try_from(whole), rest) {
                (Ok(seconds), 0) => FieldValue::Count(seconds),
                _ => FieldValue::Number(row.model.horizon as f64 / SECOND as f64),
            }
        }),
    ];
    std::iter::once(event_time()).chain(score()).chain(model).collect()
}

/// What the model says.
pub(super) fn score() -> [OutputField<TickRow>; 2] {
    [
        OutputField::new(
            "probability",
            "of a volatility spike within the model's horizon; null where the model refused the tick",
            |row: &TickRow| FieldValue::Number(row.prediction.probability),
        ),
        OutputField::new(
            "prediction",
            "1 where the probability reaches the model's decision threshold, 0 where not; null where the model refused the tick",
            |row: &TickRow| {
                row.prediction.spike.map_or(FieldValue::Null, |spike| FieldValue::Count(spike.into()))
            },
        ),
    ]
}
