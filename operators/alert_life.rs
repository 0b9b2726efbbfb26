//! The life of one rule's alerts on one instrument (docs/definitions.md, "Alerts").
//!
//! ```text
//!          the condition holds         held for `hold`           clear for `resolve_for`
//!   idle ─────────────────────► pending ──────────► raised ────────────────────────────► idle
//!    ▲  false sample, null, gap    │              ▲   │ null, gap
//!    └─────────────────────────────┘   warm again │   ▼
//!                                              suppressed
//! ```
//!
//! Nothing is emitted of idle and pending: an alert that never came to be has no messages.

use serde::{Deserialize, Serialize};

use crate::rule::Rule;
use crate::stages::{AlertState, Priority};
use crate::time::{Nanos, Time};

/// What a rule is evaluated on: its signal in one sample or tick. NaN stands for null.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub time: Time,
    pub digits: u8,
    pub value: f64,
    pub zscore: f64,
}

/// When an alert became pending. `(at, nth)` differs between any two alerts of a rule on an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertStart {
    pub at: Time,
    /// Counts the starts at `at`, from 1.
    pub nth: u32,
}

/// One change to emit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlertTransition {
    pub state: AlertState,
    pub reason: &'static str,
    pub start: AlertStart,
    pub triggered_at: Time,
    pub escalated: bool,
}

/// Where a rule stands on an instrument, and what it must remember of the alerts before.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AlertLife {
    phase: Phase,
    /// The latest start; `None` before the first.
    last_start: Option<AlertStart>,
    /// When the latest alert was resolved: the cooldown counts from here.
    resolved_at: Option<Time>,
    /// The most starts in one instant so far.
    most: u32,
    /// A wrong clock was left, so an instant may come again: starts are counted on from the most, for ever.
    counts_on: bool,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
enum Phase {
    #[default]
    Idle,
    /// The condition has held since the start, but not long enough yet.
    Pending {
        start: AlertStart,
        critical_since: Option<Time>,
    },
    Raised(Raised),
}

/// An alert that was emitted and not resolved yet.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Raised {
    start: AlertStart,
    triggered_at: Time,
    /// Never taken back.
    escalated: bool,
    /// Whether data is missing: from the gap or null until the next warm sample.
    suppressed: bool,
    /// First of the clear samples that reach up to now without a break.
    clear_since: Option<Time>,
    /// First of the critical samples that reach up to now without a break.
    critical_since: Option<Time>,
}

impl AlertLife {
    /// Evaluates the rule on a sample or tick, null or not.
    pub fn on_point(&mut self, rule: &Rule, point: Point, mut tell: impl FnMut(AlertTransition)) {
        if !rule.enabled {
            return self.end_now(point.time, "disabled", tell);
        }
        if rule.is_warming_up(point.value, point.zscore) {
            return self.on_missing("warming_up", tell);
        }
        let holds = rule.holds(point.value, point.zscore);
        let critical = rule.is_critical(point.value);

        if matches!(self.phase, Phase::Idle) && holds && !self.is_cooling(rule, point.time) {
            self.phase = Phase::Pending { start: self.next_start(point.time), critical_since: None };
        }
        if let Phase::Pending { start, critical_since } = &mut self.phase {
            if !holds {
                self.phase = Phase::Idle;
                return;
            }
            keep_clock(critical_since, critical, point.time);
            if point.time.since(start.at) < rule.hold {
                return;
            }
            let raised = Raised::new(*start, point.time, *critical_since);
            tell(raised.change(AlertState::Active, "raised"));
            self.phase = Phase::Raised(raised);
        }
        if let Phase::Raised(alert) = &mut self.phase {
            // A sample at which the condition holds is not clear, even where both levels are the same.
            let clear = !holds && rule.is_clear(point.value);
            if alert.on_warm(rule, point.time, clear, critical, tell) {
                self.end(point.time);
            }
        }
    }

