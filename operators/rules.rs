//! Alert rules over per-second metrics and probabilities (SPEC 6).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::stages::{Priority, Signal};
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
    pub hold: Nanos,
}

/// One rule, read from `alerts.yaml` and checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
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
    pub critical: Option<Critical>,
    /// `for`: how long the condition must hold before the alert is raised.
    pub hold: Nanos,
    pub resolve_for: Nanos,
    pub cooldown: Nanos,
    pub enabled: bool,
}
