//! Per-second samples and their z-scores (docs/definitions.md, "Per-second metrics"), as scripts.

use std::sync::Arc;

use foreshock_operators::alone::Alone;
use foreshock_operators::change::Parameters;
use foreshock_operators::links::Out;
use foreshock_operators::row::Source;
use foreshock_operators::seconds::{SecondSettings, Seconds};
use foreshock_operators::stages::{
    Features, Gap, GapReason, MAX_HORIZONS, Measured, Metric, Reading, Sample, Sampled,
};
use foreshock_operators::time::{Nanos, SECOND, Time};

use foreshock_testkit::rows::{START, feed_inputs, instrument, parameters};

const NULL: f64 = f64::NAN;

/// A tick whose metrics are 10, 20, 30, 40 and 50 times `value`.
fn tick(time: Nanos, value: f64) -> Features {
    Features {
        source: Source::default(),
        index: 0,
        event_time: Time(START + time),
        clock: Time(START + time),
        digits: 6,
        settings: 0,
        n: 2,
        price: 1.0,
        midprice: 20.0 * value,
        spread_abs: 1.0,
        spread_rel: 1.0,
        spread_bps: 10.0 * value,
        order_book_imbalance: 30.0 * value,
        returns: [NULL; MAX_HORIZONS],
        ret_mean: 0.0,
        ret_std: 40.0 * value,
        trade_intensity: 50.0 * value,
        volatility_z: NULL,
        spread_z: 1.5,
    }
}

fn quote(time: Nanos, value: f64) -> Measured {
    Measured::Tick(tick(time, value))
}

fn trade(time: Nanos, trade_intensity: f64) -> Measured {
    Measured::Trade { clock: Time(START + time), digits: 6, trade_intensity }
}

fn heartbeat(time: Nanos) -> Measured {
    Measured::Heartbeat { clock: Time(START + time), digits: 6 }
}

fn gap(start: Nanos, end: Nanos) -> Measured {
    let (start, end) = (Time(START + start), Time(START + end));
    Measured::Gap(Gap { start, end, reason: GapReason::Silence, digits: 6 })
}

fn run_with(settings: SecondSettings, inputs: Vec<Measured>) -> Out<Sampled> {
    let parameters = Parameters { seconds: settings, ..parameters() };
    let mut seconds = Alone::<Seconds>::new(&Arc::new(parameters), &instrument());
    feed_inputs(&mut seconds, inputs);
    seconds.end();
    let out = seconds.out;
    let samples = out.values.iter().filter(|given| matches!(given.value, Sampled::Sample(_))).count();
    assert_eq!(out.context.ledger.counts.samples, samples as i64);
    out
}

fn run(inputs: Vec<Measured>) -> Vec<Sampled> {
    run_with(SecondSettings::default(), inputs).values.into_iter().map(|given| given.value).collect()
}

/// The samples made: the input that made each, its stamp in nanoseconds, and the values of its metrics.
#[track_caller]
fn check(inputs: Vec<Measured>, expected: &[(u32, Nanos, [f64; Metric::COUNT])]) {
    let out = run_with(SecondSettings::default(), inputs);
    let sample = |given: &Sampled| match given {
        Sampled::Sample(Sample { time, readings, .. }) => Some((time.0 - START, readings.map(|r| r.value))),
        _ => None,
    };
    let got: Vec<_> = out
        .values
        .iter()
        .filter_map(|given| sample(&given.value).map(|(time, values)| (given.order, time, values)))
        .collect();
    assert_eq!(got, expected);
}

/// The values of a second whose last tick was `tick(_, value)`.
fn values(value: f64) -> [f64; Metric::COUNT] {
    [10.0, 20.0, 30.0, 40.0, 50.0].map(|unit| unit * value)
}

// ----------------------------------------------------------------------------------------- when, and of what

#[test]
fn a_second_is_sampled_at_the_first_row_at_or_beyond_its_end() {
    check(vec![quote(0, 1.0), quote(SECOND, 2.0)], &[(1, SECOND, values(1.0))]);
    check(vec![quote(0, 1.0), quote(SECOND - 1, 2.0)], &[]);
    check(vec![quote(0, 1.0), quote(SECOND + 1, 2.0)], &[(1, SECOND, values(1.0))]);
}

#[test]
fn the_stamp_is_the_seconds_end_however_late_the_next_row() {
    check(vec![quote(SECOND / 2, 1.0), quote(9 * SECOND + 7, 2.0)], &[(1, SECOND, values(1.0))]);
}

