//! The live path without a broker: however a log is cut into deliveries and spread over shards, each shard tells
//! what a backtest of its log tells, byte for byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock::config::{Config, Mode};
use foreshock_dataflows::batch::{
    Batch, Chunk, Cut, Delivered, Delivery, FromShard, Run, SnapshotCut, TimeRange,
};
use foreshock_dataflows::changes::{LogChanges, RestoredShard};
use foreshock_dataflows::control::{Fate, model_record, rules_record, settings_record};
use foreshock_dataflows::decode::{Decode, DecodeSettings, LogFile};
use foreshock_dataflows::encode_lines::EncodeLines;
use foreshock_dataflows::encode_records::{EncodeRecords, Publication, RecordKey};
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::live::{LastSeen, LiveDecode, LiveSettings};
use foreshock_dataflows::market::Market;
use foreshock_dataflows::messages::Limits;
use foreshock_dataflows::saving::{PieceContent, Saver};
use foreshock_dataflows::settings::Settings;
use foreshock_dataflows::subjects::Subjects;
use foreshock_operators::account::Counts;
use foreshock_operators::change::{Change, Parameters};
use foreshock_operators::encode::Encoder;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::model::Model;
use foreshock_operators::order::OrderSettings;
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::row::{Extent, InstrumentId, Row};
use foreshock_operators::rules::Rule;
use foreshock_operators::time::{MILLISECOND, SECOND, Time};
use foreshock_operators::venues::Receipt;
use foreshock_operators::venues::coinbase::COINBASE_EXCHANGE;

use crate::support::feed;
use crate::support::random::Random;

/// Those of both paths.
fn kinds() -> Vec<OutputKind> {
    OutputKind::of_files().filter(|kind| kind.output().topic.is_some()).collect()
}

/// Saves the states of a shard's instruments and takes them up again.
fn reload(market: &mut Market, instruments: &[InstrumentId], changes: &[Arc<Change>]) {
    for id in instruments {
        let mut bytes = Vec::new();
        market.save(*id, &mut bytes);
        if !bytes.is_empty() {
            market.restore(*id, changes, &bytes).unwrap();
        }
    }
}

fn config(reorder: &str) -> Config {
    let reorder = ("FORESHOCK_ORDER__REORDER".to_owned(), reorder.to_owned());
    Config::load(&[], [reorder], Mode::Backtest).unwrap()
}

/// The lines of each kind, as a backtest of one file writes them.
fn backtest(config: &Config, name: &str, lines: &[String]) -> (BTreeMap<OutputKind, String>, Counts) {
    let instruments = Instruments::new(config.settings.instruments.clone());
    let file = LogFile {
        name: name.to_owned(),
        counted: "line",
        format: COINBASE_EXCHANGE,
        exchange: None,
        inferred: false,
    };
    let files: Arc<[LogFile]> = vec![file].into();
    let settings = DecodeSettings {
        files: files.clone(),
        range: TimeRange::default(),
        max_message_bytes: config.input.max_message_bytes,
        control: true,
    };
    let mut decode = Decode::new(settings, &instruments);
    let mut changes = LogChanges::new(Arc::new(config.settings.clone()), files.clone(), 1);
    let mut market = Market::new(&config.settings, &instruments);
    let encoder =
        Encoder::new(&config.settings.parameters.features.horizons, &config.settings.parameters.model);
    let mut encode_lines = EncodeLines::new(kinds().into(), files, instruments.clone(), encoder, 1);
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    // Offsets count from 0, lines from 1: the first line is put where the first offset is.
    let run = Run { file: 0, first_line: 0, start: 0, end: bytes.len(), too_large: None };
    let chunk = Chunk { epoch: 0, end: false, bytes: Arc::new(bytes), runs: vec![run] };
    let end = Chunk { epoch: 1, end: true, bytes: Arc::default(), runs: Vec::new() };
    let (mut texts, mut counts) = (BTreeMap::<OutputKind, String>::new(), Counts::default());
    for chunk in [chunk, end] {
        for rows in decode.chunk(chunk, 1) {
            let part = encode_lines.batch(market.on_batch(changes.on_batch(rows)));
            counts.add(&part.counts);
            for (kind, lines) in kinds().into_iter().zip(&part.lines) {
                texts.entry(kind).or_default().push_str(std::str::from_utf8(&lines.bytes).unwrap());
            }
        }
    }
    (texts, counts)
}

