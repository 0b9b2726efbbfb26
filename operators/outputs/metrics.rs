//! `metrics`: each second of each instrument.

use super::field::{FieldValue, OutputField};
use super::{INSTRUMENT, Output};
use crate::stages::{Metric, Sample};

pub const OUTPUT: Output = Output {
    name: "metrics",
    topic: Some("market.metrics"),
    has_file: true,
    key: INSTRUMENT,
    one_for: "each second of each instrument in which it had a quote",
};

/// Each metric with its z-score, and how many samples that has seen.
pub fn fields() -> Vec<OutputField<Sample>> {
    let mut fields = vec![OutputField::new("event_time", "the end of the second", |sample: &Sample| {
        FieldValue::Time(sample.time, sample.digits)
    })];
    for metric in Metric::ALL {
        let (name, at) = (metric.name(), metric as usize);
        fields.push(OutputField::new(name, metric.meaning(), move |sample: &Sample| {
            FieldValue::Number(sample.readings[at].value)
        }));
        let meaning = "its z-score against the samples before it; null while it is warming up";
        fields.push(OutputField::new(format!("{name}_z"), meaning, move |sample: &Sample| {
            FieldValue::Number(sample.readings[at].zscore)
        }));
        let meaning = "how many samples that score has seen";
        fields.push(OutputField::new(format!("{name}_samples"), meaning, move |sample: &Sample| {
            FieldValue::Count(sample.readings[at].seen.into())
        }));
    }
    fields
}
