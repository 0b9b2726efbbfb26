//! A worker's states: saved between two batches and taken up by another worker, few and many.

use std::fmt::Write as _;
use std::sync::Arc;

use foreshock_dataflows::batch::{Batch, FromFiles};
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::keyed::Keyed;
use foreshock_dataflows::settings::{InstrumentSettings, Unknown};
use foreshock_operators::account::Ledger;
use foreshock_operators::change::Parameters;
use foreshock_operators::features::{FeatureSettings, FeatureWindows};
use foreshock_operators::gaps::Gaps;
use foreshock_operators::links;
use foreshock_operators::links::Tagged;
use foreshock_operators::model::{Baseline, Model, ModelKind, NullPolicy};
use foreshock_operators::order::{Order, OrderSettings};
use foreshock_operators::row::{Body, Channel, Extent, InstrumentId, Quote, Row, Source};
use foreshock_operators::seconds::{SecondSettings, Seconds};
use foreshock_operators::stages::Sampled;
use foreshock_operators::time::{MILLISECOND, SECOND, Time};
use foreshock_operators::venues::Resolve;

const INSTRUMENTS: u32 = 3;
const BATCHES: u64 = 40;

/// More than stay in the processor's caches, as [`Keyed`] sees it.
const MANY: u32 = 100;

fn instruments(count: u32) -> Instruments {
    let instruments = Instruments::new(InstrumentSettings {
        unknown: Unknown::Accept,
        max: 1_000,
        gap_after: Some(5 * SECOND),
        max_jump: Some(5 * SECOND),
        exchanges: Default::default(),
        listed: Vec::new(),
    });
    let mut resolver = instruments.resolver();
    for number in 0..count {
        let resolved = resolver.resolve("x", &format!("I{number}")).expect("any instrument is taken");
        assert_eq!(resolved.instrument, InstrumentId(number));
    }
    instruments
}

/// All the states that rows pass through on one worker.
type States = Keyed<Order, links![Gaps, FeatureWindows, Seconds]>;

fn worker(instruments: &Instruments) -> States {
    let model = Model {
        name: "none".into(),
        version: "1".into(),
        kind: ModelKind::Baseline(Baseline { threshold: 3.0, null: NullPolicy::Refuse }),
        decision_threshold: 0.5,
        horizon: SECOND,
        sha256: "".into(),
    };
    let parameters = Parameters {
        max_ahead: SECOND,
        order: OrderSettings { reorder: 100 * MILLISECOND },
        features: Arc::new(FeatureSettings { spread_window: 50, ..FeatureSettings::default() }),
        seconds: SecondSettings::default(),
        model: Arc::new(model),
        rules: [].into(),
    };
    Keyed::new(Arc::new(parameters), instruments.clone())
}

fn outputs(states: &mut States, batch: Batch<Row, FromFiles>) -> Vec<Tagged<Sampled>> {
    states.on_batch(batch, &mut ()).values
}

/// Another worker that has taken up this one's states, instrument by instrument.
fn moved(states: &States, instruments: &Instruments) -> States {
    let mut other = worker(instruments);
    for id in (0..INSTRUMENTS).map(InstrumentId) {
        let mut bytes = Vec::new();
        states.save(id, &mut bytes);
        if !bytes.is_empty() {
            other.restore(id, &[], &bytes).expect("it was just saved");
        }
    }
    other
}

/// Ticks of so many instruments, of which the last starts late; one falls silent for a while.
fn batch(epoch: u64, count: u32) -> Batch<Row, FromFiles> {
    let last = if epoch < 10 { count - 1 } else { count };
    let suppressed = (20..30).contains(&epoch);
    let tick = |step: u64, number: u32| {
        let at = epoch * 50 + step;
        let wobble = (at * 7 % 11) as i64 * 10 * MILLISECOND;
        let time = Time(1_700_000_000 * SECOND + at as i64 * 20 * MILLISECOND - wobble);
        let bid = 100.0 + f64::from(number) + (at * 31 % 17) as f64 * 0.01;
        let quote =
            Quote { bid, bid_size: 1.0, ask: bid + 0.02, ask_size: 2.0, price: f64::NAN, trade: false };
        let row = Row {
            instrument: InstrumentId(number),
            channel: Channel::BookTicker,
            digits: 3,
            index: 0,
            alone: true,
            event_time: time,
            clock: time,
            received: None,
            id: None,
            source: Source { file: 0, line: at },
            extent: Extent::default(),
            behind: 0,
            body: Body::Quote(quote),
        };
        Tagged { key: row.instrument, order: (step as u32) * count + number, value: row }
    };
    let instruments = move || (0..last).filter(move |number| !(suppressed && *number == 1));
    let values = (0..50).flat_map(|step| instruments().map(move |number| tick(step, number))).collect();
    Batch {
        end: epoch + 1 == BATCHES,
        values,
        changes: Vec::new(),
        ledger: Ledger::default(),
        bytes: Arc::default(),
        levels: Vec::new(),
        origin: FromFiles { epoch, worker: 0, records: Vec::new() },
    }
}

#[test]
fn a_worker_that_takes_up_saved_states_goes_on_as_if_nothing_had_happened() {
    let instruments = instruments(INSTRUMENTS);
    let mut steady = worker(&instruments);
    let mut moving = worker(&instruments);
    let (mut ticks, mut gaps) = (0, 0);
    for epoch in 0..BATCHES {
        let expected = outputs(&mut steady, batch(epoch, INSTRUMENTS));
        let got = outputs(&mut moving, batch(epoch, INSTRUMENTS));
        // Formatted, so that NaN equals NaN and every bit of a number shows.
        assert_eq!(format!("{got:?}"), format!("{expected:?}"), "epoch {epoch}");
        ticks += expected.iter().filter(|tagged| matches!(tagged.value, Sampled::Tick(_))).count();
        gaps += expected.iter().filter(|tagged| matches!(tagged.value, Sampled::Gap(_))).count();
        moving = moved(&moving, &instruments);
    }
    assert!(ticks > 4_000 && gaps == 1, "{ticks} ticks and {gaps} gaps");
}

#[test]
fn many_instruments_together_give_what_each_gives_alone() {
    let instruments = instruments(MANY);
    let mut together = worker(&instruments);
    let mut alone: Vec<States> = (0..MANY).map(|_| worker(&instruments)).collect();
    let (mut expected, mut got) = (String::new(), String::new());
    for epoch in 0..BATCHES {
        let only = |id: u32| {
            let mut batch = batch(epoch, MANY);
            batch.values.retain(|tagged| tagged.key == InstrumentId(id));
            batch
        };
        let mut expected_all: Vec<_> =
            alone.iter_mut().zip(0..).flat_map(|(states, id)| outputs(states, only(id))).collect();
        // At the end all of an instrument's outputs bear its place among the names.
        let by_place = |tagged: &Tagged<Sampled>| (tagged.key, tagged.order);
        expected_all.sort_by_key(by_place);
        let mut all = outputs(&mut together, batch(epoch, MANY));
        all.sort_by_key(by_place);
        writeln!(expected, "{expected_all:?}").expect("a string takes anything");
        writeln!(got, "{all:?}").expect("a string takes anything");
    }
    assert!(expected.contains("Sample") && expected.contains("Gap"));
    assert!(got == expected, "they differ");
}