#[test]
fn a_second_begins_at_its_whole_second() {
    let inputs =
        vec![quote(SECOND - 1, 1.0), quote(SECOND, 2.0), quote(2 * SECOND - 1, 3.0), heartbeat(2 * SECOND)];
    check(inputs, &[(1, SECOND, values(1.0)), (3, 2 * SECOND, values(3.0))]);
}

#[test]
fn the_last_state_within_the_second_counts() {
    let inputs = vec![quote(0, 1.0), quote(5, 2.0), quote(5, 3.0), quote(SECOND, 4.0)];
    check(inputs, &[(3, SECOND, values(3.0))]);
}

#[test]
fn a_trade_within_the_second_moves_its_intensity_alone() {
    let inputs = vec![quote(0, 1.0), trade(SECOND - 1, 7.0), heartbeat(SECOND)];
    check(inputs, &[(2, SECOND, [10.0, 20.0, 30.0, 40.0, 7.0])]);
}

#[test]
fn a_trade_at_the_seconds_end_closes_it_and_belongs_to_the_next() {
    let inputs = vec![quote(0, 1.0), trade(SECOND, 7.0), heartbeat(2 * SECOND)];
    check(inputs, &[(1, SECOND, values(1.0))]);
}

#[test]
fn a_trade_before_the_first_quote_of_a_second_is_in_that_quotes_state() {
    let inputs = vec![trade(0, 7.0), quote(1, 1.0), heartbeat(SECOND)];
    check(inputs, &[(2, SECOND, values(1.0))]);
}

#[test]
fn a_heartbeat_closes_a_second_and_changes_nothing() {
    check(vec![quote(0, 1.0), heartbeat(9), heartbeat(SECOND)], &[(2, SECOND, values(1.0))]);
}

#[test]
fn a_second_without_a_quote_has_no_sample() {
    let inputs =
        vec![trade(0, 7.0), heartbeat(1), quote(SECOND, 1.0), trade(2 * SECOND, 7.0), trade(4 * SECOND, 7.0)];
    check(inputs, &[(3, 2 * SECOND, values(1.0))]);
}

#[test]
fn a_second_is_sampled_once() {
    let inputs = vec![quote(0, 1.0), heartbeat(SECOND), heartbeat(SECOND), trade(3 * SECOND, 7.0)];
    check(inputs, &[(1, SECOND, values(1.0))]);
}

#[test]
fn the_unfinished_last_second_has_no_sample() {
    check(vec![quote(0, 1.0), quote(SECOND, 2.0), quote(SECOND + 5, 3.0)], &[(1, SECOND, values(1.0))]);
}

#[test]
fn the_sample_comes_before_the_tick_that_made_it() {
    let kinds: Vec<_> = run(vec![quote(0, 1.0), quote(SECOND, 2.0)])
        .iter()
        .map(|given| matches!(given, Sampled::Sample(_)))
        .collect();
    assert_eq!(kinds, [false, true, false]);
}

#[test]
fn a_tick_goes_on_as_it_came_but_for_volatility_z() {
    let [Sampled::Tick(got)] = run(vec![quote(3, 2.0)])[..] else { panic!("one tick") };
    assert_eq!(format!("{got:?}"), format!("{:?}", tick(3, 2.0)));
}

#[test]
fn seconds_before_1970_end_after_they_begin() {
    let early = |time: Nanos| Measured::Tick(Features { clock: Time(time), ..tick(0, 1.0) });
    let out = run(vec![early(-1), early(0)]);
    let Sampled::Sample(sample) = out[1] else { panic!("the second ended") };
    assert_eq!(sample.time, Time(0));
}

// ----------------------------------------------------------------------------------------------- z-scores

/// The readings of one metric when its values second by second are `values`.
fn readings(settings: SecondSettings, metric: Metric, values: &[f64]) -> Vec<Reading> {
    let mut inputs = Vec::new();
    for (k, value) in (0..).zip(values) {
        let features = Features {
            spread_bps: *value,
            order_book_imbalance: *value,
            ret_std: *value,
            ..tick(k * SECOND, 1.0)
        };
        inputs.push(Measured::Tick(features));
    }
    inputs.push(heartbeat(values.len() as i64 * SECOND));
    let sample = |given: &Sampled| match given {
        Sampled::Sample(sample) => Some(sample.readings[metric as usize]),
        _ => None,
    };
    run_with(settings, inputs).values.iter().filter_map(|given| sample(&given.value)).collect()
}

