//! Every feature and every per-second sample against a slow oracle that recomputes each window from scratch,
//! from docs/definitions.md, "Features", "Gaps" and "Per-second metrics". It shares no line with the operators: other sums, other logarithm.
//!
//! Tolerance: 1e-9 relative, plus what the rounding of f64 inputs allows in any order of evaluation. A return is
//! the logarithm of a ratio near 1, known to 2^-52 absolute; a z-score is a difference of nearly equal values
//! over their spread.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::change::Parameters;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::links::Out;
use foreshock_operators::operator::Instrument;
use foreshock_operators::order::OrderSettings;
use foreshock_operators::row::{Body, Channel, Quote, Row};
use foreshock_operators::seconds::SecondSettings;
use foreshock_operators::stages::{Features, MAX_HORIZONS, Sample, Scored};
use foreshock_operators::time::{MILLISECOND, Nanos, SECOND};
use proptest::prelude::*;

use foreshock_testkit::random::Random;
use foreshock_testkit::rows::{
    START, ScoredChain, account_of, busy_log, feed_rows, heartbeat, instrument, instrument_with_gaps, log,
    mid, on, output_with, parameters, quote, sized, ticker, trade, with_id,
};

const EPS: f64 = f64::EPSILON;

// ------------------------------------------------------------------------------------------------ the oracle

/// A value and how far rounding may move it.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    value: f64,
    allowance: f64,
}

fn exactly(value: f64) -> Wanted {
    Wanted { value, allowance: 0.0 }
}

fn within(value: f64, allowance: f64) -> Wanted {
    Wanted { value, allowance }
}

/// A log after the definitions of order and gaps, as columns.
struct Oracle {
    settings: Parameters,
    ticks: Vec<SlowTick>,
    trades: Vec<SlowTrade>,
    samples: Vec<SlowSample>,
    /// (position of the row in the log, what came of it), in order.
    expected: Vec<(u32, Event)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Gap { start: i64, end: i64 },
    Sample(usize),
    Tick(usize),
}

struct SlowTick {
    /// How many trades were processed up to here, this row's own included.
    trades: usize,
    /// How many gaps came before.
    era: usize,
    event_time: i64,
    t: i64,
    quote: Quote,
    price: f64,
    mid: f64,
    bps: f64,
    /// ln(m_j / m_{j-1}); `None` for the first tick of an era.
    r: Option<f64>,
    /// How many samples were made up to here.
    samples: usize,
}

struct SlowTrade {
    era: usize,
    t: i64,
}

struct SlowSample {
    era: usize,
    time: i64,
    values: [Wanted; 5],
    zscores: [Wanted; 5],
    seen: [u32; 5],
}

impl Oracle {
    fn of(settings: &Parameters, instrument: &Instrument, rows: &[Row]) -> Oracle {
        let mut oracle = Oracle {
            settings: settings.clone(),
            ticks: Vec::new(),
            trades: Vec::new(),
            samples: Vec::new(),
            expected: Vec::new(),
        };
        // Left open, a kind's channel is the best so far, in the order in which the definitions name them.
        let rank = |channel: Channel| {
            let order = ["bookTicker", "trade", "aggTrade", "ticker", "book"];
            order.iter().position(|name| *name == channel.name())
        };
        let better = |channel: Channel, chosen: Option<Channel>, configured: Option<Channel>| {
            configured.is_none() && chosen.is_none_or(|chosen| rank(channel) < rank(chosen))
        };
        let mut ids: BTreeMap<Channel, Vec<u64>> = BTreeMap::new();
        let mut newest: BTreeMap<Channel, i64> = BTreeMap::new();
        let (mut quotes_on, mut trades_on) = (instrument.quote_channel, instrument.trade_channel);
        let mut clock: Option<i64> = None;
        let mut last_price = f64::NAN;
        let mut era = 0;
        // The second that has a quote but no sample yet: its end, its last tick, and how many trades had been
        // processed, at which time, when it last changed.
        let mut pending: Option<(i64, usize, usize, i64)> = None;
        for (position, row) in (0u32..).zip(rows) {
            // Which channels are used.
            let is_trade = match row.body {
                Body::Trade(_) => true,
                Body::Quote(quote) => quote.trade && !quote.price.is_nan(),
                Body::Heartbeat | Body::Book(_) => false,
            };
            if is_trade && better(row.channel, trades_on, instrument.trade_channel) {
                trades_on = Some(row.channel);
            }
            let counts_as_trade = is_trade && trades_on == Some(row.channel);
            let is_quote = matches!(row.body, Body::Quote(_));
            if is_quote && better(row.channel, quotes_on, instrument.quote_channel) {
                quotes_on = Some(row.channel);
            }
            let is_tick = is_quote && quotes_on == Some(row.channel);
            if !is_tick && !counts_as_trade && !matches!(row.body, Body::Heartbeat) {
                continue;
            }
            // Duplicate, late.
            if let Some(id) = row.id {
                let known = ids.entry(row.channel).or_default();
                if known.iter().rev().take(1024).any(|k| *k == id) {
                    continue;
                }
                known.push(id);
            }
            let event_time = row.event_time.0;
            if newest.get(&row.channel).is_some_and(|n| event_time < *n) {
                continue;
            }
            newest.insert(row.channel, event_time);
            let before = clock;
            let t = before.unwrap_or(event_time).max(event_time);
            clock = Some(t);
            // A second that ended.
            if let Some((end, tick, trades, changed)) = pending
                && t >= end
            {
                pending = None;
                let sample = oracle.sample(end, tick, exactly(oracle.intensity(trades, era, changed)));
                oracle.samples.push(sample);
                oracle.expected.push((position, Event::Sample(oracle.samples.len() - 1)));
            }
            // A gap.
            if let (Some(start), Some(gap_after)) = (before, instrument.gap_after)
                && t - start > gap_after
            {
                era += 1;
                pending = None;
                oracle.expected.push((position, Event::Gap { start, end: t }));
            }
            // The row itself.
            if counts_as_trade {
                oracle.trades.push(SlowTrade { era, t });
            }
            match row.body {
                Body::Quote(quote) if !quote.price.is_nan() => last_price = quote.price,
                Body::Trade(trade) => last_price = trade.price,
                _ => {}
            }
            if let (true, Body::Quote(quote)) = (is_tick, row.body) {
                let mid = (quote.bid + quote.ask) / 2.0;
                let previous = oracle.ticks.last().filter(|tick| tick.era == era);
                let tick = SlowTick {
                    trades: oracle.trades.len(),
                    era,
                    event_time,
                    t,
                    quote,
                    price: last_price,
                    mid,
                    bps: 1e4 * (quote.ask - quote.bid) / mid,
                    r: previous.map(|previous| slow_ln(mid, previous.mid)),
                    samples: oracle.samples.len(),
                };
                oracle.ticks.push(tick);
                let number = oracle.ticks.len() - 1;
                oracle.expected.push((position, Event::Tick(number)));
                pending = Some(((t / SECOND + 1) * SECOND, number, oracle.trades.len(), t));
            } else if counts_as_trade && let Some((end, tick, ..)) = pending {
                pending = Some((end, tick, oracle.trades.len(), t));
            }
        }
        oracle
    }

