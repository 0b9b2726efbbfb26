//! The tables of outputs, held against what is written by hand and against docs/outputs.md.
//!
//! `UPDATE_GOLDEN=1 cargo test --release -p foreshock-operators outputs::` writes the document's tables anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use foreshock_operators::account::Reason;
use foreshock_operators::encode::Encoder;
use foreshock_operators::model::{Baseline, Model, ModelKind, NullPolicy};
use foreshock_operators::outputs::features::TickRow;
use foreshock_operators::outputs::field::{OutputField, write_line};
use foreshock_operators::outputs::{OutputKind, features, predictions, scored};
use foreshock_operators::row::Source;
use foreshock_operators::stages::{Features, MAX_HORIZONS, Outcome, Prediction};
use foreshock_operators::time::{MILLISECOND, Nanos, SECOND, Time, TimeText};
use proptest::prelude::*;

use foreshock_testkit::rows::instrument;

const DEFAULT_HORIZONS: [Nanos; 4] = [SECOND, 5 * SECOND, 30 * SECOND, 60 * SECOND];

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(f64::NAN), Just(0.0), Just(-0.0), any::<f64>(), -1e3..1e3]
}

prop_compose! {
    fn tick()(
        numbers in prop::array::uniform11(number()),
        returns in prop::array::uniform8(number()),
        n in any::<u32>(),
        time in 946_684_800_000_000_000..4_102_444_800_000_000_000_i64,
        digits in 0..=9_u8,
        spike in prop::option::of(any::<bool>()),
        horizon in prop_oneof![Just(60 * SECOND), 1..1000 * SECOND],
    ) -> TickRow {
        let [price, midprice, spread_abs, spread_rel, spread_bps, order_book_imbalance, ret_mean, ret_std,
            trade_intensity, volatility_z, spread_z] = numbers;
        let features = Features {
            source: Source::default(), index: 0, event_time: Time(time), clock: Time(time), digits, settings: 0, n,
            price, midprice, spread_abs, spread_rel, spread_bps, order_book_imbalance, returns, ret_mean, ret_std,
            trade_intensity, volatility_z, spread_z,
        };
        let probability = if spike.is_some() { price.abs().fract() } else { f64::NAN };
        let model = Model {
            name: "a \"model\"".into(),
            version: "1".into(),
            kind: ModelKind::Baseline(Baseline { threshold: 1.0, null: NullPolicy::Refuse }),
            decision_threshold: 0.5,
            horizon,
            sha256: "".into(),
        };
        TickRow { features, prediction: Prediction { probability, spike, model: 0 }, model: Arc::new(model) }
    }
}

fn horizons() -> impl Strategy<Value = Vec<Nanos>> {
    prop::collection::btree_set(1..100_000_i64, 0..=MAX_HORIZONS)
        .prop_map(|lengths| lengths.into_iter().map(|length| length * MILLISECOND).collect())
}

proptest! {
    /// What is written by hand, because it is written for each tick, is what the tables say.
    #[test]
    fn lines_of_ticks_are_those_of_their_tables(row in tick(), horizons in horizons()) {
        let instrument = instrument();
        let mut encoder = Encoder::new(&horizons, &row.model);
        encoder.introduce(&instrument);
        let outcome = Outcome::Tick(row.features, row.prediction);
        let tables: [(OutputKind, Vec<OutputField<TickRow>>); 3] = [
            (OutputKind::Features, features::fields(&horizons)),
            (OutputKind::Predictions, predictions::fields()),
            (OutputKind::Scored, scored::fields(&horizons)),
        ];
        for (kind, fields) in tables {
            let (mut by_hand, mut by_table) = (Vec::new(), Vec::new());
            let has_line = encoder.outcome(kind, instrument.id, &outcome, &mut by_hand);
            prop_assert_eq!(has_line, kind != OutputKind::Predictions || row.prediction.spike.is_some());
            if !has_line {
                prop_assert!(by_hand.is_empty());
                continue;
            }
            let begun = format!("{{\"exchange\":{:?},\"instrument\":{:?}", &*instrument.exchange, &*instrument.name);
            write_line(begun.as_bytes(), &fields, &row, &mut TimeText::default(), &mut by_table);
            prop_assert_eq!(String::from_utf8(by_hand).unwrap(), String::from_utf8(by_table).unwrap());
        }
    }
}

#[test]
fn names_and_topics_and_fields_are_there_once() {
    let names: BTreeSet<&str> = OutputKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), OutputKind::ALL.len());
    let topics: BTreeSet<&str> = OutputKind::ALL.iter().filter_map(|kind| kind.output().topic).collect();
    assert_eq!(topics.len(), OutputKind::of_topics().count());
    for kind in OutputKind::ALL {
        assert!(kind.output().has_file || kind.output().topic.is_some(), "{kind:?} goes nowhere");
        let fields = kind.fields(&DEFAULT_HORIZONS);
        let names: BTreeSet<&str> = fields.iter().map(|field| &*field.name).collect();
        assert_eq!(names.len(), fields.len(), "{kind:?}");
    }
}

/// The document's tables, by the name between whose marks each stands.
fn tables() -> Vec<(&'static str, String)> {
    let mut tables = Vec::new();
    let mut files = "| kind | file | one line for |\n|---|---|---|\n".to_owned();
    for kind in OutputKind::of_files() {
        let (name, one_for) = (kind.name(), kind.output().one_for);
        writeln!(files, "| `{name}` | `{name}.ndjson` | {one_for} |").unwrap();
    }
    tables.push(("files", files));
    let mut topics = "| kind | topic (`topics.*` names another) | key |\n|---|---|---|\n".to_owned();
    for kind in OutputKind::of_topics() {
        let output = kind.output();
        writeln!(topics, "| `{}` | `{}` | {} |", output.name, output.topic.unwrap(), output.key).unwrap();
    }
    tables.push(("topics", topics));
    for kind in OutputKind::ALL.into_iter().filter(|kind| *kind != OutputKind::Scored) {
        let mut fields = "| field | meaning |\n|---|---|\n".to_owned();
        for field in kind.fields(&DEFAULT_HORIZONS) {
            writeln!(fields, "| `{}` | {} |", field.name, field.meaning).unwrap();
        }
        tables.push((kind.name(), fields));
    }
    let mut reasons = "| reason | what |\n|---|---|\n".to_owned();
    for reason in Reason::ALL {
        writeln!(reasons, "| `{}` | {} |", reason.name(), reason.meaning()).unwrap();
    }
    tables.push(("reasons", reasons));
    tables
}

#[test]
fn the_document_has_these_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/outputs.md");
    let mut document = fs::read_to_string(&path).unwrap();
    for (name, table) in tables() {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let (head, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("no mark {begin}"));
        let (found, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("no mark {end}"));
        if std::env::var_os("UPDATE_GOLDEN").is_none() {
            assert_eq!(found, table, "docs/outputs.md is out of date: UPDATE_GOLDEN=1 writes it anew");
        }
        document = format!("{head}{begin}{table}{end}{tail}");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, document).unwrap();
    }
}
