//! One log, one result: whatever the workers, the chunks, the files it came in, and the company an instrument
//! keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use crate::support::feed::{Message, Recipe, file, interleave, stamp};
use crate::support::random::Random;
use crate::support::{
    Backtest, Files, Ran, assert_same, assert_same_text, data, finish, foreshock, kinds, slice,
};

const USDM: &str = "btcusdt-usdm.log.zst";
const SPOT: &str = "btcusdt-spot.log.zst";
const CHUNKS: &str = "FORESHOCK_BACKTEST__CHUNK_BYTES";
const REORDER: &str = "FORESHOCK_ORDER__REORDER";
/// Left open, the first match takes over from the tickers, and in a shuffled log it comes at another time.
const TRADES: &str = "FORESHOCK_EXCHANGES__COINBASE__TRADE_CHANNEL";

fn slices(names: &[&str]) -> Backtest {
    Backtest::of(names.iter().map(|name| data(name)))
}

/// A lively feed of 20 instruments, with what every kind of output needs.
fn twenty() -> Vec<Message> {
    Recipe::lively(7, 20).messages(24_000)
}

fn stdin(messages: &[Message]) -> Backtest {
    Backtest::of_stdin(file(messages))
}

/// Asserts that each instrument has the same lines in both.
#[track_caller]
fn assert_same_by_instrument(one: &Ran, other: &Ran) {
    let (lines, others) = (one.by_instrument(), other.by_instrument());
    assert_eq!(lines.keys().collect::<Vec<_>>(), others.keys().collect::<Vec<_>>());
    for (key, lines) in &lines {
        let what = format!("{key:?} of{} and of{}", one.shown, other.shown);
        assert_same_text(lines.join("\n").as_bytes(), others[key].join("\n").as_bytes(), &what);
    }
    assert_eq!(one.account(), other.account());
}

#[test]
fn any_number_of_workers_writes_the_same_bytes() {
    for files in [&[USDM][..], &[SPOT], &[USDM, SPOT]] {
        let one = slices(files).workers(1).run();
        for workers in [2, 4] {
            assert_same(&one, &slices(files).workers(workers).run());
        }
    }
}

#[test]
fn the_slices_have_these_counts() {
    check_counts(&[USDM], 7_660, 682, 5_444, 1_534, 36);
    check_counts(&[SPOT], 2_502, 359, 1_673, 470, 35);
    check_counts(&[USDM, SPOT], 10_162, 1_041, 7_117, 2_004, 71);
}

#[track_caller]
fn check_counts(files: &[&str], messages: i64, ignored: i64, ticks: i64, trades: i64, samples: i64) {
    let ran = slices(files).run();
    let expected = [
        ("messages_in", messages),
        ("messages.rows", messages - ignored),
        ("messages.control", 0),
        ("messages.ignored", ignored),
        ("messages.deadlettered", 0),
        ("rows_in", messages - ignored),
        ("rows.ticks", ticks),
        ("rows.applied", trades),
        ("rows.duplicate", 0),
        ("rows.late", 0),
        ("rows.deadlettered", 0),
        ("rows.buffered", 0),
        ("predictions", ticks),
        ("refused", 0),
        ("outside", 0),
        ("samples", samples),
        ("gaps", 0),
        ("alerts", 0),
    ];
    for (path, count) in expected {
        assert_eq!(ran.count(path), count, "{path} of {files:?}");
    }
    assert_eq!(ran.summary["deadletter"].as_object().unwrap().len(), 0);
}

/// glibc picks other code for these functions when the processor has no fused multiply-add.
#[test]
fn another_processor_writes_the_same_bytes() {
    let tunables = "glibc.cpu.hwcaps=-AVX2,-FMA";
    let plain = slices(&[USDM, SPOT]).run();
    assert_same(&plain, &slices(&[USDM, SPOT]).env("GLIBC_TUNABLES", tunables).run());
    let plain = stdin(&twenty()).run();
    assert_same(&plain, &stdin(&twenty()).env("GLIBC_TUNABLES", tunables).run());
}

