//! Time per tick of each operator and of all of them in a row, over batches as a dataflow feeds them.
//!
//! `cargo bench -p foreshock-operators`: the items are ticks, so 1 / throughput is the time per tick. Windows
//! are warm before the clock starts: 60 s at 50 ticks a second hold 3,000 ticks.

use std::cell::RefCell;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use foreshock_operators::alone::Alone;
use foreshock_operators::chain::Chain;
use foreshock_operators::change::Parameters;
use foreshock_operators::features::{FeatureSettings, FeatureWindows};
use foreshock_operators::gaps::Gaps;
use foreshock_operators::links;
use foreshock_operators::links::Out;
use foreshock_operators::operator::{Context, Instrument, Operator};
use foreshock_operators::order::{Order, OrderSettings};
use foreshock_operators::row::{Body, Channel, Extent, InstrumentId, Quote, Row, Source};
use foreshock_operators::score::Score;
use foreshock_operators::seconds::{SecondSettings, Seconds};
use foreshock_operators::time::{MILLISECOND, Nanos, SECOND, Time};
use foreshock_testkit::models;

fn main() {
    divan::main();
}

/// Rows in a batch.
const BATCH: usize = 256;

/// Ticks processed before the clock starts: twice a window.
const WARM: usize = 6_000;

/// How ticks follow each other.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// One every 20 ms.
    Steady,
    /// 1,000 within a millisecond, then 20 s of nothing: whole bursts leave the window at once.
    Bursts,
}

const PACES: [Pace; 2] = [Pace::Steady, Pace::Bursts];

impl Pace {
    fn time(self, k: u64) -> Nanos {
        match self {
            Pace::Steady => k as i64 * 20 * MILLISECOND,
            Pace::Bursts => (k / 1_000) as i64 * 20 * SECOND + (k % 1_000) as i64 * 1_000,
        }
    }
}

/// Makes tickers without end.
struct Ticks {
    pace: Pace,
    next: u64,
    random: u64,
    price: f64,
}

impl Ticks {
    fn new(pace: Pace) -> Ticks {
        Ticks { pace, next: 0, random: 1, price: 1e5 }
    }
}

impl Iterator for Ticks {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let step = (self.random >> 33) as f64 / (1u64 << 31) as f64 - 0.5;
        self.price = (self.price * (1.0 + 1e-6 * step)).clamp(5e4, 2e5);
        let time = Time(1_700_000_000 * SECOND + self.pace.time(self.next));
        let half = 0.005 * (1 + self.random % 3) as f64;
        let (bid, ask, price) = (self.price - half, self.price + half, self.price);
        self.next += 1;
        Some(Row {
            instrument: InstrumentId(0),
            channel: Channel::Ticker,
            digits: 6,
            index: 0,
            alone: true,
            event_time: time,
            clock: time,
            received: None,
            id: Some(self.next),
            source: Source { file: 0, line: self.next },
            extent: Extent { start: 0, length: 400 },
            behind: 0,
            body: Body::Quote(Quote { bid, bid_size: 1.5, ask, ask_size: 0.5, price, trade: true }),
        })
    }
}

fn instrument() -> Instrument {
    Instrument {
        id: InstrumentId(0),
        exchange: "venue".into(),
        symbol: "BTCUSD".into(),
        name: "BTC-USD".into(),
        quote_channel: None,
        trade_channel: None,
        gap_after: Some(60 * SECOND),
        max_jump: None,
    }
}

fn parameters(reorder: Nanos) -> Arc<Parameters> {
    Arc::new(Parameters {
        max_ahead: SECOND,
        order: OrderSettings { reorder },
        features: Arc::new(FeatureSettings::default()),
        seconds: SecondSettings::default(),
        model: models::logistic(),
        rules: [].into(),
    })
}

fn alone<O: Operator>(reorder: Nanos) -> Alone<O> {
    Alone::new(&parameters(reorder), &instrument())
}