    /// Trades a second among the first `trades`, with T in (t - window, t].
    fn intensity(&self, trades: usize, era: usize, t: i64) -> f64 {
        let window = self.settings.features.window;
        let in_window = |trade: &&SlowTrade| trade.era == era && trade.t > t - window;
        let count = self.trades[..trades].iter().rev().take_while(in_window).count();
        count as f64 * 1e9 / window as f64
    }

    /// n, mean and sample standard deviation of the tick returns in the window of tick `i`.
    fn moments(&self, i: usize) -> (f64, Wanted, Wanted) {
        let now = &self.ticks[i];
        let edge = now.t - self.settings.features.window;
        let in_window = |tick: &&SlowTick| tick.era == now.era && tick.t > edge;
        let r: Vec<f64> =
            self.ticks[..=i].iter().rev().take_while(in_window).filter_map(|tick| tick.r).collect();
        let (mean, std) = two_passes(&r);
        let largest = r.iter().fold(1.0f64, |largest, r| largest.max(r.abs()));
        (r.len() as f64, within(mean, 4.0 * EPS * largest), within(std, 4.0 * EPS * largest))
    }

    /// The sample of the second whose last tick is number `tick`.
    fn sample(&self, time: i64, tick: usize, intensity: Wanted) -> SlowSample {
        let SlowTick { era, bps, mid, quote, .. } = &self.ticks[tick];
        let (era, (_, _, vol)) = (*era, self.moments(tick));
        let values = [exactly(*bps), exactly(*mid), exactly(slow_imbalance(quote)), vol, intensity];
        let mut zscores = [exactly(f64::NAN); 5];
        let mut seen = [0; 5];
        for metric in 0..5 {
            let back = self.samples.iter().rev().take_while(|sample| sample.era == era);
            let before: Vec<f64> = back
                .map(|sample| sample.values[metric].value)
                .filter(|value| !value.is_nan())
                .take(self.settings.seconds.zscore_window as usize)
                .collect();
            seen[metric] = before.len() as u32;
            let min = self.settings.seconds.zscore_min_samples;
            zscores[metric] = slow_zscore(values[metric], &before, min);
        }
        SlowSample { era, time, values, zscores, seen }
    }

