//! The account of a job as JSON: the same names in the summary of a backtest and over HTTP (docs/definitions.md, "Command line").

use foreshock_operators::account::{Counts, Reason};
use serde_json::{Map, Value, json};

/// Why messages and rows were refused, and how often; reasons that never occurred are left out.
pub fn reasons(counts: &Counts) -> impl Iterator<Item = (Reason, i64)> {
    Reason::ALL.into_iter().zip(counts.deadletter).filter(|(_, count)| *count > 0)
}

/// Every count by its name.
pub fn fields(counts: &Counts) -> Map<String, Value> {
    let reasons: Map<String, Value> =
        reasons(counts).map(|(reason, count)| (reason.name().to_owned(), count.into())).collect();
    let fields = [
        ("messages_in", counts.messages_in.into()),
        (
            "messages",
            json!({
                "rows": counts.messages_rows,
                "control": counts.messages_control,
                "ignored": counts.messages_ignored,
                "deadlettered": counts.messages_deadlettered,
            }),
        ),
        ("rows_in", counts.rows_in.into()),
        (
            "rows",
            json!({
                "ticks": counts.ticks,
                "applied": counts.applied,
                "duplicate": counts.duplicate,
                "late": counts.late,
                "ignored": counts.rows_ignored,
                "deadlettered": counts.rows_deadlettered,
                "buffered": counts.buffered,
            }),
        ),
        ("deadletter", reasons.into()),
        ("predictions", counts.predictions.into()),
        ("refused", counts.refused.into()),
        ("locked", counts.locked.into()),
        ("outside", counts.outside.into()),
        ("hurried", counts.hurried.into()),
        ("control_records", counts.control_records.into()),
        ("samples", counts.samples.into()),
        ("gaps", counts.gaps.into()),
        ("alerts", counts.alerts.into()),
    ];
    fields.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)).collect()
}
