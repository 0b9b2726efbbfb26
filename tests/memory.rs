//! Memory stays what it was, however long the log.

#![cfg(target_os = "linux")]

use std::io::{self, BufWriter, Write};
use std::process::Stdio;
use std::thread;

use serde_json::Value;

use crate::support::feed::{Feed, Fullest, Recipe};
use crate::support::{Backtest, foreshock};

const MB: i64 = 1_000_000;

/// What limits are, in bytes.
const PER_INSTRUMENT: i64 = 64 * 1024;
const PER_TICK: i64 = 40;
const PROCESS: i64 = 60 * MB;

/// Runs messages through the program without ever holding them; gives the summary.
fn run(recipe: Recipe, messages: usize, args: &[&str], settings: &[(&str, &str)]) -> Value {
    let mut command = foreshock();
    command.args(["backtest", "-", "--json"]).args(args).envs(settings.iter().copied());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    let feeder = thread::spawn(move || {
        let mut writer = BufWriter::with_capacity(1 << 20, stdin);
        for message in Feed::new(recipe).take(messages) {
            writer.write_all(message.line.as_bytes()).unwrap();
            writer.write_all(b"\n").unwrap();
        }
        writer.flush().unwrap();
    });
    let mut stdout = child.stdout.take().unwrap();
    let to_stdout = args.contains(&"-");
    let mut text = Vec::new();
    if to_stdout {
        io::copy(&mut stdout, &mut io::sink()).unwrap();
        io::copy(&mut child.stderr.take().unwrap(), &mut text).unwrap();
    } else {
        io::copy(&mut stdout, &mut text).unwrap();
    }
    feeder.join().unwrap();
    assert!(child.wait().unwrap().success());
    let summary: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(summary["messages_in"], messages);
    summary
}

fn peak(summary: &Value) -> i64 {
    let peak = summary["peak_rss_bytes"].as_i64().unwrap();
    assert!(peak > MB, "{summary}");
    peak
}

/// A feed whose windows are as full in the end as they are early on.
fn steady(products: usize) -> Recipe {
    Recipe { dirt: false, silences: false, ..Recipe::lively(21, products) }
}

#[test]
fn three_times_the_rows_take_no_more_memory() {
    for args in [&["-w", "2"][..], &["-w", "2", "--out", "-", "--emit", "scored"]] {
        let short = peak(&run(steady(20), 150_000, args, &[]));
        let long = peak(&run(steady(20), 450_000, args, &[]));
        assert!(long - short < 20 * MB, "{args:?}: {short} bytes, then {long}");
    }
}

/// The same feed with short windows and with one that holds nearly all of its ticks: the difference is what the
/// ticks cost.
#[test]
fn a_tick_in_a_long_window_costs_little() {
    const PRODUCTS: i64 = 20;
    const MESSAGES: usize = 400_000;
    let windows = |window: &'static str, horizons: &'static str| {
        let settings =
            [("FORESHOCK_FEATURES__WINDOW", window), ("FORESHOCK_FEATURES__RETURN_HORIZONS", horizons)];
        run(steady(PRODUCTS as usize), MESSAGES, &["-w", "1"], &settings)
    };
    let short = windows("1s", "5s");
    let long = windows("24h", "5s,24h");
    let ticks = long["rows"]["ticks"].as_i64().unwrap();
    let (cost, limit) = (peak(&long) - peak(&short), PRODUCTS * PER_INSTRUMENT + ticks * PER_TICK);
    assert!(cost < limit, "{cost} bytes for {ticks} ticks of {PRODUCTS} instruments: at most {limit}");
    // And it does hold them: two numbers a tick at the least.
    assert!(cost > 16 * ticks, "{cost} bytes for {ticks} ticks");
}

/// Many instruments cost what few do, each.
#[test]
fn an_instrument_costs_little() {
    const MANY: i64 = 900;
    let recipe = |products| Recipe { pace: 2_000_000, ..steady(products) };
    let few = run(recipe(10), 90_000, &["-w", "1"], &[]);
    let many = run(recipe(MANY as usize), 90_000, &["-w", "1"], &[]);
    let cost = peak(&many) - peak(&few);
    assert!(cost < MANY * PER_INSTRUMENT, "{cost} bytes for {MANY} instruments");
    assert!(cost > 0, "{cost} bytes for {MANY} instruments");
}

/// The whole process, with windows of ticks and of seconds that are all full.
#[test]
fn many_instruments_stay_within_what_is_promised() {
    const INSTRUMENTS: usize = 1_000;
    const MESSAGES: usize = 600 * INSTRUMENTS;
    let recipe = Recipe::tickers_only(5, INSTRUMENTS, 1.0);
    let mut fullest = Fullest::default();
    Feed::new(recipe).take(MESSAGES).for_each(|message| fullest.add(&message));
    let limit = PROCESS + INSTRUMENTS as i64 * PER_INSTRUMENT + fullest.ticks() as i64 * PER_TICK;
    for workers in ["1", "2"] {
        let peak = peak(&run(recipe, MESSAGES, &["-w", workers], &[]));
        assert!(
            peak < limit,
            "{peak} bytes for {INSTRUMENTS} instruments, {workers} workers: at most {limit}"
        );
    }
}

/// Lines far shorter than messages: blocks are cut by lines, and what is left of the bytes read must not pile up.
#[test]
fn many_short_lines_take_no_more_memory_than_few() {
    let peak_of = |lines: usize| {
        let mut input = Recipe { dirt: false, ..steady(1) }.messages(1).remove(0).line.into_bytes();
        input.resize(input.len() + lines, b'\n');
        let ran = Backtest::of_stdin(input).workers(1).env("FORESHOCK_BACKTEST__CHUNK_BYTES", "4MiB").run();
        assert_eq!(ran.count("messages_in"), 1);
        ran.count("peak_rss_bytes")
    };
    let (few, many) = (peak_of(10_000_000), peak_of(60_000_000));
    assert!(many - few < 20 * MB, "{few} bytes, then {many}");
}