    /// All that the definitions say of tick `i`, in the order of [`columns`].
    fn tick(&self, i: usize) -> Vec<Wanted> {
        let settings = &self.settings.features;
        let now = &self.ticks[i];
        let Quote { bid, ask, .. } = now.quote;
        let (n, mean, std) = self.moments(i);
        let same_era = |tick: &&SlowTick| tick.era == now.era;
        let spreads: Vec<f64> = self.ticks[..i]
            .iter()
            .rev()
            .take_while(same_era)
            .take(settings.spread_window as usize)
            .map(|tick| tick.bps)
            .collect();
        let last_second = self.samples[..now.samples].last().filter(|sample| sample.era == now.era);
        let mut wanted = vec![
            exactly(n),
            exactly(now.price),
            exactly(now.mid),
            within(ask - bid, EPS * ask),
            within((ask - bid) / now.mid, 2.0 * EPS),
            within(now.bps, 2e4 * EPS),
            within(slow_imbalance(&now.quote), 4.0 * EPS),
            mean,
            std,
            exactly(self.intensity(now.trades, now.era, now.t)),
            last_second.map_or(exactly(f64::NAN), |sample| sample.zscores[3]),
            slow_zscore(exactly(now.bps), &spreads, settings.spread_min),
        ];
        for horizon in &settings.horizons {
            let mut before = self.ticks[..i].iter().rev().take_while(same_era);
            let reference = before.find(|tick| tick.t <= now.t - horizon);
            let value = reference.map_or(f64::NAN, |reference| slow_ln(now.mid, reference.mid));
            wanted.push(within(value, 4.0 * EPS));
        }
        wanted
    }
}

#[allow(clippy::disallowed_methods, reason = "the oracle shares nothing with the operators, libm included")]
fn slow_ln(m: f64, reference: f64) -> f64 {
    let off = (m - reference) / reference;
    if off.abs() < 0.25 { off.ln_1p() } else { m.ln() - reference.ln() }
}

fn slow_imbalance(quote: &Quote) -> f64 {
    let (b, a) = (quote.bid_size, quote.ask_size);
    if b == 0.0 && a == 0.0 { 0.0 } else { (b - a) / (b + a) }
}

/// A sum with the rounding errors carried along (Neumaier).
fn slow_sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0);
    for x in values {
        let next = sum + x;
        lost += if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
        sum = next;
    }
    sum + lost
}

/// Mean and sample standard deviation, null where they have no meaning.
fn two_passes(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    let n = values.len() as f64;
    let mean = slow_sum(values.iter().copied()) / n;
    if values.len() == 1 {
        return (mean, f64::NAN);
    }
    let squares = slow_sum(values.iter().map(|x| (x - mean) * (x - mean)));
    (mean, (squares / (n - 1.0)).sqrt())
}

fn slow_zscore(value: Wanted, before: &[f64], min: u32) -> Wanted {
    let Wanted { value, allowance: noise } = value;
    if value.is_nan() || before.len() < 2 || before.len() < min as usize {
        return exactly(f64::NAN);
    }
    let largest = before.iter().fold(value.abs(), |largest, x| largest.max(x.abs()));
    let equal = before.iter().all(|x| *x == before[0]);
    if equal {
        // Values that rounding may have made equal prove nothing, unless they are exact zeros.
        let is_sure = noise == 0.0 || largest == 0.0;
        return within(0.0, if is_sure { 0.0 } else { f64::INFINITY });
    }
    let (mean, std) = two_passes(before);
    let z = (value - mean) / std;
    within(z, (16.0 * EPS * largest + 4.0 * noise) / std * (1.0 + z.abs()))
}

// ------------------------------------------------------------------------------------------- the comparison

/// The features in the order of [`Oracle::tick`].
fn columns(features: &Features, horizons: usize) -> Vec<f64> {
    let Features { n, price, midprice, spread_abs, spread_rel, spread_bps, .. } = *features;
    let Features { order_book_imbalance, ret_mean, ret_std, trade_intensity, .. } = *features;
    let mut columns = vec![
        f64::from(n),
        price,
        midprice,
        spread_abs,
        spread_rel,
        spread_bps,
        order_book_imbalance,
        ret_mean,
        ret_std,
        trade_intensity,
        features.volatility_z,
        features.spread_z,
    ];
    columns.extend(&features.returns[..horizons]);
    columns
}

const COLUMNS: [&str; 12] = [
    "n",
    "price",
    "midprice",
    "spread_abs",
    "spread_rel",
    "spread_bps",
    "order_book_imbalance",
    "ret_mean",
    "ret_std",
    "trade_intensity",
    "volatility_z",
    "spread_z",
];

fn is_close(got: f64, wanted: Wanted, relative: f64) -> bool {
    if got.is_nan() || wanted.value.is_nan() {
        return got.is_nan() && wanted.value.is_nan();
    }
    (got - wanted.value).abs() <= relative * wanted.value.abs() + wanted.allowance
}

/// What was run, its outputs, and the oracle's view of it.
struct Compared {
    oracle: Oracle,
    out: Out<Scored>,
}

impl Compared {
    fn run(settings: &Parameters, instrument: &Instrument, rows: Vec<Row>) -> Compared {
        let rows = log(rows);
        let mut chain = ScoredChain::new(&Arc::new(settings.clone()), instrument);
        let mut out = output_with(account_of(&rows));
        feed_rows(&mut chain, &rows, &mut out);
        chain.on_end(&mut out, &mut ());
        Compared { oracle: Oracle::of(settings, instrument, &rows), out }
    }