    /// Data is missing: a pending alert is forgotten, a raised one waits and forgets its clocks. Only the first
    /// of several in a row is emitted.
    pub fn on_missing(&mut self, reason: &'static str, mut tell: impl FnMut(AlertTransition)) {
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Pending { .. } => self.phase = Phase::Idle,
            Phase::Raised(alert) => {
                alert.clear_since = None;
                alert.critical_since = None;
                if !alert.suppressed {
                    alert.suppressed = true;
                    tell(alert.change(AlertState::Suppressed, reason));
                }
            }
        }
    }

    /// The clock was wrong, and is left for `now`.
    pub fn on_clock_left(&mut self, now: Time) {
        self.resolved_at = self.resolved_at.map(|resolved| resolved.min(now));
        self.counts_on = true;
    }

    /// Ends what there is of an alert: a pending one silently, a raised one with this reason.
    pub fn end_now(&mut self, time: Time, reason: &'static str, mut tell: impl FnMut(AlertTransition)) {
        match &self.phase {
            Phase::Idle => {}
            Phase::Pending { .. } => self.phase = Phase::Idle,
            Phase::Raised(alert) => {
                tell(alert.change(AlertState::Resolved, reason));
                self.end(time);
            }
        }
    }

    /// The latest start: the next one in the same instant counts on from it.
    pub fn last_start(&self) -> Option<AlertStart> {
        self.last_start
    }

    /// The idle life of a rule that takes the place of one of the same name.
    pub fn after(last_start: Option<AlertStart>) -> AlertLife {
        AlertLife { last_start, ..AlertLife::default() }
    }

    fn end(&mut self, time: Time) {
        self.phase = Phase::Idle;
        self.resolved_at = Some(time);
    }

    fn is_cooling(&self, rule: &Rule, time: Time) -> bool {
        self.resolved_at.is_some_and(|resolved| time.since(resolved) < rule.cooldown)
    }

    fn next_start(&mut self, at: Time) -> AlertStart {
        let nth = match self.last_start {
            Some(last) if last.at == at => last.nth.saturating_add(1),
            Some(_) if self.counts_on => self.most.saturating_add(1),
            _ => 1,
        };
        self.most = self.most.max(nth);
        *self.last_start.insert(AlertStart { at, nth })
    }
}

impl Raised {
    fn new(start: AlertStart, triggered_at: Time, critical_since: Option<Time>) -> Self {
        Raised { start, triggered_at, escalated: false, suppressed: false, clear_since: None, critical_since }
    }

    /// Takes a sample that isn't null; `true`: it resolved the alert.
    fn on_warm(
        &mut self,
        rule: &Rule,
        time: Time,
        clear: bool,
        critical: bool,
        mut tell: impl FnMut(AlertTransition),
    ) -> bool {
        if self.suppressed {
            self.suppressed = false;
            tell(self.change(AlertState::Active, "resumed"));
        }
        keep_clock(&mut self.clear_since, clear, time);
        keep_clock(&mut self.critical_since, critical, time);
        if has_run(self.clear_since, time, rule.resolve_for) {
            tell(self.change(AlertState::Resolved, "cleared"));
            return true;
        }
        if let Some(limit) = rule.critical
            && rule.priority == Priority::P2
            && !self.escalated
            && has_run(self.critical_since, time, limit.hold)
        {
            self.escalated = true;
            tell(self.change(AlertState::Escalated, "critical"));
        }
        false
    }

    fn change(&self, state: AlertState, reason: &'static str) -> AlertTransition {
        let Raised { start, triggered_at, escalated, .. } = *self;
        AlertTransition { state, reason, start, triggered_at, escalated }
    }
}

/// Lets a clock run from the first sample at which `condition` is true, and forgets it at the first false one.
fn keep_clock(since: &mut Option<Time>, condition: bool, time: Time) {
    *since = condition.then(|| since.unwrap_or(time));
}

fn has_run(since: Option<Time>, time: Time, span: Nanos) -> bool {
    since.is_some_and(|since| time.since(since) >= span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_of_starts_that_is_full_stays_full() {
        let full = AlertStart { at: Time(5), nth: u32::MAX };
        let mut life = AlertLife { last_start: Some(full), ..AlertLife::default() };
        assert_eq!(life.next_start(Time(5)), full);
        assert_eq!(life.next_start(Time(6)), AlertStart { at: Time(6), nth: 1 });
    }
}