#[track_caller]
fn check_last(metric: Metric, values: &[f64], zscore: f64, seen: u32) {
    let last = *readings(SecondSettings::default(), metric, values).last().unwrap();
    assert_eq!(last.seen, seen);
    let is_close = (last.zscore - zscore).abs() <= 1e-12 * zscore.abs();
    assert!(is_close || last.zscore.is_nan() && zscore.is_nan(), "{} is not {zscore}", last.zscore);
}

/// `count` values, 1 and 3 in turn, and a last one.
fn ones_and_threes(count: usize, last: f64) -> Vec<f64> {
    [1.0, 3.0].into_iter().cycle().take(count).chain([last]).collect()
}

#[test]
fn there_is_no_zscore_before_30_samples() {
    check_last(Metric::SpreadBps, &ones_and_threes(29, 2.0), NULL, 29);
    check_last(Metric::SpreadBps, &ones_and_threes(30, 2.0), 0.0, 30);
}

#[test]
fn a_zscore_has_the_sample_standard_deviation_of_the_samples_before() {
    // 15 times 1, 15 times 3: mean 2, squares 30, variance 30/29. The sample itself is not among them.
    check_last(Metric::SpreadBps, &ones_and_threes(30, 102.0), 100.0 / (30f64 / 29.0).sqrt(), 30);
    check_last(Metric::RealisedVol, &ones_and_threes(30, -98.0), -100.0 / (30f64 / 29.0).sqrt(), 30);
}

#[test]
fn a_zscore_is_0_where_all_before_are_equal() {
    let values: Vec<f64> = [0.1; 30].into_iter().chain([5.0]).collect();
    check_last(Metric::SpreadBps, &values, 0.0, 30);
}

#[test]
fn the_301st_sample_back_is_forgotten() {
    let values =
        |equal| [9.0].into_iter().chain(std::iter::repeat_n(1.0, equal)).chain([5.0]).collect::<Vec<_>>();
    check_last(Metric::SpreadBps, &values(300), 0.0, 300);
    // 299 ones and a nine: mean 1 + 8/300, squares 64 * 299/300, variance 64/300.
    check_last(Metric::SpreadBps, &values(299), (4.0 - 8.0 / 300.0) / (64f64 / 300.0).sqrt(), 300);
}

#[test]
fn a_null_neither_scores_nor_joins() {
    let mut values = ones_and_threes(30, 102.0);
    values.splice(7..7, [NULL; 5]);
    check_last(Metric::RealisedVol, &values, 100.0 / (30f64 / 29.0).sqrt(), 30);
    check_last(Metric::Imbalance, &ones_and_threes(40, NULL), NULL, 40);
    let settings = SecondSettings { zscore_window: 2, zscore_min_samples: 2 };
    let seen: Vec<u32> = readings(settings, Metric::Imbalance, &[1.0, NULL, NULL, 2.0, NULL, 3.0, 4.0])
        .iter()
        .map(|reading| reading.seen)
        .collect();
    assert_eq!(seen, [0, 1, 1, 1, 2, 2, 2]);
}

#[test]
fn metrics_warm_up_each_on_its_own() {
    let mut values = ones_and_threes(30, 2.0);
    values[0] = NULL;
    check_last(Metric::RealisedVol, &values, NULL, 29);
    check_last(Metric::Mid, &values, 0.0, 30);
}

#[test]
fn other_windows_are_followed() {
    let settings = SecondSettings { zscore_window: 3, zscore_min_samples: 2 };
    let got = readings(settings, Metric::SpreadBps, &[1.0, 3.0, 4.0, 2.0, 9.0]);
    let seen: Vec<u32> = got.iter().map(|reading| reading.seen).collect();
    assert_eq!(seen, [0, 1, 2, 3, 3]);
    assert!(got[0].zscore.is_nan() && got[1].zscore.is_nan());
    // 4 against 1, 3 and 9 against 3, 4, 2.
    assert!((got[2].zscore - 2.0 / 2f64.sqrt()).abs() < 1e-12 && (got[4].zscore - 6.0).abs() < 1e-12);
}

// ------------------------------------------------------------------------------------------- volatility_z

/// `volatility_z` of each tick.
fn volatility_z(inputs: Vec<Measured>) -> Vec<f64> {
    let tick = |given: Sampled| match given {
        Sampled::Tick(features) => Some(features.volatility_z),
        _ => None,
    };
    run(inputs).into_iter().filter_map(tick).collect()
}