    /// What differs between the operators and the oracle; ticks only where `look` says so.
    fn difference(&self, relative: f64, look: impl Fn(usize) -> bool) -> Option<String> {
        if let Some(imbalance) = self.out.context.ledger.counts.imbalance() {
            return Some(imbalance);
        }
        let (got, wanted) = (self.out.values.len(), self.oracle.expected.len());
        let pairs = self.out.values.iter().zip(&self.oracle.expected);
        for (given, (position, event)) in pairs {
            if given.order != *position {
                return Some(format!("row {position} should give {event:?}, but row {} gives", given.order));
            }
            let differs = match (&given.value, *event) {
                (Scored::Gap(gap), Event::Gap { start, end }) => (gap.start.0, gap.end.0) != (start, end),
                (Scored::Sample(sample), Event::Sample(k)) => {
                    if let Some(why) = sample_difference(sample, &self.oracle.samples[k], relative) {
                        return Some(format!("row {position}, second {k}: {why}"));
                    }
                    false
                }
                (Scored::Tick(features, _), Event::Tick(i)) => {
                    if look(i)
                        && let Some(why) = self.tick_difference(features, i, relative)
                    {
                        return Some(format!("row {position}, tick {i}: {why}"));
                    }
                    false
                }
                _ => true,
            };
            if differs {
                return Some(format!("row {position} should give {event:?}, not {:?}", given.value));
            }
        }
        (got != wanted).then(|| format!("{got} outputs, but {wanted} expected"))
    }

    fn tick_difference(&self, features: &Features, i: usize, relative: f64) -> Option<String> {
        let now = &self.oracle.ticks[i];
        if (features.event_time.0, features.clock.0) != (now.event_time, now.t) {
            return Some(format!("times are {:?} {:?}", features.event_time, features.clock));
        }
        let horizons = self.oracle.settings.features.horizons.len();
        if features.returns[horizons..].iter().any(|value| !value.is_nan()) {
            return Some("a return without a horizon".to_string());
        }
        let wanted = self.oracle.tick(i);
        for (k, got) in columns(features, horizons).into_iter().enumerate() {
            if !is_close(got, wanted[k], relative) {
                let name = COLUMNS.get(k).copied().unwrap_or("return");
                return Some(format!("{name} ({k}) is {got}, should be {:?}", wanted[k]));
            }
        }
        None
    }

    /// All ticks given.
    fn ticks(&self) -> Vec<Features> {
        let tick = |given: &Scored| match given {
            Scored::Tick(features, _) => Some(*features),
            _ => None,
        };
        self.out.values.iter().filter_map(|given| tick(&given.value)).collect()
    }
}

fn sample_difference(got: &Sample, wanted: &SlowSample, relative: f64) -> Option<String> {
    if got.time.0 != wanted.time {
        return Some(format!("stamped {:?}, should be {}", got.time, wanted.time));
    }
    for (metric, reading) in got.readings.iter().enumerate() {
        if !is_close(reading.value, wanted.values[metric], relative) {
            let (got, wanted) = (reading.value, wanted.values[metric]);
            return Some(format!("metric {metric} is {got}, should be {wanted:?}"));
        }
        if reading.seen != wanted.seen[metric] {
            return Some(format!("metric {metric} saw {}, should be {}", reading.seen, wanted.seen[metric]));
        }
        if !is_close(reading.zscore, wanted.zscores[metric], relative) {
            let (got, wanted) = (reading.zscore, wanted.zscores[metric]);
            return Some(format!("z-score of metric {metric} is {got}, should be {wanted:?}"));
        }
    }
    None
}

#[track_caller]
fn check_with(settings: &Parameters, instrument: &Instrument, rows: Vec<Row>) -> Compared {
    let compared = Compared::run(settings, instrument, rows);
    if let Some(why) = compared.difference(1e-9, |_| true) {
        panic!("{why}");
    }
    compared
}

#[track_caller]
fn check(rows: Vec<Row>) -> Compared {
    check_with(&parameters(), &instrument(), rows)
}

/// The last tick of `rows`, after the whole log has been compared with the oracle.
#[track_caller]
fn last(rows: Vec<Row>) -> Features {
    *check(rows).ticks().last().expect("the log has a tick")
}

fn close(got: f64, wanted: f64) -> bool {
    is_close(got, within(wanted, 4.0 * EPS), 1e-9)
}

const LN_2: f64 = std::f64::consts::LN_2;

// ------------------------------------------------------------------------------------------------ by hand

#[test]
fn the_first_tick_has_no_return_and_no_window() {
    let tick = last(vec![sized(quote(0, 99.0, 101.0), 3.0, 1.0)]);
    assert_eq!((tick.n, tick.midprice, tick.spread_abs, tick.spread_rel), (0, 100.0, 2.0, 0.02));
    assert_eq!((tick.spread_bps, tick.order_book_imbalance, tick.trade_intensity), (200.0, 0.5, 0.0));
    let nulls = [tick.price, tick.ret_mean, tick.ret_std, tick.volatility_z, tick.spread_z];
    assert!(nulls.iter().chain(&tick.returns).all(|value| value.is_nan()), "{tick:?}");
}

#[test]
fn the_second_tick_has_a_mean_but_no_standard_deviation() {
    let tick = last(vec![mid(0, 1.0), mid(1, 2.0)]);
    assert!(tick.n == 1 && close(tick.ret_mean, LN_2) && tick.ret_std.is_nan(), "{tick:?}");
}

