//! All that operators take from configuration, by operator.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::Model;
use crate::rule::{Rule, check_rules};
use crate::stages::MAX_HORIZONS;
use crate::time::{Nanos, SECOND};

/// All that operators take from configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// How far a row's time may lie ahead of its receipt, beyond what is usual.
    pub max_ahead: Nanos,
    pub order: OrderSettings,
    pub features: Arc<FeatureSettings>,
    pub seconds: SecondSettings,
    pub model: Arc<Model>,
    pub rules: Arc<[Rule]>,
}

impl Parameters {
    /// Whether windows mean the same under both: all but the model, the rules and `max_ahead` is alike.
    pub fn same_windows(&self, other: &Parameters) -> bool {
        // Named one by one, so that a new one is not forgotten.
        let Parameters { max_ahead: _, order, features, seconds, model: _, rules: _ } = self;
        *order == other.order && *features == other.features && *seconds == other.seconds
    }

    /// What operators could not work with, if anything.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn check(&self) -> Result<(), String> {
        if self.max_ahead < 0 {
            return Err("max_ahead is not negative".to_string());
        }
        self.order.check()?;
        self.features.check()?;
        self.seconds.check()?;
        self.model.check(self.features.horizons.len())?;
        check_rules(&self.rules)
    }
}

/// How rows are put in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderSettings {
    /// How long a row waits for older ones; 0: rows are taken as they come.
    pub reorder: Nanos,
}

impl OrderSettings {
    /// What rows could not be ordered by, if anything.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn check(&self) -> Result<(), String> {
        if self.reorder < 0 { Err("rows wait for no negative time".to_string()) } else { Ok(()) }
    }
}

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

impl FeatureSettings {
    /// What no windows could be made by, if anything.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn check(&self) -> Result<(), String> {
        let ascend = self.horizons.windows(2).all(|pair| pair[0] < pair[1]);
        if self.horizons.len() > MAX_HORIZONS {
            return Err(format!("a job has at most {MAX_HORIZONS} horizons"));
        }
        if self.horizons.first().is_some_and(|first| *first <= 0) || !ascend {
            return Err("horizons are above 0 and ascend".to_string());
        }
        if self.window <= 0 {
            return Err("a window has a length".to_string());
        }
        if self.spread_window == 0 {
            return Err("a window holds at least one tick".to_string());
        }
        Ok(())
    }
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

/// Size of the z-score windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondSettings {
    /// How many samples a z-score looks back.
    pub zscore_window: u32,
    /// How many of them it needs.
    pub zscore_min_samples: u32,
}

impl SecondSettings {
    /// What no windows could be made by, if anything.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn check(&self) -> Result<(), String> {
        if self.zscore_window == 0 { Err("a window holds at least one sample".to_string()) } else { Ok(()) }
    }
}

impl Default for SecondSettings {
    fn default() -> Self {
        SecondSettings { zscore_window: 300, zscore_min_samples: 30 }
    }
}
