//! Finds the stretches in which an instrument gave no sign of life (SPEC 4).

use serde::{Deserialize, Serialize};

use crate::operator::{Instrument, Operator, Out, RestoreError, load, save};
use crate::row::Row;
use crate::stages::{Gap, GapReason, Live};
use crate::time::{Nanos, Time};

/// Puts a gap record before the row that ended a silence. The record is made when the silence ends: whether a
/// feed is silent *now* is status, not data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gaps {
    /// The longest silence that is no gap; `None`: silences are never gaps.
    gap_after: Option<Nanos>,
    /// The clock at the last sign of life; `None` before the first.
    alive: Option<Time>,
}

impl Operator for Gaps {
    const NAME: &'static str = "gaps";
    type Settings = ();
    type Input = Row;
    type Output = Live;

    fn new((): &(), instrument: &Instrument) -> Self {
        Gaps { gap_after: instrument.gap_after, alive: None }
    }

    fn on_input(&mut self, row: Row, out: &mut Out<Live>) {
        let start = self.alive.replace(row.clock);
        if let (Some(start), Some(gap_after)) = (start, self.gap_after)
            && row.clock.since(start) > gap_after
        {
            out.ledger.counts.gaps += 1;
            out.give(Live::Gap(Gap {
                start,
                end: row.clock,
                reason: GapReason::Silence,
                digits: row.digits,
            }));
        }
        out.give(Live::Row(row));
    }

    fn snapshot(&self, bytes: &mut Vec<u8>) {
        save(self, bytes);
    }

    fn restore((): &(), instrument: &Instrument, bytes: &[u8]) -> Result<Self, RestoreError> {
        let state: Gaps = load(Self::NAME, bytes)?;
        if state.gap_after != instrument.gap_after {
            return Err(RestoreError::OtherSettings { operator: Self::NAME });
        }
        Ok(state)
    }
}
