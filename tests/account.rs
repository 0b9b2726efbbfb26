//! Every message and every row has one fate, the fates add up, and a dead letter names the line it came from.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::feed::Recipe;
use crate::support::random::Random;
use crate::support::{Backtest, Files, Ran, assert_same, slice};

/// How much of a refused message is kept (docs/definitions.md, "Input").
const ORIGINAL_MAX: usize = 64 * 1024;
const MIB: usize = 1 << 20;

/// Lines without their breaks, and whether the last one lacks its.
struct Log {
    lines: Vec<Vec<u8>>,
    cut: bool,
}

impl Log {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.lines.join(&b'\n');
        if !self.cut {
            bytes.push(b'\n');
        }
        bytes
    }

    /// The messages by line number, told apart by a second reading of the definitions.
    fn messages(&self) -> BTreeMap<u64, &[u8]> {
        let numbered = (1..).zip(&self.lines);
        numbered.map(|(number, line)| (number, message(line))).filter(|(_, text)| !text.is_empty()).collect()
    }
}

/// A line without the time of receipt before it.
fn message(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_end();
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // Nanoseconds since 1970 that are no time are no prefix either.
    let is_time = std::str::from_utf8(&line[..digits]).is_ok_and(|text| text.parse::<i64>().is_ok());
    if is_time && line.get(digits) == Some(&b' ') { &line[digits + 1..] } else { line }
}

/// Breaks lines here and there, in the ways of recorders, networks and venues.
fn spoil(lines: Vec<Vec<u8>>, seed: u64) -> Log {
    let mut random = Random::new(seed);
    let mut spoiled = Vec::new();
    let mut delayed: Vec<(usize, Vec<u8>)> = Vec::new();
    for (at, line) in lines.into_iter().enumerate() {
        // The first lines tell what the file is.
        if at < 20 || !random.once_in(6) {
            spoiled.push(line);
        } else {
            spoil_line(line, at, &mut random, &mut spoiled, &mut delayed);
        }
        while delayed.first().is_some_and(|(due, _)| *due <= at) {
            spoiled.push(delayed.remove(0).1);
        }
    }
    if seed.is_multiple_of(4) {
        let at = 20 + random.below(spoiled.len() - 20);
        spoiled.insert(at, [b"{\"long\":\"".as_slice(), &vec![b'x'; 10 * MIB], b"\"}"].concat());
    }
    Log { lines: spoiled, cut: seed.is_multiple_of(2) }
}

fn spoil_line(
    mut line: Vec<u8>,
    at: usize,
    random: &mut Random,
    spoiled: &mut Vec<Vec<u8>>,
    delayed: &mut Vec<(usize, Vec<u8>)>,
) {
    let place = random.below(line.len());
    match random.below(16) {
        0 => line.truncate(place),
        1 => {
            line[place] = loop {
                let byte = random.next() as u8;
                if byte != b'\n' {
                    break byte;
                }
            }
        }
        2 => line.insert(place, 0),
        3 => line.insert(place, 0xff),
        4 => line.push(b'\r'),
        5 => line.extend_from_slice(b" \t\r"),
        6 => {
            spoiled.push(line.clone());
            for _ in 0..random.below(3) {
                spoiled.push(line.clone());
            }
        }
        7 | 8 => {
            delayed.push((at + 1 + random.below(60), line));
            delayed.sort_by_key(|(due, _)| *due);
            return;
        }
        9 => spoiled.push([b"".as_slice(), b" ", b"\r", b"\t \r"][random.below(4)].to_vec()),
        10 => spoiled.push(b"wss://stream.example.com/ws <-> 1633998512.0633569".to_vec()),
        11 => spoiled
            .push([b"null".as_slice(), b"{}", b"[]", b"7", b"\"x\"", b"{\"a\":1}"][random.below(6)].to_vec()),
        12 => {
            let size = ORIGINAL_MAX - 20 + random.below(40);
            spoiled.push([b"{\"n\":\"".as_slice(), "\u{e9}".repeat(size / 2).as_bytes()].concat());
        }
        _ => line = other_value(&line, random),
    }
    spoiled.push(line);
}