#[test]
fn the_feed_of_these_tests_has_something_of_every_kind() {
    let ran = stdin(&twenty()).run();
    for kind in kinds() {
        assert!(ran.lines(kind).len() > 10, "{kind} has {} lines", ran.lines(kind).len());
    }
    for path in
        ["messages.ignored", "messages.deadlettered", "rows.duplicate", "rows.late", "rows.deadlettered"]
    {
        assert!(ran.count(path) > 10, "{path}: {}", ran.count(path));
    }
    let states: BTreeSet<String> =
        ran.records("alerts").iter().map(|alert| alert["state"].to_string()).collect();
    assert_eq!(states.len(), 4, "alert states are {states:?}");
}

#[test]
fn instruments_may_be_interleaved_in_any_way() {
    let messages = twenty();
    let first = stdin(&messages).workers(1).run();
    for seed in 0..5 {
        let mixed = interleave(&messages, &mut Random::new(seed));
        let one = stdin(&mixed).workers(1).run();
        assert_same_by_instrument(&first, &one);
        for workers in [2, 3, 4] {
            assert_same(&one, &stdin(&mixed).workers(workers).run());
        }
    }
}

#[test]
fn an_instrument_alone_has_the_same_lines() {
    let messages = twenty();
    let all = stdin(&messages).workers(2).run().by_instrument();
    let mut seen = BTreeSet::new();
    for product in [0, 7, 19] {
        let own: Vec<Message> = messages.iter().filter(|m| m.product == product).cloned().collect();
        for (key, lines) in stdin(&own).workers(2).run().by_instrument() {
            assert_same_text(
                lines.join("\n").as_bytes(),
                all[&key].join("\n").as_bytes(),
                &format!("{key:?}"),
            );
            seen.insert(key);
        }
    }
    let expected = all.keys().filter(|(name, _)| ["P000-USD", "P007-USD", "P019-USD"].contains(&&**name));
    assert!(expected.eq(&seen), "an instrument alone lacks a kind");
}

/// Two instruments of which one is called as the other's symbol stay two, whichever comes first.
#[test]
fn a_symbol_that_is_another_instruments_name_stands_for_itself() {
    let files = Files::new();
    let entry = |symbol, id| {
        format!("  - {{exchange: coinbase, symbol: {symbol}, id: {id}, type: spot, base: A, quote: USD}}\n")
    };
    // P000-USD is printed as P001-USD, and P001-USD as OTHER.
    let list = format!("instruments:\n{}{}", entry("P000-USD", "P001-USD"), entry("P001-USD", "OTHER"));
    let list = files.add("instruments.yaml", list).display().to_string();
    let messages = Recipe { dirt: false, ..Recipe::lively(5, 2) }.messages(400);
    for first in [0, 1] {
        let (mut log, rest): (Vec<Message>, Vec<Message>) =
            messages.iter().cloned().partition(|message| message.product == first);
        log.extend(rest);
        let ran = stdin(&log).env("FORESHOCK_INSTRUMENTS__FILE", &list).run();
        for (name, product) in [("P001-USD", 0), ("OTHER", 1)] {
            let tickers = messages.iter().filter(|m| m.product == product && m.line.contains("ticker"));
            let records = ran.records("features");
            let found = records.iter().filter(|record| record["instrument"] == name);
            assert_eq!(found.count(), tickers.count(), "{name}, when P00{first}-USD comes first");
        }
    }
}

