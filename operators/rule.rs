//! One alert rule as data: its levels and its patience (docs/definitions.md, "Alerts").

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::pattern::matches;
use crate::stages::{AlertState, Priority, Signal};
use crate::time::Nanos;

/// On which side of its levels a rule raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Raised at or above the raise level, clear at or below the clear level.
    Above,
    /// Raised at or below the raise level, clear at or above the clear level.
    Below,
}

/// The level and patience at which a P2 alert becomes P1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Critical {
    pub level: f64,
    /// Counts from the first of the critical samples, those before the alert was raised included.
    pub hold: Nanos,
}

/// One rule, read from `alerts.yaml` and checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// No other rule has it: alerts and saved states are found by it.
    pub name: Arc<str>,
    pub signal: Signal,
    /// `<exchange>:<instrument>` patterns; `*` stands for any run of characters.
    pub instruments: Vec<String>,
    pub priority: Priority,
    pub direction: Direction,
    pub raise: f64,
    /// On the quiet side of `raise`, or equal to it.
    pub clear: f64,
    /// The metric's z-score must reach this too (in the rule's direction: at or above it, or at or below its
    /// negative); such a rule is warming up while there is no z-score. Not for probabilities.
    pub zscore: Option<f64>,
    /// Only P2 alerts escalate: elsewhere it changes nothing.
    pub critical: Option<Critical>,
    /// `for`: how long the condition must hold before the alert is raised.
    pub hold: Nanos,
    pub resolve_for: Nanos,
    pub cooldown: Nanos,
    pub enabled: bool,
}

impl Rule {
    /// Whether one of the patterns covers the instrument.
    pub fn covers(&self, exchange: &str, name: &str) -> bool {
        let name = format!("{exchange}:{name}");
        self.instruments.iter().any(|pattern| matches(pattern, &name))
    }

    /// Whether the rule has to wait for a value, or for the z-score it needs.
    pub(crate) fn is_warming_up(&self, value: f64, zscore: f64) -> bool {
        value.is_nan() || (self.zscore.is_some() && zscore.is_nan())
    }

    /// Whether the condition for an alert is true.
    pub(crate) fn holds(&self, value: f64, zscore: f64) -> bool {
        let far_enough = self.zscore.is_none_or(|limit| match self.direction {
            Direction::Above => zscore >= limit,
            Direction::Below => zscore <= -limit,
        });
        far_enough && self.reaches(value, self.raise)
    }

    /// Whether the value is back at the clear level or on its quiet side.
    pub(crate) fn is_clear(&self, value: f64) -> bool {
        match self.direction {
            Direction::Above => value <= self.clear,
            Direction::Below => value >= self.clear,
        }
    }

    /// Whether the value is at the critical level or beyond, whatever its z-score.
    pub(crate) fn is_critical(&self, value: f64) -> bool {
        self.critical.is_some_and(|critical| self.reaches(value, critical.level))
    }

    fn reaches(&self, value: f64, level: f64) -> bool {
        match self.direction {
            Direction::Above => value >= level,
            Direction::Below => value <= level,
        }
    }

    /// Whether the two say the same, on or off aside: then one may go on from the other's state.
    pub(crate) fn agrees_with(&self, other: &Rule) -> bool {
        self.name == other.name && Rule { enabled: other.enabled, ..self.clone() } == *other
    }

    /// The level that a message names beside the value.
    pub(crate) fn threshold(&self, state: AlertState) -> f64 {
        match (state, self.critical) {
            (AlertState::Resolved, _) => self.clear,
            (AlertState::Escalated, Some(critical)) => critical.level,
            _ => self.raise,
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        let critical = self.critical.unwrap_or(Critical { level: self.raise, hold: 0 });
        let levels = [self.raise, self.clear, critical.level, self.zscore.unwrap_or(0.0)];
        let spans = [self.hold, self.resolve_for, self.cooldown, critical.hold];
        let has_score = self.signal != Signal::Probability || self.zscore.is_none();
        let checks = [
            (levels.iter().all(|level| level.is_finite()), "a rule's levels are numbers"),
            (self.reaches(self.raise, self.clear), "a rule clears on the quiet side of its raise level"),
            (spans.iter().all(|span| *span >= 0), "a rule's spans are not negative"),
            (has_score, "a probability has no z-score"),
        ];
        checks.iter().try_for_each(|(holds, rule)| if *holds { Ok(()) } else { Err(*rule) })
    }
}

/// What instruments could not be watched by, if anything.
///
/// # Errors
/// Names the first rule that is broken, and why.
pub fn check_rules(rules: &[Rule]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for rule in rules {
        rule.check().map_err(|why| format!("{:?}: {why}", rule.name))?;
        if !names.insert(&rule.name) {
            return Err(format!("{:?}: no two rules have the same name", rule.name));
        }
    }
    Ok(())
}
