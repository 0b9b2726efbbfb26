//! Which stamps an instrument's clock believes (docs/definitions.md, "Clock").
//!
//! A stamp from the future must harm nobody but itself. Whether one is from the future is told by its receipt, where one
//! stands in the data; else by the instrument's next row. And a clock that was wrong is left when rows agree that it was.

use serde::{Deserialize, Serialize};

use crate::row::Row;
use crate::time::{MINUTE, Nanos, SECOND, Time};

/// A receipt later than its row by more than this says nothing of clocks: the row was held up.
const HELD_UP: Nanos = 60 * SECOND;

/// So many rows teach how far an instrument's stamps usually lie ahead of their receipts, before the largest counts.
const FIRST_RECEIPTS: u8 = 8;

/// For so long at least a lead is remembered, at most for twice as long.
const LEAD_PERIOD: Nanos = 30 * MINUTE;

/// Refusals that agree for so long say that the receiver's clock is the wrong one.
const REFUSED_FOR: Nanos = 10 * MINUTE;

/// So many rows in a row leave a clock.
const AGREEING: u8 = 3;

/// How far ahead a row may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockBounds {
    /// Of its receipt, beyond the usual lead; and of the other rows without being asked (A).
    pub max_ahead: Nanos,
    /// Of the instrument's other rows, where no receipt tells (J); `None`: any stamp is believed.
    pub max_jump: Option<Nanos>,
}

/// What is to become of a row by its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampFate {
    Believed,
    /// Ahead of its receipt by `lead`, where at most `allowed` is usual.
    Ahead {
        lead: Nanos,
        allowed: Nanos,
    },
    /// So far ahead that the next row is to say whether it is right.
    Doubtful,
    /// The last of three rows in a row that say that the clock is wrong. It begins anew with this one.
    Leaves {
        first: Time,
    },
}

/// What a new row says of the one that waits for its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is right.
    Confirms,
    /// It is not: refused.
    Denies,
    /// Nothing.
    Silent,
}

/// How far a row lies ahead of a receipt that counts for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    length: Nanos,
    /// What was usual before it: a row is no witness of its own.
    usual: Nanos,
    /// It is one of the first, which teach what is usual whatever becomes of their rows.
    is_first: bool,
}

/// The clock of one instrument, as far as its rows are believed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StampJudge {
    /// The largest event time believed (C).
    newest: Option<Time>,
    /// The largest receipt (H).
    received: Option<Time>,
    lead: UsualLead,
    refusals: Option<Refusals>,
    older: Option<Older>,
}

/// How far an instrument's stamps usually lie ahead of their receipts (L).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct UsualLead {
    /// Receipts so far, while they are the first.
    seen: u8,
    /// The largest of the half hour in which a row was believed last; of the first receipts the smallest.
    current: Option<Nanos>,
    /// That of the half hour before in which one was.
    previous: Option<Nanos>,
    half_hour: i64,
}

/// Rows refused behind each other whose leads agree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Refusals {
    since: Time,
    smallest: Nanos,
    largest: Nanos,
}

/// Rows in a row that are older than the clock allows, and ascend.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Older {
    first: Time,
    last: Time,
    count: u8,
}

impl StampJudge {
    /// The largest event time believed.
    pub fn newest(&self) -> Option<Time> {
        self.newest
    }

    /// Takes the receipt that a row brings; gives the row's lead, where the receipt counts for it. The first thing to be
    /// done with each row.
    pub fn receive(&mut self, row: &Row, bounds: ClockBounds) -> Option<Lead> {
        let (stamp, received) = (row.event_time, row.received?);
        let length = stamp.since(received);
        let largest = *self.received.get_or_insert(received);
        if received < largest.minus(bounds.max_ahead) {
            // An old message, or else the receiver's clock was set back.
            if self.newest.is_none_or(|newest| stamp >= newest.minus(bounds.max_ahead)) {
                self.received = Some(received);
                self.lead = UsualLead::default();
                self.lead.note(length, received);
            }
            return None;
        }
        self.received = Some(largest.max(received));
        if length < -HELD_UP {
            return None;
        }
        let usual = self.lead.usual();
        let is_first = self.lead.note(length, received);
        Some(Lead { length, usual, is_first })
    }

    /// Whether a row's receipt says that its stamp lies ahead, as [`StampFate::Ahead`].
    pub fn against_receipt(
        &mut self,
        row: &Row,
        lead: Option<Lead>,
        bounds: ClockBounds,
    ) -> Option<StampFate> {
        let (Lead { length: lead, usual, .. }, newest) = (lead?, self.newest?);
        let allowed = usual.saturating_add(bounds.max_ahead);
        if row.event_time <= newest.plus(bounds.max_ahead) || lead <= allowed {
            return None;
        }
        let received = row.received?;
        let alone = Refusals { since: received, smallest: lead, largest: lead };
        let refusals =
            self.refusals.and_then(|refusals| refusals.joined_by(lead, bounds.max_ahead)).unwrap_or(alone);
        self.refusals = Some(refusals);
        if received.since(refusals.since) < REFUSED_FOR {
            return Some(StampFate::Ahead { lead, allowed });
        }
        // All rows can't be wrong for so long and by the same: the receiver's clock is.
        self.refusals = None;
        self.lead = UsualLead::default();
        self.lead.note(lead, received);
        None
    }

