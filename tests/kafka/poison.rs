//! Messages that can't be used, one of each kind, between good ones: the job tells why and goes on.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kafka::job::{Job, Message, over_shards, send, source, sources, stats, summary};
use crate::support::kafka::{brokers, committed};
use crate::support::process::Running;

/// A Coinbase ticker of BTC-USD, as many milliseconds into the feed as its number says.
fn ticker(number: usize) -> String {
    format!(
        concat!(
            r#"{{"type":"ticker","sequence":{0},"product_id":"BTC-USD","price":"100.00","best_bid":"99.00","#,
            r#""best_bid_size":"1.00","best_ask":"101.00","best_ask_size":"2.00","#,
            r#""time":"2026-03-02T10:00:00.{0:03}000Z","last_size":"0.01"}}"#
        ),
        number,
    )
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Tick,
    Duplicate,
    Control,
    Ignored,
    /// The message as a whole is refused.
    Message(&'static str),
    /// It was read, and its row is refused.
    Row(&'static str),
}

#[derive(Debug)]
struct Case {
    fate: Fate,
    key: Option<&'static [u8]>,
    value: Option<Vec<u8>>,
    headers: Vec<(&'static str, &'static [u8])>,
}

impl Case {
    fn key(&mut self, key: Option<&'static [u8]>) -> &mut Case {
        self.key = key;
        self
    }

    fn header(&mut self, name: &'static str, text: &'static [u8]) -> &mut Case {
        self.headers.push((name, text));
        self
    }
}

/// The messages, each kind of odd one followed by a good one.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, fate: Fate, value: impl Into<Vec<u8>>) -> &mut Case {
        self.good();
        self.push(fate, value.into())
    }

    /// The next good ticker with a piece of its text replaced.
    #[track_caller]
    fn changed(&mut self, fate: Fate, from: &str, to: &str) -> &mut Case {
        let text = ticker(self.0.len() + 1);
        assert!(text.contains(from), "{from}");
        self.add(fate, text.replace(from, to))
    }

    fn good(&mut self) {
        let text = ticker(self.0.len());
        self.push(Fate::Tick, text.into());
    }

    fn push(&mut self, fate: Fate, value: Vec<u8>) -> &mut Case {
        let case = Case { fate, key: Some(b"coinbase:BTC-USD"), value: Some(value), headers: Vec::new() };
        self.0.push(case);
        self.0.last_mut().unwrap()
    }
}

const MESSAGE_BYTES_MAX: usize = 2_048;

