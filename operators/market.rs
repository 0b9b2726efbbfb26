//! What is computed of every instrument: the one list of operators.

use crate::chain::Chain;
use crate::features::FeatureWindows;
use crate::gaps::Gaps;
use crate::links;
use crate::order::Order;
use crate::rules::Rules;
use crate::score::Score;
use crate::seconds::Seconds;

/// What is computed of every instrument, behind [`Order`]. A further operator is its file and its name here.
pub type MarketLinks = links![Gaps, FeatureWindows, Seconds, Score, Rules];

/// All of it.
pub type MarketChain = Chain<Order, MarketLinks>;
