//! The subject of a message agrees with its decoder: where all rows are of one instrument, it is the subject's.

use std::collections::BTreeSet;
use std::fs;

use foreshock_operators::row::{Extent, InstrumentId, Source};
use foreshock_operators::venues::binance::BINANCE;
use foreshock_operators::venues::coinbase::COINBASE_EXCHANGE;
use foreshock_operators::venues::{
    ClockSource, Envelope, Format, Line, Resolve, Resolved, decode, detect, exchange_of, split_line, subject,
};
use serde_json::Value;

use crate::support::feed::Recipe;
use crate::support::random::Random;
use crate::support::{data, slice};

/// Remembers what was asked for.
#[derive(Default)]
struct Asked(BTreeSet<(String, String)>);

impl Resolve for Asked {
    fn resolve(&mut self, exchange: &str, symbol: &str) -> Option<Resolved> {
        self.0.insert((exchange.to_owned(), symbol.to_owned()));
        Some(Resolved { instrument: InstrumentId(0), clock: ClockSource::Exchange })
    }
}

/// What became of messages.
#[derive(Debug, Default)]
struct Checked {
    with_rows: usize,
    /// Named a symbol without having rows.
    named: usize,
    nameless: usize,
}

impl Checked {
    #[track_caller]
    fn check(&mut self, format: Format, message: &[u8], exchange: Option<&str>) {
        let envelope = Envelope {
            received: None,
            exchange,
            checked: false,
            source: Source::default(),
            extent: Extent::default(),
        };
        let mut asked = Asked::default();
        decode(format, message, &envelope, &mut asked, &mut Vec::new(), &mut Vec::new());
        let found = subject(format, message, exchange);
        let shown = String::from_utf8_lossy(message);
        let found = found.and_then(|found| Some((found.exchange, found.symbol?)));
        match asked.0.len() {
            0 if found.is_some() => self.named += 1,
            0 => self.nameless += 1,
            1 => {
                assert_eq!(found, asked.0.pop_first(), "{shown}");
                self.with_rows += 1;
            }
            _ => assert_eq!(found, None, "{shown}"),
        }
    }

    #[track_caller]
    fn check_line(&mut self, format: Format, line: &[u8], exchange: Option<&str>) {
        if let Line::Message { body, .. } = split_line(line) {
            self.check(format, &line[body], exchange);
        }
    }
}

#[test]
fn recorded_slices() {
    for (name, exchange) in [("btcusdt-usdm.log.zst", "binance-usdm"), ("btcusdt-spot.log.zst", "binance")] {
        let mut checked = Checked::default();
        for line in slice(name) {
            checked.check_line(BINANCE, &line, Some(exchange));
            checked.check_line(BINANCE, &line, None);
        }
        // Depth updates stay in their instrument's partition too.
        assert_eq!(checked.nameless, 0, "{checked:?}");
        assert!(checked.with_rows > 4_000 && checked.named > 700, "{checked:?}");
    }
}

#[test]
fn made_feeds() {
    let mut checked = Checked::default();
    for message in Recipe::lively(11, 7).messages(5_000) {
        checked.check_line(COINBASE_EXCHANGE, message.line.as_bytes(), None);
    }
    assert!(checked.with_rows > 4_000, "{checked:?}");
}

/// Whatever format a message is read as: the decoder slices hold all of them, broken ones too.
#[test]
fn single_messages() {
    let mut checked = Checked::default();
    for file in fs::read_dir(data("decode")).unwrap().map(|entry| entry.unwrap().path()) {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let raw = serde_json::from_str::<Value>(line).ok();
            let raw = raw.and_then(|row| Some(row.get("raw")?.as_str()?.to_owned()));
            let line = raw.as_deref().unwrap_or(line).as_bytes();
            for format in Format::all() {
                checked.check_line(format, line, None);
            }
        }
    }
    assert!(checked.with_rows > 150, "{checked:?}");
}

/// Messages cut short and with bytes changed: whatever rows are left agree.
#[test]
fn damaged_messages() {
    let mut random = Random::new(5);
    let mut checked = Checked::default();
    let lines = slice("btcusdt-usdm.log.zst");
    for _ in 0..20_000 {
        let line = &lines[random.below(lines.len())];
        let Line::Message { body, .. } = split_line(line) else { continue };
        let mut message = line[body].to_vec();
        let at = random.below(message.len());
        match random.below(3) {
            0 => message.truncate(at),
            1 => message[at] = br#"{}[]",:\0a "#[random.below(11)],
            _ => drop(message.remove(at)),
        }
        let format = detect(&message).unwrap_or(BINANCE);
        checked.check(format, &message, exchange_of(&message));
    }
    assert!(checked.with_rows > 1_000, "{checked:?}");
}
