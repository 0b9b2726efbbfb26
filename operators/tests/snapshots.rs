//! Stopping anywhere and going on from a snapshot changes nothing, and bytes that are no snapshot do no harm.

use std::fmt::Debug;
use std::mem::swap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use foreshock_operators::alone::Alone;
use foreshock_operators::chain::SECTION;
use foreshock_operators::change::Parameters;
use foreshock_operators::features::{FeatureSettings, FeatureWindows};
use foreshock_operators::gaps::Gaps;
use foreshock_operators::links::Out;
use foreshock_operators::model::Model;
use foreshock_operators::operator::{Context, Instrument, Operator, RestoreError};
use foreshock_operators::order::{Order, OrderSettings};
use foreshock_operators::row::{Channel, InstrumentId, Row};
use foreshock_operators::score::Score;
use foreshock_operators::seconds::{SecondSettings, Seconds};
use foreshock_operators::stages::{Live, Measured, Sampled, Scored};
use foreshock_operators::time::{MILLISECOND, SECOND};
use proptest::prelude::*;

use foreshock_testkit::random::Random;
use foreshock_testkit::rows::{
    ScoredChain, account_of, busy_log, feed_inputs, instrument, instrument_with_gaps, log, mid, model,
    parameters, values,
};

/// What can be stopped and gone on with: an operator by itself, or a chain of them; and what it has given so far.
trait Machine: Sized {
    const NAME: &'static str;
    type Input: Clone;
    type Output: Debug;

    fn start(parameters: &Arc<Parameters>, instrument: &Instrument) -> Self;
    fn restore(
        parameters: &Arc<Parameters>,
        instrument: &Instrument,
        bytes: &[u8],
    ) -> Result<Self, RestoreError>;
    fn feed(&mut self, order: u32, input: Self::Input);
    fn end(&mut self);
    fn saved(&self) -> Vec<u8>;
    fn out(&mut self) -> &mut Out<Self::Output>;
}

impl<O: Operator<Input: Clone, Output: Debug>> Machine for Alone<O> {
    const NAME: &'static str = O::NAME;
    type Input = O::Input;
    type Output = O::Output;

    fn start(parameters: &Arc<Parameters>, instrument: &Instrument) -> Self {
        Alone::new(parameters, instrument)
    }

    fn restore(
        parameters: &Arc<Parameters>,
        instrument: &Instrument,
        bytes: &[u8],
    ) -> Result<Self, RestoreError> {
        Alone::restore(parameters, instrument, bytes)
    }

    fn feed(&mut self, order: u32, input: O::Input) {
        Alone::feed(self, InstrumentId(3), order, input);
    }

    fn end(&mut self) {
        Alone::end(self);
    }

    fn saved(&self) -> Vec<u8> {
        Alone::saved(self)
    }

    fn out(&mut self) -> &mut Out<O::Output> {
        &mut self.out
    }
}

/// A chain, and what it has given.
struct Chained {
    chain: ScoredChain,
    out: Out<Scored>,
}

impl From<ScoredChain> for Chained {
    fn from(chain: ScoredChain) -> Chained {
        Chained { chain, out: Out::new(Context::default(), 0) }
    }
}

impl Machine for Chained {
    const NAME: &'static str = SECTION;
    type Input = Row;
    type Output = Scored;

    fn start(parameters: &Arc<Parameters>, instrument: &Instrument) -> Self {
        ScoredChain::new(parameters, instrument).into()
    }

    fn restore(
        parameters: &Arc<Parameters>,
        instrument: &Instrument,
        bytes: &[u8],
    ) -> Result<Self, RestoreError> {
        ScoredChain::restore(parameters, &[], instrument, bytes).map(Chained::from)
    }

    fn feed(&mut self, order: u32, row: Row) {
        self.out.tag(InstrumentId(3), order);
        self.chain.on_input(row, &mut self.out, &mut ());
    }

    fn end(&mut self) {
        self.chain.on_end(&mut self.out, &mut ());
    }

    fn saved(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.chain.save(&mut bytes);
        bytes
    }