#[test]
fn the_standard_deviation_divides_by_n_minus_1() {
    // Returns ln 2 and 0: mean ln 2 / 2, both off by ln 2 / 2.
    let tick = last(vec![mid(0, 1.0), mid(1, 2.0), mid(2, 2.0)]);
    assert!(tick.n == 2 && close(tick.ret_std, LN_2 / 2f64.sqrt()), "{tick:?}");
}

/// The 1 s return of a tick at 10 s over ticks at the given places before it, each twice the price of the last.
#[track_caller]
fn check_return_1s(before: &[Nanos], doublings: Option<u32>) {
    let mut rows = vec![];
    let mut price = 1.0;
    for time in before {
        rows.push(mid(*time, price));
        price *= 2.0;
    }
    rows.push(mid(10 * SECOND, price));
    let got = last(rows).returns[0];
    match doublings {
        Some(doublings) => assert!(close(got, LN_2 * f64::from(doublings)), "{got}"),
        None => assert!(got.is_nan(), "{got}"),
    }
}

const H: Nanos = 9 * SECOND;

#[test]
fn a_tick_at_exactly_t_minus_h_is_the_reference() {
    check_return_1s(&[H], Some(1));
}

#[test]
fn a_tick_a_nanosecond_after_t_minus_h_is_no_reference() {
    check_return_1s(&[H + 1], None);
}

#[test]
fn a_tick_a_nanosecond_before_t_minus_h_is_the_reference() {
    check_return_1s(&[H - 1], Some(1));
    check_return_1s(&[H - 1, H + 1], Some(2));
}

#[test]
fn the_last_of_several_ticks_at_t_minus_h_is_the_reference() {
    check_return_1s(&[H - 1, H, H, H, H + 1], Some(2));
}

#[test]
fn the_reference_may_lie_far_before_t_minus_h() {
    check_return_1s(&[0], Some(1));
}

/// n of a tick at 100 s over ticks at the given places before it.
#[track_caller]
fn check_n(before: &[Nanos], n: u32) {
    let mut rows: Vec<Row> = (1u32..).zip(before).map(|(k, time)| mid(*time, f64::from(k))).collect();
    rows.push(mid(100 * SECOND, 77.0));
    assert_eq!(last(rows).n, n);
}

#[test]
fn the_window_is_open_at_its_start() {
    check_n(&[1, 40 * SECOND], 1);
    check_n(&[1, 40 * SECOND - 1], 1);
    check_n(&[1, 40 * SECOND + 1], 2);
}

#[test]
fn the_return_into_the_first_tick_inside_the_window_counts() {
    check_n(&[40 * SECOND, 40 * SECOND + 1, 41 * SECOND], 3);
}

#[test]
fn the_window_is_empty_but_for_this_tick_after_a_long_silence() {
    check_n(&[1, 2, 3], 1);
}

#[test]
fn ties_in_time_count_in_log_order() {
    let tick = last(vec![mid(0, 1.0), mid(0, 2.0), mid(0, 4.0), mid(SECOND, 8.0), mid(SECOND, 16.0)]);
    assert!(tick.n == 4 && close(tick.ret_mean, LN_2) && close(tick.returns[0], 2.0 * LN_2), "{tick:?}");
}

/// `trade_intensity` of a tick at 100 s after trades at the given places, times 60.
#[track_caller]
fn check_trades(at: &[Nanos], wanted: f64) {
    let mut rows: Vec<Row> = at.iter().map(|time| trade(*time, 5.0)).collect();
    rows.push(mid(100 * SECOND, 77.0));
    assert!(close(last(rows).trade_intensity * 60.0, wanted));
}

#[test]
fn the_window_of_trades_is_open_at_its_start_and_closed_at_its_end() {
    check_trades(&[40 * SECOND - 1], 0.0);
    check_trades(&[40 * SECOND], 0.0);
    check_trades(&[40 * SECOND + 1], 1.0);
    check_trades(&[40 * SECOND, 40 * SECOND + 1, 100 * SECOND, 100 * SECOND], 3.0);
}

#[test]
fn a_tickers_own_trade_counts_at_once() {
    let tick = last(vec![ticker(0, 1.0, 2.0, 1.5)]);
    assert!(close(tick.trade_intensity, 1.0 / 60.0) && tick.price == 1.5, "{tick:?}");
}

#[test]
fn a_trade_behind_the_tick_in_the_log_does_not_count_even_at_the_same_time() {
    let ticks = check(vec![mid(0, 1.0), trade(0, 5.0), mid(0, 1.0)]).ticks();
    assert_eq!((ticks[0].trade_intensity, ticks[1].price), (0.0, 5.0));
    assert!(ticks[0].price.is_nan() && close(ticks[1].trade_intensity, 1.0 / 60.0));
}

#[test]
fn a_tickers_trade_is_not_counted_where_trades_come_from_a_trade_channel() {
    let rows = vec![trade(0, 5.0), ticker(1, 1.0, 2.0, 1.5), trade(2, 6.0), ticker(3, 1.0, 2.0, 1.5)];
    assert!(close(last(rows).trade_intensity, 2.0 / 60.0));
}

