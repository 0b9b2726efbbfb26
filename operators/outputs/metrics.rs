//! `metrics`: each second of each instrument.

use super::field::{Field, Value};
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
pub fn fields() -> Vec<Field<Sample>> {
    let mut fields = vec![Field::new("event_time", "the end of the second", |sample: &Sample| {
        Value::Time(sample.time, sample.digits)
    })];
    for metric in Metric::ALL {
        let (name, at) = (metric.name(), metric as usize);
        fields.push(Field::new(name, metric.meaning(), move |sample: &Sample| {
            Value::Number(sample.readings[at].value)
        }));
        let meaning = "its z-score against the samples before it; null while it is warming up";
        fields.push(Field::new(format!("{name}_z"), meaning, move |sample: &Sample| {
            Value::Number(sample.readings[at].zscore)
        }));
        let meaning = "how many samples that score has seen";
        fields.push(Field::new(format!("{name}_samples"), meaning, move |sample: &Sample| {
            Value::Count(sample.readings[at].seen.into())
        }));
    }
    fields
}