    fn out(&mut self) -> &mut Out<Scored> {
        &mut self.out
    }
}

/// What a machine is made of, and what it is fed.
struct Setting<M: Machine> {
    parameters: Arc<Parameters>,
    instrument: Instrument,
    inputs: Vec<M::Input>,
}

/// What the operators are fed in a run of the whole chain over `rows`.
struct Settings {
    order: Setting<Alone<Order>>,
    gaps: Setting<Alone<Gaps>>,
    features: Setting<Alone<FeatureWindows>>,
    seconds: Setting<Alone<Seconds>>,
    score: Setting<Alone<Score>>,
    chain: Setting<Chained>,
}

/// Windows short enough to be left and long enough to fill more than a block.
fn short() -> Parameters {
    let features = FeatureSettings {
        window: 3 * SECOND,
        horizons: vec![250 * MILLISECOND, 5 * SECOND],
        spread_window: 100,
        spread_min: 10,
    };
    Parameters {
        max_ahead: SECOND,
        order: OrderSettings { reorder: 20 * MILLISECOND },
        features: Arc::new(features),
        seconds: SecondSettings { zscore_window: 7, zscore_min_samples: 3 },
        ..parameters()
    }
}

fn settings(parameters: Parameters, rows: Vec<Row>) -> Settings {
    let parameters = Arc::new(parameters);
    let instrument = instrument_with_gaps(5 * SECOND);
    let mut order = Alone::<Order>::new(&parameters, &instrument).with_ledger(account_of(&rows));
    feed_inputs(&mut order, rows.iter().copied());
    order.end();
    let ordered: Vec<Row> = values(order.out);
    let mut gaps = Alone::<Gaps>::new(&parameters, &instrument);
    feed_inputs(&mut gaps, ordered.clone());
    let live: Vec<Live> = values(gaps.out);
    let mut features = Alone::<FeatureWindows>::new(&parameters, &instrument);
    feed_inputs(&mut features, live.clone());
    let measured: Vec<Measured> = values(features.out);
    let mut seconds = Alone::<Seconds>::new(&parameters, &instrument);
    feed_inputs(&mut seconds, measured.clone());
    let sampled: Vec<Sampled> = values(seconds.out);
    let with = (&parameters, &instrument);
    Settings {
        order: Setting::of(with, rows.clone()),
        gaps: Setting::of(with, ordered),
        features: Setting::of(with, live),
        seconds: Setting::of(with, measured),
        score: Setting::of(with, sampled),
        chain: Setting::of(with, rows),
    }
}

impl<M: Machine> Setting<M> {
    fn of((parameters, instrument): (&Arc<Parameters>, &Instrument), inputs: Vec<M::Input>) -> Self {
        Setting { parameters: parameters.clone(), instrument: instrument.clone(), inputs }
    }

    fn start(&self) -> M {
        M::start(&self.parameters, &self.instrument)
    }

    fn restore(&self, bytes: &[u8]) -> Result<M, RestoreError> {
        M::restore(&self.parameters, &self.instrument, bytes)
    }

    /// Feeds `inputs[from..to]`.
    fn feed(&self, machine: &mut M, from: usize, to: usize) {
        for (k, input) in self.inputs[from..to].iter().enumerate() {
            machine.feed((from + k) as u32, input.clone());
        }
    }

    /// A run that is stopped and restored at each of `stops`.
    fn run(&self, stops: &[usize]) -> (Vec<String>, String, Vec<u8>) {
        let mut machine = self.start();
        let mut from = 0;
        for stop in stops {
            self.feed(&mut machine, from, *stop);
            from = *stop;
            let bytes = machine.saved();
            let mut restored = self.restore(&bytes).expect("a snapshot is taken back");
            assert_eq!(restored.saved(), bytes, "{} at {stop}: other bytes after restoring", M::NAME);
            swap(restored.out(), machine.out());
            machine = restored;
        }
        self.feed(&mut machine, from, self.inputs.len());
        let bytes = machine.saved();
        machine.end();
        let out = machine.out();
        // The debug text of an f64 is the shortest that reads back to the same bits; NaN is NaN.
        let given = out.values.iter().map(|value| format!("{value:?}")).collect();
        (given, format!("{:?}", out.context.ledger), bytes)
    }

