//! What can go wrong for a user: each time a clear message, the right exit status, and no half-written output.

#![cfg(unix)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::feed::{Recipe, file};
use crate::support::random::Random;
use crate::support::{Backtest, Ended, Files, data, finish, foreshock, slice};

const FAILED: i32 = 1;
const MISUSED: i32 = 2;
const USDM: &str = "btcusdt-usdm.log.zst";
const SPOT: &str = "btcusdt-spot.log.zst";

/// A run that must not succeed.
struct Attempt {
    command: Command,
    files: Files,
    input: Option<Vec<u8>>,
}

impl Attempt {
    fn new() -> Attempt {
        let mut command = foreshock();
        command.arg("backtest");
        Attempt { command, files: Files::new(), input: None }
    }

    /// With these bytes in a file of that name.
    fn on(name: &str, bytes: impl AsRef<[u8]>) -> Attempt {
        let mut attempt = Attempt::new();
        let path = attempt.files.add(name, bytes);
        attempt.command.arg(path);
        attempt
    }

    /// On a recorded slice.
    fn on_slice() -> Attempt {
        let mut attempt = Attempt::new();
        attempt.command.arg(data(SPOT));
        attempt
    }

    fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Attempt {
        self.command.arg(arg);
        self
    }

    fn env(mut self, name: &str, text: &str) -> Attempt {
        self.command.env(name, text);
        self
    }

    fn out(&self) -> PathBuf {
        self.files.path().join("out")
    }

    /// Fails with this status and this in the message, and leaves nothing in the folder for outputs.
    #[track_caller]
    fn fails(mut self, status: i32, message: &str) {
        let out = self.out();
        self.command.arg("--out").arg(&out);
        self.fails_without_out(status, message);
    }

    #[track_caller]
    fn fails_without_out(self, status: i32, message: &str) {
        let out = self.out();
        let ended = finish(self.command, self.input);
        check_failure(&ended, status, message);
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "");
        assert_nothing_in(&out);
    }
}

#[track_caller]
fn check_failure(ended: &Ended, status: i32, message: &str) {
    assert!(ended.stderr.contains(message), "{message:?} is not in: {}", ended.stderr);
    assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    assert_eq!(ended.status, Some(status), "{}", ended.stderr);
}

/// Neither finished nor unfinished files.
#[track_caller]
fn assert_nothing_in(folder: &Path) {
    let names = names_in(folder);
    assert!(names.is_empty(), "{names:?} were left");
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn garbage(length: usize) -> Vec<u8> {
    let mut random = Random::new(5);
    (0..length).map(|_| random.next() as u8).collect()
}

// Inputs.

#[test]
fn a_missing_file() {
    Attempt::new().arg("no/such.log").fails(FAILED, "could not open \"no/such.log\": No such file");
    Attempt::on_slice().arg("no/such.log").fails(FAILED, "could not open \"no/such.log\"");
}

#[test]
fn a_file_that_may_not_be_read() {
    let attempt = Attempt::on("secret.log", slice(SPOT).concat());
    let path = attempt.files.path().join("secret.log");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        println!("skipped: this user may read every file");
        return;
    }
    attempt.fails(FAILED, "could not open");
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_cannot_be_read() {
    Attempt::new().arg("/proc/self/mem").fails(FAILED, "could not read \"/proc/self/mem\"");
}

#[test]
fn an_empty_file() {
    Attempt::on("empty.log", "").fails(FAILED, "empty.log\" is empty");
    let blank = "blank.log\" holds nothing but blank lines: there is no message to read";
    Attempt::on("blank.log", "\n\n\n").fails(FAILED, blank);
    Attempt::on("blank.log", "\n\n\n").arg("--format=binance").fails(FAILED, blank);
    let mut attempt = Attempt::new().arg("-");
    attempt.input = Some(Vec::new());
    attempt.fails(FAILED, "standard input is empty");
}

#[test]
fn a_folder_as_input() {
    let attempt = Attempt::new();
    let folder = attempt.files.path().to_owned();
    attempt.arg(folder).fails(FAILED, "is a folder, expected a file");
}

#[test]
fn a_compressed_file_that_was_cut_off() {
    let zstd = fs::read(data(USDM)).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&slice(USDM).concat()).unwrap();
    let gzip = gzip.finish().unwrap();
    for (name, bytes) in [("cut.zst", zstd), ("cut.gz", gzip)] {
        for keep in [bytes.len() / 2, bytes.len() - 1, bytes.len() - 5] {
            for workers in ["1", "2"] {
                let message = format!("{name}\" to its end: ");
                Attempt::on(name, &bytes[..keep]).arg("-w").arg(workers).fails(FAILED, &message);
            }
        }
        Attempt::on(name, &bytes[..8]).fails(FAILED, "could not read");
    }
}

