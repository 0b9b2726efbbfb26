//! Windowed features of every tick (docs/definitions.md, "Features").

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::Effect;
use crate::moments::{SlidingMoments, push_tight};
use crate::operator::{Ahead, Collector, Instrument, Mismatch, Operator, consistent, same_settings};
use crate::packed::{self, Packed};
use crate::parameters::Parameters;
use crate::prefetch::{fetch, fetch_all};
use crate::row::{Body, Quote, Row};
use crate::stages::{Features, Live, MAX_HORIZONS, Measured};
use crate::time::{SECOND, Time};

pub use crate::parameters::FeatureSettings;

/// Computes the features of one instrument's ticks from what lies in its windows.
///
/// Costs O(1) a tick, amortised; about 33 bytes for each tick in the longest window, 8 for each trade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureWindows {
    settings: Arc<FeatureSettings>,
    /// The ticks that a window or a return still reaches, oldest first.
    #[serde(with = "packed")]
    ticks: VecDeque<Tick>,
    /// How many ticks were dropped from the front of `ticks`: positions below count from the first tick since
    /// the last gap.
    dropped: u64,
    /// For each horizon h, how many ticks lie at or before T - h: the reference is the last of them.
    references: [u64; MAX_HORIZONS],
    /// Position of the first tick inside the window.
    window_start: u64,
    /// Tick returns whose later tick lies inside the window. The first tick has none.
    returns: SlidingMoments,
    /// Clock of each trade inside the window.
    #[serde(with = "packed")]
    trades: VecDeque<Time>,
    /// `spread_bps` of the last `spread_window` ticks.
    spreads: SlidingMoments,
    /// Price of the last trade; NaN before the first.
    price: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Tick {
    clock: Time,
    mid: f64,
}

impl Packed for Tick {
    const BYTES: usize = Time::BYTES + f64::BYTES;

    fn put(&self, bytes: &mut [u8]) {
        let (clock, mid) = bytes.split_at_mut(Time::BYTES);
        self.clock.put(clock);
        self.mid.put(mid);
    }

    fn get(bytes: &[u8]) -> Tick {
        let (clock, mid) = bytes.split_at(Time::BYTES);
        Tick { clock: Time::get(clock), mid: f64::get(mid) }
    }
}

impl Operator for FeatureWindows {
    const NAME: &'static str = "features";
    type Input = Live;
    type Output = Measured;

    fn new(parameters: &Parameters, _: &Instrument) -> Self {
        let settings = &parameters.features;
        assert!(settings.horizons.len() <= MAX_HORIZONS, "a job has at most {MAX_HORIZONS} horizons");
        assert!(settings.window > 0, "a window has a length");
        assert!(settings.spread_window > 0, "a window holds at least one tick");
        FeatureWindows {
            settings: settings.clone(),
            ticks: VecDeque::new(),
            dropped: 0,
            references: [0; MAX_HORIZONS],
            window_start: 0,
            returns: SlidingMoments::default(),
            trades: VecDeque::new(),
            spreads: SlidingMoments::default(),
            price: f64::NAN,
        }
    }

    fn on_input(&mut self, input: Live, out: &mut impl Collector<Measured>) {
        match input {
            Live::Gap(gap) => {
                self.clear();
                out.push(Measured::Gap(gap));
            }
            Live::Row(row) => match row.body {
                Body::Quote(quote) => {
                    out.counts().ticks += 1;
                    out.counts().locked += i64::from(quote.bid == quote.ask);
                    let settings = out.in_force().since.settings;
                    let features = self.on_tick(&row, &quote, settings);
                    out.push(Measured::Tick(features));
                }
                Body::Trade(trade) => {
                    out.counts().applied += 1;
                    self.price = trade.price;
                    let (clock, digits) = (row.clock, row.digits);
                    let trade_intensity = self.on_trade(clock);
                    out.push(Measured::Trade { clock, digits, trade_intensity });
                }
                // The clock moves; what the book says is for operators that keep one.
                Body::Heartbeat | Body::Book(_) => {
                    out.counts().applied += 1;
                    out.push(Measured::Heartbeat { clock: row.clock, digits: row.digits });
                }
            },
        }
    }

    fn on_change(&mut self, effect: &Effect, _: &mut impl Collector<Measured>) {
        if effect.now.features != self.settings {
            self.clear();
        }
        self.settings = effect.now.features.clone();
    }

    fn fetch(&self, _: Time, ahead: Ahead) {
        match ahead {
            Ahead::Far => return fetch_all(self),
            Ahead::Near => {}
            Ahead::Next => return,
        }
        let references = &self.references[..self.settings.horizons.len()];
        for position in references.iter().copied().chain([self.window_start]) {
            self.tick(position.max(self.dropped)).map(fetch);
        }
        self.ticks.back().map(fetch);
        self.trades.front().map(fetch);
        self.trades.back().map(fetch);
        self.returns.fetch();
        self.spreads.fetch();
    }

    fn resume(&mut self, parameters: &Parameters, _: &Instrument) -> Result<(), Mismatch> {
        same_settings(&self.settings, &parameters.features)?;
        self.settings = parameters.features.clone();
        consistent(self.is_consistent(), "its windows do not fit each other")
    }
}

