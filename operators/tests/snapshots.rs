//! Stopping anywhere and going on from a snapshot changes nothing, and bytes that are no snapshot do no harm.

mod support;

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use foreshock_operators::features::{FeatureSettings, FeatureWindows};
use foreshock_operators::gaps::Gaps;
use foreshock_operators::model::Model;
use foreshock_operators::operator::{Instrument, Operator, Out, RestoreError};
use foreshock_operators::order::{Order, OrderSettings};
use foreshock_operators::row::{Channel, InstrumentId, Row};
use foreshock_operators::score::Score;
use foreshock_operators::seconds::{SecondSettings, Seconds};
use foreshock_operators::stages::{Live, Measured, Sampled};
use foreshock_operators::time::{MILLISECOND, SECOND};
use proptest::prelude::*;
use support::{
    Chain, ChainSettings, Random, account_of, busy_log, instrument, instrument_with_gaps, log, mid, model,
    outputs,
};

/// An operator before its first row, what it is made of, and what it is fed.
struct Setting<O: Operator> {
    settings: O::Settings,
    instrument: Instrument,
    inputs: Vec<O::Input>,
}

/// What the operators are fed in a run of the whole chain over `rows`.
struct Settings {
    order: Setting<Order>,
    gaps: Setting<Gaps>,
    features: Setting<FeatureWindows>,
    seconds: Setting<Seconds>,
    score: Setting<Score>,
    chain: Setting<Chain>,
}

fn values<T>(out: Out<T>) -> Vec<T> {
    out.values.into_iter().map(|tagged| tagged.value).collect()
}

/// Windows short enough to be left and long enough to fill more than a block.
fn short() -> ChainSettings {
    let features = FeatureSettings {
        window: 3 * SECOND,
        horizons: vec![250 * MILLISECOND, 5 * SECOND],
        spread_window: 100,
        spread_min: 10,
    };
    ChainSettings {
        order: OrderSettings { reorder: 20 * MILLISECOND },
        features: Arc::new(features),
        seconds: SecondSettings { zscore_window: 7, zscore_min_samples: 3 },
        ..ChainSettings::default()
    }
}

fn settings(chain: ChainSettings, rows: Vec<Row>) -> Settings {
    let instrument = instrument_with_gaps(5 * SECOND);
    let mut order = Order::new(&chain.order, &instrument);
    let mut ordered = outputs(&mut order, rows.iter().copied(), account_of(&rows));
    order.on_end(&mut ordered);
    let ordered: Vec<Row> = values(ordered);
    let mut gaps = Gaps::new(&chain.windows(), &instrument);
    let live: Vec<Live> = values(outputs(&mut gaps, ordered.clone(), Default::default()));
    let mut features = FeatureWindows::new(&chain.features, &instrument);
    let measured: Vec<Measured> = values(outputs(&mut features, live.clone(), Default::default()));
    let mut seconds = Seconds::new(&chain.seconds, &instrument);
    let sampled: Vec<Sampled> = values(outputs(&mut seconds, measured.clone(), Default::default()));
    Settings {
        order: Setting { settings: chain.order, instrument: instrument.clone(), inputs: rows.clone() },
        gaps: Setting { settings: chain.windows(), instrument: instrument.clone(), inputs: ordered },
        features: Setting { settings: chain.features.clone(), instrument: instrument.clone(), inputs: live },
        seconds: Setting { settings: chain.seconds, instrument: instrument.clone(), inputs: measured },
        score: Setting { settings: chain.model.clone(), instrument: instrument.clone(), inputs: sampled },
        chain: Setting { settings: chain, instrument, inputs: rows },
    }
}

fn bytes_of(operator: &impl Operator) -> Vec<u8> {
    let mut bytes = Vec::new();
    operator.snapshot(&mut bytes);
    bytes
}

