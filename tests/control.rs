//! Control records in recorded files: they take effect at their line, for any number of workers and chunks of any
//! size; and the records that `foreshock control` makes.

use foreshock::config::{Config, Mode};
use foreshock_dataflows::control::settings_record;
use foreshock_dataflows::settings::Settings;
use serde_json::Value;

use crate::support::{Backtest, Files, Ran, assert_same, feed, finish, foreshock};

/// The bundled model with another version and weight.
fn other_model() -> String {
    let bundled = include_str!("../config/models/logistic.yaml");
    let other = bundled.replace("version: \"1\"", "version: \"2\"").replace("weight: 800", "weight: 900");
    assert!(other.contains("version: \"2\"") && other.contains("weight: 900"));
    other
}

/// A rule that every prediction breaks.
const ALWAYS: &str = "rules:\n  - name: always\n    metric: probability\n    priority: P3\n    raise: {above: 0}\n    clear: -1\n";

/// The record that the command makes of a file.
#[track_caller]
fn record(files: &Files, kind: &str, name: &str, text: &str, id: &str) -> String {
    let mut command = foreshock();
    command.args(["control", kind, "--dry-run", "--id", id]).arg(files.add(name, text));
    let ended = finish(command, None);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    String::from_utf8(ended.stdout).unwrap().trim_end().to_owned()
}

fn feed_lines(count: usize) -> Vec<String> {
    feed::Recipe::lively(11, 6).messages(count).into_iter().map(|message| message.line).collect()
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[track_caller]
fn run(files: &Files, name: &str, lines: &[String]) -> Ran {
    Backtest::of([files.add(name, text(lines))]).workers(1).run()
}

#[test]
fn a_model_record_changes_the_model_at_its_line_for_any_number_of_workers() {
    let files = Files::new();
    let lines = feed_lines(6_000);
    let at = 3_210;
    let mut changed = lines.clone();
    changed.insert(at, record(&files, "model", "other.yaml", &other_model(), "m2"));
    let path = files.add("changed.ndjson", text(&changed));
    let backtest = |workers, chunk: &str| {
        Backtest::of([&path]).workers(workers).env("FORESHOCK_BACKTEST__CHUNK_BYTES", chunk).run()
    };
    let ran = backtest(1, "4MiB");
    for (workers, chunk) in [(1, "64KiB"), (2, "64KiB"), (2, "4MiB"), (3, "64KiB")] {
        assert_same(&ran, &backtest(workers, chunk));
    }

    let model = files.add("other.yaml", other_model());
    let path = files.add("plain.ndjson", text(&lines));
    let before = Backtest::of([&path]).run();
    let after = Backtest::of([&path]).env("FORESHOCK_MODEL__ML", model.to_str().unwrap()).run();
    let ticks = run(&files, "head.ndjson", &lines[..at]).lines("predictions").len();
    assert!(ticks > 100 && ticks + 100 < before.lines("predictions").len());
    let expected = [&before.lines("predictions")[..ticks], &after.lines("predictions")[ticks..]].concat();
    assert!(ran.lines("predictions") == expected, "each prediction is by the model in force at its line");
    assert_eq!(ran.outputs["features"], before.outputs["features"]);
    assert_eq!(ran.outputs["metrics"], before.outputs["metrics"]);
    assert_eq!(ran.count("messages.control"), before.count("messages.control") + 1);
}

#[test]
fn rules_records_raise_and_end_alerts_at_their_lines() {
    let files = Files::new();
    let mut lines = feed_lines(3_000);
    lines.insert(2_000, record(&files, "rules", "none.yaml", "rules: []\n", "r2"));
    lines.insert(1_000, record(&files, "rules", "always.yaml", ALWAYS, "r1"));
    let ran = run(&files, "rules.ndjson", &lines);
    let alerts = ran.records("alerts");
    let of_rule: Vec<&Value> = alerts.iter().filter(|alert| alert["rule"] == "always").collect();
    let told = |reason: &str| of_rule.iter().filter(|alert| alert["reason"] == reason).count();
    assert!(told("raised") > 0);
    assert_eq!(told("reconfigured"), told("raised"), "what was raised is resolved");
    let path = files.path().join("rules.ndjson");
    assert_same(&ran, &Backtest::of([path]).workers(2).env("FORESHOCK_BACKTEST__CHUNK_BYTES", "64KiB").run());
}

#[test]
fn a_broken_record_is_a_dead_letter_and_the_same_id_counts_once() {
    let files = Files::new();
    let mut lines = feed_lines(300);
    let model = record(&files, "model", "other.yaml", &other_model(), "m");
    lines.insert(200, r#"{"type":"control","id":"d","kind":"disconnect"}"#.to_owned());
    lines.insert(150, model.clone());
    lines.insert(100, model);
    let ran = run(&files, "broken.ndjson", &lines);
    assert_eq!(ran.count("deadletter.bad_control"), 1);
    let letter =
        ran.records("deadletter").into_iter().find(|letter| letter["reason"] == "bad_control").unwrap();
    assert_eq!(letter["source"], "broken.ndjson/203/0");
    assert!(letter["detail"].as_str().unwrap().contains("disconnect"), "{letter}");
    let off = Backtest::of([files.path().join("broken.ndjson")]).env("FORESHOCK_JOB__CONTROL", "off").run();
    assert!(off.records("predictions").iter().all(|prediction| prediction["model_version"] == "1"));
    assert_eq!(off.count("messages.control"), ran.count("messages.control") + 1);
}

#[test]
fn settings_that_change_instruments_end_a_backtest() {
    let settings = Config::load(&[], [], Mode::Backtest).unwrap().settings;
    let mut other = Settings::clone(&settings);
    other.instruments.max += 1;
    let files = Files::new();
    let mut lines = feed_lines(200);
    lines.insert(50, String::from_utf8(settings_record("s", &other)).unwrap());
    let path = files.add("settings.ndjson", text(&lines));
    let mut command = foreshock();
    command.arg("backtest").arg(&path);
    let ended = finish(command, None);
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("settings.ndjson\", line 51: control record \"s\""), "{}", ended.stderr);
    assert_eq!(settings.fingerprint().len(), 64);
    assert_ne!(settings.fingerprint(), other.fingerprint());
}

#[test]
fn the_command_refuses_what_jobs_would_refuse() {
    let files = Files::new();
    let broken =
        files.add("broken.yaml", other_model().replace("decision_threshold: ", "decision_threshold: 7"));
    let mut command = foreshock();
    command.args(["control", "model", "--dry-run"]).arg(broken);
    let ended = finish(command, None);
    assert_ne!(ended.status, Some(0));
    assert!(ended.stderr.contains("decision_threshold"), "{}", ended.stderr);

    let mut command = foreshock();
    command.args(["control", "rules", "--dry-run"]).arg(files.add("rules.yaml", ALWAYS));
    command.env("FORESHOCK_JOB__CONTROL", "off");
    let ended = finish(command, None);
    assert_eq!(ended.status, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("job.control is off"), "{}", ended.stderr);
}
