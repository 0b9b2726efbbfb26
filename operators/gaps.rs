//! Finds where an instrument gave no sign of life (docs/definitions.md, "Gaps").

use serde::{Deserialize, Serialize};

use crate::change::{ChangeKind, Effect};
use crate::operator::{Collector, Instrument, Mismatch, Operator, same_settings};
use crate::parameters::Parameters;
use crate::row::Row;
use crate::stages::{Gap, GapReason, Live};
use crate::time::{Nanos, Time};

/// Puts a gap record before the row that ended a silence. The record is made when the silence ends: whether a
/// feed is silent *now* is status, not data. A change under which windows start empty makes a gap too, and so does a wrong
/// clock that was left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gaps {
    /// The longest silence that is no gap; `None`: silences are never gaps.
    gap_after: Option<Nanos>,
    /// The clock at the last sign of life; `None` before the first.
    alive: Option<Time>,
}

impl Operator for Gaps {
    const NAME: &'static str = "gaps";
    type Input = Row;
    type Output = Live;

    fn new(_: &Parameters, instrument: &Instrument) -> Self {
        Gaps { gap_after: instrument.gap_after, alive: None }
    }

    fn on_input(&mut self, row: Row, out: &mut impl Collector<Live>) {
        if let Some(start) = out.context().clock_left.take() {
            give_gap(Gap { start, end: row.clock, reason: GapReason::Clock, digits: row.digits }, out);
        } else if let Some(start) = self.alive
            && self.is_silence(start, row.clock)
        {
            give_gap(Gap { start, end: row.clock, reason: GapReason::Silence, digits: row.digits }, out);
        }
        self.alive = Some(row.clock);
        out.push(Live::Row(row));
    }

    /// The gap comes before the change, so that what ends with it still ends under the old settings.
    fn on_change(&mut self, effect: &Effect, out: &mut impl Collector<Live>) {
        let &Effect { at, digits, .. } = effect;
        let reason = match &effect.change.kind {
            ChangeKind::StateLost => Some(GapReason::StateLost),
            _ if !effect.now.same_windows(effect.before) => Some(GapReason::Reconfigured),
            _ => None,
        };
        // Before the first sign of life there is nothing that a gap could end; but it can't be known of a lost
        // state that it was empty.
        // And the clock may be just about to be left for an earlier one.
        let start =
            self.alive.or((reason == Some(GapReason::StateLost)).then_some(at)).map(|start| start.min(at));
        if let (Some(reason), Some(start)) = (reason, start) {
            let is_silence = reason == GapReason::Reconfigured && self.is_silence(start, at);
            let reason = if is_silence { GapReason::Silence } else { reason };
            give_gap(Gap { start, end: at, reason, digits }, out);
            self.alive = Some(at);
        }
    }

    fn resume(&mut self, _: &Parameters, instrument: &Instrument) -> Result<(), Mismatch> {
        same_settings(&self.gap_after, &instrument.gap_after)
    }
}

impl Gaps {
    fn is_silence(&self, start: Time, end: Time) -> bool {
        self.gap_after.is_some_and(|gap_after| end.since(start) > gap_after)
    }
}

fn give_gap(gap: Gap, out: &mut impl Collector<Live>) {
    out.counts().gaps += 1;
    out.push(Live::Gap(gap));
}
