//! Control records: what is read, what is refused, and what a shard answers.

use std::sync::Arc;

use foreshock_dataflows::changes::{HOLDING_MAX, ShardChanges};
use foreshock_dataflows::control::{
    Command, Fate, FoundRecord, model_record, read, rules_record, settings_record,
};
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::settings::{InstrumentSettings, Settings, Unknown};
use foreshock_operators::change::Parameters;
use foreshock_operators::feature::Feature;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::links::Out;
use foreshock_operators::market::MarketChain;
use foreshock_operators::model::{Logistic, Model, ModelKind, NullPolicy, Term, Transform};
use foreshock_operators::operator::Context;
use foreshock_operators::row::{Body, Channel, Extent, InstrumentId, Quote, Row, Source};
use foreshock_operators::time::{SECOND, Time};
use foreshock_operators::venues::Resolve as _;

fn model() -> Model {
    let term = Term {
        feature: Feature::Return(1),
        null: NullPolicy::Value(0.1),
        transform: Transform::Abs,
        standardise: Some((0.1, 1.0 / 3.0)),
        weight: 1e-300,
    };
    Model {
        name: "spike".into(),
        version: "2".into(),
        kind: ModelKind::Logistic(Logistic { intercept: -2.000000000000001, terms: vec![term] }),
        decision_threshold: 0.5,
        horizon: 60 * SECOND,
        sha256: "abc".into(),
    }
}

fn settings() -> Settings {
    Settings {
        parameters: Arc::new(Parameters {
            max_ahead: SECOND,
            order: Default::default(),
            features: Arc::new(FeatureSettings::default()),
            seconds: Default::default(),
            model: Arc::new(model()),
            rules: [].into(),
        }),
        instruments: InstrumentSettings {
            unknown: Unknown::Accept,
            max: 10,
            gap_after: Some(5 * SECOND),
            max_jump: Some(5 * SECOND),
            exchanges: Default::default(),
            listed: Vec::new(),
        },
    }
}

fn horizons() -> Vec<i64> {
    FeatureSettings::default().horizons
}

#[track_caller]
fn check_refused(record: &str, why: &str) {
    let refusal = read(record.as_bytes(), &horizons()).expect_err("it should be refused");
    assert!(refusal.reason.contains(why), "{}", refusal.reason);
}

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    let record = model_record("m", Some("2026-01-02T03:04:05.500Z"), &Arc::new(model()), &horizons());
    let read_back = read(&record, &horizons()).expect("a good record");
    assert_eq!(read_back.command, Command::Model(Arc::new(model())));
    assert_eq!(read_back.effective_at.map(|(_, digits)| digits), Some(3));
    let record = settings_record("s", &settings());
    assert_eq!(read(&record, &[]).expect("a good record").command, Command::Settings(Arc::new(settings())));
}

