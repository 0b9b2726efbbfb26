//! A folder per case under `tests/golden/`: `input.ndjson`, perhaps a `config.yaml`, and what a backtest makes of
//! them in `expected/`. `UPDATE_GOLDEN=1 cargo test --release golden::` rewrites that; read the diff.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Backtest, Ran, assert_same_text, kinds};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn run(case: &Path, workers: usize) -> Ran {
    let backtest = Backtest::of([case.join("input.ndjson")]).workers(workers);
    let config = case.join("config.yaml");
    if config.exists() { backtest.arg("--config").arg(config).run() } else { backtest.run() }
}

#[track_caller]
fn check(name: &str) {
    let case = folder().join(name);
    let ran = run(&case, 2);
    let account = serde_json::to_string_pretty(&ran.account()).unwrap() + "\n";
    let mut found = vec![("account.json".to_owned(), account.into_bytes())];
    found.extend(kinds().into_iter().map(|kind| (format!("{kind}.ndjson"), ran.outputs[kind].clone())));
    let expected = case.join("expected");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&expected).unwrap();
        for (file, bytes) in &found {
            fs::write(expected.join(file), bytes).unwrap();
        }
    }
    for (file, bytes) in &found {
        let path = expected.join(file);
        let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_same_text(&golden, bytes, &format!("{name}/expected/{file} and what was found"));
    }
}

/// Our own messages of two instruments, with small windows: gaps, duplicates, late rows, refusals of most
/// reasons, alerts through all their states.
#[test]
fn canonical() {
    check("canonical");
}

/// A Coinbase session with the bundled settings but a short warm-up, scored by the baseline: control messages,
/// messages of no use, trades from one channel only.
#[test]
fn coinbase() {
    check("coinbase");
}

/// Rows up to a second out of order, put back in order; what comes later still is refused.
#[test]
fn reordered() {
    check("reordered");
}

/// A folder that no test looks at tells nothing.
#[test]
fn every_folder_has_a_test() {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["canonical", "coinbase", "reordered"]);
}
