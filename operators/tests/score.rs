//! Scores against values worked out by hand (docs/definitions.md, "Scoring").

use std::sync::Arc;

use foreshock_operators::alone::Alone;
use foreshock_operators::change::Parameters;
use foreshock_operators::feature::Feature;
use foreshock_operators::model::{Baseline, Logistic, Model, ModelKind, NullPolicy, Term, Transform};
use foreshock_operators::row::Source;
use foreshock_operators::score::{Score, predict};
use foreshock_operators::stages::{
    Features, Gap, GapReason, MAX_HORIZONS, Metric, Reading, Sample, Sampled, Scored,
};
use foreshock_operators::time::{SECOND, Time};

use foreshock_testkit::rows::{feed_inputs, instrument, parameters};

const NULL: f64 = f64::NAN;
const ZERO: NullPolicy = NullPolicy::Value(0.0);

fn features() -> Features {
    Features {
        source: Source::default(),
        index: 0,
        event_time: Time(1),
        clock: Time(2),
        digits: 6,
        settings: 0,
        n: 4,
        price: 8.0,
        midprice: 9.0,
        spread_abs: 0.25,
        spread_rel: 0.125,
        spread_bps: 2.5,
        order_book_imbalance: -0.5,
        returns: [0.1, -0.2, 0.3, NULL, NULL, NULL, NULL, NULL],
        ret_mean: 0.01,
        ret_std: 0.02,
        trade_intensity: 1.5,
        volatility_z: 2.0,
        spread_z: NULL,
    }
}

fn term(feature: Feature, weight: f64) -> Term {
    Term { feature, null: ZERO, transform: Transform::None, standardise: None, weight }
}

fn logistic(intercept: f64, terms: Vec<Term>) -> Model {
    Model {
        name: "m".into(),
        version: "1".into(),
        kind: ModelKind::Logistic(Logistic { intercept, terms }),
        decision_threshold: 0.5,
        horizon: 60 * SECOND,
        sha256: "s".into(),
    }
}

fn baseline(threshold: f64, null: NullPolicy) -> Model {
    Model { kind: ModelKind::Baseline(Baseline { threshold, null }), ..logistic(0.0, vec![]) }
}

/// The probability of `x`, from a table worked out with another program to 17 digits.
#[track_caller]
fn check(model: &Model, probability: f64) {
    let got = predict(model, &features());
    assert!((got.probability - probability).abs() <= 1e-15 * probability.abs(), "{}", got.probability);
    assert_eq!(got.spike, Some(probability >= model.decision_threshold));
}

#[track_caller]
fn check_refused(model: &Model) {
    let got = predict(model, &features());
    assert!(got.probability.is_nan() && got.spike.is_none(), "{got:?}");
}

// 1 / (1 + e^-x)
const AT_MINUS_1: f64 = 0.268_941_421_369_995_1;
const AT_1: f64 = 0.731_058_578_630_004_9;
const AT_2: f64 = 0.880_797_077_977_882_4;

#[test]
fn without_terms_the_intercept_decides() {
    check(&logistic(0.0, vec![]), 0.5);
    check(&logistic(1.0, vec![]), AT_1);
    check(&logistic(-1.0, vec![]), AT_MINUS_1);
}

#[test]
fn a_term_is_weight_times_value() {
    check(&logistic(1.5, vec![term(Feature::OrderBookImbalance, 1.0)]), AT_1);
    check(&logistic(0.0, vec![term(Feature::SpreadBps, 0.8)]), AT_2);
    check(&logistic(3.0, vec![term(Feature::N, -0.25)]), AT_2);
}

#[test]
fn terms_are_summed() {
    let terms = vec![term(Feature::SpreadAbs, 4.0), term(Feature::TradeIntensity, 2.0)];
    check(&logistic(-3.0, terms), AT_1);
}

#[test]
fn terms_are_summed_in_their_order() {
    // 1e17 swallows 1 where it comes first.
    let big = |weight| term(Feature::SpreadAbs, weight);
    let one = term(Feature::SpreadAbs, 4.0);
    check(&logistic(0.0, vec![big(4e17), big(-4e17), one]), AT_1);
    check(&logistic(0.0, vec![one, big(4e17), big(-4e17)]), 0.5);
}

#[test]
fn each_feature_is_read_from_its_own_field() {
    let wanted = [
        (Feature::Price, 8.0),
        (Feature::Midprice, 9.0),
        (Feature::SpreadAbs, 0.25),
        (Feature::SpreadRel, 0.125),
        (Feature::SpreadBps, 2.5),
        (Feature::OrderBookImbalance, -0.5),
        (Feature::Return(0), 0.1),
        (Feature::Return(1), -0.2),
        (Feature::Return(2), 0.3),
        (Feature::N, 4.0),
        (Feature::RetMean, 0.01),
        (Feature::RetStd, 0.02),
        (Feature::TradeIntensity, 1.5),
        (Feature::VolatilityZ, 2.0),
    ];
    for (feature, value) in wanted {
        assert_eq!(feature.get(&features()), value, "{feature:?}");
    }
    assert!(Feature::SpreadZ.get(&features()).is_nan());
    assert!(Feature::Return(MAX_HORIZONS as u8 - 1).get(&features()).is_nan());
}

/// A model of one term of weight 1.
fn one(feature: Feature, transform: Transform, standardise: Option<(f64, f64)>, intercept: f64) -> Model {
    logistic(intercept, vec![Term { transform, standardise, ..term(feature, 1.0) }])
}