/// A tick in each of 30 seconds, `ret_std` 40 and 120 in turn.
fn thirty_seconds() -> Vec<Measured> {
    (0..30).map(|k| quote(k * SECOND, if k % 2 == 0 { 1.0 } else { 3.0 })).collect()
}

#[test]
fn volatility_z_is_that_of_the_second_the_tick_has_just_ended() {
    // Second 30 (the first with 30 before it) ends at the tick at 31 s; its own score waits for the next second.
    let mut inputs = thirty_seconds();
    inputs.extend([quote(30 * SECOND, 102.0), quote(31 * SECOND, 2.0), quote(31 * SECOND + 5, 9.0)]);
    inputs.push(quote(32 * SECOND, 9.0));
    let got = volatility_z(inputs);
    let z = 100.0 / (30f64 / 29.0).sqrt();
    assert!(got[..31].iter().all(|value| value.is_nan()), "{got:?}");
    assert!((got[31] - z).abs() < 1e-9 && got[32] == got[31], "{got:?}");
    assert!(got[33] != got[32] && got[33].is_finite(), "{got:?}");
}

#[test]
fn volatility_z_stays_over_seconds_without_a_quote() {
    let mut inputs = thirty_seconds();
    inputs.extend([
        quote(30 * SECOND, 102.0),
        heartbeat(31 * SECOND),
        trade(32 * SECOND, 1.0),
        quote(40 * SECOND, 2.0),
    ]);
    let got = volatility_z(inputs);
    assert!((got[31] - 100.0 / (30f64 / 29.0).sqrt()).abs() < 1e-9, "{got:?}");
}

#[test]
fn volatility_z_is_null_after_a_second_whose_realised_vol_is_null() {
    let mut inputs = thirty_seconds();
    inputs.extend([quote(30 * SECOND, 102.0), quote(31 * SECOND, 2.0), quote(32 * SECOND, NULL)]);
    inputs.extend([quote(33 * SECOND, 2.0), quote(34 * SECOND, 2.0)]);
    let got = volatility_z(inputs);
    assert!(got[31].is_finite() && got[32].is_finite() && got[33].is_nan() && got[34].is_finite(), "{got:?}");
}

// -------------------------------------------------------------------------------------------------- gaps

#[test]
fn a_gap_closes_the_second_that_ended_before_it() {
    let inputs = vec![quote(0, 1.0), gap(0, 9 * SECOND), quote(9 * SECOND, 2.0), heartbeat(10 * SECOND)];
    check(inputs, &[(1, SECOND, values(1.0)), (3, 10 * SECOND, values(2.0))]);
}

#[test]
fn the_second_before_a_gap_is_given_and_scored_before_it() {
    let mut inputs = thirty_seconds();
    inputs.extend([quote(30 * SECOND, 102.0), gap(30 * SECOND, 40 * SECOND)]);
    let out = run(inputs);
    let [.., Sampled::Sample(sample), Sampled::Gap(_)] = out[..] else { panic!("{out:?}") };
    let z = sample.readings[Metric::RealisedVol as usize].zscore;
    assert!((z - 100.0 / (30f64 / 29.0).sqrt()).abs() < 1e-9);
}

#[test]
fn a_gap_within_a_second_forgets_what_came_before_it() {
    let inputs = vec![quote(0, 1.0), gap(0, SECOND / 2), trade(SECOND / 2, 7.0), heartbeat(SECOND)];
    check(inputs, &[]);
    let inputs = vec![quote(0, 1.0), gap(0, SECOND / 2), quote(SECOND / 2, 2.0), heartbeat(SECOND)];
    check(inputs, &[(3, SECOND, values(2.0))]);
}

#[test]
fn a_gap_empties_the_windows_and_volatility_z() {
    let mut inputs = thirty_seconds();
    inputs.extend([quote(30 * SECOND, 102.0), quote(31 * SECOND, 2.0)]);
    inputs.extend([gap(31 * SECOND, 40 * SECOND), quote(40 * SECOND, 2.0), quote(41 * SECOND, 2.0)]);
    let got = volatility_z(inputs.clone());
    assert!(got[31].is_finite() && got[32].is_nan() && got[33].is_nan(), "{got:?}");
    let Some(Sampled::Sample(sample)) = run(inputs).into_iter().rev().nth(1) else { panic!("a sample") };
    assert!(sample.readings.iter().all(|reading| reading.seen == 0 && reading.zscore.is_nan()));
}