fn delivery(shard: u32, first_offset: u64, lines: &[String], end: bool) -> Delivery {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    let mut append = |text: &str| {
        let extent = Extent { start: bytes.len() as u32, length: text.len() as u32 };
        bytes.extend_from_slice(text.as_bytes());
        extent
    };
    for (at, line) in lines.iter().enumerate() {
        messages.push(Delivered {
            offset: first_offset + at as u64,
            key: append("coinbase:A-KEY"),
            body: Some(append(line)),
            received: None,
            exchange: Some("coinbase".into()),
            control: false,
            problem: None,
        });
    }
    let cut = Cut { shard, next_offset: (first_offset + lines.len() as u64) as i64, ..Cut::default() };
    Delivery { end, bytes: Arc::new(bytes), messages, cut }
}

/// Two logs with instruments of their own.
fn logs(seed: u64, count: usize) -> [Vec<String>; 2] {
    let mut logs = [Vec::new(), Vec::new()];
    for message in feed::Recipe::lively(seed, 6).messages(count) {
        logs[message.product % 2].push(message.line);
    }
    logs
}

/// Puts control records into a log: of all kinds, one twice, one that is broken.
fn with_records(mut log: Vec<String>, config: &Config, random: &mut Random) -> Vec<String> {
    let settings = &config.settings;
    let text = |record: Vec<u8>| String::from_utf8(record).unwrap();
    let model = Arc::new(Model {
        version: "2".into(),
        decision_threshold: 0.001,
        ..Model::clone(&settings.parameters.model)
    });
    let horizons = &settings.parameters.features.horizons;
    let rules: Arc<[Rule]> = settings
        .parameters
        .rules
        .iter()
        .cloned()
        .map(|rule| Rule { raise: rule.raise * 2.0, ..rule })
        .collect();
    let features = FeatureSettings { horizons: vec![SECOND, 7 * SECOND], ..FeatureSettings::default() };
    let parameters = Parameters {
        max_ahead: SECOND,
        order: OrderSettings { reorder: settings.parameters.order.reorder / 2 },
        features: Arc::new(features),
        ..Parameters::clone(&settings.parameters)
    };
    let other = Settings { parameters: Arc::new(parameters), ..settings.clone() };
    let records = [
        text(model_record("m", None, &model, horizons)),
        text(rules_record("r", Some("2024-01-01T00:00:00Z"), &rules)),
        text(settings_record("s", &other)),
        text(model_record("m", None, &settings.parameters.model, horizons)),
        text(model_record("n", None, &model, horizons)),
        r#"{"type":"control","kind":"model","id":"broken"}"#.to_owned(),
    ];
    let mut at: Vec<usize> = records.iter().map(|_| random.below(log.len())).collect();
    at.sort();
    for (at, record) in at.into_iter().zip(records).rev() {
        log.insert(at, record);
    }
    log
}