fn cases() -> Vec<Case> {
    use Fate::{Control, Duplicate, Ignored, Message, Row, Tick};
    let mut all = Cases::default();
    // Messages that can't be taken apart.
    all.add(Message("broken_json"), r#"{"type":"ticker","product_id":"BTC-USD""#);
    all.add(Message("broken_json"), "hello");
    all.add(Message("empty"), "");
    all.add(Message("broken_json"), b"{\"type\":\"ticker\",\"product_id\":\"\xff\xfe\"}");
    all.add(Message("wrong_type"), "[1,2]");
    all.add(Message("empty"), "").value = None;
    all.add(Message("too_large"), "x".repeat(MESSAGE_BYTES_MAX + 1));
    all.changed(Message("wrong_type"), r#""best_bid":"99.00""#, r#""best_bid":[99]"#);
    all.changed(Message("wrong_type"), r#""best_bid":"99.00""#, r#""best_bid":"x99""#);
    // Rows that can't be used.
    all.changed(Row("no_time"), r#""time""#, r#""at""#);
    all.changed(Row("no_time"), "2026-03-02T", "yesterday ");
    all.changed(Row("time_range"), "2026-03-02", "1999-03-02");
    all.changed(Row("time_range"), "2026-03-02", "2101-03-02");
    // The next row says so.
    all.changed(Row("time_ahead"), "2026-03-02", "2099-03-02");
    // A receipt two hours before its row, while nothing is known of receipts.
    all.changed(Tick, "99.00", "99.00").header("received_at", b"1772438400000000000");
    all.changed(Row("non_finite"), "99.00", "NaN");
    all.changed(Row("non_finite"), "99.00", "1e999");
    all.changed(Row("not_positive"), "99.00", "-99.00");
    all.changed(Row("not_positive"), "99.00", "0");
    all.changed(Row("negative_size"), r#""best_bid_size":"1.00""#, r#""best_bid_size":"-1.00""#);
    all.changed(Row("crossed"), "99.00", "101.01");
    all.changed(Row("empty_side"), r#""best_bid":"99.00","#, "");
    all.changed(Row("unknown_instrument"), "BTC-USD", "NOPE-USD").key(Some(b"coinbase:NOPE-USD"));
    all.add(Row("late"), ticker(0).replace("\"sequence\":0", "\"sequence\":9999"));
    // What surrounds a message.
    let futures = br#"{"e":"bookTicker","u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1","T":1772445600000,"E":1772445600000}"#;
    all.add(Message("other_market"), futures).key(Some(b"binance:BTCUSDT"));
    all.add(Message("other_market"), futures).key(None).header("exchange", b"binance");
    all.changed(Message("no_time"), "99.00", "99.00").header("received_at", b"soon");
    all.changed(Message("no_time"), "99.00", "99.00").header("received_at", b"\xff");
    all.changed(Tick, "99.00", "99.00").key(Some(b"no colon"));
    all.changed(Tick, "99.00", "99.00").key(Some(b""));
    all.changed(Tick, "99.00", "99.00").key(None);
    all.changed(Tick, "99.00", "99.00").header("exchange", b"\xff");
    all.changed(Tick, "99.00", "99.00")
        .header("something", b"else")
        .header("received_at", b"1772445700000000000");
    // What is not refused, and makes no tick.
    let last = all.0.last().unwrap().value.clone().unwrap();
    all.push(Duplicate, last);
    all.add(Control, r#"{"type":"subscriptions","channels":[]}"#);
    all.add(Message("bad_control"), "anything at all").header("foreshock-control", b"");
    all.add(Control, r#"{"type":"control","id":"1"}"#);
    all.add(Ignored, r#"{"type":"status","products":[]}"#);
    all.good();
    all.0
}

#[test]
fn each_kind_of_bad_message_is_told_of_and_the_good_ones_between_are_computed() {
    let Some(brokers) = brokers("each_kind_of_bad_message_is_told_of") else { return };
    let job = Job::new(&brokers, "poison")
        .with_http()
        .with("KAFKA__START", "earliest")
        .with("KAFKA__PARTITIONS", "1")
        .with("INSTRUMENTS__UNKNOWN", "deadletter")
        .with("INPUT__MAX_MESSAGE_BYTES", &format!("{MESSAGE_BYTES_MAX}"));
    let mut running = Running::start(job.run(["-w", "1"]));
    let address = running.http();
    running.until("the job is ready", |_| stats(address)["phase"] == "running");
    let cases = cases();
    send(
        &job,
        cases.iter().map(|case| Message {
            partition: 0,
            key: case.key,
            value: case.value.as_deref(),
            headers: case.headers.clone(),
        }),
    );
    let all = cases.len() as i64;
    running.until("all is read", |_| stats(address)["counts"]["messages_in"] == all);
    running.until("all is committed", |_| over_shards(&stats(address), "committed") == all);
    running.signal("TERM");
    let summary = summary(&running.end());
    assert_eq!(committed(&brokers, &job.name, &job.raw), [Some(all)]);

    let count = |wanted: &dyn Fn(&Fate) -> bool| {
        i64::try_from(cases.iter().filter(|case| wanted(&case.fate)).count()).unwrap()
    };
    let refused = count(&|fate| matches!(fate, Fate::Message(_)));
    let rows = count(&|fate| matches!(fate, Fate::Row(_)));
    let (ticks, duplicate) = (count(&|fate| *fate == Fate::Tick), count(&|fate| *fate == Fate::Duplicate));
    let (control, ignored) = (count(&|fate| *fate == Fate::Control), count(&|fate| *fate == Fate::Ignored));
    let expected = serde_json::json!({
        "rows": ticks + duplicate + rows, "control": control, "ignored": ignored, "deadlettered": refused,
    });
    assert_eq!((&summary["messages_in"], &summary["messages"]), (&all.into(), &expected));
    let late = count(&|fate| *fate == Fate::Row("late"));
    let expected = serde_json::json!({
        "ticks": ticks, "applied": 0, "duplicate": duplicate, "late": late, "ignored": 0,
        "deadlettered": rows - late, "buffered": 0,
    });
    assert_eq!((&summary["rows_in"], &summary["rows"]), (&(ticks + duplicate + rows).into(), &expected));
    assert_eq!(summary["control_records"], 2);

    // Every good message has its tick, whatever stood before it.
    let ticks: Vec<u64> =
        (0..).zip(&cases).filter(|(_, case)| case.fate == Fate::Tick).map(|(offset, _)| offset).collect();
    for kind in ["features", "predictions"] {
        let found = sources(&job, kind).remove(0);
        assert_eq!(found.keys().copied().collect::<Vec<u64>>(), ticks, "{kind}");
        assert!(found.values().all(|count| *count == 1), "{kind}");
    }

    // Every bad one has its dead letter, with where it was, why, and what it was.
    let mut reasons = BTreeMap::<&str, i64>::new();
    let mut letters = job.outputs("deadletter").remove(0).into_iter();
    for (offset, case) in (0..).zip(&cases) {
        let (Fate::Message(reason) | Fate::Row(reason)) = case.fate else { continue };
        *reasons.entry(reason).or_default() += 1;
        let letter = letters.next().unwrap_or_else(|| panic!("no dead letter of {case:?}"));
        let value: Value = serde_json::from_slice(&letter.value).unwrap();
        assert_eq!((&value["reason"], source(&job, 0, &letter)), (&reason.into(), (offset, 0)), "{case:?}");
        assert_eq!(value["source"], letter.headers["source"]);
        // A message without a key has none to give on.
        let key = case.key.map(|key| String::from_utf8(key.to_vec()).unwrap());
        assert_eq!(letter.key.unwrap_or_default(), key.unwrap_or_default(), "{case:?}");
        let original = case.value.as_deref().unwrap_or_default();
        assert_eq!((&value["length"], &value["truncated"]), (&original.len().into(), &false.into()));
        match std::str::from_utf8(original) {
            Ok(text) => assert_eq!((&value["encoding"], &value["original"]), (&"utf-8".into(), &text.into())),
            // {"type":"ticker","product_id":"\xff\xfe"}
            Err(_) => assert_eq!(
                (&value["encoding"], &value["original"]),
                (&"base64".into(), &"eyJ0eXBlIjoidGlja2VyIiwicHJvZHVjdF9pZCI6Iv/+In0=".into())
            ),
        }
    }
    assert_eq!(letters.next(), None);
    assert_eq!(summary["deadletter"], serde_json::to_value(reasons).unwrap());
}