    /// What a row that no receipt refused says of `doubtful`, which waits.
    pub fn word_on(&self, doubtful: Time, row: &Row, bounds: ClockBounds) -> Word {
        let Some(max_jump) = bounds.max_jump else { return Word::Confirms };
        let stamp = row.event_time;
        if self.newest.is_some_and(|newest| stamp <= newest.minus(max_jump)) {
            Word::Silent
        } else if stamp >= doubtful.minus(bounds.max_ahead) {
            Word::Confirms
        } else {
            Word::Denies
        }
    }

    /// Judges a row that no receipt refused. `is_new`: its id is none that its channel had by then, or lies above them.
    pub fn judge(&mut self, row: &Row, lead: Option<Lead>, is_new: bool, bounds: ClockBounds) -> StampFate {
        let stamp = row.event_time;
        if let (Some(newest), Some(max_jump)) = (self.newest, bounds.max_jump) {
            if stamp < newest.minus(max_jump) {
                let Some(first) = self.leave(row, newest, is_new, bounds.max_ahead, max_jump) else {
                    return StampFate::Believed;
                };
                (self.newest, self.older) = (None, None);
                self.believe(stamp, lead);
                return StampFate::Leaves { first };
            }
            if lead.is_none() && stamp > newest.plus(max_jump) && stamp > newest.plus(bounds.max_ahead) {
                return StampFate::Doubtful;
            }
        }
        // Of the very first one only its receipt can say anything, and that may be of a clock that is behind.
        let is_ahead = |lead: Lead| lead.length > lead.usual.saturating_add(bounds.max_ahead);
        if self.newest.is_none() && bounds.max_jump.is_some() && lead.is_some_and(is_ahead) {
            return StampFate::Doubtful;
        }
        self.older = None;
        self.believe(stamp, lead);
        StampFate::Believed
    }

    /// Believes a stamp.
    pub fn believe(&mut self, stamp: Time, lead: Option<Lead>) {
        self.newest = self.newest.max(Some(stamp));
        self.refusals = None;
        if let (Some(Lead { length, is_first: false, .. }), Some(received)) = (lead, self.received) {
            self.lead.learn(length, received);
        }
    }

    /// Takes a row far behind the clock. It is old, or else the clock is wrong: at the last of the rows that say so it is to
    /// be left, and the first of them is given.
    fn leave(
        &mut self,
        row: &Row,
        newest: Time,
        is_new: bool,
        max_ahead: Nanos,
        max_jump: Nanos,
    ) -> Option<Time> {
        let stamp = row.event_time;
        let allowed = self.lead.usual().saturating_add(max_ahead);
        if !is_new || row.received.is_some_and(|received| newest <= received.plus(allowed)) {
            return None;
        }
        let older = match &mut self.older {
            Some(older) if (0..=max_jump).contains(&stamp.since(older.last)) => older,
            other => other.insert(Older { first: stamp, last: stamp, count: 0 }),
        };
        older.last = stamp;
        older.count += 1;
        (older.count == AGREEING).then_some(older.first)
    }

    /// A part of the log is gone: receipts begin anew.
    pub fn on_lost_log(&mut self) {
        *self = StampJudge { newest: self.newest, ..StampJudge::default() };
    }
}

impl UsualLead {
    fn usual(&self) -> Nanos {
        self.current.max(self.previous).unwrap_or(0).max(0)
    }

    /// Takes a lead, whatever becomes of its row, if it is one of the first: of those the smallest counts, so that a bad one
    /// teaches nothing.
    fn note(&mut self, lead: Nanos, received: Time) -> bool {
        let is_first = self.seen < FIRST_RECEIPTS;
        if is_first {
            self.seen += 1;
            self.current = Some(self.current.map_or(lead, |smallest| smallest.min(lead)));
            self.half_hour = half_hour(received);
        }
        is_first
    }

    /// Takes the lead of a row that was believed: delays only lower it, so the largest is the usual one. A half hour without
    /// rows changes nothing, so that what was usual at the close is so at the open.
    fn learn(&mut self, lead: Nanos, received: Time) {
        let half_hour = half_hour(received);
        if half_hour == self.half_hour {
            self.current = self.current.max(Some(lead));
        } else {
            (self.previous, self.current, self.half_hour) = (self.current, Some(lead), half_hour);
        }
    }
}

fn half_hour(received: Time) -> i64 {
    received.0.div_euclid(LEAD_PERIOD)
}

impl Refusals {
    /// With a further lead, if that agrees with those so far.
    fn joined_by(self, lead: Nanos, max_ahead: Nanos) -> Option<Refusals> {
        let (smallest, largest) = (self.smallest.min(lead), self.largest.max(lead));
        (largest.saturating_sub(smallest) <= max_ahead).then_some(Refusals { smallest, largest, ..self })
    }
}
