//! `gaps`: each stretch without data.

use super::field::{FieldValue, OutputField};
use super::{INSTRUMENT, Output};
use crate::stages::Gap;
use crate::time::SECOND;

pub const OUTPUT: Output =
    Output { name: "gaps", topic: Some("market.gaps"), has_file: true, key: INSTRUMENT, one_for: "each gap" };

pub fn fields() -> Vec<OutputField<Gap>> {
    vec![
        OutputField::new("gap_start", "the last sign of life", |gap: &Gap| {
            FieldValue::Time(gap.start, gap.digits)
        }),
        OutputField::new("gap_end", "the row that ended it", |gap: &Gap| {
            FieldValue::Time(gap.end, gap.digits)
        }),
        OutputField::new("duration_seconds", "from one to the other", |gap: &Gap| {
            FieldValue::Number(gap.end.since(gap.start) as f64 / SECOND as f64)
        }),
        OutputField::new(
            "reason",
            "`silence`; `reconfigured`: other settings hold, so windows start empty; `state_lost`: a part of the log, or the state that it had made, is gone, and `kafka.lost_offsets` is `gap`; `clock`: a wrong clock was left",
            |gap: &Gap| FieldValue::Text(gap.reason.name()),
        ),
    ]
}
