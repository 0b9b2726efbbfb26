//! The features of a tick by name: what models look at, outputs print and requests give.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::stages::{Features, MAX_HORIZONS};
use crate::time::{MILLISECOND, Nanos, SECOND};

/// One feature of a tick (docs/definitions.md, "Features").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    Price,
    Midprice,
    SpreadAbs,
    SpreadRel,
    SpreadBps,
    OrderBookImbalance,
    /// A return; the number is the position of its horizon in the job's list.
    Return(u8),
    N,
    RetMean,
    RetStd,
    TradeIntensity,
    VolatilityZ,
    SpreadZ,
}

impl Feature {
    /// How many features a tick may have.
    pub const COUNT: usize = Feature::FIXED.len() + MAX_HORIZONS;

    /// All features but the returns.
    pub const FIXED: [Feature; 12] = [
        Feature::Price,
        Feature::Midprice,
        Feature::SpreadAbs,
        Feature::SpreadRel,
        Feature::SpreadBps,
        Feature::OrderBookImbalance,
        Feature::N,
        Feature::RetMean,
        Feature::RetStd,
        Feature::TradeIntensity,
        Feature::VolatilityZ,
        Feature::SpreadZ,
    ];

    /// Another name of [`Feature::RetStd`].
    pub const VOLATILITY: &str = "volatility";

    /// Its value at a tick; NaN is null.
    pub fn get(self, features: &Features) -> f64 {
        match self {
            Feature::Price => features.price,
            Feature::Midprice => features.midprice,
            Feature::SpreadAbs => features.spread_abs,
            Feature::SpreadRel => features.spread_rel,
            Feature::SpreadBps => features.spread_bps,
            Feature::OrderBookImbalance => features.order_book_imbalance,
            Feature::Return(horizon) => features.returns[horizon as usize],
            Feature::N => f64::from(features.n),
            Feature::RetMean => features.ret_mean,
            Feature::RetStd => features.ret_std,
            Feature::TradeIntensity => features.trade_intensity,
            Feature::VolatilityZ => features.volatility_z,
            Feature::SpreadZ => features.spread_z,
        }
    }