#[test]
fn a_compressed_file_that_is_damaged() {
    let mut bytes = fs::read(data(USDM)).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 16] {
        *byte ^= 0x5a;
    }
    Attempt::on("damaged.zst", bytes).fails(FAILED, "damaged.zst\" to its end: ");
}

#[test]
fn a_file_of_something_else() {
    let formats =
        "pass --format with one of coinbase-exchange, coinbase-advanced-trade, binance, okx, canonical";
    let binary = "garbage.log\" is binary data of a kind that we don't know, which is not read";
    Attempt::on("garbage.log", garbage(100_000)).fails(FAILED, binary);
    Attempt::on("garbage.log", garbage(100_000)).arg("--format=binance").fails(FAILED, binary);
    Attempt::on("unknown.log", "{\"what\":1}\n").fails(FAILED, formats);
    let no_json = "notes.txt\" from its first lines: line 1 is no JSON: \"buy low\"";
    Attempt::on("notes.txt", "buy low\nsell high\n").fails(FAILED, no_json);
    Attempt::on("notes.txt", "buy low\nsell high\n")
        .arg("--format=canonical")
        .fails(FAILED, "notes.txt\" could be read as canonical: line 1 is no JSON: \"buy low\"");
}

#[test]
fn the_wrong_format_or_exchange() {
    Attempt::on_slice()
        .arg("--format=coinbase-exchange")
        .fails(MISUSED, "line 1, looks like binance, not coinbase-exchange; pass --format binance");
    Attempt::on_slice()
        .arg("--exchange=coinbase")
        .fails(MISUSED, "does not go with binance: expected binance, binance-usdm, binance-coinm");
    Attempt::on_slice().arg("--format=csv").fails(MISUSED, "invalid value 'csv' for '--format");
}

/// Lines of spot and of USD-M in one file: neither can be right for all.
#[test]
fn a_file_that_contradicts_itself() {
    let (usdm, spot) = (slice(USDM), slice(SPOT));
    let mixed = [usdm[..3_000].concat(), spot[..500].concat(), usdm[3_000..].concat()].concat();
    for workers in ["1", "2"] {
        let message = "a message of binance in a file of binance-usdm; split it by market, or name the one to keep with --exchange";
        Attempt::on("mixed.log", &mixed).arg("-w").arg(workers).fails(FAILED, message);
    }
    let reversed = [spot.concat(), usdm[..500].concat()].concat();
    let line = spot.len() + 1 + usdm.iter().position(|line| tells_a_market(line)).unwrap();
    let message = format!("\"mixed.log\", line {line}: a message of binance-usdm in a file of binance;");
    Attempt::on("mixed.log", &reversed).arg("-w2").fails(FAILED, &message);
    // Whoever says what it is gets what was asked for.
    let files = Files::new();
    let path = files.add("mixed.log", &mixed);
    let ran = Backtest::of([path]).arg("--exchange=binance-usdm").run();
    assert_eq!(ran.count("messages_in"), 8_160);
    assert_eq!(ran.count("deadletter.other_market"), 500);
    assert_eq!(ran.count("rows.ticks"), 5_444);
}

/// USD-M depth, quotes and trades all show what they are.
fn tells_a_market(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    ["@depth", "@bookTicker", "@trade"].iter().any(|stream| text.contains(stream))
}

// Usage.

