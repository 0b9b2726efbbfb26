//! Clocks that are wrong, units and names as people have them: what one odd message does to the others.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Backtest, Ran, assert_same};

/// 2026-01-02T00:00:00Z in milliseconds.
const START: u64 = 1_767_312_000_000;

/// Quotes of Binance USD-M, one a second, from `START` on: the stamp, and the number of the message.
fn quotes(count: u64, stamp: impl Fn(u64) -> String) -> Vec<String> {
    let quote = |n: u64| {
        let stamp = stamp(n);
        let bid = 90_000 + n % 7;
        format!(
            r#"{{"e":"bookTicker","u":{},"s":"BTCUSDT","b":"{bid}","B":"1","a":"{}","A":"2","T":{stamp},"E":{stamp}}}"#,
            n + 1,
            bid + 1,
        )
    };
    (0..count).map(quote).collect()
}

fn of(lines: &[String]) -> Ran {
    let input = lines.join("\n") + "\n";
    let two = Backtest::of_stdin(input.clone()).workers(2).run();
    let one = Backtest::of_stdin(input).run();
    assert_same(&one, &two);
    one
}

/// A second of milliseconds behind `START`.
fn at(second: u64) -> u64 {
    START + 1_000 * second
}

#[test]
fn a_stamp_from_the_future_harms_nobody_but_itself() {
    for ahead in [3, 300, 3_600, 29 * 86_400] {
        for receipts in [true, false] {
            if !receipts && ahead == 3 {
                continue;
            }
            let odd = 100;
            let mut lines = quotes(500, |n| (at(n) + if n == odd { 1_000 * ahead } else { 0 }).to_string());
            if receipts {
                for (n, line) in (0..).zip(&mut lines) {
                    *line = format!("{}000000 {line}", at(n) + 10);
                }
            }
            let ran = of(&lines);
            let name = format!("{ahead} s ahead, receipts: {receipts}");
            assert_eq!(ran.count("rows.ticks"), 499, "{name}");
            assert_eq!((ran.count("rows.late"), ran.count("gaps")), (0, 0), "{name}");
            let [letter] = &ran.records("deadletter")[..] else { panic!("{name}") };
            assert_eq!(letter["reason"], "time_ahead", "{name}");
            assert_eq!(letter["source"], "-/101/0", "{name}");
            assert!(letter["original"].as_str().unwrap().contains("\"u\":101,"), "{name}: {letter}");
            let detail = letter["detail"].as_str().unwrap();
            let expected =
                if receipts { "ahead of its receipt" } else { "ahead of the instrument's other rows" };
            assert!(detail.contains(expected), "{name}: {detail}");
            let most = ran.records("features").iter().map(|row| row["n"].as_u64().unwrap()).max();
            assert!(most <= Some(60), "{name}: {most:?} returns in a window of 60 s");
            assert_eq!(ran.lines("metrics").len(), 499 - 1, "{name}");
        }
    }
}