impl FeatureWindows {
    /// `settings` is the number of the change that they came from.
    fn on_tick(&mut self, row: &Row, quote: &Quote, settings: u32) -> Features {
        let clock = row.clock;
        let mid = (quote.bid + quote.ask) / 2.0;
        let spread_abs = quote.ask - quote.bid;
        let spread_rel = spread_abs / mid;
        let spread_bps = 1e4 * spread_abs / mid;
        if quote.price.is_finite() {
            self.price = quote.price;
        }
        if quote.trade {
            push_tight(&mut self.trades, clock);
        }
        let trade_intensity = self.trade_intensity(clock);
        let returns = self.returns_over_horizons(clock, mid);
        self.push(clock, mid);
        let moments = self.returns.moments();
        Features {
            source: row.source,
            index: row.index,
            event_time: row.event_time,
            clock,
            digits: row.digits,
            settings,
            n: moments.count,
            price: self.price,
            midprice: mid,
            spread_abs,
            spread_rel,
            spread_bps,
            order_book_imbalance: imbalance(quote.bid_size, quote.ask_size),
            returns,
            ret_mean: if moments.count == 0 { f64::NAN } else { moments.mean },
            ret_std: moments.sample_std(),
            trade_intensity,
            volatility_z: f64::NAN,
            spread_z: self.spread_zscore(spread_bps),
        }
    }

    fn on_trade(&mut self, clock: Time) -> f64 {
        push_tight(&mut self.trades, clock);
        self.trade_intensity(clock)
    }

    /// Trades a second with T in (clock - window, clock].
    fn trade_intensity(&mut self, clock: Time) -> f64 {
        let edge = clock.minus(self.settings.window);
        while self.trades.front().is_some_and(|trade| *trade <= edge) {
            self.trades.pop_front();
        }
        self.trades.len() as f64 / (self.settings.window as f64 / SECOND as f64)
    }

    /// ln(m / m_ref) for each horizon, m_ref the mid of the last tick before this one with T <= clock - h.
    fn returns_over_horizons(&mut self, clock: Time, mid: f64) -> [f64; MAX_HORIZONS] {
        let mut returns = [f64::NAN; MAX_HORIZONS];
        for (k, horizon) in self.settings.horizons.iter().enumerate() {
            let edge = clock.minus(*horizon);
            let mut before = self.references[k];
            while self.tick(before).is_some_and(|tick| tick.clock <= edge) {
                before += 1;
            }
            self.references[k] = before;
            if before > 0 {
                returns[k] = log_return(mid, self.ticks[(before - 1 - self.dropped) as usize].mid);
            }
        }
        returns
    }

    /// Takes the tick into the window and drops what no window reaches any more.
    fn push(&mut self, clock: Time, mid: f64) {
        if let Some(previous) = self.ticks.back() {
            self.returns.push(log_return(mid, previous.mid));
        }
        push_tight(&mut self.ticks, Tick { clock, mid });
        let edge = clock.minus(self.settings.window);
        while self.tick(self.window_start).is_some_and(|tick| tick.clock <= edge) {
            if self.window_start > 0 {
                self.returns.evict();
            }
            self.window_start += 1;
        }
        let horizons = &self.references[..self.settings.horizons.len()];
        let reached = horizons.iter().map(|before| before.saturating_sub(1)).min().unwrap_or(u64::MAX);
        // The newest tick stays: the next return starts from it.
        let keep = reached.min(self.window_start).min(self.dropped + self.ticks.len() as u64 - 1);
        while self.dropped < keep {
            self.ticks.pop_front();
            self.dropped += 1;
        }
    }

    /// The tick at a position that counts from the first one since the last gap.
    fn tick(&self, position: u64) -> Option<&Tick> {
        self.ticks.get((position - self.dropped) as usize)
    }

    /// z-score against the ticks before this one, which then joins them. A spread that overflowed does neither.
    fn spread_zscore(&mut self, spread_bps: f64) -> f64 {
        if !spread_bps.is_finite() {
            return f64::NAN;
        }
        let zscore = self.spreads.moments().zscore(spread_bps, self.settings.spread_min);
        if self.spreads.len() == self.settings.spread_window as usize {
            self.spreads.evict();
        }
        self.spreads.push(spread_bps);
        zscore
    }

    /// All windows start empty, as after a gap; the last trade's price is no window.
    fn clear(&mut self) {
        self.ticks.clear();
        self.dropped = 0;
        self.references = [0; MAX_HORIZONS];
        self.window_start = 0;
        self.returns.clear();
        self.trades.clear();
        self.spreads.clear();
    }

    /// Whether the parts fit each other: checked on what was read from outside.
    fn is_consistent(&self) -> bool {
        let Some(end) = self.dropped.checked_add(self.ticks.len() as u64) else { return false };
        let references = &self.references[..self.settings.horizons.len().min(MAX_HORIZONS)];
        let reachable = |before: &u64| match before.checked_sub(1) {
            Some(reference) => (self.dropped..end).contains(&reference),
            None => self.dropped == 0,
        };
        references.iter().all(reachable)
            && (self.dropped..=end).contains(&self.window_start)
            && self.returns.len() as u64 == end.saturating_sub(self.window_start.max(1))
            && self.returns.is_consistent()
            && self.spreads.is_consistent()
            && self.spreads.len() <= self.settings.spread_window as usize
    }
}

/// (bid_size - ask_size) / (bid_size + ask_size); 0 when both are 0; NaN without sizes.
fn imbalance(bid_size: f64, ask_size: f64) -> f64 {
    let both = bid_size + ask_size;
    if both == 0.0 { 0.0 } else { (bid_size - ask_size) / both }
}

/// ln(mid / reference).
fn log_return(mid: f64, reference: f64) -> f64 {
    if mid == reference { 0.0 } else { libm::log(mid / reference) }
}