#[test]
fn two_workers_share_the_work() {
    let messages = twenty();
    for seed in 0..3 {
        let ran = stdin(&interleave(&messages, &mut Random::new(seed))).workers(2).run();
        let shares: Vec<i64> =
            ran.summary["rows_per_worker"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        // Rows that were refused before they had an instrument are no worker's.
        let sum: i64 = ran.count("rows_in") - ran.count("rows.deadlettered");
        assert_eq!(shares.iter().sum::<i64>(), sum);
        assert_eq!(shares.len(), 2);
        assert!(shares.iter().all(|rows| rows * 5 > sum), "{shares:?}");
    }
}

#[test]
fn chunks_of_any_size_give_the_same_bytes() {
    let messages = twenty();
    let default = stdin(&messages).workers(1).run();
    for workers in [1, 2, 4] {
        for size in ["4KiB", "5000B", "64KiB", "4MiB"] {
            assert_same(&default, &stdin(&messages).workers(workers).env(CHUNKS, size).run());
        }
    }
    let default = slices(&[USDM, SPOT]).workers(1).run();
    for size in ["4KiB", "4MiB"] {
        assert_same(&default, &slices(&[USDM, SPOT]).workers(2).env(CHUNKS, size).run());
        assert_same(&slices(&[SPOT]).run(), &slices(&[SPOT]).env(CHUNKS, size).run());
    }
}

/// What a file holds is told from its beginning, and how much of that is looked at must not depend on the chunks.
#[test]
fn a_file_is_told_the_same_whatever_the_chunks() {
    let mut lines = vec![b"{\"result\":null,\"id\":1}\n".to_vec(); 400];
    lines.extend(slice(USDM).into_iter().take(500));
    let bytes = lines.concat();
    let default = Backtest::of_stdin(bytes.clone()).run();
    assert!(default.lines("features")[0].starts_with("{\"exchange\":\"binance-usdm\""));
    for size in ["4KiB", "4MiB"] {
        assert_same(&default, &Backtest::of_stdin(bytes.clone()).env(CHUNKS, size).run());
    }
}

/// A line that is longer than a message may be has the same dead letter, whether it fits a chunk or not.
#[test]
fn a_line_that_is_too_long_is_told_the_same_whatever_the_chunks() {
    let lines = slice(SPOT);
    let long = |prefix: &str, fill: u8, suffix: &str| {
        [prefix.as_bytes(), &vec![fill; 100_000], suffix.as_bytes()].concat()
    };
    // The first block of a file has one size for all: the long lines lie behind it.
    let mut log = lines[..1_200].to_vec();
    assert!(log.concat().len() > 256 * 1024);
    log.push(long("1723161413500000000 {\"long\":\"", b'x', "\"}\r\n"));
    log.extend_from_slice(&lines[1_200..1_300]);
    log.push(long("{\"long\":\"", b'y', "\"}\n"));
    log.push(long("", b' ', "\n"));
    log.push(long("wss://example.com/", b'z', "\n"));
    log.push(long("5 {}", b' ', "\n"));
    log.extend_from_slice(&lines[1_300..1_400]);
    let log = log.concat();
    let files = Files::new();
    let path = files.add("spot.log", &log);
    let usdm = files.add("usdm.log", slice(USDM)[..2_000].concat());
    for inputs in [vec![path.clone()], vec![path, usdm]] {
        let limit = "FORESHOCK_INPUT__MAX_MESSAGE_BYTES";
        let large = Backtest::of(&inputs).workers(1).env(limit, "10KiB").env(CHUNKS, "4MiB").run();
        assert!(large.summary["deadletter"]["too_large"].as_i64() >= Some(2), "{}", large.summary);
        for size in ["4KiB", "16KiB", "64KiB", "256KiB"] {
            for workers in [1, 2] {
                let small = Backtest::of(&inputs).workers(workers).env(limit, "10KiB").env(CHUNKS, size);
                assert_same(&large, &small.run());
            }
        }
    }
}

#[test]
fn several_files_are_one_log() {
    let messages = twenty();
    let files = Files::new();
    let whole = stdin(&messages).workers(1).run();

    // By instrument: the files are merged by time.
    let mut by_product: BTreeMap<usize, Vec<Message>> = BTreeMap::new();
    for message in &messages {
        by_product.entry(message.product % 3).or_default().push(message.clone());
    }
    let paths: Vec<PathBuf> =
        by_product.iter().map(|(n, part)| files.add(&format!("part{n}"), file(part))).collect();
    let one = Backtest::of(&paths).workers(1).run();
    assert_same_by_instrument(&whole, &one);
    for workers in [2, 4] {
        assert_same(&one, &Backtest::of(&paths).workers(workers).run());
        assert_same(&one, &Backtest::of(&paths).workers(workers).env(CHUNKS, "4KiB").run());
    }
    // The order named matters to ties alone.
    assert_same_by_instrument(&one, &Backtest::of(paths.iter().rev()).workers(2).run());

    // By time: the files follow each other, in whatever order they are named.
    let clean = Recipe { dirt: false, ties: false, ..Recipe::lively(8, 20) }.messages(9_000);
    let paths: Vec<PathBuf> =
        clean.chunks(3_000).enumerate().map(|(n, part)| files.add(&format!("hour{n}"), file(part))).collect();
    let whole = stdin(&clean).workers(1).run();
    assert_same(&whole, &Backtest::of(&paths).workers(1).run());
    assert_same(&whole, &Backtest::of([&paths[2], &paths[0], &paths[1]]).workers(2).run());
}

/// Rows of several files stand in the order of the times of receipt.
#[test]
fn files_are_merged_by_the_time_of_receipt() {
    let received = |line: &[u8]| -> (u64, Vec<u8>) {
        let end = line.iter().position(|byte| *byte == b' ').unwrap();
        (std::str::from_utf8(&line[..end]).unwrap().parse().unwrap(), line.to_vec())
    };
    let mut lines: Vec<(u64, usize, Vec<u8>)> = Vec::new();
    for (at, name) in [USDM, SPOT].into_iter().enumerate() {
        let mut newest = 0;
        for line in slice(name) {
            let (time, line) = received(&line);
            newest = time.max(newest);
            lines.push((newest, at, line));
        }
    }
    lines.sort_by_key(|(time, at, _)| (*time, *at));
    let is_tick = |line: &[u8]| String::from_utf8_lossy(line).contains("@bookTicker");
    let expected: Vec<&str> = lines
        .iter()
        .filter(|(_, _, line)| is_tick(line))
        .map(|(_, at, _)| ["BTC-USDT-PERP", "BTC-USDT"][*at])
        .collect();
    // No row is in doubt, which would wait for the next one of its instrument.
    let ran = slices(&[USDM, SPOT]).env("FORESHOCK_INPUT__MAX_AHEAD", "60s").workers(2).run();
    let records = ran.records("features");
    let found: Vec<&str> = records.iter().map(|record| record["instrument"].as_str().unwrap()).collect();
    assert_eq!(found, expected);
}

#[test]
fn files_that_tie_take_turns_in_the_order_named() {
    let files = Files::new();
    let quote = |name: &str, second: usize| {
        let time = stamp(second as i64 * 1_000_000);
        format!(
            "{{\"type\":\"quote\",\"exchange\":\"x\",\"instrument\":\"{name}\",\"event_time\":\"{time}\",\"bid\":1,\"ask\":2}}\n"
        )
    };
    // A time that steps back counts as the largest before it.
    let log = |name: &str| -> String { [1, 2, 2, 1, 3].map(|second| quote(name, second)).concat() };
    let (a, b) = (files.add("a", log("A")), files.add("b", log("B")));
    let order = |paths: [&PathBuf; 2]| -> String {
        let records = Backtest::of(paths).workers(2).run().records("scored");
        records.iter().map(|record| record["instrument"].as_str().unwrap()).collect()
    };
    // The two that step back are late.
    assert_eq!(order([&a, &b]), "ABAABBAB");
    assert_eq!(order([&b, &a]), "BABBAABA");
}

#[test]
fn rows_that_wait_for_older_ones_come_out_in_order() {
    let recipe = Recipe { dirt: false, ties: false, silences: true, ..Recipe::lively(9, 20) };
    let sorted = recipe.messages(15_000);
    let mut shuffled = sorted.clone();
    let mut random = Random::new(3);
    // Within a second no row is more than a second early.
    shuffled
        .chunk_by_mut(|a, b| a.time / 1_000_000 == b.time / 1_000_000)
        .for_each(|part| random.shuffle(part));
    let straight = stdin(&sorted).workers(1).env(TRADES, "trade").run();
    let reordered = stdin(&shuffled).workers(1).env(REORDER, "2s").env(TRADES, "trade").run();
    assert_eq!(reordered.count("rows.late"), 0);
    assert_eq!(reordered.count("rows.buffered"), 0);
    assert_same_by_instrument(&straight, &reordered);
    for workers in [2, 4] {
        let again = || stdin(&shuffled).workers(workers).env(REORDER, "2s").env(TRADES, "trade");
        assert_same(&reordered, &again().run());
        assert_same(&reordered, &again().env(CHUNKS, "4KiB").run());
    }
    // The wait is too short for some: they are late, in every run alike.
    let mut messages = twenty();
    messages
        .chunk_by_mut(|a, b| a.time / 3_000_000 == b.time / 3_000_000)
        .for_each(|part| random.shuffle(part));
    let one = stdin(&messages).workers(1).env(REORDER, "500ms").run();
    assert!(one.count("rows.late") > 100, "{}", one.summary);
    for workers in [2, 3] {
        let env = stdin(&messages).workers(workers).env(REORDER, "500ms");
        assert_same(&one, &env.env(CHUNKS, "7KiB").run());
    }
}

#[test]
fn a_file_may_be_compressed_or_come_on_standard_input() {
    let lines = slice(SPOT).concat();
    let name = SPOT;
    let files = Files::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&lines).unwrap();
    // Two members or frames in one file are what `cat` and rotated logs make.
    let (head, tail) = lines.split_at(lines.len() / 3);
    let mut members = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    members.write_all(head).unwrap();
    let mut members = flate2::write::GzEncoder::new(members.finish().unwrap(), flate2::Compression::best());
    members.write_all(tail).unwrap();
    let frames = [zstd::encode_all(head, 1).unwrap(), zstd::encode_all(tail, 3).unwrap()].concat();

    let original = slices(&[SPOT]).run();
    let gzip = gzip.finish().unwrap();
    let variants = [
        ("plain", lines.clone()),
        ("gzip", gzip),
        ("members", members.finish().unwrap()),
        ("frames", frames),
    ];
    for (folder, bytes) in variants {
        let path = files.add(&format!("{folder}/{name}"), &bytes);
        assert_same(&original, &Backtest::of([path]).run());
        assert_same(&original, &Backtest::of_stdin(bytes).run());
    }
    assert_same(&original, &Backtest::of_stdin(std::fs::read(data(SPOT)).unwrap()).run());
    // With what some editors put before the first line.
    assert_same(&original, &Backtest::of_stdin([b"\xef\xbb\xbf", &lines[..]].concat()).run());
    // Without a line break at the end, and with those of another system.
    assert_same(&original, &Backtest::of_stdin(&lines[..lines.len() - 1]).run());
    let text = String::from_utf8(lines).unwrap();
    assert_same(&original, &Backtest::of_stdin(text.replace('\n', "\r\n")).run());
    assert_same(&original, &Backtest::of_stdin(text.replace('\n', "\n\n \t\n")).run());
}

