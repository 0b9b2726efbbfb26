//! `alerts.yaml`: the alert rules.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use foreshock_operators::rules::{Critical, Direction, Rule};
use foreshock_operators::stages::{Metric, Priority, Signal};
use foreshock_operators::time::Nanos;

use crate::documents::duration::LONGEST;
use crate::documents::error::ConfigErrors;
use crate::documents::file::Document;
use crate::documents::kind::{Charset, NumberRange, Setting, ValueKind};
use crate::documents::section::{Report, Section};
use crate::documents::yaml::Value;

/// What a rule may look at.
static SIGNALS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    Metric::ALL.iter().map(|metric| metric.name()).chain([Signal::Probability.name()]).collect()
});

/// Reads and checks the rules.
pub fn read(document: &Document) -> Result<Vec<Rule>, ConfigErrors> {
    let report = Report::new(document.name.clone());
    let mut rules: Vec<Rule> = Vec::new();
    let node = report.parse(document);
    if let Some(mut root) = node.as_ref().and_then(|node| Section::open(&report, "", node.line, node)) {
        let mut seen = BTreeMap::new();
        for mut section in root.sections("rules") {
            let rule = rule(&mut section);
            let earlier = seen.insert(rule.name.clone(), section.line());
            if let Some(line) = earlier.filter(|_| !rule.name.is_empty()) {
                section.refuse("name", format!("found {:?} a second time, first at line {line}", rule.name));
            }
            rules.push(rule);
            section.finish();
        }
        root.finish();
    }
    let errors = report.into_errors();
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

fn rule(section: &mut Section) -> Rule {
    let name = section.text("name", Charset::Name);
    let signal = match section.required("metric", ValueKind::Choice(&SIGNALS)) {
        Some(Setting::Word(word)) => signal(word),
        _ => Signal::Probability,
    };
    let instruments = patterns(section);
    let priority = match section.required("priority", ValueKind::Choice(&["P1", "P2", "P3"])) {
        Some(Setting::Word("P1")) => Priority::P1,
        Some(Setting::Word("P2")) => Priority::P2,
        _ => Priority::P3,
    };
    let (direction, raise) = raise(section);
    let clear = section.number("clear", NumberRange::Any);
    if !is_quiet(direction, clear, raise) {
        let side = if direction == Direction::Above { "at or below" } else { "at or above" };
        section.refuse("clear", format!("found {clear}, expected a level {side} the raise level {raise}"));
    }
    let zscore = section.optional_number("zscore", NumberRange::Positive);
    if zscore.is_some() && signal == Signal::Probability {
        section.refuse("zscore", "found with the metric probability, which has no z-score");
    }
    let critical = critical(section, direction, raise, priority);
    let mut length = |key| section.duration(key, 0, LONGEST).unwrap_or(0);
    let (hold, resolve_for, cooldown) = (length("for"), length("resolve_for"), length("cooldown"));
    let enabled = section.flag("enabled").unwrap_or(true);
    Rule {
        name: name.into(),
        signal,
        instruments,
        priority,
        direction,
        raise,
        clear,
        zscore,
        critical,
        hold,
        resolve_for,
        cooldown,
        enabled,
    }
}

fn signal(word: &str) -> Signal {
    let metric = Metric::ALL.into_iter().find(|metric| metric.name() == word);
    metric.map_or(Signal::Probability, Signal::Metric)
}

/// Whether `level` lies on the quiet side of `raise`, or on it.
fn is_quiet(direction: Direction, level: f64, raise: f64) -> bool {
    match direction {
        Direction::Above => level <= raise,
        Direction::Below => level >= raise,
    }
}

fn patterns(section: &mut Section) -> Vec<String> {
    let Some(node) = section.node("instruments") else {
        return vec!["*:*".to_owned()];
    };
    let items = match &node.value {
        Value::List(items) if !items.is_empty() => items,
        found => {
            section.refuse(
                "instruments",
                format!("found {found}, expected a list of patterns such as [\"binance:*\"]"),
            );
            return Vec::new();
        }
    };
    let mut patterns = Vec::new();
    for item in items {
        match ValueKind::Text(Charset::Pattern).read(&item.value) {
            Ok(Setting::Text(pattern)) => patterns.push(pattern),
            Ok(_) => {}
            Err(problem) => section.refuse("instruments", problem),
        }
    }
    patterns
}

fn raise(section: &mut Section) -> (Direction, f64) {
    let Some(mut levels) = section.section("raise") else {
        if section.node("raise").is_none() {
            section.refuse("raise", "missing, expected above: LEVEL or below: LEVEL inside it");
        }
        return (Direction::Above, f64::INFINITY);
    };
    let above = levels.optional_number("above", NumberRange::Any);
    let below = levels.optional_number("below", NumberRange::Any);
    let named = levels.keys().filter(|key| ["above", "below"].contains(key)).count();
    levels.finish();
    if named != 1 {
        section.refuse("raise", "expected either above: LEVEL or below: LEVEL inside it");
    }
    match (above, below) {
        (_, Some(level)) => (Direction::Below, level),
        (Some(level), None) => (Direction::Above, level),
        (None, None) => (Direction::Above, f64::INFINITY),
    }
}

fn critical(section: &mut Section, direction: Direction, raise: f64, priority: Priority) -> Option<Critical> {
    let mut inner = section.section("critical")?;
    let level = inner.number("level", NumberRange::Any);
    let hold: Nanos = inner.duration("for", 0, LONGEST).unwrap_or(0);
    if raise.is_finite() && is_quiet(direction, level, raise) {
        let side = if direction == Direction::Above { "above" } else { "below" };
        inner.refuse("level", format!("found {level}, expected a level {side} the raise level {raise}"));
    }
    inner.finish();
    if priority != Priority::P2 {
        let problem = format!("found with priority {}, but only P2 alerts become P1", priority.name());
        section.refuse("critical", problem);
    }
    Some(Critical { level, hold })
}
