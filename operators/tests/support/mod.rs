//! What the tests of operators share: rows, logs, seeded numbers, and all operators in one chain.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::sync::Arc;

use foreshock_operators::account::Ledger;
use foreshock_operators::change::{Change, ChangeAt, Windows};
use foreshock_operators::features::{FeatureSettings, FeatureWindows};
use foreshock_operators::gaps::Gaps;
use foreshock_operators::model::{FeatureRef, Model, ModelKind, NullPolicy, Term, Transform};
use foreshock_operators::operator::{Instrument, Operator, Out, RestoreError, load, save};
use foreshock_operators::order::{Order, OrderSettings};
use foreshock_operators::row::{Body, Channel, Extent, InstrumentId, Quote, Row, Side, Source, Trade};
use foreshock_operators::score::Score;
use foreshock_operators::seconds::{SecondSettings, Seconds};
use foreshock_operators::stages::{Live, Measured, Sampled, Scored};
use foreshock_operators::time::{MILLISECOND, Nanos, SECOND, Time};

/// Where the time of all test rows begins: a whole second of 2023.
pub const START: i64 = 1_700_000_000 * SECOND;

/// An instrument whose channels are fixed by its log and whose silences are never gaps.
pub fn instrument() -> Instrument {
    Instrument {
        id: InstrumentId(3),
        exchange: "venue".into(),
        symbol: "BTCUSD".into(),
        name: "BTC-USD".into(),
        quote_channel: None,
        trade_channel: None,
        gap_after: None,
    }
}

/// The same, with gaps.
pub fn instrument_with_gaps(gap_after: Nanos) -> Instrument {
    Instrument { gap_after: Some(gap_after), ..instrument() }
}

/// A row `time` nanoseconds after [`START`].
pub fn row(channel: Channel, time: Nanos, body: Body) -> Row {
    Row {
        instrument: InstrumentId(3),
        channel,
        digits: 6,
        index: 0,
        alone: true,
        event_time: Time(START + time),
        clock: Time(START + time),
        id: None,
        source: Source::default(),
        extent: Extent { start: 0, length: 100 },
        body,
    }
}

/// A quote that tells of no trade.
pub fn quote(time: Nanos, bid: f64, ask: f64) -> Row {
    let quote = Quote { bid, bid_size: 1.0, ask, ask_size: 1.0, price: f64::NAN, trade: false };
    row(Channel::BookTicker, time, Body::Quote(quote))
}

/// A quote with other sizes.
pub fn sized(row: Row, bid_size: f64, ask_size: f64) -> Row {
    match row.body {
        Body::Quote(quote) => Row { body: Body::Quote(Quote { bid_size, ask_size, ..quote }), ..row },
        _ => row,
    }
}

/// A quote with a locked spread: bid = ask = mid.
pub fn mid(time: Nanos, mid: f64) -> Row {
    quote(time, mid, mid)
}

/// A ticker: a quote and a new trade.
pub fn ticker(time: Nanos, bid: f64, ask: f64, price: f64) -> Row {
    let quote = Quote { bid, bid_size: 2.0, ask, ask_size: 3.0, price, trade: true };
    row(Channel::Ticker, time, Body::Quote(quote))
}

pub fn trade(time: Nanos, price: f64) -> Row {
    row(Channel::Trade, time, Body::Trade(Trade { price, size: 0.5, side: Some(Side::Buy) }))
}

pub fn heartbeat(time: Nanos) -> Row {
    row(Channel::Heartbeat, time, Body::Heartbeat)
}

pub fn on(channel: Channel, row: Row) -> Row {
    Row { channel, ..row }
}

pub fn with_id(id: u64, row: Row) -> Row {
    Row { id: Some(id), ..row }
}

/// Numbers the rows as the lines of one file.
pub fn log(rows: impl IntoIterator<Item = Row>) -> Vec<Row> {
    let numbered = |(line, row)| Row { source: Source { file: 0, line }, ..row };
    (1..).zip(rows).map(numbered).collect()
}