#[test]
fn a_range_is_the_same_as_a_file_that_was_cut() {
    let recipe = Recipe { dirt: false, ..Recipe::lively(11, 5) };
    let messages = recipe.messages(6_000);
    let (from, to) = (messages[1_500].time, messages[4_500].time);
    let cut: Vec<Message> = messages.iter().filter(|m| (from..to).contains(&m.time)).cloned().collect();
    let expected = stdin(&cut).run();
    let found = stdin(&messages).arg("--from").arg(stamp(from)).arg("--to").arg(stamp(to)).run();
    for kind in kinds() {
        assert_same_text(&expected.outputs[kind], &found.outputs[kind], kind);
    }
    assert_eq!(found.count("outside") as usize, messages.len() - cut.len());
    assert_eq!(found.count("messages_in") as usize, cut.len());
    for path in ["rows_in", "rows.ticks", "rows.applied", "predictions", "samples", "gaps", "alerts"] {
        assert_eq!(found.count(path), expected.count(path), "{path}");
    }
    assert!(found.count("rows.ticks") > 1_000);
    let open_end = stdin(&messages).arg("--from").arg(stamp(from)).run();
    let rest: Vec<Message> = messages.iter().filter(|m| m.time >= from).cloned().collect();
    assert_same_text(&stdin(&rest).run().outputs["features"], &open_end.outputs["features"], "features");
}

/// A single kind on standard output is what its file would hold.
#[test]
fn standard_output_has_what_the_file_has() {
    let ran = slices(&[USDM, SPOT]).run();
    for kind in kinds() {
        let mut command = foreshock();
        command.args(["backtest", "--json", "--out", "-", "--emit", kind]).args([data(USDM), data(SPOT)]);
        let ended = finish(command, None);
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        assert_same_text(&ran.outputs[kind], &ended.stdout, kind);
        let summary: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
        assert_eq!(summary["messages_in"], 10_162);
    }
}

/// The slices are read from files that the project brings along.
#[test]
fn the_slices_are_small() {
    for name in [USDM, SPOT] {
        assert!(File::open(data(name)).unwrap().metadata().unwrap().len() < 256 * 1024, "{name}");
    }
}