#[test]
fn a_clock_that_was_wrong_is_left() {
    // Without receipts a minute of stamps an hour ahead is believed, until rows agree that it was wrong.
    let lines = quotes(300, |n| (at(n) + if (100..160).contains(&n) { 3_600_000 } else { 0 }).to_string());
    let ran = of(&lines);
    let gaps = ran.records("gaps");
    let reasons: Vec<&str> = gaps.iter().map(|gap| gap["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["silence", "clock"]);
    assert_eq!(gaps[1]["gap_start"], "2026-01-02T00:01:39.000Z", "from before the jump");
    assert_eq!(gaps[1]["gap_end"], "2026-01-02T00:02:42.000Z", "to the third row that says so");
    assert_eq!((ran.count("rows.late"), ran.count("rows.ticks")), (2, 298));
    let stamps: Vec<String> =
        ran.records("metrics").iter().map(|row| row["event_time"].as_str().unwrap().to_owned()).collect();
    assert!(stamps.is_sorted_by(|one, next| one < next), "samples ascend for ever");
    // With receipts they are refused, and nothing else changes.
    let received: Vec<String> =
        (0..).zip(&lines).map(|(n, line)| format!("{}000000 {line}", at(n) + 10)).collect();
    let ran = of(&received);
    assert_eq!(
        (ran.count("rows.ticks"), ran.count("rows.deadlettered"), ran.count("rows.late")),
        (240, 60, 0)
    );
    assert!(ran.records("gaps").iter().all(|gap| gap["reason"] == "silence"));
}

#[test]
fn any_stamp_may_be_believed() {
    let lines = quotes(100, |n| (at(n) + if n == 50 { 3_600_000 } else { 0 }).to_string());
    let ran = Backtest::of_stdin(lines.join("\n")).env("FORESHOCK_INPUT__MAX_JUMP", "off").run();
    assert_eq!((ran.count("rows.ticks"), ran.count("rows.late")), (51, 49));
}

#[test]
fn the_size_of_a_number_tells_its_unit() {
    let scaled = |digits: u64| {
        quotes(50, move |n| match digits {
            10 => (at(n) / 1_000).to_string(),
            13 => at(n).to_string(),
            16 => format!("{}000", at(n)),
            _ => format!("{}000000", at(n)),
        })
    };
    let expected = of(&scaled(13)).lines("metrics").join("\n");
    for digits in [10, 16, 19] {
        let ran = of(&scaled(digits));
        assert_eq!((ran.count("rows.ticks"), ran.count("rows.deadlettered")), (50, 0), "{digits} digits");
        let unit = |line: &str| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            let time = row["event_time"].as_str().unwrap()[..19].to_owned();
            row["event_time"] = time.into();
            row
        };
        let found: Vec<Value> = ran.lines("metrics").into_iter().map(unit).collect();
        assert_eq!(found, expected.lines().map(unit).collect::<Vec<_>>(), "{digits} digits");
    }
    // And of a receipt.
    let plain = of(&quotes(50, |n| at(n).to_string()));
    for zeros in ["", "000", "000000"] {
        let stamped: Vec<String> = (0..)
            .zip(quotes(50, |n| at(n).to_string()))
            .map(|(n, line)| format!("{}{zeros} {line}", at(n) + 9))
            .collect();
        let ran = of(&stamped);
        assert_eq!(ran.count("rows.ticks"), 50, "{zeros:?}");
        assert_eq!(ran.lines("metrics"), plain.lines("metrics"), "{zeros:?}");
    }
}

#[test]
fn a_time_that_stands_nowhere_in_the_input_is_shown_nowhere() {
    for (stamp, reason) in
        [("12345", "time_range"), ("4102444800000000", "time_range"), ("\"soon\"", "no_time")]
    {
        let of_number = |n: u64| if n == 2 { stamp.to_owned() } else { at(n).to_string() };
        let letters = of(&quotes(8, of_number)).records("deadletter");
        assert_eq!(letters.len(), 1, "{letters:?}");
        for letter in letters {
            assert_eq!(letter["reason"], reason);
            let detail = letter["detail"].as_str().unwrap();
            assert!(detail.starts_with(&format!("T is {stamp}: ")), "{detail}");
        }
    }
    let mut lines = quotes(8, |n| at(n).to_string());
    lines[2] = format!("77 {}", lines[2]);
    let ran = of(&lines);
    let [letter] = &ran.records("deadletter")[..] else { panic!("one is refused") };
    assert_eq!(letter["reason"], "time_range");
    assert!(letter["detail"].as_str().unwrap().starts_with("the line begins with 77: "), "{letter}");
}

#[test]
fn symbols_are_what_venues_write() {
    let folder = TempDir::new().unwrap();
    let symbols = ["币安人生USDT", "S&P 500", "a:b:c", "1000000MOGUSDT", "ÉTÉ/€", "*", "日経 225"];
    let list: String = symbols
        .iter()
        .enumerate()
        .map(|(n, symbol)| {
            format!("  - {{exchange: x, symbol: '{symbol}', id: I{n}, type: spot, base: '{symbol}', quote: USD}}\n")
        })
        .collect();
    fs::write(folder.path().join("list.yaml"), format!("instruments:\n{list}")).unwrap();
    fs::write(
        folder.path().join("config.yaml"),
        "instruments: {file: list.yaml, unknown: deadletter}\nzscore: {min_samples: 2}\n",
    )
    .unwrap();
    let quote = |symbol: &str, second: u64| {
        format!(
            r#"{{"type":"quote","exchange":"x","instrument":"{symbol}","event_time":{},"bid":1,"ask":2}}"#,
            START / 1_000 + second
        )
    };
    let lines: Vec<String> = (0..3).flat_map(|second| symbols.map(|symbol| quote(symbol, second))).collect();
    let input = lines.join("\n");
    let listed =
        Backtest::of_stdin(input.clone()).arg("--config").arg(folder.path().join("config.yaml")).run();
    assert_eq!((listed.count("rows.ticks"), listed.count("rows.deadlettered")), (21, 0));
    for (n, row) in listed.records("features")[..symbols.len()].iter().enumerate() {
        assert_eq!(row["instrument"], format!("I{n}"));
    }
    let accepted = Backtest::of_stdin(input).run();
    for (symbol, row) in symbols.iter().zip(accepted.records("features")) {
        assert_eq!(row["instrument"], *symbol);
    }
    // What can be no name is told so, and nobody is asked to list it.
    for symbol in ["", "a\u{200b}b", &"x".repeat(65)] {
        let lines: Vec<String> = (0..8).map(|n| quote(if n == 2 { symbol } else { "A" }, n)).collect();
        let ran = Backtest::of_stdin(lines.join("\n")).run();
        let [letter] = &ran.records("deadletter")[..] else { panic!("{symbol:?} is refused") };
        let detail = letter["detail"].as_str().unwrap();
        assert!(
            detail.contains("a name of 1 to 64 printable characters") && !detail.contains("listed"),
            "{detail}"
        );
    }
}