#[test]
fn broken_records_are_refused() {
    check_refused("no record", "expected");
    check_refused(r#"{"type":"control","id":"x","kind":"disconnect"}"#, "unknown kind \"disconnect\"");
    check_refused(r#"{"type":"control","id":"x","kind":"model"}"#, "expected model");
    check_refused(r#"{"type":"control","id":"","kind":"rules","rules":[]}"#, "an id has");
    check_refused(r#"{"type":"control","id":"x","kind":"rules","rules":[],"more":1}"#, "unknown field");
    check_refused(
        r#"{"type":"control","id":"x","kind":"rules","rules":[],"effective_at":"noon"}"#,
        "effective_at",
    );
    let settings = String::from_utf8(settings_record("s", &settings())).expect("text");
    check_refused(
        &settings.replace("{\"type\"", "{\"effective_at\":\"2026-01-02T03:04:05Z\",\"type\""),
        "at once",
    );
    check_refused(&settings.replace("\"spread_window\":300", "\"spread_window\":0"), "at least one tick");
    let written = |model: Model| {
        String::from_utf8(model_record("m", None, &Arc::new(model), &horizons())).expect("text")
    };
    check_refused(&written(Model { decision_threshold: 7.0, ..model() }), "0..=1");
    check_refused(&written(model()).replace("\"return\":1", "\"return\":4"), "4 return horizons");
    let refusal = read(written(model()).as_bytes(), &[SECOND]).expect_err("other horizons");
    assert!(refusal.reason.contains("other return horizons"), "{}", refusal.reason);
}

fn take(shard: &mut ShardChanges, record: &[u8]) -> Fate {
    let extent = Extent { start: 0, length: record.len() as u32 };
    let found = FoundRecord { order: 0, source: Source::default(), extent };
    shard.take_record(found, record, |_| Ok(())).answer.fate
}

#[test]
fn a_shard_takes_each_id_once_and_keeps_what_holds() {
    let mut shard = ShardChanges::new(Arc::new(settings()));
    let model = |id: &str, at| model_record(id, at, &Arc::new(model()), &horizons());
    assert_eq!(take(&mut shard, &model("a", None)), Fate::Applied);
    assert_eq!(take(&mut shard, &model("a", None)), Fate::Duplicate);
    assert_eq!(take(&mut shard, &rules_record("r", None, &[].into())), Fate::Applied);
    assert_eq!(shard.changes().len(), 2);
    assert_eq!(take(&mut shard, &model("b", None)), Fate::Applied);
    assert_eq!(shard.changes().len(), 2, "a newer model takes the place of the older one");
    for number in 2..HOLDING_MAX {
        let record = model(&format!("later-{number}"), Some("2030-01-01T00:00:00Z"));
        assert_eq!(take(&mut shard, &record), Fate::Applied);
    }
    assert_eq!(take(&mut shard, &model("full", Some("2030-01-01T00:00:00Z"))), Fate::Refused);
    assert_eq!(take(&mut shard, &settings_record("s", &settings())), Fate::Applied);
    assert_eq!(shard.changes().len(), 1, "settings take the place of all");
}

/// A quote of an instrument.
fn quote(time: i64) -> Row {
    let quote = Quote { bid: 1.0, bid_size: 1.0, ask: 1.1, ask_size: 1.0, price: f64::NAN, trade: false };
    Row {
        instrument: InstrumentId(0),
        channel: Channel::BookTicker,
        digits: 3,
        index: 0,
        alone: true,
        event_time: Time(time),
        clock: Time(time),
        received: None,
        id: None,
        source: Source::default(),
        extent: Extent::default(),
        behind: 0,
        body: Body::Quote(quote),
    }
}

#[test]
fn a_replaced_change_is_kept_as_long_as_a_state_names_it() {
    let mut shard = ShardChanges::new(Arc::new(settings()));
    let record = |id: &str| model_record(id, None, &Arc::new(model()), &horizons());
    let instruments = Instruments::new(settings().instruments);
    let id = instruments.resolver().resolve("x", "A").expect("any instrument is taken").instrument;
    let instrument = instruments.get(id);
    let mut chain = MarketChain::new(&settings().parameters, &instrument);
    let mut out = Out::<_, InstrumentId>::new(Context::default(), 0);
    assert_eq!(take(&mut shard, &record("a")), Fate::Applied);
    for change in shard.changes() {
        chain.on_change(&change, &mut out, &mut ());
    }
    chain.on_input(quote(SECOND), &mut out, &mut ());
    assert_eq!(take(&mut shard, &record("b")), Fate::Applied);
    // What came out names it too, until it is encoded.
    drop(out);
    let numbers =
        |shard: &ShardChanges| shard.changes().iter().map(|change| change.number).collect::<Vec<_>>();
    assert_eq!(numbers(&shard), [1, 2], "the state still scores with the first");
    let mut bytes = Vec::new();
    chain.save(&mut bytes);
    drop(chain);
    let restored = MarketChain::restore(&settings().parameters, &shard.changes(), &instrument, &bytes);
    assert!(restored.is_err(), "nobody kept the first any more");
    assert_eq!(numbers(&shard), [2]);
}
