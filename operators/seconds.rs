//! Metrics of each second and their z-scores (SPEC 5).

use serde::{Deserialize, Serialize};

/// Size of the z-score windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondSettings {
    /// How many samples a z-score looks back.
    pub zscore_window: u32,
    /// How many of them it needs.
    pub zscore_min_samples: u32,
}

impl Default for SecondSettings {
    fn default() -> Self {
        SecondSettings { zscore_window: 300, zscore_min_samples: 30 }
    }
}