    #[track_caller]
    fn check_stops(&self, stops: &[usize]) {
        assert!(self.run(stops) == self.run(&[]), "{} remembers its stops {stops:?}", M::NAME);
    }

    /// Restores from `bytes`; what is taken must go on without a panic.
    fn go_on(&self, bytes: &[u8], from: usize) -> Result<(), String> {
        let going_on = || {
            if let Ok(mut machine) = self.restore(bytes) {
                self.feed(&mut machine, from, self.inputs.len());
                machine.end();
                machine.saved();
            }
        };
        catch_unwind(AssertUnwindSafe(going_on)).map_err(|_| format!("{} panicked", M::NAME))
    }

    /// Every truncation and every byte changed of the snapshot at `stop` (some of them where it is large).
    #[track_caller]
    fn check_damage(&self, stop: usize) {
        let mut machine = self.start();
        self.feed(&mut machine, 0, stop);
        let bytes = machine.saved();
        let step = bytes.len().div_ceil(if cfg!(debug_assertions) { 300 } else { 2_000 });
        let mut random = Random::new(stop as u64);
        for at in (0..bytes.len()).step_by(step) {
            let at = (at + random.below_u64(step as u64) as usize).min(bytes.len() - 1);
            assert!(self.restore(&bytes[..at]).is_err(), "{} took {at} of {} bytes", M::NAME, bytes.len());
            for mask in [0x01, 0x80, 0xff, 1 + random.below_u64(255) as u8] {
                let mut damaged = bytes.clone();
                damaged[at] ^= mask;
                if let Err(why) = self.go_on(&damaged, stop) {
                    panic!("{why}: byte {at} of {} xor {mask:#x}, stopped at {stop}", bytes.len());
                }
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(self.restore(&longer).is_err(), "{} took a byte too many", M::NAME);
    }

    /// Any two bytes of the state before the first row, set to the same: so that parts still fit each other.
    #[track_caller]
    fn check_pairs(&self) {
        let bytes = self.start().saved();
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

    /// Its states are not taken under these, and it is this operator that refuses them.
    #[track_caller]
    fn check_refuses(&self, operator: &'static str, parameters: &Arc<Parameters>, instrument: &Instrument) {
        for stop in [0, self.inputs.len()] {
            let mut machine = self.start();
            self.feed(&mut machine, 0, stop);
            let refused = M::restore(parameters, instrument, &machine.saved()).err();
            assert_eq!(refused, Some(RestoreError::OtherSettings { operator }), "{} at {stop}", M::NAME);
        }
    }
}

/// An operator refuses its states under these, and so does the chain that it is a part of.
#[track_caller]
fn check_both_refuse<O: Operator<Input: Clone, Output: Debug>>(
    alone: &Setting<Alone<O>>,
    chain: &Setting<Chained>,
    parameters: Parameters,
    instrument: &Instrument,
) {
    let parameters = Arc::new(parameters);
    alone.check_refuses(O::NAME, &parameters, instrument);
    chain.check_refuses(O::NAME, &parameters, instrument);
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
        let parameters = if is_short { short() } else { parameters() };
        let at = |length: usize| {
            let mut at: Vec<usize> = stops.iter().map(|stop| (stop * length as f64) as usize).collect();
            at.sort();
            at
        };
        let stops = |length| at(length);
        macro_rules! check {
            ($($operator:ident),*) => {{
                let all = settings(parameters, busy_log(seed, count));
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
    let all = settings(parameters(), busy_log(2, 30_000));
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
    let fresh = all.order.start().saved().len();
    assert!(bytes.len() > fresh + 10 * 40, "{} bytes", bytes.len());
}

// ------------------------------------------------------------------------------------------- other settings

#[test]
fn order_refuses_another_reorder_time() {
    let Settings { order, chain, .. } = settings(short(), busy_log(3, 50));
    let other = Parameters { order: OrderSettings { reorder: 0 }, ..short() };
    check_both_refuse(&order, &chain, other, &order.instrument);
}

#[test]
fn order_refuses_other_configured_channels() {
    let Settings { order, chain, .. } = settings(short(), busy_log(3, 50));
    let with_quotes = |channel| Instrument { quote_channel: Some(channel), ..order.instrument.clone() };
    let with_trades = |channel| Instrument { trade_channel: Some(channel), ..order.instrument.clone() };
    check_both_refuse(&order, &chain, short(), &with_quotes(Channel::Book));
    check_both_refuse(&order, &chain, short(), &with_trades(Channel::Ticker));
    let (with_book, rows) = (with_quotes(Channel::Book), order.inputs.clone());
    let with = (&order.parameters, &with_book);
    let (order, chain) =
        (Setting::<Alone<Order>>::of(with, rows.clone()), Setting::<Chained>::of(with, rows));
    check_both_refuse(&order, &chain, short(), &instrument_with_gaps(5 * SECOND));
}

#[test]
fn gaps_refuse_another_gap_after() {
    let Settings { gaps, chain, .. } = settings(short(), busy_log(3, 50));
    check_both_refuse(&gaps, &chain, short(), &instrument());
    check_both_refuse(&gaps, &chain, short(), &instrument_with_gaps(6 * SECOND));
}

#[test]
fn features_refuse_each_other_setting() {
    let Settings { features, chain, .. } = settings(short(), busy_log(3, 50));
    let now = || FeatureSettings::clone(&short().features);
    let others = [
        FeatureSettings { window: 4 * SECOND, ..now() },
        FeatureSettings { horizons: vec![250 * MILLISECOND], ..now() },
        FeatureSettings { spread_window: 101, ..now() },
        FeatureSettings { spread_min: 11, ..now() },
    ];
    for other in others {
        let other = Parameters { features: Arc::new(other), ..short() };
        check_both_refuse(&features, &chain, other, &features.instrument);
    }
}

#[test]
fn seconds_refuse_each_other_setting() {
    let Settings { seconds, chain, .. } = settings(short(), busy_log(3, 50));
    for other in [
        SecondSettings { zscore_window: 8, ..short().seconds },
        SecondSettings { zscore_min_samples: 4, ..short().seconds },
    ] {
        let other = Parameters { seconds: other, ..short() };
        check_both_refuse(&seconds, &chain, other, &seconds.instrument);
    }
}

#[test]
fn score_refuses_another_model() {
    let Settings { score, chain, .. } = settings(short(), busy_log(3, 50));
    let now = || Model::clone(&model());
    for other in [
        Model { name: "other".into(), ..now() },
        Model { version: "2".into(), ..now() },
        Model { sha256: "def".into(), ..now() },
    ] {
        let other = Parameters { model: Arc::new(other), ..short() };
        check_both_refuse(&score, &chain, other, &score.instrument);
    }
}

// ------------------------------------------------------------------------------------------ damaged bytes

#[test]
fn damaged_snapshots_are_refused_or_do_no_harm() {
    for stop in [0, 1, 2, 70, 200] {
        let at = |length: usize| stop.min(length);
        each!(settings(short(), busy_log(4, 400)), check_damage(at));
        each!(settings(parameters(), busy_log(5, 400)), check_damage(at));
    }
}

#[test]
fn damaged_snapshots_of_a_job_without_horizons_do_no_harm() {
    let features = FeatureSettings { horizons: vec![], ..FeatureSettings::clone(&short().features) };
    let parameters = Parameters { features: Arc::new(features), ..short() };
    for stop in [0, 1, 2, 70, 200] {
        settings(parameters.clone(), busy_log(6, 400)).features.check_damage(stop);
    }
}

#[test]
fn positions_that_agree_on_what_is_not_there_are_refused() {
    let none = FeatureSettings { horizons: vec![], ..FeatureSettings::clone(&short().features) };
    for features in [short().features, Arc::new(none)] {
        let all = settings(Parameters { features, ..short() }, busy_log(8, 120));
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
    let mut random = Random::new(1);
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
