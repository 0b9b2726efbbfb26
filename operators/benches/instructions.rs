//! How many instructions a tick takes from its bytes to its line, without dataflow, threads or files.
//!
//! `scripts/instructions` counts those of [`measured`] under callgrind: unlike times they are the same on a busy machine,
//! so CI can hold them against the figure in the repository. A number makes that many times as many ticks: then the clock
//! has something to say too.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foreshock_operators::change::Parameters;
use foreshock_operators::encode::Encoder;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::links::Out;
use foreshock_operators::market::MarketChain;
use foreshock_operators::operator::{Context, Instrument};
use foreshock_operators::order::OrderSettings;
use foreshock_operators::row::{Extent, InstrumentId, Row, Source};
use foreshock_operators::seconds::SecondSettings;
use foreshock_operators::stages::Outcome;
use foreshock_operators::time::{SECOND, Time, write_rfc3339};
use foreshock_operators::venues::coinbase::COINBASE_EXCHANGE;
use foreshock_operators::venues::{ClockSource, Envelope, Resolve, Resolved, decode};
use foreshock_testkit::models;

const INSTRUMENTS: usize = 20;

/// Ticks of all instruments together, before the count begins: windows are full then.
const WARM: usize = 60_000;

/// Ticks that are counted.
const COUNTED: usize = 10_000;

/// Ticks of one batch.
const BATCH: usize = 250;

/// Ticks a second of all instruments.
const RATE: i64 = 1_000;

fn main() {
    let mut path = Path::new();
    let mut feed = Feed { next: 0, random: 1, prices: [1e3; INSTRUMENTS] };
    for _ in 0..WARM / BATCH {
        path.batch(&feed.batch());
    }
    // Cargo adds an argument of its own.
    let rounds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1_usize);
    let (mut ticks, mut took) = (0, Duration::ZERO);
    for _ in 0..rounds {
        let batches: Vec<Vec<Vec<u8>>> = (0..COUNTED / BATCH).map(|_| feed.batch()).collect();
        let began = Instant::now();
        ticks += measured(&mut path, &batches);
        took += began.elapsed();
    }
    assert_eq!(ticks, rounds * COUNTED, "each tick gives a line");
    println!("{ticks} ticks");
    println!("{:.0} ns each", took.as_nanos() as f64 / ticks as f64);
}

/// What is counted.
#[inline(never)]
fn measured(path: &mut Path, batches: &[Vec<Vec<u8>>]) -> usize {
    batches.iter().map(|batch| path.batch(black_box(batch))).sum()
}

/// Coinbase tickers of all instruments in turn.
struct Feed {
    next: i64,
    random: u64,
    prices: [f64; INSTRUMENTS],
}

impl Feed {
    fn batch(&mut self) -> Vec<Vec<u8>> {
        (0..BATCH).map(|_| self.line()).collect()
    }

    fn line(&mut self) -> Vec<u8> {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let of = (self.random >> 33) as usize % INSTRUMENTS;
        let step = (self.random >> 40) as f64 / (1 << 24) as f64 - 0.5;
        let price = &mut self.prices[of];
        *price = (*price * (1.0 + 1e-5 * step)).clamp(500.0, 2_000.0);
        let half = 0.01 * (1 + self.random % 3) as f64;
        let (bid, ask, sequence) = (*price - half, *price + half, 37_475_248_783 + self.next);
        let size = 1.0 + step.abs();
        let mut time = Vec::new();
        write_rfc3339(Time(1_700_000_000 * SECOND + self.next * (SECOND / RATE)), 6, &mut time);
        let time = String::from_utf8_lossy(&time);
        let line = format!(
            r#"{{"type":"ticker","sequence":{sequence},"product_id":"P{of}-USD","price":"{price:.2}","open_24h":"1310.79","volume_24h":"245532.79000000","low_24h":"1280.52","high_24h":"1313.8","volume_30d":"9788783.60000000","best_bid":"{bid:.2}","best_bid_size":"{size:.8}","best_ask":"{ask:.2}","best_ask_size":"1.56637040","side":"buy","time":"{time}","trade_id":{sequence},"last_size":"11.4396987"}}"#
        );
        self.next += 1;
        line.into_bytes()
    }
}

/// A known number for each of the feed's symbols.
struct Numbers;

impl Resolve for Numbers {
    fn resolve(&mut self, _: &str, symbol: &str) -> Option<Resolved> {
        let number = symbol.strip_prefix('P')?.strip_suffix("-USD")?.parse().ok()?;
        Some(Resolved { instrument: InstrumentId(number), clock: ClockSource::Exchange })
    }
}

/// The way of all ticks, on one thread, in batches as in a dataflow.
struct Path {
    states: Vec<MarketChain>,
    encoder: Encoder,
    rows: Vec<Row>,
    written: Vec<u8>,
}

impl Path {
    fn new() -> Path {
        let features = Arc::new(FeatureSettings::default());
        let model = models::logistic();
        let mut encoder = Encoder::new(&features.horizons, &model);
        let all: Vec<_> = (0..INSTRUMENTS as u32).map(instrument).collect();
        all.iter().for_each(|instrument| encoder.introduce(instrument));
        let (order, seconds) = (OrderSettings::default(), SecondSettings::default());
        let (max_ahead, rules) = (SECOND, models::rules());
        let parameters = Arc::new(Parameters { max_ahead, order, features, seconds, model, rules });
        Path {
            states: all.iter().map(|instrument| MarketChain::new(&parameters, instrument)).collect(),
            encoder,
            rows: Vec::new(),
            written: Vec::new(),
        }
    }

    /// The lines of a batch; gives how many.
    fn batch(&mut self, lines: &[Vec<u8>]) -> usize {
        let (mut refused, mut envelope) = (Vec::new(), ENVELOPE);
        for line in lines {
            envelope.source.line += 1;
            decode(COINBASE_EXCHANGE, line, &envelope, &mut Numbers, &mut self.rows, &mut refused);
        }
        assert!(refused.is_empty(), "the feed is sound: {refused:?}");
        let mut out = Out::new(Context::default(), self.rows.len());
        for (order, row) in (0..).zip(self.rows.drain(..)) {
            out.tag(row.instrument, order);
            self.states[row.instrument.0 as usize].on_input(row, &mut out, &mut ());
        }
        self.written.clear();
        let mut ticks = 0;
        for tagged in out.values {
            let (instrument, outcome) = (tagged.key, tagged.value);
            if let Outcome::Tick(features, prediction) = outcome {
                self.encoder.scored(instrument, &features, &prediction, &mut self.written);
                ticks += 1;
            }
        }
        black_box(&self.written);
        ticks
    }
}

const ENVELOPE: Envelope<'static> = Envelope {
    received: None,
    exchange: None,
    checked: false,
    source: Source { file: 0, line: 0 },
    extent: Extent { start: 0, length: 0 },
};

fn instrument(number: u32) -> Instrument {
    let name = format!("P{number}-USD");
    Instrument {
        id: InstrumentId(number),
        exchange: "coinbase".into(),
        symbol: name.as_str().into(),
        name: name.as_str().into(),
        quote_channel: None,
        trade_channel: None,
        gap_after: Some(60 * SECOND),
        max_jump: None,
    }
}