#[test]
fn transforms_come_before_the_weight() {
    check(&one(Feature::OrderBookImbalance, Transform::Abs, None, 0.5), AT_1);
    check(&one(Feature::OrderBookImbalance, Transform::Square, None, 0.75), AT_1);
    // ln 8 = 2.0794415416798357
    check(&one(Feature::Price, Transform::Log, None, 1.0 - 2.079_441_541_679_835_7), AT_1);
}

#[test]
fn standardising_comes_after_the_transform() {
    check(&one(Feature::TradeIntensity, Transform::None, Some((0.5, 0.5)), 0.0), AT_2);
    check(&one(Feature::OrderBookImbalance, Transform::Square, Some((1.25, 0.5)), 3.0), AT_1);
}

#[test]
fn a_logarithm_of_0_or_below_is_refused() {
    check_refused(&one(Feature::OrderBookImbalance, Transform::Log, None, 0.0));
    // A null that stands for 0.
    check_refused(&one(Feature::SpreadZ, Transform::Log, None, 0.0));
}

#[test]
fn a_null_is_replaced_before_the_transform() {
    let replaced = |value| Term { null: NullPolicy::Value(value), ..term(Feature::SpreadZ, 1.0) };
    check(&logistic(1.0, vec![replaced(0.0)]), AT_1);
    check(&logistic(0.0, vec![replaced(2.0)]), AT_2);
    check(&logistic(-3.0, vec![Term { transform: Transform::Square, ..replaced(-2.0) }]), AT_1);
    check(&logistic(0.0, vec![Term { standardise: Some((1.0, 2.0)), ..replaced(3.0) }]), AT_1);
}

#[test]
fn a_null_that_the_model_refuses_makes_no_prediction() {
    let refuse = |feature| Term { null: NullPolicy::Refuse, ..term(feature, 1.0) };
    check_refused(&logistic(0.0, vec![refuse(Feature::SpreadZ)]));
    check_refused(&logistic(0.0, vec![term(Feature::N, 1.0), refuse(Feature::SpreadZ)]));
    // The policy is for nulls alone.
    check(&logistic(-1.0, vec![refuse(Feature::VolatilityZ)]), AT_1);
}

#[test]
fn the_baseline_is_the_sigmoid_of_volatility_z_less_its_threshold() {
    check(&baseline(3.0, ZERO), AT_MINUS_1);
    check(&baseline(1.0, ZERO), AT_1);
    check(&baseline(2.0, NullPolicy::Refuse), 0.5);
}

#[test]
fn the_baselines_null_follows_its_policy() {
    let null = Features { volatility_z: NULL, ..features() };
    let got = predict(&baseline(-1.0, ZERO), &null);
    assert_eq!((got.probability, got.spike), (AT_1, Some(true)));
    assert_eq!(predict(&baseline(-1.0, NullPolicy::Refuse), &null).spike, None);
}

#[test]
fn the_decision_threshold_itself_is_a_spike() {
    let decide = |decision_threshold| Model { decision_threshold, ..logistic(0.0, vec![]) };
    let spike = |threshold| predict(&decide(threshold), &features()).spike;
    assert_eq!(spike(0.5), Some(true));
    assert_eq!(spike(0.5f64.next_up()), Some(false));
    assert_eq!(spike(0.5f64.next_down()), Some(true));
    assert_eq!((spike(0.0), spike(1.0)), (Some(true), Some(false)));
}

#[test]
fn huge_sums_are_certain_but_stay_probabilities() {
    let huge = |weight| logistic(0.0, vec![term(Feature::Price, weight)]);
    check(&huge(1e300), 1.0);
    check(&huge(-1e300), 0.0);
    check(&huge(f64::MAX), 1.0);
    check(&huge(-f64::MAX), 0.0);
    let tiny = predict(&huge(-87.5), &features()).probability;
    assert!(0.0 < tiny && tiny < 1e-300, "{tiny}");
}

#[test]
fn a_sum_that_is_no_number_is_refused() {
    let terms = vec![term(Feature::Price, f64::MAX), term(Feature::Price, -f64::MAX)];
    check_refused(&logistic(0.0, terms));
    check_refused(&one(Feature::Price, Transform::None, Some((8.0, 0.0)), 0.0));
}

#[test]
fn predictions_and_refusals_are_counted_and_all_else_passes_by() {
    let refuse = Term { null: NullPolicy::Refuse, ..term(Feature::SpreadZ, 1.0) };
    let parameters = Parameters { model: Arc::new(logistic(0.0, vec![refuse])), ..parameters() };
    let mut score = Alone::<Score>::new(&Arc::new(parameters), &instrument());
    let gap = Gap { start: Time(1), end: Time(2), reason: GapReason::Silence, digits: 3 };
    let reading = Reading { value: 1.0, zscore: 2.0, seen: 3 };
    let sample = Sample { time: Time(3), digits: 3, readings: [reading; Metric::COUNT] };
    let scored = Features { spread_z: 0.0, ..features() };
    let inputs =
        [Sampled::Gap(gap), Sampled::Tick(features()), Sampled::Sample(sample), Sampled::Tick(scored)];
    feed_inputs(&mut score, inputs);
    let out = score.out;
    let counts = &out.context.ledger.counts;
    assert_eq!((counts.predictions, counts.refused), (1, 1));
    assert_eq!(out.values.iter().map(|given| given.order).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(out.values[0].value, Scored::Gap(gap));
    assert_eq!(out.values[2].value, Scored::Sample(sample));
    let Scored::Tick(same, prediction) = out.values[3].value else { panic!("a tick") };
    assert_eq!(format!("{same:?}"), format!("{scored:?}"));
    assert_eq!((prediction.probability, prediction.spike), (0.5, Some(true)));
}
