//! What flows from one operator to the next.
//!
//! ```text
//! Row ─order─► Row ─gaps─► Live ─features─► Measured ─seconds─► Sampled ─score─► Scored ─rules─► Outcome
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::row::{Row, Source};
use crate::time::Time;

/// How many return horizons a job may have.
pub const MAX_HORIZONS: usize = 8;

/// Why a part of an instrument's log is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GapReason {
    /// No sign of life for longer than `gap_after`.
    Silence,
    /// A part of the log is gone.
    StateLost,
    /// Other settings hold, under which the windows start empty.
    Reconfigured,
    /// The clock was wrong, and was left.
    Clock,
}

impl GapReason {
    /// The name printed.
    pub fn name(self) -> &'static str {
        match self {
            GapReason::Silence => "silence",
            GapReason::StateLost => "state_lost",
            GapReason::Reconfigured => "reconfigured",
            GapReason::Clock => "clock",
        }
    }
}

/// A stretch without data (docs/definitions.md, "Gaps"): from the last sign of life to the one that ended it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    pub start: Time,
    pub end: Time,
    pub reason: GapReason,
    pub digits: u8,
}

/// A row, or the gap that it ended (which comes first).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Live {
    Gap(Gap),
    Row(Row),
}

/// The features of one tick (docs/definitions.md, "Features"). NaN stands for null.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Features {
    /// The row that is this tick.
    pub source: Source,
    pub index: u32,
    pub event_time: Time,
    pub clock: Time,
    pub digits: u8,
    /// Number of the change that the windows' settings came from; 0: the configuration.
    pub settings: u32,
    /// Tick returns in the window.
    pub n: u32,
    pub price: f64,
    pub midprice: f64,
    pub spread_abs: f64,
    pub spread_rel: f64,
    pub spread_bps: f64,
    pub order_book_imbalance: f64,
    /// One return for each configured horizon, in that order; the rest is NaN.
    pub returns: [f64; MAX_HORIZONS],
    pub ret_mean: f64,
    pub ret_std: f64,
    pub trade_intensity: f64,
    /// Filled in by the per-second operator.
    pub volatility_z: f64,
    pub spread_z: f64,
}

/// What the feature operator says of each row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measured {
    Gap(Gap),
    Tick(Features),
    /// A trade that changed the intensity.
    Trade {
        clock: Time,
        digits: u8,
        trade_intensity: f64,
    },
    /// A sign of life: the clock moved, nothing else.
    Heartbeat {
        clock: Time,
        digits: u8,
    },
}

/// The per-second metrics that need no book (docs/definitions.md, "Per-second metrics").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Metric {
    SpreadBps,
    Mid,
    Imbalance,
    RealisedVol,
    TradeIntensity,
}

impl Metric {
    pub const COUNT: usize = 5;
    /// All metrics, in the order in which they are printed.
    pub const ALL: [Metric; Metric::COUNT] =
        [Metric::SpreadBps, Metric::Mid, Metric::Imbalance, Metric::RealisedVol, Metric::TradeIntensity];

    /// The name printed and configured.
    pub fn name(self) -> &'static str {
        match self {
            Metric::SpreadBps => "spread_bps",
            Metric::Mid => "mid",
            Metric::Imbalance => "imbalance",
            Metric::RealisedVol => "realised_vol",
            Metric::TradeIntensity => "trade_intensity",
        }
    }

    /// What it is, for documents.
    pub fn meaning(self) -> &'static str {
        match self {
            Metric::SpreadBps => "`spread_bps` of the second's last tick",
            Metric::Mid => "`midprice` of the second's last tick",
            Metric::Imbalance => "`order_book_imbalance` of the second's last tick",
            Metric::RealisedVol => "`ret_std` of the second's last tick",
            Metric::TradeIntensity => {
                "of the second's last tick, or of the last trade behind that in the second"
            }
        }
    }
}

/// One metric of one second. NaN stands for null.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub value: f64,
    /// z-score against the samples before; NaN while warming up.
    pub zscore: f64,
    /// How many samples before this one the z-score has seen: k of "warming up (k/30)".
    pub seen: u32,
}

/// The metrics of one second of one instrument, stamped with the second's end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub time: Time,
    pub digits: u8,
    /// Indexed by `Metric as usize`.
    pub readings: [Reading; Metric::COUNT],
}

/// Seconds that ended, and ticks with all their features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampled {
    Gap(Gap),
    Sample(Sample),
    Tick(Features),
}

/// A model's word on one tick.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// NaN where the model refused the tick.
    pub probability: f64,
    /// Whether `probability` reaches the model's decision threshold; `None` where the model refused the tick.
    pub spike: Option<bool>,
    /// Number of the change that the model came from; 0: the configuration.
    pub model: u32,
}

/// Ticks with their prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scored {
    Gap(Gap),
    Sample(Sample),
    Tick(Features, Prediction),
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// A per-second metric.
    Metric(Metric),
    /// The model's probability, on every tick.
    Probability,
}

impl Signal {
    /// The name printed and configured.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Metric(metric) => metric.name(),
            Signal::Probability => "probability",
        }
    }
}

/// The states of an alert that are emitted (docs/definitions.md, "Alerts").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlertState {
    Active,
    Escalated,
    Suppressed,
    Resolved,
}

impl AlertState {
    /// The name printed.
    pub fn name(self) -> &'static str {
        match self {
            AlertState::Active => "active",
            AlertState::Escalated => "escalated",
            AlertState::Suppressed => "suppressed",
            AlertState::Resolved => "resolved",
        }
    }
}

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    /// Critical.
    P1,
    /// Warning.
    P2,
    /// Info.
    P3,
}

impl Priority {
    /// The name printed and configured.
    pub fn name(self) -> &'static str {
        match self {
            Priority::P1 => "P1",
            Priority::P2 => "P2",
            Priority::P3 => "P3",
        }
    }
}

/// One change in the life of an alert (docs/definitions.md, "Alerts"). NaN stands for null.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Hash of rule, instrument, `started_at` and the count of starts in that instant, in hex.
    pub id: Arc<str>,
    pub rule: Arc<str>,
    pub priority: Priority,
    pub state: AlertState,
    pub signal: Signal,
    /// When this change happened.
    pub time: Time,
    pub value: f64,
    /// The level that was crossed: the raise level, the critical level or the clear level.
    pub threshold: f64,
    pub zscore: f64,
    pub started_at: Time,
    pub triggered_at: Option<Time>,
    pub resolved_at: Option<Time>,
    /// What brought the change about: `raised`, `critical`, `gap`, `warming_up`, `resumed`, `cleared`, `disabled`,
    /// `reconfigured`.
    pub reason: &'static str,
    pub digits: u8,
}

/// All that a job emits of an instrument, in the order of its log.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Gap(Gap),
    Sample(Sample),
    Tick(Features, Prediction),
    Alert(Box<Alert>),
}