    /// The name printed and configured, in a job with these return horizons.
    pub fn name(self, horizons: &[Nanos]) -> Cow<'static, str> {
        let name = match self {
            Feature::Return(at) => {
                return match horizons.get(usize::from(at)) {
                    Some(horizon) => return_name(*horizon).into(),
                    // One of a job with more horizons.
                    None => format!("return {at}").into(),
                };
            }
            Feature::Price => "price",
            Feature::Midprice => "midprice",
            Feature::SpreadAbs => "spread_abs",
            Feature::SpreadRel => "spread_rel",
            Feature::SpreadBps => "spread_bps",
            Feature::OrderBookImbalance => "order_book_imbalance",
            Feature::N => "n",
            Feature::RetMean => "ret_mean",
            Feature::RetStd => "ret_std",
            Feature::TradeIntensity => "trade_intensity",
            Feature::VolatilityZ => "volatility_z",
            Feature::SpreadZ => "spread_z",
        };
        name.into()
    }

    /// What it is, for documents.
    pub fn meaning(self) -> &'static str {
        match self {
            Feature::Price => "price of the last trade",
            Feature::Midprice => "(bid + ask) / 2",
            Feature::SpreadAbs => "ask - bid",
            Feature::SpreadRel => "`spread_abs` over the mid",
            Feature::SpreadBps => "`spread_rel` in basis points",
            Feature::OrderBookImbalance => {
                "(bid_size - ask_size) / (bid_size + ask_size); 0 when both are 0, null without sizes"
            }
            Feature::Return(_) => {
                "ln(mid / mid of the last tick at or before T less the horizon), T the instrument's clock"
            }
            Feature::N => "count of the tick returns in `features.window`",
            Feature::RetMean => "mean of the tick returns in `features.window`",
            Feature::RetStd => "sample standard deviation of the tick returns in `features.window`",
            Feature::TradeIntensity => "trades a second over `features.window`",
            Feature::VolatilityZ => "z-score of `realised_vol` in the last completed second",
            Feature::SpreadZ => "z-score of `spread_bps` against the `features.spread_window` ticks before",
        }
    }

    /// Its place among all features that there can be, below [`Feature::COUNT`].
    pub fn slot(self) -> usize {
        match self {
            Feature::Return(horizon) => Feature::FIXED.len() + usize::from(horizon),
            fixed => Feature::FIXED.iter().position(|other| *other == fixed).unwrap_or(0),
        }
    }

    /// All names by which a job with these return horizons knows features; one has two.
    pub fn names(horizons: &[Nanos]) -> Vec<String> {
        let mut names = Vec::new();
        for feature in Feature::FIXED {
            names.push(feature.name(horizons).into_owned());
            if feature == Feature::RetStd {
                names.push(Feature::VOLATILITY.to_owned());
            }
        }
        names.extend(horizons.iter().take(MAX_HORIZONS).map(|horizon| return_name(*horizon)));
        names
    }

    /// Finds a feature by one of its names in a job with these return horizons.
    pub fn named(name: &str, horizons: &[Nanos]) -> Option<Feature> {
        if name == Feature::VOLATILITY {
            return Some(Feature::RetStd);
        }
        let returns = (0..horizons.len().min(MAX_HORIZONS)).map(|at| Feature::Return(at as u8));
        Feature::FIXED.into_iter().chain(returns).find(|feature| feature.name(horizons) == name)
    }

    /// Whether a job with this many return horizons has it.
    ///
    /// # Errors
    /// Says that it has not.
    pub fn check(self, horizons: usize) -> Result<(), String> {
        match self {
            Feature::Return(at) if at as usize >= horizons => {
                Err(format!("a model names return {at}, but the job has {horizons} return horizons"))
            }
            _ => Ok(()),
        }
    }
}

/// The printed name of the return over `horizon`: `return_5s`, or `return_250ms` below whole seconds.
pub fn return_name(horizon: Nanos) -> String {
    if horizon % SECOND == 0 {
        format!("return_{}s", horizon / SECOND)
    } else {
        format!("return_{}ms", horizon / MILLISECOND)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HORIZONS: [Nanos; 3] = [SECOND, 250 * MILLISECOND, 60 * SECOND];

    #[test]
    fn each_has_a_slot_and_a_name_of_its_own() {
        let returns = (0..MAX_HORIZONS).map(|at| Feature::Return(at as u8));
        let all: Vec<Feature> = Feature::FIXED.into_iter().chain(returns).collect();
        let slots: BTreeSet<usize> = all.iter().map(|feature| feature.slot()).collect();
        assert_eq!(slots, (0..Feature::COUNT).collect());
        let names: BTreeSet<String> =
            all.iter().map(|feature| feature.name(&HORIZONS).into_owned()).collect();
        assert_eq!(names.len(), Feature::COUNT);
    }

    #[test]
    fn a_feature_is_found_by_each_name_that_it_is_known_by() {
        let names = Feature::names(&HORIZONS);
        assert_eq!(names.len(), Feature::FIXED.len() + 1 + HORIZONS.len());
        for name in names.iter().filter(|name| *name != Feature::VOLATILITY) {
            assert_eq!(
                Feature::named(name, &HORIZONS).map(|feature| feature.name(&HORIZONS)),
                Some(name.into())
            );
        }
        assert_eq!(Feature::named("volatility", &HORIZONS), Some(Feature::RetStd));
        assert_eq!(Feature::named("return_250ms", &HORIZONS), Some(Feature::Return(1)));
        assert_eq!(Feature::named("return_5s", &HORIZONS), None);
        assert_eq!(Feature::Return(3).name(&HORIZONS), "return 3");
    }
}
