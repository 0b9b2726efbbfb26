//! Rows and logs of one instrument, parameters, and how operators are fed.

use std::sync::Arc;

use foreshock_operators::account::Ledger;
use foreshock_operators::alone::Alone;
use foreshock_operators::chain::Chain;
use foreshock_operators::change::Parameters;
use foreshock_operators::feature::Feature;
use foreshock_operators::features::{FeatureSettings, FeatureWindows};
use foreshock_operators::gaps::Gaps;
use foreshock_operators::links;
use foreshock_operators::links::{Links, Out};
use foreshock_operators::model::{Logistic, Model, ModelKind, NullPolicy, Term, Transform};
use foreshock_operators::operator::{Context, Instrument, Operator};
use foreshock_operators::order::{Order, OrderSettings};
use foreshock_operators::row::{Body, Channel, Extent, InstrumentId, Quote, Row, Side, Source, Trade};
use foreshock_operators::score::Score;
use foreshock_operators::seconds::{SecondSettings, Seconds};
use foreshock_operators::time::{MILLISECOND, Nanos, SECOND, Time};

use crate::random::Random;

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
        max_jump: None,
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
        received: None,
        id: None,
        source: Source::default(),
        extent: Extent { start: 0, length: 100 },
        behind: 0,
        body,
    }
}

/// A quote without a trade.
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

/// A log with everything in it: ties, steps back, second edges, gaps, duplicates, late rows, rows of channels
/// without use, absent sizes and heartbeats.
pub fn busy_log(seed: u64, rows: usize) -> Vec<Row> {
    let mut random = Random::new(seed);
    let (mut time, mut price) = (0i64, 1e5);
    let mut made = Vec::new();
    for id in 0..rows as u64 {
        time += match random.below_u64(40) {
            0..6 => 0,
            6..9 => -(random.below_u64(30) as i64) * MILLISECOND,
            9 => SECOND - time.rem_euclid(SECOND),
            10 if random.below_u64(8) == 0 => (5 + random.below_u64(4) as i64) * SECOND,
            11 => random.below_u64(2_000) as i64 * MILLISECOND,
            _ => random.below_u64(60) as i64 * MILLISECOND + random.below_u64(1_000) as i64,
        };
        price *= 1.0 + 1e-5 * random.signed();
        let half = 0.005 * (1 + random.below_u64(5)) as f64;
        let row = match random.below_u64(12) {
            0 => heartbeat(time),
            1 | 2 => trade(time, price),
            3 => on(Channel::AggTrade, trade(time, price)),
            4 => ticker(time, price - half, price + half, price),
            5 => sized(quote(time, price - half, price + half), f64::NAN, f64::NAN),
            6 => sized(quote(time, price - half, price + half), 0.0, 0.0),
            _ => {
                let (bid_size, ask_size) = (random.below_u64(5) as f64, random.below_u64(5) as f64);
                sized(quote(time, price - half, price + half), bid_size, ask_size)
            }
        };
        made.push(match random.below_u64(10) {
            0 => row,
            1 => with_id(id.saturating_sub(random.below_u64(20)), row),
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
        term(Feature::RetStd, Transform::None, None, 800.0),
        term(Feature::Return(1), Transform::Abs, None, 50.0),
        term(Feature::OrderBookImbalance, Transform::None, Some((0.1, 2.0)), 0.3),
        term(Feature::SpreadZ, Transform::Square, None, 0.2),
        term(Feature::VolatilityZ, Transform::None, None, 0.1),
    ];
    Arc::new(Model {
        name: "spike".into(),
        version: "1".into(),
        kind: ModelKind::Logistic(Logistic { intercept: -2.0, terms }),
        decision_threshold: 0.5,
        horizon: 60 * SECOND,
        sha256: "abc".into(),
    })
}

/// order ─► gaps ─► features ─► seconds ─► score.
pub type ScoredChain = Chain<Order, links![Gaps, FeatureWindows, Seconds, Score]>;

/// What is computed by where nothing is configured: rows are taken as they come, and no rule watches.
pub fn parameters() -> Parameters {
    Parameters {
        max_ahead: SECOND,
        order: OrderSettings::default(),
        features: Arc::new(FeatureSettings::default()),
        seconds: SecondSettings::default(),
        model: model(),
        rules: [].into(),
    }
}

/// The same, but rows wait so long for older ones.
pub fn reordering(reorder: Nanos) -> Parameters {
    Parameters { order: OrderSettings { reorder }, ..parameters() }
}

/// An empty output of a chain that goes on with an account already begun.
pub fn output_with<T>(ledger: Ledger) -> Out<T> {
    Out::new(Context { ledger, ..Context::default() }, 0)
}

/// Feeds a chain these rows, each at its position among them.
pub fn feed_rows<L>(chain: &mut Chain<Order, L>, rows: &[Row], out: &mut Out<L::Output>)
where
    L: Links<Instrument, Input = Row>,
{
    for (order, row) in (0..).zip(rows) {
        out.tag(row.instrument, order);
        chain.on_input(*row, out, &mut ());
    }
}

/// Feeds an operator these inputs, each at its position among them.
pub fn feed_inputs<O: Operator>(alone: &mut Alone<O>, inputs: impl IntoIterator<Item = O::Input>) {
    for (order, input) in (0..).zip(inputs) {
        alone.feed(InstrumentId(3), order, input);
    }
}

/// The values alone, without what caused them.
pub fn values<T>(out: Out<T>) -> Vec<T> {
    out.values.into_iter().map(|tagged| tagged.value).collect()
}
