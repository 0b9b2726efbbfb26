//! Signed volume of the trades in a window: bought minus sold, by the side that took liquidity.

use std::collections::VecDeque;

use foreshock_operators::change::{Effect, Parameters};
use foreshock_operators::operator::{Collector, Instrument, Mismatch, Operator, consistent, same_settings};
use foreshock_operators::row::{Body, Side};
use foreshock_operators::stages::Live;
use foreshock_operators::time::{Nanos, Time};
use serde::{Deserialize, Serialize};

/// What the operator gives at each trade whose side is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Volume {
    pub time: Time,
    /// In units of the base: above 0 where more was bought.
    pub volume: f64,
}

/// Sums what lies in the window anew at each trade: a large trade leaves no residue.
#[derive(Debug, Serialize, Deserialize)]
pub struct SignedVolume {
    /// Length of the window.
    window: Nanos,
    /// Clock and signed size of the trades in the window, oldest first.
    trades: VecDeque<(Time, f64)>,
}

impl Operator for SignedVolume {
    const NAME: &'static str = "signed_volume";
    type Input = Live;
    type Output = Volume;

    fn new(parameters: &Parameters, _: &Instrument) -> Self {
        SignedVolume { window: parameters.features.window, trades: VecDeque::new() }
    }

    fn on_input(&mut self, input: Live, out: &mut impl Collector<Volume>) {
        match input {
            Live::Gap(_) => self.trades.clear(),
            Live::Row(row) => {
                let Body::Trade(trade) = row.body else { return };
                let Some(side) = trade.side.filter(|_| trade.size.is_finite()) else { return };
                let size = if side == Side::Buy { trade.size } else { -trade.size };
                self.trades.push_back((row.clock, size));
                let edge = row.clock.minus(self.window);
                while self.trades.front().is_some_and(|(time, _)| *time <= edge) {
                    self.trades.pop_front();
                }
                let volume = self.trades.iter().map(|(_, size)| size).sum();
                out.push(Volume { time: row.clock, volume });
            }
        }
    }

    /// A window of another length starts empty.
    fn on_change(&mut self, effect: &Effect, _: &mut impl Collector<Volume>) {
        if effect.now.features.window != self.window {
            self.trades.clear();
            self.window = effect.now.features.window;
        }
    }

    fn resume(&mut self, parameters: &Parameters, _: &Instrument) -> Result<(), Mismatch> {
        same_settings(&self.window, &parameters.features.window)?;
        consistent(self.trades.iter().is_sorted_by_key(|(time, _)| *time), "its trades are not in order")
    }
}
