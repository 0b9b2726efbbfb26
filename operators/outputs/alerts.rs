//! `alerts`: each change in the life of an alert.

use super::Output;
use super::field::{Field, Value};
use crate::stages::Alert;
use crate::time::Time;

pub const OUTPUT: Output = Output {
    name: "alerts",
    topic: Some("market.alerts"),
    has_file: true,
    key: "the alert's `id`",
    one_for: "each change in the life of an alert",
};

pub fn fields() -> Vec<Field<Alert>> {
    fn time_or_null(time: Option<Time>, digits: u8) -> Value<'static> {
        time.map_or(Value::Null, |time| Value::Time(time, digits))
    }
    vec![
        Field::new("id", "the same in all messages of one alert, over restarts too", |alert: &Alert| {
            Value::Text(&alert.id)
        }),
        Field::new("rule", "its name", |alert: &Alert| Value::Text(&alert.rule)),
        Field::new("priority", "`P1`, `P2` or `P3`", |alert: &Alert| Value::Text(alert.priority.name())),
        Field::new(
            "state",
            "`active`, `escalated`, `suppressed` or `resolved`: an alert that is only pending has no record",
            |alert: &Alert| Value::Text(alert.state.name()),
        ),
        Field::new(
            "metric",
            "what the rule looks at: a per-second metric, or `probability`",
            |alert: &Alert| Value::Text(alert.signal.name()),
        ),
        Field::new("event_time", "of the change", |alert: &Alert| Value::Time(alert.time, alert.digits)),
        Field::new("value", "of the metric then", |alert: &Alert| Value::Number(alert.value)),
        Field::new(
            "threshold",
            "the level that was crossed: the raise level, the critical level or the clear level",
            |alert: &Alert| Value::Number(alert.threshold),
        ),
        Field::new("zscore", "of the metric then", |alert: &Alert| Value::Number(alert.zscore)),
        Field::new("started_at", "when its level was first crossed", |alert: &Alert| {
            Value::Time(alert.started_at, alert.digits)
        }),
        Field::new("triggered_at", "when it became active", |alert: &Alert| {
            time_or_null(alert.triggered_at, alert.digits)
        }),
        Field::new("resolved_at", "when it was over", |alert: &Alert| {
            time_or_null(alert.resolved_at, alert.digits)
        }),
        Field::new(
            "reason",
            "what brought the change about: `raised`, `critical`, `gap`, `warming_up`, `resumed`, `cleared`, `disabled`; `reconfigured` where other rules hold",
            |alert: &Alert| Value::Text(alert.reason),
        ),
    ]
}