impl<O: Operator> Setting<O>
where
    O::Input: Clone,
    O::Output: Debug,
{
    fn start(&self) -> O {
        O::new(&self.settings, &self.instrument)
    }

    fn restore(&self, bytes: &[u8]) -> Result<O, RestoreError> {
        O::restore(&self.settings, &[], &self.instrument, bytes)
    }

    /// Feeds `inputs[from..to]`.
    fn feed(&self, operator: &mut O, from: usize, to: usize, out: &mut Out<O::Output>) {
        for (k, input) in self.inputs[from..to].iter().enumerate() {
            out.tag(InstrumentId(3), (from + k) as u32);
            operator.on_input(input.clone(), out);
        }
    }

    /// A run that is stopped and restored at each of `stops`.
    fn run(&self, stops: &[usize]) -> (Vec<String>, String, Vec<u8>) {
        let mut operator = self.start();
        let mut out = Out::default();
        let mut from = 0;
        for stop in stops {
            self.feed(&mut operator, from, *stop, &mut out);
            from = *stop;
            let bytes = bytes_of(&operator);
            operator = self.restore(&bytes).expect("a snapshot is taken back");
            assert_eq!(bytes_of(&operator), bytes, "{} at {stop}: other bytes after restoring", O::NAME);
        }
        self.feed(&mut operator, from, self.inputs.len(), &mut out);
        let bytes = bytes_of(&operator);
        operator.on_end(&mut out);
        // The debug text of an f64 is the shortest that reads back to the same bits; NaN is NaN.
        let given = out.values.iter().map(|value| format!("{value:?}")).collect();
        (given, format!("{:?}", out.ledger), bytes)
    }

    #[track_caller]
    fn check_stops(&self, stops: &[usize]) {
        assert!(self.run(stops) == self.run(&[]), "{} remembers its stops {stops:?}", O::NAME);
    }

    /// Restores from `bytes`; what is taken must go on without a panic.
    fn go_on(&self, bytes: &[u8], from: usize) -> Result<(), String> {
        let going_on = || {
            if let Ok(mut operator) = self.restore(bytes) {
                let mut out = Out::default();
                self.feed(&mut operator, from, self.inputs.len(), &mut out);
                operator.on_end(&mut out);
                bytes_of(&operator);
            }
        };
        catch_unwind(AssertUnwindSafe(going_on)).map_err(|_| format!("{} panicked", O::NAME))
    }

    /// Every truncation and every byte changed of the snapshot at `stop` (some of them where it is large).
    #[track_caller]
    fn check_damage(&self, stop: usize) {
        let mut operator = self.start();
        self.feed(&mut operator, 0, stop, &mut Out::default());
        let bytes = bytes_of(&operator);
        let step = bytes.len().div_ceil(if cfg!(debug_assertions) { 300 } else { 2_000 });
        let mut random = Random(stop as u64);
        for at in (0..bytes.len()).step_by(step) {
            let at = (at + random.below(step as u64) as usize).min(bytes.len() - 1);
            assert!(self.restore(&bytes[..at]).is_err(), "{} took {at} of {} bytes", O::NAME, bytes.len());
            for mask in [0x01, 0x80, 0xff, 1 + random.below(255) as u8] {
                let mut damaged = bytes.clone();
                damaged[at] ^= mask;
                if let Err(why) = self.go_on(&damaged, stop) {
                    panic!("{why}: byte {at} of {} xor {mask:#x}, stopped at {stop}", bytes.len());
                }
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(self.restore(&longer).is_err(), "{} took a byte too many", O::NAME);
    }

    /// Any two bytes of the state before the first row, set to the same: so that parts still fit each other.
    #[track_caller]
    fn check_pairs(&self) {
        let bytes = bytes_of(&self.start());
        for (first, second) in
            (0..bytes.len()).flat_map(|first| (0..first).map(move |second| (first, second)))
        {
            let mut damaged = bytes.clone();
            damaged[first] = 5;
            damaged[second] = 5;
            if let Err(why) = self.go_on(&damaged, 0) {
                panic!("{why}: bytes {second} and {first} of {} are 5", bytes.len());
            }
        }
    }

    #[track_caller]
    fn check_refuses(&self, settings: &O::Settings, instrument: &Instrument) {
        for stop in [0, self.inputs.len()] {
            let mut operator = self.start();
            self.feed(&mut operator, 0, stop, &mut Out::default());
            let refused = O::restore(settings, &[], instrument, &bytes_of(&operator)).err();
            assert!(
                matches!(refused, Some(RestoreError::OtherSettings { .. })),
                "{} took it: {refused:?}",
                O::NAME
            );
        }
    }
}

/// Calls a method with the same arguments for every operator and for the chain of them.
macro_rules! each {
    ($settings:expr, $method:ident($($stop:expr),*)) => {{
        let settings = $settings;
        settings.order.$method($($stop(settings.order.inputs.len())),*);
        settings.gaps.$method($($stop(settings.gaps.inputs.len())),*);
        settings.features.$method($($stop(settings.features.inputs.len())),*);
        settings.seconds.$method($($stop(settings.seconds.inputs.len())),*);
        settings.score.$method($($stop(settings.score.inputs.len())),*);
        settings.chain.$method($($stop(settings.chain.inputs.len())),*);
    }};
}

// ------------------------------------------------------------------------------------------------ going on

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_run_stopped_anywhere_goes_on_as_if_it_never_stopped(
        seed in any::<u64>(),
        count in 1usize..500,
        stops in prop::collection::vec(0.0..=1.0f64, 1..4),
        is_short in any::<bool>(),
    ) {
        let chain = if is_short { short() } else { ChainSettings::default() };
        let at = |length: usize| {
            let mut at: Vec<usize> = stops.iter().map(|stop| (stop * length as f64) as usize).collect();
            at.sort();
            at
        };
        let stops = |length| at(length);
        macro_rules! check {
            ($($operator:ident),*) => {{
                let all = settings(chain, busy_log(seed, count));
                $(all.$operator.check_stops(&stops(all.$operator.inputs.len()));)*
            }};
        }
        check!(order, gaps, features, seconds, score, chain);
    }
}

#[test]
fn stopping_after_every_row_changes_nothing() {
    let all = settings(short(), busy_log(1, 400));
    let every = |length| (0..=length).collect::<Vec<_>>();
    all.order.check_stops(&every(all.order.inputs.len()));
    all.gaps.check_stops(&every(all.gaps.inputs.len()));
    all.features.check_stops(&every(all.features.inputs.len()));
    all.seconds.check_stops(&every(all.seconds.inputs.len()));
    all.score.check_stops(&every(all.score.inputs.len()));
    all.chain.check_stops(&every(all.chain.inputs.len()));
}

#[test]
fn a_long_run_stopped_now_and_then_changes_nothing() {
    let all = settings(ChainSettings::default(), busy_log(2, 30_000));
    all.chain.check_stops(&[1_000, 2_023, 2_024, 9_999, 29_999]);
    // Values were given, and rows wait at the stops of the other settings.
    assert!(all.chain.run(&[]).0.len() > 10_000);
    settings(short(), busy_log(2, 10_000)).chain.check_stops(&[64, 65, 1_024, 9_999]);
}

#[test]
fn waiting_rows_are_in_the_snapshot() {
    let rows = log((0..10).map(|k| mid(100 - k, 1.0)));
    let all = settings(short(), rows);
    all.order.check_stops(&[5, 10]);
    let (given, _, bytes) = all.order.run(&[10]);
    assert_eq!(given.len(), 10);
    let fresh = bytes_of(&all.order.start()).len();
    assert!(bytes.len() > fresh + 10 * 40, "{} bytes", bytes.len());
}

// ------------------------------------------------------------------------------------------- other settings

#[test]
fn order_refuses_another_reorder_time() {
    let all = settings(short(), busy_log(3, 50));
    all.order.check_refuses(&OrderSettings { reorder: 0 }, &all.order.instrument);
}

#[test]
fn order_refuses_other_configured_channels() {
    let order = settings(short(), busy_log(3, 50)).order;
    let with_quotes = |channel| Instrument { quote_channel: Some(channel), ..order.instrument.clone() };
    let with_trades = |channel| Instrument { trade_channel: Some(channel), ..order.instrument.clone() };
    order.check_refuses(&order.settings, &with_quotes(Channel::Book));
    order.check_refuses(&order.settings, &with_trades(Channel::Ticker));
    let configured = Setting::<Order> { instrument: with_quotes(Channel::Book), ..order };
    configured.check_refuses(&configured.settings, &instrument_with_gaps(5 * SECOND));
}

#[test]
fn gaps_refuse_another_gap_after() {
    let gaps = settings(short(), busy_log(3, 50)).gaps;
    gaps.check_refuses(&gaps.settings, &instrument());
    gaps.check_refuses(&gaps.settings, &instrument_with_gaps(6 * SECOND));
}

#[test]
fn features_refuse_each_other_setting() {
    let features = settings(short(), busy_log(3, 50)).features;
    let now = || FeatureSettings::clone(&features.settings);
    let others = [
        FeatureSettings { window: 4 * SECOND, ..now() },
        FeatureSettings { horizons: vec![250 * MILLISECOND], ..now() },
        FeatureSettings { spread_window: 101, ..now() },
        FeatureSettings { spread_min: 11, ..now() },
    ];
    for other in others {
        features.check_refuses(&Arc::new(other), &features.instrument);
    }
}

#[test]
fn seconds_refuse_each_other_setting() {
    let seconds = settings(short(), busy_log(3, 50)).seconds;
    let other = SecondSettings { zscore_window: 8, ..seconds.settings };
    seconds.check_refuses(&other, &seconds.instrument);
    let other = SecondSettings { zscore_min_samples: 4, ..seconds.settings };
    seconds.check_refuses(&other, &seconds.instrument);
}

#[test]
fn score_refuses_another_model() {
    let score = settings(short(), busy_log(3, 50)).score;
    let now = || Model::clone(&model());
    for other in [
        Model { name: "other".into(), ..now() },
        Model { version: "2".into(), ..now() },
        Model { sha256: "def".into(), ..now() },
    ] {
        score.check_refuses(&Arc::new(other), &score.instrument);
    }
}

// ------------------------------------------------------------------------------------------ damaged bytes

#[test]
fn damaged_snapshots_are_refused_or_do_no_harm() {
    for stop in [0, 1, 2, 70, 200] {
        let at = |length: usize| stop.min(length);
        each!(settings(short(), busy_log(4, 400)), check_damage(at));
        each!(settings(ChainSettings::default(), busy_log(5, 400)), check_damage(at));
    }
}

#[test]
fn damaged_snapshots_of_a_job_without_horizons_do_no_harm() {
    let features = FeatureSettings { horizons: vec![], ..FeatureSettings::clone(&short().features) };
    let chain = ChainSettings { features: Arc::new(features), ..short() };
    for stop in [0, 1, 2, 70, 200] {
        settings(chain.clone(), busy_log(6, 400)).features.check_damage(stop);
    }
}

#[test]
fn positions_that_agree_on_what_is_not_there_are_refused() {
    let none = FeatureSettings { horizons: vec![], ..FeatureSettings::clone(&short().features) };
    for features in [short().features, Arc::new(none)] {
        let all = settings(ChainSettings { features, ..short() }, busy_log(8, 120));
        all.order.check_pairs();
        all.gaps.check_pairs();
        all.features.check_pairs();
        all.seconds.check_pairs();
        all.score.check_pairs();
    }
}

#[test]
fn noise_is_no_snapshot() {
    let all = settings(short(), busy_log(7, 200));
    let mut random = Random(1);
    for length in (0..3_000).map(|k| k % 150) {
        let noise: Vec<u8> =
            (0..length).map(|_| random.next() as u8 & if length % 2 == 0 { 3 } else { 255 }).collect();
        all.order.go_on(&noise, 100).unwrap();
        all.gaps.go_on(&noise, 100).unwrap();
        all.features.go_on(&noise, 100).unwrap();
        all.seconds.go_on(&noise, 20).unwrap();
        all.score.go_on(&noise, 20).unwrap();
        all.chain.go_on(&noise, 100).unwrap();
    }
}