/// Puts another value in the place of one of the message's.
fn other_value(line: &[u8], random: &mut Random) -> Vec<u8> {
    const VALUES: [&str; 14] = [
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
        "0",
        "\"0.00\"",
        "-1",
        "\"-0.5\"",
        "\"NaN\"",
        "1e999",
        "\"abc\"",
        "\"1e9\"",
        "1723161413000",
    ];
    let text = String::from_utf8_lossy(line);
    let keys = [
        "b",
        "B",
        "a",
        "A",
        "p",
        "q",
        "T",
        "E",
        "s",
        "u",
        "t",
        "e",
        "price",
        "best_bid",
        "best_ask",
        "time",
        "product_id",
    ];
    let present: Vec<&str> = keys.into_iter().filter(|key| text.contains(&format!("\"{key}\":"))).collect();
    if present.is_empty() {
        return line.to_vec();
    }
    let key = format!("\"{}\":", present[random.below(present.len())]);
    let start = text.find(&key).unwrap() + key.len();
    let end = text[start..].find([',', '}']).map_or(text.len(), |length| start + length);
    format!("{}{}{}", &text[..start], VALUES[random.below(VALUES.len())], &text[end..]).into_bytes()
}

/// Checks the account of a run against its outputs and its input.
#[track_caller]
fn check(ran: &Ran, log: &Log, name: &str) {
    let n = |path: &str| ran.count(path);
    let messages = log.messages();
    let context = format!("{name},{}: {}", ran.shown, ran.summary);

    assert_eq!(n("messages_in"), messages.len() as i64, "{context}");
    let fates = ["messages.rows", "messages.control", "messages.ignored", "messages.deadlettered"].map(n);
    assert_eq!(fates.iter().sum::<i64>(), n("messages_in"), "{context}");
    let rows =
        ["rows.ticks", "rows.applied", "rows.duplicate", "rows.late", "rows.deadlettered", "rows.buffered"]
            .map(n);
    assert_eq!(rows.iter().sum::<i64>(), n("rows_in"), "{context}");
    assert!(fates.iter().chain(&rows).all(|count| *count >= 0), "{context}");
    assert_eq!(n("rows.buffered"), 0, "{context}");
    assert_eq!(n("predictions") + n("refused"), n("rows.ticks"), "{context}");

    let reasons = ran.summary["deadletter"].as_object().unwrap();
    let letters: i64 = reasons.values().map(|count| count.as_i64().unwrap()).sum();
    assert_eq!(letters, n("messages.deadlettered") + n("rows.deadlettered") + n("rows.late"), "{context}");
    assert_eq!(reasons.get("late").map_or(0, |count| count.as_i64().unwrap()), n("rows.late"), "{context}");

    let lines = [
        ("features", "rows.ticks"),
        ("scored", "rows.ticks"),
        ("predictions", "predictions"),
        ("metrics", "samples"),
        ("gaps", "gaps"),
        ("alerts", "alerts"),
    ];
    for (kind, count) in lines {
        assert_eq!(ran.lines(kind).len() as i64, n(count), "{kind} of {context}");
    }

    let records = ran.records("deadletter");
    let mut found = BTreeMap::<&str, i64>::new();
    let mut last = (0, 0);
    for record in &records {
        *found.entry(record["reason"].as_str().unwrap()).or_default() += 1;
        let place = check_letter(record, &messages, name);
        assert!(place > last, "dead letters are not in the order of their log: {record}");
        last = place;
    }
    let told: BTreeMap<&str, i64> =
        reasons.iter().map(|(reason, count)| (reason.as_str(), count.as_i64().unwrap())).collect();
    assert_eq!(found, told, "{context}");
}

/// Checks a dead letter against the line it names; gives line and index.
#[track_caller]
fn check_letter(record: &Value, messages: &BTreeMap<u64, &[u8]>, name: &str) -> (u64, u64) {
    let source = record["source"].as_str().unwrap();
    let parts: Vec<&str> = source.rsplitn(3, '/').collect();
    let (index, line): (u64, u64) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
    assert_eq!(parts[2], name);
    let message = messages.get(&line).unwrap_or_else(|| panic!("there is no message at {source}"));
    assert_eq!(record["length"], message.len(), "{source}");
    let kept = &message[..message.len().min(ORIGINAL_MAX)];
    let original = record["original"].as_str().unwrap();
    let original = match record["encoding"].as_str() {
        Some("utf-8") => original.as_bytes().to_vec(),
        Some("base64") => base64(original),
        other => panic!("{source} has the encoding {other:?}"),
    };
    // The end of a text may be a character that does not fit.
    let missing = kept.len() - original.len();
    assert!(missing < 4, "{source} lacks {missing} bytes");
    assert!(missing == 0 || (record["encoding"] == "utf-8" && message.len() > ORIGINAL_MAX), "{source}");
    assert!(kept.starts_with(&original), "{source}: {record}");
    assert_eq!(record["truncated"], original.len() < message.len(), "{source}");
    let is_text = std::str::from_utf8(kept).is_ok() || missing > 0 || original.is_empty();
    assert_eq!(record["encoding"] == "utf-8", is_text, "{source}");
    assert!(!record["detail"].as_str().unwrap().is_empty(), "{source}");
    (line, index + 1)
}