/// Feeds one batch.
fn process<O: Operator>(operator: &mut Alone<O>, batch: impl IntoIterator<Item = O::Input>) {
    for (order, input) in (0..).zip(batch) {
        operator.feed(InstrumentId(0), order, input);
    }
}

/// Measures one operator over batches that `prepare` makes of rows.
fn bench<O: Operator>(
    bencher: Bencher,
    pace: Pace,
    mut operator: Alone<O>,
    mut prepare: impl FnMut(Vec<Row>) -> Vec<O::Input>,
) where
    O::Input: Copy,
{
    let mut ticks = Ticks::new(pace);
    process(&mut operator, prepare(ticks.by_ref().take(WARM).collect()));
    let state = RefCell::new(operator);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| prepare(ticks.by_ref().take(BATCH).collect()))
        .bench_local_refs(|batch| {
            let operator = &mut *state.borrow_mut();
            operator.out.values.clear();
            process(operator, batch.iter().copied());
            black_box(&operator.out.values);
        });
}

/// Runs a batch through an operator that is only needed to feed the next.
fn through<O: Operator>(operator: &mut Alone<O>, batch: Vec<O::Input>) -> Vec<O::Output> {
    process(operator, batch);
    operator.out.values.drain(..).map(|tagged| tagged.value).collect()
}

#[divan::bench(args = PACES, sample_count = 1_000)]
fn order(bencher: Bencher, pace: Pace) {
    bench(bencher, pace, alone::<Order>(0), |rows| rows);
}

#[divan::bench(args = PACES, sample_count = 1_000)]
fn order_waiting_100_ms(bencher: Bencher, pace: Pace) {
    bench(bencher, pace, alone::<Order>(100 * MILLISECOND), |rows| rows);
}

#[divan::bench(args = PACES, sample_count = 1_000)]
fn gaps(bencher: Bencher, pace: Pace) {
    bench(bencher, pace, alone::<Gaps>(0), |rows| rows);
}

#[divan::bench(args = PACES, sample_count = 1_000)]
fn features(bencher: Bencher, pace: Pace) {
    let mut gaps = alone::<Gaps>(0);
    bench(bencher, pace, alone::<FeatureWindows>(0), |rows| through(&mut gaps, rows));
}

#[divan::bench(args = PACES, sample_count = 1_000)]
fn seconds(bencher: Bencher, pace: Pace) {
    let (mut gaps, mut features) = (alone::<Gaps>(0), alone::<FeatureWindows>(0));
    bench(bencher, pace, alone::<Seconds>(0), |rows| through(&mut features, through(&mut gaps, rows)));
}

#[divan::bench(args = PACES, sample_count = 1_000)]
fn score(bencher: Bencher, pace: Pace) {
    let (mut gaps, mut features) = (alone::<Gaps>(0), alone::<FeatureWindows>(0));
    let mut seconds = alone::<Seconds>(0);
    bench(bencher, pace, alone::<Score>(0), |rows| {
        through(&mut seconds, through(&mut features, through(&mut gaps, rows)))
    });
}

/// All operators, each pushing into the next.
#[divan::bench(args = PACES, sample_count = 1_000)]
fn chain(bencher: Bencher, pace: Pace) {
    let mut chain =
        Chain::<Order, links![Gaps, FeatureWindows, Seconds, Score]>::new(&parameters(0), &instrument());
    let mut out = Out::new(Context::default(), 2 * BATCH);
    let mut step = |batch: &[Row]| {
        for (order, row) in (0..).zip(batch) {
            out.tag(InstrumentId(0), order);
            chain.on_input(*row, &mut out, &mut ());
        }
        black_box(&out.values);
        out.values.clear();
    };
    let mut ticks = Ticks::new(pace);
    for _ in 0..WARM / BATCH {
        step(&ticks.by_ref().take(BATCH).collect::<Vec<_>>());
    }
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| ticks.by_ref().take(BATCH).collect::<Vec<_>>())
        .bench_local_refs(|batch| step(batch));
}
