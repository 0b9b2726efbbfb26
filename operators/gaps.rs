//! Finds the stretches in which an instrument gave no sign of life (docs/definitions.md, "Gaps").

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::{Change, ChangeAt, ChangeKind, Windows, change_of, number_of};
use crate::operator::{Instrument, Operator, Out, RestoreError, load, save};
use crate::row::Row;
use crate::stages::{Gap, GapReason, Live};
use crate::time::{Nanos, Time};

/// Puts a gap record before the row that ended a silence. The record is made when the silence ends: whether a
/// feed is silent *now* is status, not data. A change under which windows start empty makes a gap too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gaps {
    /// The longest silence that is no gap; `None`: silences are never gaps.
    gap_after: Option<Nanos>,
    /// The clock at the last sign of life; `None` before the first.
    alive: Option<Time>,
    /// The settings in force of all windows.
    #[serde(skip)]
    windows: Windows,
    /// The change that they came from; `None`: the configuration.
    #[serde(skip)]
    since: Option<Arc<Change>>,
}

impl Operator for Gaps {
    const NAME: &'static str = "gaps";
    type Settings = Windows;
    type Input = Row;
    type Output = Live;

    fn new(windows: &Windows, instrument: &Instrument) -> Self {
        Gaps { gap_after: instrument.gap_after, alive: None, windows: windows.clone(), since: None }
    }

    fn on_input(&mut self, row: Row, out: &mut Out<Live>) {
        if let Some(start) = self.alive
            && self.is_silence(start, row.clock)
        {
            give_gap(Gap { start, end: row.clock, reason: GapReason::Silence, digits: row.digits }, out);
        }
        self.alive = Some(row.clock);
        out.give(Live::Row(row));
    }

    /// The gap comes before the change, so that what ends with it still ends under the old settings.
    fn on_change(&mut self, placed: &ChangeAt, out: &mut Out<Live>) {
        let &ChangeAt { at, digits, .. } = placed;
        let reason = match &placed.change.what {
            ChangeKind::StateLost => Some(GapReason::StateLost),
            ChangeKind::Parameters(parameters) => {
                let windows = parameters.windows();
                let differs = windows != self.windows;
                self.windows = windows;
                self.since = Some(placed.change.clone());
                differs.then_some(GapReason::Reconfigured)
            }
            ChangeKind::Model(_) | ChangeKind::Rules(_) => None,
        };
        // Before the first sign of life there is nothing that a gap could end; but it can't be known of a lost
        // state that it was empty.
        let start = self.alive.or((reason == Some(GapReason::StateLost)).then_some(at));
        if let (Some(reason), Some(start)) = (reason, start) {
            let is_silence = reason == GapReason::Reconfigured && self.is_silence(start, at);
            let reason = if is_silence { GapReason::Silence } else { reason };
            give_gap(Gap { start, end: at, reason, digits }, out);
            self.alive = Some(at);
        }
        out.pass(placed);
    }

    fn snapshot(&self, bytes: &mut Vec<u8>) {
        save(&(self, number_of(self.since.as_ref())), bytes);
    }

    fn restore(
        windows: &Windows,
        changes: &[Arc<Change>],
        instrument: &Instrument,
        bytes: &[u8],
    ) -> Result<Self, RestoreError> {
        let (mut state, since): (Gaps, u32) = load(Self::NAME, bytes)?;
        state.since = change_of(Self::NAME, changes, since)?;
        let changed = state.since.as_ref().and_then(|change| change.parameters());
        state.windows = changed.map_or_else(|| windows.clone(), |parameters| parameters.windows());
        if state.gap_after != instrument.gap_after {
            return Err(RestoreError::OtherSettings { operator: Self::NAME });
        }
        Ok(state)
    }
}

impl Gaps {
    fn is_silence(&self, start: Time, end: Time) -> bool {
        self.gap_after.is_some_and(|gap_after| end.since(start) > gap_after)
    }
}

fn give_gap(gap: Gap, out: &mut Out<Live>) {
    out.ledger.counts.gaps += 1;
    out.give(Live::Gap(gap));
}