#[test]
fn kinds_that_cannot_be_written() {
    Attempt::on_slice().arg("--emit=features,colours").fails(MISUSED, "invalid value 'colours' for '--emit");
    Attempt::on_slice().arg("--emit=").fails(MISUSED, "invalid value '' for '--emit");
    Attempt::on_slice().arg("--emit=features").fails_without_out(MISUSED, "--out <DIR>");
    let attempt = Attempt::on_slice().arg("--emit=features,gaps").arg("--out=-");
    attempt.fails_without_out(MISUSED, "--out - takes a single kind: name it with --emit");
    let attempt = Attempt::on_slice().arg("--out=-");
    attempt.fails_without_out(MISUSED, "--out - takes a single kind: name it with --emit");
}

#[test]
fn arguments_that_make_no_sense() {
    for workers in ["0", "-1", "many", "257"] {
        let message =
            format!("invalid value '{workers}' for '--workers <N>': expected a whole number from 1 to 256");
        Attempt::on_slice().arg(format!("-w={workers}")).fails(MISUSED, &message);
    }
    Attempt::on_slice().arg("--from=yesterday").fails(MISUSED, "expected a time like 2024-08-08T23:55:00Z");
    let backwards = Attempt::on_slice().arg("--from=2024-08-09T00:00:00Z").arg("--to=2024-08-08T00:00:00Z");
    backwards.fails(MISUSED, "--from is not before --to");
    Attempt::new().arg("-").arg("-").fails(MISUSED, "standard input can be read only once");
    Attempt::new().fails(MISUSED, "<FILE>...");
    let ended = finish(foreshock(), None);
    assert_eq!(ended.status, Some(MISUSED), "{}", ended.stderr);
}

#[test]
fn configuration_that_makes_no_sense() {
    Attempt::on_slice().arg("--config=no/such.yaml").fails(MISUSED, "no/such.yaml");
    let attempt = Attempt::on_slice();
    let path = attempt.files.add("my.yaml", "gaps: {afters: 1s}\n");
    attempt.arg("--config").arg(path).fails(MISUSED, "gaps.afters");
    Attempt::on_slice().env("FORESHOCK_GAPS__AFTER", "soon").fails(MISUSED, "FORESHOCK_GAPS__AFTER");
    Attempt::on_slice().env("FORESHOCK_BACKTEST__CHUNK_BYTES", "1KiB").fails(MISUSED, "4KiB to 4MiB");
}

#[test]
fn unknown_instruments_where_only_listed_ones_are_taken() {
    let messages = Recipe::lively(3, 4).messages(2_000);
    let ran = Backtest::of_stdin(file(&messages)).env("FORESHOCK_INSTRUMENTS__UNKNOWN", "deadletter").run();
    assert_eq!(ran.count("rows.ticks") + ran.count("rows.applied"), 0);
    assert_eq!(ran.count("deadletter.unknown_instrument"), ran.count("rows_in"));
    assert!(ran.count("rows_in") > 1_900);
    // The bundled list has this one.
    let ran = Backtest::of([data(SPOT)]).env("FORESHOCK_INSTRUMENTS__UNKNOWN", "deadletter").run();
    assert_eq!(ran.count("rows.ticks"), 1_673);
}

#[test]
fn more_instruments_than_allowed() {
    let message = "more than 3 instruments; raise instruments.max if they are real";
    // All in one chunk, and in many.
    for count in [4, 200, 5_000] {
        for workers in ["1", "2"] {
            let feed = file(&Recipe { dirt: false, ..Recipe::lively(3, 4) }.messages(count.max(40)));
            let attempt = Attempt::on("feed.ndjson", feed).env("FORESHOCK_INSTRUMENTS__MAX", "3");
            let list = attempt.files.add("none.yaml", "instruments: []\n");
            let list = list.display().to_string();
            attempt.env("FORESHOCK_INSTRUMENTS__FILE", &list).arg("-w").arg(workers).fails(FAILED, message);
        }
    }
}

