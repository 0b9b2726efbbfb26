//! Metrics of each second and their z-scores (docs/definitions.md, "Per-second metrics").

use serde::{Deserialize, Serialize};

use crate::change::Effect;
use crate::moments::SlidingMoments;
use crate::operator::{Ahead, Collector, Instrument, Mismatch, Operator, consistent, same_settings};
use crate::parameters::Parameters;
use crate::prefetch::{fetch, fetch_all};
use crate::stages::{Features, Measured, Metric, Reading, Sample, Sampled};
use crate::time::{SECOND, Time};

pub use crate::parameters::SecondSettings;

/// Samples an instrument once a second, from the last state within that second, at the first row at or beyond
/// the second's end. Fills in the ticks' `volatility_z`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    settings: SecondSettings,
    /// The second being filled; `None` before its first quote.
    open: Option<OpenSecond>,
    /// The stamp of the last sample: they ascend for ever, even where a wrong clock was left.
    told: Option<Time>,
    /// The samples before, by metric.
    windows: [SlidingMoments; Metric::COUNT],
    /// z-score of the last completed second's `realised_vol`; NaN while there is none.
    volatility_z: f64,
}

/// A second that has a quote row and has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct OpenSecond {
    end: Time,
    digits: u8,
    /// The last state so far, indexed by `Metric as usize`.
    values: [f64; Metric::COUNT],
}

impl Operator for Seconds {
    const NAME: &'static str = "seconds";
    type Input = Measured;
    type Output = Sampled;

    fn new(parameters: &Parameters, _: &Instrument) -> Self {
        let settings = parameters.seconds;
        assert!(settings.zscore_window > 0, "a window holds at least one sample");
        Seconds { settings, open: None, told: None, windows: Default::default(), volatility_z: f64::NAN }
    }

    fn on_input(&mut self, input: Measured, out: &mut impl Collector<Sampled>) {
        match input {
            Measured::Gap(gap) => {
                self.advance(gap.end, out);
                self.clear();
                out.push(Sampled::Gap(gap));
            }
            Measured::Tick(mut features) => {
                self.advance(features.clock, out);
                self.open = Some(OpenSecond::after(&features));
                features.volatility_z = self.volatility_z;
                out.push(Sampled::Tick(features));
            }
            Measured::Trade { clock, trade_intensity, .. } => {
                self.advance(clock, out);
                if let Some(open) = &mut self.open {
                    open.values[Metric::TradeIntensity as usize] = trade_intensity;
                }
            }
            Measured::Heartbeat { clock, .. } => self.advance(clock, out),
        }
    }

    /// A second that the clock has left ends first, under the settings that it began with.
    fn on_change(&mut self, effect: &Effect, out: &mut impl Collector<Sampled>) {
        if effect.now.seconds != self.settings {
            self.advance(effect.at, out);
            self.clear();
        }
        self.settings = effect.now.seconds;
    }

    fn fetch(&self, time: Time, ahead: Ahead) {
        let ends = self.open.is_some_and(|open| time >= open.end);
        match ahead {
            Ahead::Far => {
                fetch_all(&self.open);
                fetch(&self.volatility_z);
            }
            Ahead::Near if ends => fetch_all(&self.windows),
            Ahead::Next if ends => self.windows.iter().for_each(SlidingMoments::fetch),
            _ => {}
        }
    }

    fn resume(&mut self, parameters: &Parameters, _: &Instrument) -> Result<(), Mismatch> {
        same_settings(&self.settings, &parameters.seconds)?;
        let fits = |window: &SlidingMoments| {
            window.is_consistent() && window.len() <= self.settings.zscore_window as usize
        };
        consistent(self.windows.iter().all(fits), "its windows do not fit each other")
    }
}

impl Seconds {
    /// The clock has reached `clock`: a second that ended by then gives its sample.
    fn advance(&mut self, clock: Time, out: &mut impl Collector<Sampled>) {
        if let Some(open) = self.open.take_if(|open| clock >= open.end) {
            let readings = std::array::from_fn(|metric| self.read(metric, open.values[metric]));
            self.volatility_z = readings[Metric::RealisedVol as usize].zscore;
            if self.told >= Some(open.end) {
                out.counts().samples_repeated += 1;
                return;
            }
            self.told = Some(open.end);
            out.counts().samples += 1;
            out.push(Sampled::Sample(Sample { time: open.end, digits: open.digits, readings }));
        }
    }

    /// Scores a value against the samples before it, which it then joins. Nulls, and what overflowed, neither score nor join.
    fn read(&mut self, metric: usize, value: f64) -> Reading {
        let window = &mut self.windows[metric];
        let seen = window.len() as u32;
        if !value.is_finite() {
            return Reading { value, zscore: f64::NAN, seen };
        }
        let zscore = window.moments().zscore(value, self.settings.zscore_min_samples);
        if seen == self.settings.zscore_window {
            window.evict();
        }
        window.push(value);
        Reading { value, zscore, seen }
    }

    /// All windows start empty, as after a gap; a second that spans the gap starts anew too.
    fn clear(&mut self) {
        self.open = None;
        self.windows.iter_mut().for_each(SlidingMoments::clear);
        self.volatility_z = f64::NAN;
    }
}

impl OpenSecond {
    /// The state of a second after a tick.
    fn after(features: &Features) -> OpenSecond {
        let mut values = [f64::NAN; Metric::COUNT];
        values[Metric::SpreadBps as usize] = features.spread_bps;
        values[Metric::Mid as usize] = features.midprice;
        values[Metric::Imbalance as usize] = features.order_book_imbalance;
        values[Metric::RealisedVol as usize] = features.ret_std;
        values[Metric::TradeIntensity as usize] = features.trade_intensity;
        let second = features.clock.0.div_euclid(SECOND);
        OpenSecond { end: Time((second + 1) * SECOND), digits: features.digits, values }
    }
}
