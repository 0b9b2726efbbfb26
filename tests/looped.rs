//! A log played several times is one long log: no row of a later pass is late or a duplicate, and nothing but times
//! and ids has changed.

use std::path::Path;
use std::sync::Arc;

use foreshock::recordings::input::RecordedInput;
use foreshock::recordings::log::{LogSettings, RecordedLog, event_time};
use foreshock::recordings::sniff::Expected;
use foreshock::replay::passes::Passes;
use foreshock_operators::time::SECOND;
use foreshock_operators::venues::canonical::CANONICAL;
use foreshock_operators::venues::{Line, split_line, subject};

use crate::support::feed::{Recipe, file as bytes_of};
use crate::support::{Backtest, Files, Ran, data, slice};

/// The lines of a file as so many passes have them, with receive times where it has them.
fn passes_of(path: &Path, count: usize) -> Vec<Vec<u8>> {
    let settings = LogSettings {
        inputs: vec![RecordedInput::named(path)],
        expected: Expected::default(),
        chunk_bytes: 64 * 1024,
        max_message_bytes: 1 << 20,
        take_whole: false,
        follow: None,
        progress: Arc::default(),
        notes: Arc::default(),
    };
    let mut passes = Passes::default();
    let mut written = Vec::new();
    for number in 0..count {
        let mut out = Vec::new();
        let mut log = RecordedLog::open(&settings).unwrap();
        let file = log.files()[0].clone();
        while let Some(chunk) = log.next_chunk().unwrap() {
            for line in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
                let Line::Message { received, body } = split_line(line) else { continue };
                let message = &line[body];
                if number == 0 {
                    let exchange = file.exchange.as_deref();
                    let whose = subject(file.format, message, exchange).and_then(|subject| subject.symbol);
                    let time = event_time(file.format, exchange, message, received);
                    passes.measure(file.format, message, &whose.unwrap_or_default(), time, received);
                }
                if let Some(received) = received {
                    out.extend_from_slice(format!("{} ", passes.moved_time(received).0).as_bytes());
                }
                out.extend_from_slice(passes.moved(file.format, message));
                out.push(b'\n');
            }
        }
        written.push(out);
        passes.advance().unwrap();
    }
    written
}

/// Each pass alone and all passes as one log.
fn run(path: &Path, count: usize) -> (Vec<Ran>, Ran) {
    let written = passes_of(path, count);
    let all = Backtest::of_stdin(written.concat()).run();
    (written.into_iter().map(|pass| Backtest::of_stdin(pass).run()).collect(), all)
}

const PATHS: [&str; 8] = [
    "messages_in",
    "messages.rows",
    "messages.ignored",
    "rows_in",
    "rows.ticks",
    "rows.applied",
    "rows.duplicate",
    "rows.late",
];

#[track_caller]
fn assert_goes_on(path: &Path) -> (Vec<Ran>, Ran) {
    let (passes, all) = run(path, 3);
    for name in PATHS {
        let first = passes[0].count(name);
        for pass in &passes {
            assert_eq!(pass.count(name), first, "{name} of one pass");
        }
        assert_eq!(all.count(name), 3 * first, "{name} of all passes");
    }
    (passes, all)
}

#[test]
fn recorded_slices() {
    for name in ["btcusdt-usdm.log.zst", "btcusdt-spot.log.zst"] {
        let (passes, all) = assert_goes_on(&data(name));
        assert_eq!(all.count("rows.late") + all.count("rows.duplicate"), 0, "{name}");
        assert!(all.lines("gaps").is_empty(), "{name}: a pause between passes is no gap");
        // Each pass has the features of the first: only the times differ.
        let mids = |ran: &Ran| -> Vec<String> {
            ran.records("features").iter().map(|row| row["midprice"].to_string()).collect()
        };
        assert_eq!(mids(&passes[0]), mids(&passes[2]), "{name}");
    }
}

#[test]
fn the_first_pass_is_verbatim() {
    let lines = slice("btcusdt-usdm.log.zst").concat();
    assert!(passes_of(&data("btcusdt-usdm.log.zst"), 1)[0] == lines);
}

/// Ties, duplicates, late and refused rows stay what they are.
#[test]
fn a_made_feed_with_all_that_can_happen() {
    for seed in [3, 4] {
        let files = Files::new();
        let messages = Recipe::lively(seed, 5).messages(4_000);
        let path = files.add("feed.ndjson", bytes_of(&messages));
        let (passes, _) = assert_goes_on(&path);
        assert!(passes[0].count("rows.late") > 0 && passes[0].count("rows.duplicate") > 0);
    }
}

#[test]
fn canonical_messages_with_sequences() {
    let files = Files::new();
    let lines: Vec<String> = (0..2_000)
        .map(|number| {
            format!(
                r#"{{"type":"trade","exchange":"x","instrument":"A","event_time":"2026-01-02T03:04:{:02}.{:03}Z","sequence":{number},"price":1,"size":1}}"#,
                number / 50,
                number % 50 * 20,
            )
        })
        .collect();
    let path = files.add("feed.ndjson", lines.join("\n"));
    let (_, all) = assert_goes_on(&path);
    assert_eq!(all.count("rows.duplicate") + all.count("rows.late"), 0);
}

#[test]
fn a_pass_that_would_leave_what_messages_may_have_is_refused() {
    let mut passes = Passes::default();
    let format = CANONICAL;
    let time = |seconds: i64| Some(foreshock_operators::time::Time(seconds * SECOND));
    passes.measure(format, b"{}", "", time(946_684_800), None);
    passes.measure(format, b"{}", "", time(4_000_000_000), None);
    let error = passes.advance().unwrap_err().to_string();
    assert!(error.contains("pass 2 would reach the year 2100"), "{error}");
}