#[track_caller]
fn check(seed: u64, reorder: &str) {
    let config = config(reorder);
    let mut random = Random::new(seed);
    let logs = logs(seed, 6_000).map(|log| with_records(log, &config, &mut random));
    let names: Arc<[String]> = ["ticks.raw/0".to_owned(), "ticks.raw/7".to_owned()].into();
    let instruments = Instruments::new(config.settings.instruments.clone());
    let settings = LiveSettings {
        shards: names.clone(),
        format: None,
        exchange: None,
        limits: Limits {
            range: TimeRange::default(),
            max_message_bytes: config.input.max_message_bytes,
            control: true,
        },
        settings: Arc::new(config.settings.clone()),
    };
    let base = settings.settings.clone();
    let mut decode = LiveDecode::new(settings, &instruments, LastSeen::default());
    let (pieces, saved) = std::sync::mpsc::channel();
    decode.save_to(Saver::new(pieces));
    let mut market = Market::new(&config.settings, &instruments);
    let mut encode_records =
        EncodeRecords::new(kinds().into(), names.clone(), instruments.clone(), base.clone());

    let mut got = [BTreeMap::<OutputKind, String>::new(), BTreeMap::new()];
    let mut counts = [Counts::default(), Counts::default()];
    let (mut at, mut committable) = ([0, 0], [0, 0]);
    let mut restores = 0;
    let (mut publications, mut held_back) = (0, 0);
    let mut take = |mut delivery: Delivery| {
        // Now and then all is saved and taken up again.
        let number = restores + 1;
        delivery.cut.snapshot =
            (delivery.messages.len() == 7).then_some(SnapshotCut { number, at_once: true });
        let shard = delivery.cut.shard as usize;
        let (cut, offsets) = (delivery.cut, delivery.messages.iter().map(|m| m.offset).collect::<Vec<_>>());
        let publication = encode_records.batch(market.on_batch(decode.delivery(delivery)));
        for piece in saved.try_iter() {
            let PieceContent::Shard(bytes) = piece.content else { continue };
            let begun = RestoredShard::read(piece.shard, base.clone(), &bytes, &instruments).unwrap();
            reload(&mut market, &instruments.of_shard(piece.shard), &begun.changes);
            encode_records.begin_shard(piece.shard, &base, &begun.changes);
            decode.resume_shard(piece.shard, begun);
            restores += 1;
        }
        let done = publication.low_watermark;
        publications += 1;
        held_back += usize::from(done < cut.next_offset);
        assert!((committable[shard]..=cut.next_offset).contains(&done), "offsets only go on");
        // What is called done leaves nothing to tell.
        let ticks = publication.records.iter().filter(|record| record.kind == OutputKind::Features);
        assert!(ticks.map(|record| record.offset as i64).all(|offset| offset >= committable[shard]));
        committable[shard] = done;
        assert_eq!(publication.unusable, None);
        counts[shard].add(&publication.counts);
        tell(&publication, &instruments, &offsets, &mut got[shard]);
    };
    while (0..2).any(|shard| at[shard] < logs[shard].len()) {
        let shard = random.below(2);
        let size = [0, 1, 2, 7, 300][random.below(5)].min(logs[shard].len() - at[shard]);
        let lines = &logs[shard][at[shard]..at[shard] + size];
        take(delivery(shard as u32, at[shard] as u64, lines, false));
        at[shard] += size;
    }
    for shard in 0..2 {
        take(delivery(shard, at[shard as usize] as u64, &[], true));
    }
    assert!(restores > 3, "{restores} restores");
    let few = reorder != "0ms" || held_back < publications / 10;
    assert!(few, "only doubtful rows wait: {held_back} of {publications}");
    assert_eq!(committable, [logs[0].len() as i64, logs[1].len() as i64], "in the end all is done");
    for (shard, log) in logs.iter().enumerate() {
        let (expected, expected_counts) = backtest(&config, &names[shard], log);
        assert_eq!(counts[shard], expected_counts);
        for kind in kinds() {
            assert!(!expected[&kind].is_empty() || kind == OutputKind::Alerts, "the feed has {kind:?}");
            assert_eq!(got[shard].get(&kind).map_or("", String::as_str), expected[&kind], "{kind:?}");
        }
    }
}

/// Adds a publication's records to the lines told so far, and looks at their keys and offsets.
fn tell(
    publication: &Publication,
    instruments: &Instruments,
    offsets: &[u64],
    lines: &mut BTreeMap<OutputKind, String>,
) {
    let text = |extent: Extent| {
        let range = extent.start as usize..(extent.start + extent.length) as usize;
        std::str::from_utf8(&publication.bytes[range]).unwrap()
    };
    for record in &publication.records {
        let value = text(record.value);
        let json: serde_json::Value = serde_json::from_str(value).unwrap();
        match record.key {
            RecordKey::Instrument(id) => assert_eq!(json["instrument"], *instruments.get(id).name),
            RecordKey::Text(key) if record.kind == OutputKind::Alerts => assert_eq!(json["id"], text(key)),
            RecordKey::Text(key) => assert_eq!(text(key), "coinbase:A-KEY"),
            RecordKey::None => panic!("every message has a key"),
        }
        if record.kind == OutputKind::Deadletter {
            let source = json["source"].as_str().unwrap();
            assert!(source.ends_with(&format!("/{}/{}", record.offset, record.index)), "{source}");
        } else if record.kind != OutputKind::Features
            && record.kind != OutputKind::Predictions
            && !offsets.is_empty()
        {
            assert!(offsets.contains(&record.offset));
        }
        let lines = lines.entry(record.kind).or_default();
        lines.push_str(value);
        lines.push('\n');
    }
}