#[test]
fn strict_runs_fail_and_keep_their_outputs() {
    let messages = file(&Recipe::lively(3, 4).messages(2_000));
    let attempt = Attempt::on("feed.ndjson", &messages).arg("--strict").arg("--json");
    let out = attempt.out();
    let mut command = attempt.command;
    command.arg("--out").arg(&out);
    let ended = finish(command, None);
    check_failure(&ended, FAILED, "messages or rows were refused or late, and --strict was given");
    assert_eq!(names_in(&out).len(), 6, "{:?}", names_in(&out));
    let summary: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let refused: i64 = summary["deadletter"].as_object().unwrap().values().map(|n| n.as_i64().unwrap()).sum();
    assert!(refused > 0 && ended.stderr.contains(&format!("error: {refused} ")), "{}", ended.stderr);
    // Without any, it is a success.
    Backtest::of([data(SPOT)]).arg("--strict").run();
}

// Outputs.

#[test]
fn a_folder_for_outputs_that_is_a_file() {
    let mut attempt = Attempt::on_slice();
    let out = attempt.files.add("out", "mine");
    attempt.command.arg("--out").arg(&out);
    check_failure(&finish(attempt.command, None), FAILED, "could not make the folder");
    assert_eq!(fs::read(out).unwrap(), b"mine");
}

/// All names are given, or none.
#[test]
fn an_output_whose_name_is_taken_by_a_folder() {
    let mut attempt = Attempt::on_slice();
    let out = attempt.out();
    fs::create_dir_all(out.join("metrics.ndjson")).unwrap();
    attempt.command.arg("--out").arg(&out);
    let ended = finish(attempt.command, None);
    check_failure(&ended, FAILED, "metrics.ndjson");
    assert_eq!(names_in(&out), ["metrics.ndjson"]);
}

/// A recording cannot be had a second time.
#[test]
fn an_output_that_would_replace_an_input() {
    let lines = slice(SPOT).concat();
    for kinds in ["features", "gaps,features"] {
        let attempt = Attempt::on("out/features.ndjson", &lines).arg("--emit").arg(kinds);
        let (out, path) = (attempt.out(), attempt.files.path().join("out/features.ndjson"));
        let mut command = attempt.command;
        command.arg("--out").arg(out.join("../out"));
        check_failure(&finish(command, None), MISUSED, "features.ndjson\"; choose another --out");
        assert!(fs::read(path).unwrap() == lines, "the input was changed");
        assert_eq!(names_in(&out), ["features.ndjson"]);
    }
    // Beside the outputs it is safe.
    let attempt = Attempt::on("out/features.ndjson", &lines).arg("--emit=gaps");
    let out = attempt.out();
    let mut command = attempt.command;
    command.arg("--out").arg(&out);
    assert_eq!(finish(command, None).status, Some(0));
    assert_eq!(names_in(&out), ["features.ndjson", "gaps.ndjson"]);
}

#[test]
fn outputs_of_a_run_that_failed_leave_those_of_the_run_before() {
    let attempt = Attempt::on("cut.zst", &fs::read(data(USDM)).unwrap()[..100_000]);
    let out = attempt.out();
    let mut before = foreshock();
    before.arg("backtest").arg(data(SPOT)).arg("--out").arg(&out);
    assert_eq!(finish(before, None).status, Some(0));
    let features = fs::read(out.join("features.ndjson")).unwrap();
    let mut command = attempt.command;
    command.arg("--out").arg(&out);
    check_failure(&finish(command, None), FAILED, "to its end");
    assert_eq!(fs::read(out.join("features.ndjson")).unwrap(), features);
    assert_eq!(names_in(&out).len(), 6, "{:?}", names_in(&out));
}

/// The limit on the size of files stands for a full disk: writing fails in the same way.
#[test]
fn a_disk_that_is_full() {
    for (blocks, kinds) in [("8", "features"), ("600", "features,scored"), ("1", "metrics")] {
        let attempt = Attempt::new();
        let out = attempt.out();
        let mut command = Command::new("sh");
        let script = format!("trap '' XFSZ && ulimit -f {blocks} && exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_foreshock"));
        command.arg("backtest").arg(data(USDM)).args(["--emit", kinds, "--out"]).arg(&out);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = finish(command, None);
        check_failure(&ended, FAILED, "could not write to \"");
        assert!(ended.stderr.contains("File too large"), "{}", ended.stderr);
        assert_nothing_in(&out);
    }
}