#[test]
fn tickers_are_trades_where_quotes_come_from_elsewhere() {
    let rows = vec![mid(0, 1.0), ticker(1, 1.0, 2.0, 1.5), ticker(2, 1.0, 2.0, 1.5), mid(3, 1.0)];
    let tick = last(rows);
    assert!(close(tick.trade_intensity, 2.0 / 60.0) && tick.n == 1 && tick.price == 1.5, "{tick:?}");
}

#[test]
fn stamps_that_step_back_across_channels_are_measured_on_the_clock() {
    // The tick stamped 59.5 s runs at 60 s: the trade at 0 s has just left, the one at 1 ns has not.
    let rows = vec![
        mid(0, 1.0),
        trade(0, 5.0),
        trade(1, 5.0),
        heartbeat(60 * SECOND),
        mid(59 * SECOND + SECOND / 2, 2.0),
    ];
    let tick = last(rows);
    assert_eq!((tick.event_time.0 - START, tick.clock.0 - START), (59_500_000_000, 60 * SECOND));
    assert!(close(tick.trade_intensity, 1.0 / 60.0) && close(tick.returns[3], LN_2), "{tick:?}");
}

#[test]
fn absent_sizes_make_the_imbalance_null() {
    for sizes in [(f64::NAN, f64::NAN), (1.0, f64::NAN), (f64::NAN, 0.0)] {
        assert!(last(vec![sized(mid(0, 1.0), sizes.0, sizes.1)]).order_book_imbalance.is_nan());
    }
}

#[test]
fn sizes_of_0_on_both_sides_make_the_imbalance_0() {
    assert_eq!(last(vec![sized(mid(0, 1.0), 0.0, 0.0)]).order_book_imbalance, 0.0);
}

#[test]
fn a_size_of_0_on_one_side_makes_the_imbalance_1() {
    assert_eq!(last(vec![sized(mid(0, 1.0), 4.0, 0.0)]).order_book_imbalance, 1.0);
    assert_eq!(last(vec![sized(mid(0, 1.0), 0.0, 4.0)]).order_book_imbalance, -1.0);
}

/// `spread_z` of the last of these spreads, in units of 1e-4 of the mid.
fn spread_z(spreads: impl IntoIterator<Item = f64>) -> f64 {
    let rows = (0..).zip(spreads).map(|(k, s)| quote(k, 1e4 - s / 2.0, 1e4 + s / 2.0));
    last(rows.collect()).spread_z
}

#[test]
fn the_spread_needs_30_ticks_before_this_one() {
    let spreads = |count: usize| [1.0, 3.0].into_iter().cycle().take(count).chain([2.0]);
    assert!(spread_z(spreads(29)).is_nan());
    assert!(close(spread_z(spreads(30)), 0.0));
}

#[test]
fn the_spread_is_scored_against_the_ticks_before_it_alone() {
    // 15 times 1 and 15 times 3: mean 2, squares 30, sample variance 30/29.
    let spreads = [1.0, 3.0].into_iter().cycle().take(30);
    let z = spread_z(spreads.chain([102.0]));
    assert!((z - 100.0 / (30f64 / 29.0).sqrt()).abs() < 1e-9, "{z}");
}

#[test]
fn the_spread_is_0_where_all_before_are_equal() {
    assert_eq!(spread_z([2.0; 30].into_iter().chain([50.0])), 0.0);
}

#[test]
fn the_301st_spread_back_is_forgotten() {
    let calm = |count| std::iter::repeat_n(2.0, count);
    assert!(spread_z([9.0].into_iter().chain(calm(299)).chain([3.0])) != 0.0);
    assert_eq!(spread_z([9.0].into_iter().chain(calm(300)).chain([3.0])), 0.0);
}

// --------------------------------------------------------------------------------------------- longer logs

#[test]
fn constant_prices_have_returns_and_deviations_of_exactly_0() {
    let rows = (0..3_000).map(|k| quote(k * 40 * MILLISECOND, 99.9, 100.1)).collect();
    for (k, tick) in check(rows).ticks().iter().enumerate().skip(2) {
        assert_eq!((tick.ret_mean, tick.ret_std), (0.0, 0.0), "tick {k}");
        assert!(tick.spread_z == 0.0 || k < 30, "tick {k}");
        assert!(tick.volatility_z == 0.0 || k < 32 * 25, "tick {k}");
    }
}

#[test]
fn prices_of_1e5_keep_the_digits_of_returns_of_1e_minus_6() {
    let mut random = Random::new(5);
    let mut price = 1e5;
    let step = |k: i64| {
        price *= 1.0 + 1e-6 * random.signed();
        quote(k * 17 * MILLISECOND, price - 0.005, price + 0.005)
    };
    let compared = check((0..20_000).map(step).collect());
    let std = compared.ticks().last().unwrap().ret_std;
    assert!(1e-7 < std && std < 1e-6, "{std}");
}