#[test]
fn any_cutting_into_deliveries_tells_what_a_backtest_tells() {
    for seed in 1..6 {
        check(seed, "0ms");
    }
}

#[test]
fn with_a_reorder_buffer_too() {
    for seed in 6..9 {
        check(seed, "500ms");
    }
}

fn live(shards: &[&str], exchange: Option<&str>) -> (LiveDecode, Instruments) {
    let config = config("0ms");
    let instruments = Instruments::new(config.settings.instruments.clone());
    let settings = LiveSettings {
        shards: shards.iter().map(|name| (*name).to_owned()).collect(),
        format: None,
        exchange: exchange.map(Arc::from),
        limits: Limits { range: TimeRange::default(), max_message_bytes: 1 << 20, control: true },
        settings: Arc::new(config.settings.clone()),
    };
    (LiveDecode::new(settings, &instruments, LastSeen::default()), instruments)
}

const QUOTE: &str = r#"{"type":"quote","exchange":"x","instrument":"A-B","event_time":"2026-01-02T03:04:05Z","bid":1,"ask":2}"#;

#[test]
fn an_instrument_in_two_shards_makes_the_log_unusable_and_names_both() {
    let (mut decode, _) = live(&["t/0", "t/1"], None);
    let lines = [QUOTE.to_owned()];
    assert_eq!(decode.delivery(delivery(0, 5, &lines, false)).ledger.unusable, None);
    let why = decode.delivery(delivery(1, 9, &lines, false)).ledger.unusable.unwrap();
    assert!(why.starts_with("x:A-B was met in t/0 and in t/1:"), "{why}");
}

#[track_caller]
fn one(mut message: Delivered, body: &str) -> Batch<Row, FromShard> {
    let (mut decode, _) = live(&["t/0"], None);
    message.body = message.body.map(|_| Extent { start: 0, length: body.len() as u32 });
    let cut = Cut { next_offset: 6, ..Cut::default() };
    let bytes = Arc::new(body.as_bytes().to_vec());
    decode.delivery(Delivery { end: false, bytes, messages: vec![message], cut })
}

fn plain() -> Delivered {
    let (key, body) = (Extent::default(), Some(Extent::default()));
    Delivered { offset: 5, key, body, received: None, exchange: None, control: false, problem: None }
}

#[test]
fn what_comes_beside_a_message_decides_over_it() {
    let rows = one(plain(), QUOTE);
    assert_eq!((rows.ledger.counts.messages_rows, rows.values.len()), (1, 1));

    let null = one(Delivered { body: None, ..plain() }, QUOTE).ledger;
    assert_eq!((null.counts.messages_deadlettered, null.dead[0].reason.name()), (1, "empty"));

    let control = one(Delivered { control: true, ..plain() }, "not even JSON");
    let counts = &control.ledger.counts;
    assert_eq!((counts.messages_deadlettered, counts.control_records), (1, 1));
    assert_eq!(control.ledger.dead[0].reason.name(), "bad_control");
    assert_eq!(control.origin.answers[0].fate, Fate::Refused);

    let problem = one(Delivered { problem: Some("header".into()), ..plain() }, QUOTE).ledger;
    assert_eq!((problem.dead[0].reason.name(), &*problem.dead[0].detail), ("no_time", "header"));

    // Only a receipt that stands in the data is held against the quote's time.
    let receipt = Time(1_700_000_000_000 * MILLISECOND);
    let stated = one(Delivered { received: Some(Receipt::Stated(receipt)), ..plain() }, QUOTE);
    assert_eq!(stated.values[0].value.received, Some(receipt));
    let stamped = one(Delivered { received: Some(Receipt::Broker(receipt)), ..plain() }, QUOTE);
    assert_eq!(stamped.values[0].value.received, None);
}

#[test]
fn a_message_of_another_market_than_its_header_names_is_refused() {
    let usdm = r#"{"e":"bookTicker","u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1","T":1723161414335,"E":1723161414335}"#;
    let wrong = one(Delivered { exchange: Some("binance".into()), ..plain() }, usdm).ledger;
    assert_eq!(wrong.dead[0].reason.name(), "other_market");
    let right = one(Delivered { exchange: Some("binance-usdm".into()), ..plain() }, usdm);
    assert_eq!(right.values.len(), 1);
}
