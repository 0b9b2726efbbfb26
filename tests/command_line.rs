//! What `--help` says stands in docs/command-line.md.
//!
//! `UPDATE_GOLDEN=1 cargo test --release --test outside command_line::` writes that part of it anew.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::support::{finish, foreshock};

const DOCUMENT: &str = "docs/command-line.md";

/// Commands, and those below them.
const COMMANDS: [&[&str]; 14] = [
    &["run"],
    &["launch"],
    &["demo"],
    &["backtest"],
    &["replay"],
    &["control"],
    &["control", "model"],
    &["control", "rules"],
    &["lag"],
    &["state"],
    &["state", "list"],
    &["state", "inspect"],
    &["state", "verify"],
    &["check-config"],
];

fn help(command: &[&str]) -> String {
    let mut asked = foreshock();
    asked.args(command).arg("--help");
    let ended = finish(asked, None);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    String::from_utf8(ended.stdout).unwrap()
}

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<&str> {
    let (_, rest) = help.split_once("Commands:\n").unwrap_or_default();
    let lines = rest.lines().take_while(|line| !line.is_empty());
    lines
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

#[test]
fn every_command_is_documented() {
    for (above, below) in [(&[] as &[&str], 1), (&["control"], 2), (&["state"], 2)] {
        let help = help(above);
        let known = COMMANDS.iter().filter(|command| command.len() == below && command.starts_with(above));
        let known: Vec<&str> = known.filter_map(|command| command.last().copied()).collect();
        assert_eq!(listed(&help), known, "{help}");
    }
}

#[test]
fn the_document_says_what_help_says() {
    let mut texts = String::new();
    for command in COMMANDS {
        let name = command.join(" ");
        let text = help(command);
        let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
        write!(texts, "\n### `foreshock {name}`\n\n```\n{}\n```\n", lines.join("\n")).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let document = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- help -->\n", "<!-- end of help -->");
    let (head, rest) = document.split_once(begin).unwrap();
    let (found, tail) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, format!("{head}{begin}{texts}{end}{tail}")).unwrap();
        return;
    }
    assert_eq!(found, texts, "{DOCUMENT} is out of date: UPDATE_GOLDEN=1 writes it anew");
}