/// Ticks of a calm market with bursts, second edges and jumps of the spread.
fn varied(seed: u64, count: usize) -> Vec<Row> {
    let mut random = Random::new(seed);
    let (mut time, mut price, mut scale) = (0, 1e5, 1e-6);
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        time += match random.below_u64(100) {
            0..30 => 0,
            30..90 => random.below_u64(40) as i64 * MILLISECOND,
            90..99 => random.below_u64(1_000) as i64,
            _ => random.below_u64(900) as i64 * MILLISECOND,
        };
        if random.below_u64(20_000) == 0 {
            scale = [1e-6, 1e-5, 1e-3, 1e-8][random.below_u64(4) as usize];
        }
        price *= 1.0 + scale * random.signed();
        price = price.clamp(1e4, 1e6);
        let half = 0.005 * (1 + random.below_u64(3)) as f64;
        rows.push(match random.below_u64(8) {
            0 => trade(time, price),
            _ => sized(quote(time, price - half, price + half), random.below_u64(9) as f64, 2.0),
        });
    }
    rows
}

#[test]
fn a_million_ticks_do_not_drift() {
    // Without optimisation the oracle takes a minute for them: a tenth must do.
    let million = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let compared = Compared::run(&parameters(), &instrument(), varied(1, million * 23 / 20));
    let count = compared.oracle.ticks.len();
    assert!(count > million, "{count} ticks");
    let look = |i: usize| i.is_multiple_of(499) || i + 4_000 > count;
    assert_eq!(compared.difference(1e-9, look), None);
    assert!(compared.oracle.samples.len() > million / 60, "{} samples", compared.oracle.samples.len());
}

/// A log of 25 ticks a second, with one wrong price at tick `bad`.
fn with_bad_print(bad: Option<usize>, count: usize, calm_from: usize) -> Vec<Row> {
    let mut random = Random::new(9);
    let mut price = 1e5;
    let step = |k: usize| {
        if k < calm_from {
            price *= 1.0 + 1e-6 * random.signed();
        }
        let price = if bad == Some(k) { 1e-3 } else { price };
        quote(k as i64 * 40 * MILLISECOND, price - 5e-4 * price.min(1.0), price + 5e-4 * price.min(1.0))
    };
    (0..count).map(step).collect()
}

#[test]
fn a_bad_print_leaves_no_residue() {
    // It leaves the window of returns after 60 s, that of spreads after 12 s, and that of the seconds, whose
    // realised_vol it has been in for 60 s, after 360 s.
    let count = 25 * 500;
    let clean = check(with_bad_print(None, count, count)).ticks();
    let bad = check(with_bad_print(Some(1_000), count, count)).ticks();
    assert!(bad[1_001].ret_std > 0.1 && bad[1_001 + 1_499].ret_std > 0.1);
    let bits = |tick: &Features| columns(tick, 4).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let volatility_z = 10;
    for k in 1_002 + 1_500..count {
        let (mut clean, mut bad) = (bits(&clean[k]), bits(&bad[k]));
        if k < 1_002 + 25 * 362 {
            clean.remove(volatility_z);
            bad.remove(volatility_z);
        }
        assert_eq!(clean, bad, "tick {k} remembers the bad print");
    }
}

#[test]
fn what_a_bad_print_leaves_agrees_with_a_start_from_scratch() {
    let count = 25 * 200;
    let compared = Compared::run(&parameters(), &instrument(), with_bad_print(Some(1_000), count, count));
    assert_eq!(compared.difference(1e-12, |i| i > 1_002 + 1_500), None);
}

#[test]
fn a_constant_stretch_after_a_bad_print_has_deviations_of_exactly_0() {
    let count = 25 * 200;
    let ticks = check(with_bad_print(Some(1_000), count, 900)).ticks();
    for (k, tick) in ticks.iter().enumerate().skip(1_002 + 1_500) {
        assert_eq!((tick.ret_mean, tick.ret_std, tick.spread_z), (0.0, 0.0, 0.0), "tick {k}");
    }
}

#[test]
fn a_gap_clears_every_window_and_the_seconds() {
    let before: Vec<Row> = varied(3, 4_000);
    let resume = before.last().unwrap().event_time.0 - START + 5 * SECOND + 1;
    let first = [mid(resume, 100.0), mid(resume + SECOND, 200.0), mid(resume + 61 * SECOND, 300.0)];
    let rows = before.into_iter().chain(first).collect();
    let compared = check_with(&parameters(), &instrument_with_gaps(5 * SECOND), rows);
    let ticks = compared.ticks();
    let after = &ticks[ticks.len() - 3];
    assert_eq!((after.n, after.trade_intensity), (0, 0.0));
    let nulls = [after.ret_mean, after.ret_std, after.spread_z, after.volatility_z];
    assert!(nulls.iter().chain(&after.returns).all(|value| value.is_nan()), "{after:?}");
    assert!(after.price.is_finite(), "the last trade's price is no window");
    let second = &ticks[ticks.len() - 2];
    assert!(second.n == 1 && close(second.returns[0], LN_2) && second.returns[1].is_nan(), "{second:?}");
}