/// Decodes base64, the plain way.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        held = held << 6 | ALPHABET.iter().position(|known| *known == byte).unwrap() as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

fn strip(lines: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    lines.into_iter().map(|line| line.strip_suffix(b"\n").unwrap().to_vec()).collect()
}

/// Runs a spoiled log in several ways and checks all of them.
fn check_spoiled(lines: &[Vec<u8>], seed: u64, args: &[&str]) -> Ran {
    let log = spoil(lines.to_vec(), seed);
    let name = format!("seed{seed}.log");
    let files = Files::new();
    let path = files.add(&name, log.bytes());
    let run = |workers: usize| {
        let mut backtest = Backtest::of([&path]).workers(workers);
        for arg in args {
            backtest = backtest.arg(arg);
        }
        // Small chunks put the borders between them in many places.
        if seed % 3 == 1 { backtest.env("FORESHOCK_BACKTEST__CHUNK_BYTES", "4KiB") } else { backtest }
    };
    let one = run(1).run();
    check(&one, &log, &name);
    let two = run(2).run();
    check(&two, &log, &name);
    assert_same(&one, &two);
    one
}

#[test]
fn spoiled_recordings_add_up() {
    let usdm = strip(slice("btcusdt-usdm.log.zst"));
    let spot = strip(slice("btcusdt-spot.log.zst"));
    let mut reasons = BTreeMap::<String, i64>::new();
    for seed in 0..12 {
        let (lines, exchange) = if seed % 2 == 0 { (&usdm, "binance-usdm") } else { (&spot, "binance") };
        let ran = check_spoiled(lines, seed, &["--exchange", exchange]);
        for (reason, count) in ran.summary["deadletter"].as_object().unwrap() {
            *reasons.entry(reason.clone()).or_default() += count.as_i64().unwrap();
        }
        assert!(ran.count("rows.duplicate") > 0 && ran.count("messages.control") > 0, "{}", ran.summary);
    }
    let expected = [
        "broken_json",
        "wrong_type",
        "empty",
        "too_large",
        "no_time",
        "time_range",
        "non_finite",
        "not_positive",
        "negative_size",
        "crossed",
        "empty_side",
        "late",
    ];
    for reason in expected {
        assert!(reasons.contains_key(reason), "no dead letter was {reason}: {reasons:?}");
    }
}

#[test]
fn spoiled_feeds_add_up() {
    for seed in 100..110 {
        let messages = Recipe::lively(seed, 1 + (seed % 5) as usize).messages(3_000);
        let lines: Vec<Vec<u8>> = messages.into_iter().map(|message| message.line.into_bytes()).collect();
        let ran = check_spoiled(&lines, seed, &[]);
        assert!(ran.count("rows.late") > 0 && ran.count("rows.ticks") > 1_000, "{}", ran.summary);
    }
}

/// Waiting rows add up too, and are all let go at the end.
#[test]
fn reordered_feeds_add_up() {
    for seed in 200..204 {
        let messages = Recipe::lively(seed, 5).messages(3_000);
        let mut lines: Vec<Vec<u8>> = messages.into_iter().map(|message| message.line.into_bytes()).collect();
        let mut random = Random::new(seed);
        lines[20..].chunks_mut(15).for_each(|part| random.shuffle(part));
        let log = spoil(lines, seed);
        for workers in [1, 2] {
            let backtest = Backtest::of_stdin(log.bytes()).workers(workers);
            check(&backtest.env("FORESHOCK_ORDER__REORDER", "1s").run(), &log, "-");
        }
    }
}

/// An untouched file has no dead letters, and each line that is spoiled in a way that must show adds one.
#[test]
fn each_broken_line_is_one_dead_letter() {
    let mut lines = strip(slice("btcusdt-usdm.log.zst"));
    let mut random = Random::new(1);
    let mut expected = Vec::new();
    for (at, line) in lines.iter_mut().enumerate().skip(20) {
        if random.once_in(50) {
            line.truncate(line.len() - 1 - random.below(10));
            expected.push(format!("cut.log/{}/0", at + 1));
        }
    }
    let log = Log { lines, cut: false };
    let files = Files::new();
    for workers in [1, 2] {
        let ran = Backtest::of([files.add("cut.log", log.bytes())]).workers(workers).run();
        check(&ran, &log, "cut.log");
        let records = ran.records("deadletter");
        let found: Vec<&str> = records.iter().map(|record| record["source"].as_str().unwrap()).collect();
        assert_eq!(found, expected);
        assert_eq!(ran.count("deadletter.broken_json"), expected.len() as i64);
    }
}
