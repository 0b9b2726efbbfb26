//! One decoder at work: a message's fate as text, its rows checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use foreshock_operators::account::Reason;
use foreshock_operators::row::{Body, Extent, InstrumentId, Row, Source};
use foreshock_operators::time::{Time, parse_rfc3339};
use foreshock_operators::venues::{
    ClockSource, Envelope, Format, Receipt, RefusedRow, Resolve, Resolved, Verdict, decode,
};
use serde_json::Value;

/// Gives every symbol a number, in the order of their first mention, except `NONE`.
pub struct Instruments {
    pub clock: ClockSource,
    pub names: Vec<String>,
}

impl Resolve for Instruments {
    fn resolve(&mut self, exchange: &str, symbol: &str) -> Option<Resolved> {
        let name = format!("{exchange}:{symbol}");
        let known = self.names.iter().position(|known| *known == name);
        let index = known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        (symbol != "NONE").then_some(Resolved { instrument: InstrumentId(index as u32), clock: self.clock })
    }
}

/// What surrounds the messages of a test, and what came out.
pub struct Run {
    pub format: Format,
    pub envelope: Envelope<'static>,
    pub instruments: Instruments,
    pub rows: Vec<Row>,
    pub refused: Vec<RefusedRow>,
}

impl Run {
    pub fn new(format: Format) -> Run {
        let envelope = Envelope {
            received: None,
            exchange: None,
            checked: false,
            source: Source { file: 3, line: 14 },
            extent: Extent { start: 15, length: 92 },
        };
        let instruments = Instruments { clock: ClockSource::Auto, names: Vec::new() };
        Run { format, envelope, instruments, rows: Vec::new(), refused: Vec::new() }
    }

    pub fn received(mut self, time: &str) -> Run {
        self.envelope.received = Some(Receipt::Stated(at(time)));
        self
    }

    pub fn by_receipt(mut self) -> Run {
        self.instruments.clock = ClockSource::Received;
        self
    }

    pub fn of(mut self, exchange: &'static str, checked: bool) -> Run {
        self.envelope.exchange = Some(exchange);
        self.envelope.checked = checked;
        self
    }

    pub fn decode(&mut self, message: &[u8]) -> Verdict {
        self.rows.clear();
        self.refused.clear();
        let Run { format, envelope, instruments, rows, refused } = self;
        decode(*format, message, envelope, instruments, rows, refused)
    }

    /// The message's fate as one line.
    pub fn fate(&mut self, message: &[u8]) -> String {
        let verdict = self.decode(message);
        let mut rows = BTreeMap::new();
        for row in &self.rows {
            assert_invariants(row);
            let name = match row.body {
                Body::Quote(_) => "quote",
                Body::Trade(_) => "trade",
                Body::Book(_) => "book",
                Body::Heartbeat => "heartbeat",
            };
            assert!(rows.insert(row.index, name).is_none(), "each row has its own index");
        }
        for refused in &self.refused {
            assert!(!refused.detail.is_empty() && refused.detail.len() < 250, "{}", refused.detail);
            assert!(
                rows.insert(refused.index, refused.reason.name()).is_none(),
                "each row has its own index"
            );
        }
        assert_eq!(
            matches!(verdict, Verdict::Rows),
            !rows.is_empty(),
            "rows come with the verdict Rows alone"
        );
        assert!(rows.keys().copied().eq(0..rows.len() as u32), "indices count from 0");
        match verdict {
            Verdict::Rows => rows.into_values().collect::<Vec<_>>().join(" "),
            Verdict::Control => "control".to_owned(),
            Verdict::Ignored => "ignored".to_owned(),
            Verdict::RefusedRow { reason, detail } => {
                assert!(!detail.is_empty() && detail.len() < 250, "{detail}");
                format!("refused {}", reason.name())
            }
            Verdict::Contradiction { found } => format!("contradiction {found}"),
        }
    }

    /// The one row of a message.
    #[track_caller]
    pub fn row(&mut self, message: &str) -> Row {
        assert_eq!(self.decode(message.as_bytes()), Verdict::Rows, "{message}");
        assert_eq!(self.refused, [], "{message}");
        let [row] = self.rows[..] else { panic!("{message} has one row, not {}", self.rows.len()) };
        row
    }

    /// Reason and detail of a refused message or of the one row of a message.
    #[track_caller]
    pub fn refusal(&mut self, message: &str) -> (Reason, String) {
        match self.decode(message.as_bytes()) {
            Verdict::RefusedRow { reason, detail } => (reason, detail),
            verdict => {
                let [refused] = &self.refused[..] else { panic!("{message} is not refused: {verdict:?}") };
                (refused.reason, refused.detail.clone())
            }
        }
    }
}

pub fn at(time: &str) -> Time {
    parse_rfc3339(time).expect("a time of a test").0
}

#[track_caller]
fn assert_invariants(row: &Row) {
    let price = |price: f64| price.is_finite() && price > 0.0;
    let size = |size: f64| size.is_nan() || (size.is_finite() && size >= 0.0 && size.is_sign_positive());
    match row.body {
        Body::Quote(quote) => {
            assert!(price(quote.bid) && price(quote.ask) && quote.bid <= quote.ask, "{row:?}");
            assert!(size(quote.bid_size) && size(quote.ask_size), "{row:?}");
            assert!(quote.price.is_nan() || price(quote.price), "{row:?}");
            assert!(!quote.trade || !quote.price.is_nan(), "{row:?}");
        }
        Body::Trade(trade) => assert!(price(trade.price) && size(trade.size), "{row:?}"),
        Body::Book(_) | Body::Heartbeat => {}
    }
    assert!((at("2000-01-01T00:00:00Z")..at("2100-01-01T00:00:00Z")).contains(&row.event_time), "{row:?}");
    assert!(row.clock == row.event_time && row.digits <= 9, "{row:?}");
}

#[track_caller]
pub fn check(format: Format, message: &str, expected: &str) {
    assert_eq!(Run::new(format).fate(message.as_bytes()), expected, "{}", &message[..message.len().min(600)]);
}

/// The message with one value replaced, or taken out where the value is `absent`.
#[track_caller]
pub fn with(message: &str, pointer: &str, value: &str) -> String {
    let mut tree: Value = serde_json::from_str(message).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = tree.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        "absent" => assert!(parent.remove(key).is_some(), "{pointer} is in {message}"),
        value => drop(parent.insert(key.to_owned(), serde_json::from_str(value).unwrap())),
    }
    tree.to_string()
}

pub fn slice(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/decode").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
