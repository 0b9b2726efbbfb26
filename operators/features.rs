//! Windowed features of every tick (SPEC 3).

use serde::{Deserialize, Serialize};

use crate::time::{Nanos, SECOND};

/// Lengths and sizes of the feature windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSettings {
    /// Length of the window of tick returns and trades.
    pub window: Nanos,
    /// Horizons of the returns, ascending, at most [`crate::stages::MAX_HORIZONS`].
    pub horizons: Vec<Nanos>,
    /// How many ticks the spread's z-score looks back.
    pub spread_window: u32,
    /// How many of them it needs.
    pub spread_min: u32,
}

impl Default for FeatureSettings {
    fn default() -> Self {
        FeatureSettings {
            window: 60 * SECOND,
            horizons: vec![SECOND, 5 * SECOND, 30 * SECOND, 60 * SECOND],
            spread_window: 300,
            spread_min: 30,
        }
    }
}