/// What the decoder would have entered in the account for these rows.
pub fn account_of(rows: &[Row]) -> Ledger {
    let mut ledger = Ledger::default();
    let messages = rows.iter().filter(|row| row.index == 0).count() as i64;
    ledger.counts.messages_in = messages;
    ledger.counts.messages_rows = messages;
    ledger.counts.rows_in = rows.len() as i64;
    ledger
}

/// Everything an operator gives for `inputs`, each value with the position of the input that caused it.
pub fn outputs<O: Operator>(
    operator: &mut O,
    inputs: impl IntoIterator<Item = O::Input>,
    ledger: Ledger,
) -> Out<O::Output> {
    let mut out = Out::with_ledger(ledger, 0);
    for (order, input) in (0..).zip(inputs) {
        out.tag(InstrumentId(3), order);
        operator.on_input(input, &mut out);
    }
    out
}

/// A seeded generator (splitmix64).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in 0..below.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    /// A number in -1..1.
    pub fn signed(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// A log with everything in it: ties, steps back, second edges, gaps, duplicates, late rows, rows of channels
/// without use, absent sizes and heartbeats.
pub fn busy_log(seed: u64, rows: usize) -> Vec<Row> {
    let mut random = Random(seed);
    let (mut time, mut price) = (0i64, 1e5);
    let mut made = Vec::new();
    for id in 0..rows as u64 {
        time += match random.below(40) {
            0..6 => 0,
            6..9 => -(random.below(30) as i64) * MILLISECOND,
            9 => SECOND - time.rem_euclid(SECOND),
            10 if random.below(8) == 0 => (5 + random.below(4) as i64) * SECOND,
            11 => random.below(2_000) as i64 * MILLISECOND,
            _ => random.below(60) as i64 * MILLISECOND + random.below(1_000) as i64,
        };
        price *= 1.0 + 1e-5 * random.signed();
        let half = 0.005 * (1 + random.below(5)) as f64;
        let row = match random.below(12) {
            0 => heartbeat(time),
            1 | 2 => trade(time, price),
            3 => on(Channel::AggTrade, trade(time, price)),
            4 => ticker(time, price - half, price + half, price),
            5 => sized(quote(time, price - half, price + half), f64::NAN, f64::NAN),
            6 => sized(quote(time, price - half, price + half), 0.0, 0.0),
            _ => {
                let (bid_size, ask_size) = (random.below(5) as f64, random.below(5) as f64);
                sized(quote(time, price - half, price + half), bid_size, ask_size)
            }
        };
        made.push(match random.below(10) {
            0 => row,
            1 => with_id(id.saturating_sub(random.below(20)), row),
            _ => with_id(id, row),
        });
    }
    log(made)
}

/// A model that looks at everything that may be null.
pub fn model() -> Arc<Model> {
    let term = |feature, transform, standardise, weight| Term {
        feature,
        null: NullPolicy::Value(0.0),
        transform,
        standardise,
        weight,
    };
    let terms = vec![
        term(FeatureRef::RetStd, Transform::None, None, 800.0),
        term(FeatureRef::Return(1), Transform::Abs, None, 50.0),
        term(FeatureRef::OrderBookImbalance, Transform::None, Some((0.1, 2.0)), 0.3),
        term(FeatureRef::SpreadZ, Transform::Square, None, 0.2),
        term(FeatureRef::VolatilityZ, Transform::None, None, 0.1),
    ];
    Arc::new(Model {
        name: "spike".into(),
        version: "1".into(),
        kind: ModelKind::Logistic { intercept: -2.0, terms },
        decision_threshold: 0.5,
        horizon: 60 * SECOND,
        sha256: "abc".into(),
    })
}

/// Settings of all operators.
#[derive(Clone, Debug)]
pub struct ChainSettings {
    pub order: OrderSettings,
    pub features: Arc<FeatureSettings>,
    pub seconds: SecondSettings,
    pub model: Arc<Model>,
}

impl Default for ChainSettings {
    fn default() -> Self {
        ChainSettings {
            order: OrderSettings::default(),
            features: Arc::new(FeatureSettings::default()),
            seconds: SecondSettings::default(),
            model: model(),
        }
    }
}

impl ChainSettings {
    pub fn windows(&self) -> Windows {
        Windows { order: self.order, features: self.features.clone(), seconds: self.seconds }
    }
}

/// order ─► gaps ─► features ─► seconds ─► score, row by row.
pub struct Chain {
    order: Order,
    gaps: Gaps,
    features: FeatureWindows,
    seconds: Seconds,
    score: Score,
    rows: Out<Row>,
    live: Out<Live>,
    measured: Out<Measured>,
    sampled: Out<Sampled>,
}

impl Chain {
    fn of(order: Order, gaps: Gaps, features: FeatureWindows, seconds: Seconds, score: Score) -> Chain {
        let (rows, live, measured, sampled) = Default::default();
        Chain { order, gaps, features, seconds, score, rows, live, measured, sampled }
    }

    fn pass_on(&mut self, out: &mut Out<Scored>) {
        step(&mut self.rows, &mut self.gaps, &mut self.live);
        step(&mut self.live, &mut self.features, &mut self.measured);
        step(&mut self.measured, &mut self.seconds, &mut self.sampled);
        step(&mut self.sampled, &mut self.score, out);
    }
}

/// Feeds what one operator gave to the next, changes at their places.
fn step<A, O: Operator<Input = A>>(from: &mut Out<A>, operator: &mut O, to: &mut Out<O::Output>) {
    to.ledger = std::mem::take(&mut from.ledger);
    let mut changes = from.changes.drain(..).peekable();
    for (at, value) in (0..).zip(from.values.drain(..)) {
        while let Some(placed) = changes.next_if(|placed| placed.before <= at) {
            operator.on_change(&placed, to);
        }
        operator.on_input(value.value, to);
    }
    changes.for_each(|placed| operator.on_change(&placed, to));
}

impl Operator for Chain {
    const NAME: &'static str = "chain";
    type Settings = ChainSettings;
    type Input = Row;
    type Output = Scored;

    fn new(settings: &ChainSettings, instrument: &Instrument) -> Self {
        Chain::of(
            Order::new(&settings.order, instrument),
            Gaps::new(&settings.windows(), instrument),
            FeatureWindows::new(&settings.features, instrument),
            Seconds::new(&settings.seconds, instrument),
            Score::new(&settings.model, instrument),
        )
    }

    fn on_input(&mut self, row: Row, out: &mut Out<Scored>) {
        self.rows.ledger = std::mem::take(&mut out.ledger);
        self.order.on_input(row, &mut self.rows);
        self.pass_on(out);
    }

    fn on_change(&mut self, placed: &ChangeAt, out: &mut Out<Scored>) {
        self.rows.ledger = std::mem::take(&mut out.ledger);
        self.order.on_change(placed, &mut self.rows);
        self.pass_on(out);
    }

    fn on_end(&mut self, out: &mut Out<Scored>) {
        self.rows.ledger = std::mem::take(&mut out.ledger);
        self.order.on_end(&mut self.rows);
        self.pass_on(out);
    }

    fn snapshot(&self, bytes: &mut Vec<u8>) {
        let mut parts: [Vec<u8>; 5] = Default::default();
        self.order.snapshot(&mut parts[0]);
        self.gaps.snapshot(&mut parts[1]);
        self.features.snapshot(&mut parts[2]);
        self.seconds.snapshot(&mut parts[3]);
        self.score.snapshot(&mut parts[4]);
        save(&parts, bytes);
    }

    fn restore(
        settings: &ChainSettings,
        changes: &[Arc<Change>],
        instrument: &Instrument,
        bytes: &[u8],
    ) -> Result<Self, RestoreError> {
        let parts: [Vec<u8>; 5] = load(Self::NAME, bytes)?;
        Ok(Chain::of(
            Order::restore(&settings.order, changes, instrument, &parts[0])?,
            Gaps::restore(&settings.windows(), changes, instrument, &parts[1])?,
            FeatureWindows::restore(&settings.features, changes, instrument, &parts[2])?,
            Seconds::restore(&settings.seconds, changes, instrument, &parts[3])?,
            Score::restore(&settings.model, changes, instrument, &parts[4])?,
        ))
    }
}
