//! `alerts`: each change in the life of an alert.

use super::Output;
use super::field::{FieldValue, OutputField};
use crate::stages::Alert;
use crate::time::Time;

pub const OUTPUT: Output = Output {
    name: "alerts",
    topic: Some("market.alerts"),
    has_file: true,
    key: "the alert's `id`",
    one_for: "each change in the life of an alert",
};

pub fn fields() -> Vec<OutputField<Alert>> {
    fn time_or_null(time: Option<Time>, digits: u8) -> FieldValue<'static> {
        time.map_or(FieldValue::Null, |time| FieldValue::Time(time, digits))
    }
    vec![
        OutputField::new(
            "id",
            "the same in all messages of one alert, over restarts too",
            |alert: &Alert| FieldValue::Text(&alert.id),
        ),
        OutputField::new("rule", "its name", |alert: &Alert| FieldValue::Text(&alert.rule)),
        OutputField::new("priority", "`P1`, `P2` or `P3`", |alert: &Alert| {
            FieldValue::Text(alert.priority.name())
        }),
        OutputField::new(
            "state",
            "`active`, `escalated`, `suppressed` or `resolved`: an alert that is only pending has no record",
            |alert: &Alert| FieldValue::Text(alert.state.name()),
        ),
        OutputField::new(
            "metric",
            "what the rule looks at: a per-second metric, or `probability`",
            |alert: &Alert| FieldValue::Text(alert.signal.name()),
        ),
        OutputField::new("event_time", "of the change", |alert: &Alert| {
            FieldValue::Time(alert.time, alert.digits)
        }),
        OutputField::new("value", "of the metric then", |alert: &Alert| FieldValue::Number(alert.value)),
        OutputField::new(
            "threshold",
            "the level that was crossed: the raise level, the critical level or the clear level",
            |alert: &Alert| FieldValue::Number(alert.threshold),
        ),
        OutputField::new("zscore", "of the metric then", |alert: &Alert| FieldValue::Number(alert.zscore)),
        OutputField::new("started_at", "when its level was first crossed", |alert: &Alert| {
            FieldValue::Time(alert.started_at, alert.digits)
        }),
        OutputField::new("triggered_at", "when it became active", |alert: &Alert| {
            time_or_null(alert.triggered_at, alert.digits)
        }),
        OutputField::new("resolved_at", "when it was over", |alert: &Alert| {
            time_or_null(alert.resolved_at, alert.digits)
        }),
        OutputField::new(
            "reason",
            "what brought the change about: `raised`, `critical`, `gap`, `warming_up`, `resumed`, `cleared`, `disabled`; `reconfigured` where other rules hold",
            |alert: &Alert| FieldValue::Text(alert.reason),
        ),
    ]
}