#[test]
fn a_pipe_that_is_closed_early() {
    let mut command = foreshock();
    command.arg("backtest").arg(data(USDM)).args(["--out", "-", "--emit", "features"]);
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    check_failure(&ended(child), FAILED, "could not write to standard output");
}

#[test]
fn a_summary_that_nobody_takes() {
    let attempt = Attempt::on_slice();
    let out = attempt.out();
    let mut command = attempt.command;
    let mut child = command.arg("--out").arg(&out).spawn().unwrap();
    drop(child.stdout.take());
    check_failure(&ended(child), FAILED, "could not write to standard output");
    assert_eq!(names_in(&out).len(), 6, "the outputs are done all the same");

    let mut command = foreshock();
    let mut child = command.arg("backtest").arg(data(SPOT)).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(FAILED));
}

fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    Ended {
        status: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

// Signals.

/// Interrupted while it waits for more input, with some of it worked through.
#[test]
fn a_signal_in_the_middle() {
    let lines = slice(USDM).concat();
    for signal in ["INT", "TERM"] {
        for workers in ["1", "2"] {
            let attempt = Attempt::new().arg("-").arg("-w").arg(workers);
            let out = attempt.out();
            let mut command = attempt.command;
            command.arg("--out").arg(&out).stdin(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(&lines).unwrap();
            wait_until("something is written", || {
                let sizes = names_in(&out).into_iter().filter(|name| name.contains("features"));
                sizes.filter_map(|name| fs::metadata(out.join(name)).ok()).any(|data| data.len() > 0)
            });
            send(signal, &mut child);
            check_failure(&ended(child), FAILED, "interrupted: no output file was left");
            assert_nothing_in(&out);
            drop(stdin);
        }
    }
}

/// Killed, it can remove nothing itself: the next run into the same folder does, but leaves a living one's files.
#[test]
fn unfinished_files_of_a_killed_run() {
    let lines = slice(USDM).concat();
    let attempt = Attempt::new().arg("-");
    let out = attempt.out();
    let mut command = attempt.command;
    command.arg("--out").arg(&out).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&lines).unwrap();
    let partial = || names_in(&out).into_iter().filter(|name| name.ends_with(".partial")).count();
    wait_until("all files are begun", || partial() == 6);
    let again = || {
        let mut command = foreshock();
        command.args(["backtest", "--emit", "gaps", "--out"]).arg(&out).arg(data(SPOT));
        assert_eq!(finish(command, None).status, Some(0));
    };
    again();
    assert_eq!(partial(), 6, "a living run's files were removed");
    send("KILL", &mut child);
    child.wait().unwrap();
    assert_eq!(partial(), 6);
    again();
    assert_eq!(names_in(&out), ["gaps.ndjson"]);
    drop(stdin);
}

/// Interrupted before anything came.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_while_nothing_comes() {
    for signal in ["INT", "TERM"] {
        let attempt = Attempt::new().arg("-");
        let out = attempt.out();
        let mut command = attempt.command;
        command.arg("--out").arg(&out).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        wait_until("signals are caught", || {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            // Bit n - 1 stands for signal n: 2 is SIGINT, 15 is SIGTERM.
            let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
            caught & (1 << 1) != 0 && caught & (1 << 14) != 0
        });
        send(signal, &mut child);
        check_failure(&ended(child), FAILED, "interrupted: no output file was left");
        assert_nothing_in(&out);
        drop(stdin);
    }
}

/// Sends a signal, and waits until the process has ended by it.
#[track_caller]
fn send(signal: &str, child: &mut Child) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", child.id())).status();
    assert!(sent.unwrap().success());
    wait_until("the signal is obeyed", || child.try_wait().unwrap().is_some());
}

/// Waits for a condition; the limit is only there so that a broken program fails the test.
#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::yield_now();
    }
}