#[test]
fn other_settings_are_followed() {
    let features = FeatureSettings {
        window: 7 * SECOND + 1,
        horizons: vec![250 * MILLISECOND, 3 * SECOND, 90 * SECOND],
        spread_window: 40,
        spread_min: 3,
    };
    let seconds = SecondSettings { zscore_window: 8, zscore_min_samples: 2 };
    let settings = Parameters { features: Arc::new(features), seconds, ..parameters() };
    let compared = check_with(&settings, &instrument_with_gaps(880 * MILLISECOND), varied(4, 12_000));
    assert!(compared.out.context.ledger.counts.gaps > 0 && compared.out.context.ledger.counts.samples > 100);
}

#[test]
fn a_job_may_have_no_horizon_or_as_many_as_there_are() {
    for count in [0, MAX_HORIZONS] {
        let horizons = (1..=count as i64).map(|k| k * 700 * MILLISECOND).collect();
        let features = FeatureSettings { horizons, window: SECOND, ..FeatureSettings::default() };
        let settings = Parameters { features: Arc::new(features), ..parameters() };
        check_with(&settings, &instrument(), varied(6, 3_000));
    }
}

#[test]
fn the_busy_log_agrees_with_the_oracle() {
    let rows = busy_log(11, 6_000);
    let compared = check_with(&parameters(), &instrument_with_gaps(5 * SECOND), rows);
    let counts = &compared.out.context.ledger.counts;
    let fates = [counts.ticks, counts.applied, counts.duplicate, counts.late, counts.messages_ignored];
    assert!(fates.iter().all(|count| *count > 50) && counts.gaps > 3, "{counts:?}");
}

// ---------------------------------------------------------------------------------------------- any log

/// A step in time and a row; steps like edges of windows and seconds.
fn any_row() -> impl Strategy<Value = (i64, Row)> {
    let step = prop_oneof![
        3 => Just(0i64),
        2 => -40i64..0,
        4 => 1i64..120,
        2 => prop::sample::select(vec![250, 500, 1_000, 2_000, 4_999, 5_000, 5_001]),
        1 => 1i64..7_000,
    ];
    let nanos = prop_oneof![4 => Just(0i64), 1 => -1i64..=1];
    let price = prop_oneof![3 => (1u32..6).prop_map(|p| f64::from(p) / 8.0), 1 => 1e-3..1e5f64];
    let size = prop_oneof![4 => (0u32..4).prop_map(f64::from), 1 => Just(f64::NAN)];
    let spread = (0u32..4).prop_map(|s| f64::from(s) / 64.0);
    let id = prop_oneof![3 => Just(None), 1 => (0u64..40).prop_map(Some)];
    (step, nanos, 0u32..10, price, spread, (size.clone(), size), id).prop_map(
        |(step, nanos, kind, price, spread, sizes, id)| {
            let row = match kind {
                0 => heartbeat(0),
                1 => trade(0, price),
                2 => on(Channel::AggTrade, trade(0, price)),
                3 => ticker(0, price, price + spread, price),
                4 => on(Channel::Book, quote(0, price, price + spread)),
                _ => quote(0, price, price + spread),
            };
            let row = sized(row, sizes.0, sizes.1);
            (step * MILLISECOND + nanos, id.map_or(row, |id| with_id(id, row)))
        },
    )
}

fn any_settings() -> impl Strategy<Value = (Parameters, Instrument)> {
    let spans = prop::sample::select(vec![1, 250, 1_000, 2_000, 5_000, 60_000]);
    let horizons = prop::collection::btree_set(spans.clone(), 0..4);
    let gap_after = prop::option::of(prop::sample::select(vec![100, 1_000, 5_000]));
    let channels = prop::sample::select(vec![
        (None, None),
        (Some(Channel::BookTicker), Some(Channel::Trade)),
        (Some(Channel::Ticker), None),
        (None, Some(Channel::Ticker)),
    ]);
    (spans, horizons, (1u32..9, 0u32..6), (1u32..9, 0u32..6), gap_after, channels).prop_map(
        |(window, horizons, spread, zscore, gap_after, (quote_channel, trade_channel))| {
            let features = FeatureSettings {
                window: window * MILLISECOND,
                horizons: horizons.into_iter().map(|h| h * MILLISECOND).collect(),
                spread_window: spread.0,
                spread_min: spread.1,
            };
            let settings = Parameters {
                max_ahead: SECOND,
                order: OrderSettings { reorder: 0 },
                features: Arc::new(features),
                seconds: SecondSettings { zscore_window: zscore.0, zscore_min_samples: zscore.1 },
                ..parameters()
            };
            let gap_after = gap_after.map(|after| after * MILLISECOND);
            (settings, Instrument { gap_after, quote_channel, trade_channel, ..instrument() })
        },
    )
}

proptest! {
    #[test]
    fn any_log_under_any_settings_agrees_with_the_oracle(
        (settings, instrument) in any_settings(),
        steps in prop::collection::vec(any_row(), 1..250),
    ) {
        let mut time = 0;
        let at = |(step, row): (i64, Row)| {
            time += step;
            Row { event_time: row.event_time.plus(time), clock: row.clock.plus(time), ..row }
        };
        let rows = steps.into_iter().map(at).collect();
        let compared = Compared::run(&settings, &instrument, rows);
        prop_assert_eq!(compared.difference(1e-9, |_| true), None);
    }
}
