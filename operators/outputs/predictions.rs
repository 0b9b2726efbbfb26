//! `predictions`: the model's word on each tick.

use super::features::{TickRow, event_time};
use super::field::{Field, Value};
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
pub fn fields() -> Vec<Field<TickRow>> {
    let model = [
        Field::new("model_name", "of the model in force", |row: &TickRow| Value::Text(&row.model.name)),
        Field::new("model_version", "of the model in force", |row: &TickRow| Value::Text(&row.model.version)),
        Field::new("model_variant", "`ml` or `baseline`", |row: &TickRow| Value::Text(row.model.variant())),
        Field::new("horizon_s", "how far ahead the model looks, in seconds", |row: &TickRow| {
            let (whole, rest) = (row.model.horizon / SECOND, row.model.horizon % SECOND);
            match (u64::try_from(whole), rest) {
                (Ok(seconds), 0) => Value::Count(seconds),
                _ => Value::Number(row.model.horizon as f64 / SECOND as f64),
            }
        }),
    ];
    std::iter::once(event_time()).chain(score()).chain(model).collect()
}

/// What the model says.
pub(super) fn score() -> [Field<TickRow>; 2] {
    [
        Field::new(
            "probability",
            "of a volatility spike within the model's horizon; null where the model refused the tick",
            |row: &TickRow| Value::Number(row.prediction.probability),
        ),
        Field::new(
            "prediction",
            "1 where the probability reaches the model's decision threshold, 0 where not; null where the model refused the tick",
            |row: &TickRow| row.prediction.spike.map_or(Value::Null, |spike| Value::Count(spike.into())),
        ),
    ]
}
