//! Runs the program from outside, as a user does, and compares what it wrote.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub mod kafka;

pub use foreshock_testkit::{feed, http, process, random};

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use foreshock_operators::outputs::OutputKind;
pub use foreshock_testkit::process::{Ended, finish};
use serde_json::Value;
use tempfile::TempDir;

/// The names of all kinds of output that have files.
pub fn kinds() -> Vec<&'static str> {
    OutputKind::of_files().map(OutputKind::name).collect()
}

/// A file in `tests/data/`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The lines of a recorded slice in `tests/data/`, each with its line break.
pub fn slice(name: &str) -> Vec<Vec<u8>> {
    let file = fs::File::open(data(name)).unwrap();
    let bytes = zstd::decode_all(file).unwrap();
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// The program, untouched by the settings of whoever runs the tests.
pub fn foreshock() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foreshock"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FORESHOCK_") || name == "LOG_LEVEL" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A folder with input files in it.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Files {
        Files(TempDir::new().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and gives its path.
    pub fn add(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// A backtest to run, with all kinds of output.
pub struct Backtest {
    command: Command,
    out: TempDir,
    input: Option<Vec<u8>>,
    shown: String,
}

/// What a backtest left.
pub struct Ran {
    pub summary: Value,
    /// The bytes of every file, by kind.
    pub outputs: BTreeMap<String, Vec<u8>>,
    /// The command, for messages.
    pub shown: String,
}

impl Backtest {
    pub fn of<P: AsRef<OsStr>>(files: impl IntoIterator<Item = P>) -> Backtest {
        let out = TempDir::new().unwrap();
        let mut command = foreshock();
        command.args(["backtest", "--json", "--emit", &kinds().join(","), "--out"]).arg(out.path());
        command.args(files);
        Backtest { command, out, input: None, shown: String::new() }
    }

    /// Of what comes on standard input.
    pub fn of_stdin(input: impl Into<Vec<u8>>) -> Backtest {
        let mut backtest = Backtest::of(["-"]);
        backtest.input = Some(input.into());
        backtest
    }

    pub fn workers(self, workers: usize) -> Backtest {
        self.arg("-w").arg(workers.to_string())
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Backtest {
        self.shown = format!("{} {}", self.shown, arg.as_ref().display());
        self.command.arg(arg);
        self
    }

    pub fn env(mut self, name: &str, text: &str) -> Backtest {
        self.shown = format!("{} {name}={text}", self.shown);
        self.command.env(name, text);
        self
    }

    /// Runs it; it must succeed, and leave every kind and nothing else.
    #[track_caller]
    pub fn run(self) -> Ran {
        let ended = finish(self.command, self.input);
        assert_eq!(ended.status, Some(0), "{}: {}", self.shown, ended.stderr);
        let mut outputs = BTreeMap::new();
        for entry in fs::read_dir(self.out.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let kind =
                name.strip_suffix(".ndjson").unwrap_or_else(|| panic!("found {name} among the outputs"));
            outputs.insert(kind.to_owned(), fs::read(&path).unwrap());
        }
        let found: Vec<&str> = outputs.keys().map(String::as_str).collect();
        let mut expected = kinds();
        expected.sort_unstable();
        assert_eq!(found, expected, "{}", self.shown);
        let summary = serde_json::from_slice(&ended.stdout).unwrap();
        Ran { summary, outputs, shown: self.shown }
    }
}

impl Ran {
    /// A number of the summary, by the names on the way to it, dots between.
    #[track_caller]
    pub fn count(&self, path: &str) -> i64 {
        let value = path.split('.').fold(&self.summary, |value, name| &value[name]);
        value.as_i64().unwrap_or_else(|| panic!("no {path} in {}", self.summary))
    }

    /// The summary without what differs from run to run.
    pub fn account(&self) -> Value {
        let mut account = self.summary.clone();
        let fields = account.as_object_mut().unwrap();
        for name in ["rows_per_worker", "seconds", "ticks_per_second", "peak_rss_bytes"] {
            assert!(fields.remove(name).is_some(), "no {name} in the summary");
        }
        account
    }

    /// The lines of one kind.
    #[track_caller]
    pub fn lines(&self, kind: &str) -> Vec<&str> {
        std::str::from_utf8(&self.outputs[kind]).unwrap().lines().collect()
    }

    /// The lines of one kind as JSON.
    #[track_caller]
    pub fn records(&self, kind: &str) -> Vec<Value> {
        self.lines(kind).into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Each instrument's lines of each kind, in their order; dead letters, which have no instrument, by the
    /// `product_id` of their original and without their source.
    pub fn by_instrument(&self) -> BTreeMap<(String, String), Vec<String>> {
        let mut lines = BTreeMap::<(String, String), Vec<String>>::new();
        for kind in kinds() {
            for (line, mut record) in self.lines(kind).into_iter().zip(self.records(kind)) {
                let (instrument, text) = if kind == "deadletter" {
                    let original = record["original"].as_str().unwrap();
                    let original: Value = serde_json::from_str(original).unwrap();
                    record.as_object_mut().unwrap().remove("source");
                    (original["product_id"].as_str().unwrap().to_owned(), record.to_string())
                } else {
                    (record["instrument"].as_str().unwrap().to_owned(), line.to_owned())
                };
                lines.entry((instrument, kind.to_owned())).or_default().push(text);
            }
        }
        lines
    }
}

/// Asserts that two runs wrote the same bytes and came to the same account.
#[track_caller]
pub fn assert_same(one: &Ran, other: &Ran) {
    for kind in kinds() {
        let names = format!("{kind}.ndjson of{} and of{}", one.shown, other.shown);
        assert_same_text(&one.outputs[kind], &other.outputs[kind], &names);
    }
    assert_eq!(one.account(), other.account(), "the account of{} and of{}", one.shown, other.shown);
}

/// Asserts that two files are the same, and shows the first line in which they differ.
#[track_caller]
pub fn assert_same_text(one: &[u8], other: &[u8], what: &str) {
    if one == other {
        return;
    }
    let lines = |bytes: &[u8]| -> Vec<String> {
        bytes
            .split_inclusive(|b| *b == b'\n')
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect()
    };
    let (one, other) = (lines(one), lines(other));
    let same = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let show = |lines: &[String]| lines.get(same).map_or("(the end)\n".to_owned(), String::clone);
    panic!("{what}: line {} differs:\n  {}  {}", same + 1, show(&one), show(&other));
}
