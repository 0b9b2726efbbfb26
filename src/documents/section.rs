//! Reads sections key by key, and collects all that is wrong with them.

use std::cell::RefCell;
use std::sync::Arc;

use foreshock_operators::time::Nanos;

use super::error::{ConfigErrors, Origin};
use super::file::Document;
use super::kind::{Charset, NumberRange, Setting, ValueKind};
use super::suggest;
use super::yaml::{self, Node, Value, YamlKey};

/// What is wrong with one file, so far.
pub struct Report {
    file: Arc<str>,
    errors: RefCell<ConfigErrors>,
}

impl Report {
    /// An empty report on the file of this name.
    pub fn new(file: Arc<str>) -> Report {
        Report { file, errors: RefCell::default() }
    }

    /// Notes what is wrong at a line and key.
    pub fn add(&self, line: u32, path: &str, problem: impl Into<String>) {
        let origin = Origin::File { name: self.file.clone(), line };
        self.errors.borrow_mut().add(origin, path, problem);
    }

    /// All that was noted.
    pub fn into_errors(self) -> ConfigErrors {
        let mut sorted = ConfigErrors::default();
        sorted.absorb(self.errors.into_inner());
        sorted
    }

    /// Reads the document as YAML; `None` where it is none, which is noted.
    pub fn parse(&self, document: &Document) -> Option<Node> {
        let text = std::str::from_utf8(&document.bytes).map_err(|error| {
            let line = document.bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            self.add(line as u32, "", "found bytes that are not UTF-8");
        });
        yaml::parse(text.ok()?).map_err(|error| self.add(error.line, "", error.problem)).ok()
    }
}

/// A section that is being read: each key is asked for once, and those nobody asked for are refused.
pub struct Section<'a> {
    report: &'a Report,
    /// The keys that lead here, each followed by a dot.
    prefix: String,
    line: u32,
    entries: &'a [(YamlKey, Node)],
    asked: Vec<&'static str>,
    /// Whether any key is right.
    open: bool,
}

impl<'a> Section<'a> {
    /// Opens a section; `None`, noted, where the node is none.
    pub fn open(report: &'a Report, path: &str, line: u32, node: &'a Node) -> Option<Section<'a>> {
        let Value::Map(entries) = &node.value else {
            report.add(line, path, format!("found {}, expected a section of keys and values", node.value));
            return None;
        };
        let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
        for (at, (key, _)) in entries.iter().enumerate() {
            if let Some((first, _)) = entries[..at].iter().find(|(earlier, _)| earlier.name == key.name) {
                let path = format!("{prefix}{}", key.name);
                report.add(key.line, &path, format!("found a second time, first at line {}", first.line));
            }
        }
        Some(Section { report, prefix, line, entries, asked: Vec::new(), open: false })
    }

    /// The line the section starts on.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Notes what is wrong with one of its values.
    pub fn refuse(&self, key: &str, problem: impl Into<String>) {
        let line = self.entries.iter().find(|(k, _)| k.name == key).map_or(self.line, |(k, _)| k.line);
        self.report.add(line, &format!("{}{key}", self.prefix), problem);
    }

    /// The value of a key, unchecked.
    pub fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.entries.iter().find(|(k, _)| k.name == key).map(|(_, node)| node)
    }

    /// The value of a key that may be left out; `None` too where it is refused.
    pub fn optional(&mut self, key: &'static str, kind: ValueKind) -> Option<Setting> {
        let node = self.node(key)?;
        kind.read(&node.value).map_err(|problem| self.refuse(key, problem)).ok()
    }

    /// The value of a key that must be there.
    pub fn required(&mut self, key: &'static str, kind: ValueKind) -> Option<Setting> {
        if self.entries.iter().all(|(k, _)| k.name != key) {
            self.refuse(key, format!("missing, expected {kind}"));
        }
        self.optional(key, kind)
    }

    /// A text that must be there; empty where it is refused.
    pub fn text(&mut self, key: &'static str, charset: Charset) -> String {
        match self.required(key, ValueKind::Text(charset)) {
            Some(Setting::Text(text)) => text,
            _ => String::new(),
        }
    }

    /// A number that must be there; 0 where it is refused.
    pub fn number(&mut self, key: &'static str, range: NumberRange) -> f64 {
        match self.required(key, ValueKind::Number(range)) {
            Some(Setting::Number(v)) => v,
            _ => 0.0,
        }
    }

    /// A number that may be left out.
    pub fn optional_number(&mut self, key: &'static str, range: NumberRange) -> Option<f64> {
        match self.optional(key, ValueKind::Number(range)) {
            Some(Setting::Number(v)) => Some(v),
            _ => None,
        }
    }

    /// A duration that may be left out.
    pub fn duration(&mut self, key: &'static str, min: Nanos, max: Nanos) -> Option<Nanos> {
        match self.optional(key, ValueKind::Duration { min, max, words: &[] }) {
            Some(Setting::Duration(length)) => Some(length),
            _ => None,
        }
    }

    /// One of these words, which may be left out.
    pub fn choice(&mut self, key: &'static str, words: &'static [&'static str]) -> Option<&'static str> {
        match self.optional(key, ValueKind::Choice(words)) {
            Some(Setting::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// True or false, which may be left out.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.optional(key, ValueKind::Bool) {
            Some(Setting::Bool(v)) => Some(v),
            _ => None,
        }
    }

    /// A section within this one, which may be left out.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let node = self.node(key)?;
        let line = self.entries.iter().find(|(k, _)| k.name == key).map_or(self.line, |(k, _)| k.line);
        Section::open(self.report, &format!("{}{key}", self.prefix), line, node)
    }

    /// The sections of a list that must be there.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let path = format!("{}{key}", self.prefix);
        match self.node(key).map(|node| &node.value) {
            Some(Value::List(items)) => items
                .iter()
                .enumerate()
                .filter_map(|(at, item)| {
                    Section::open(self.report, &format!("{path}[{at}]"), item.line, item)
                })
                .collect(),
            found => {
                let found = found.map_or("missing".to_owned(), |value| format!("found {value}"));
                self.refuse(key, format!("{found}, expected a list"));
                Vec::new()
            }
        }
    }

    /// Checks the values of all keys, whatever they are called.
    pub fn each(&mut self, kind: ValueKind) {
        for (key, node) in self.entries {
            if let Err(problem) = kind.read(&node.value) {
                self.report.add(key.line, &format!("{}{}", self.prefix, key.name), problem);
            }
        }
        self.open = true;
    }

    /// The keys that are there, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.entries.iter().map(|(key, _)| key.name.as_str())
    }

    /// Refuses the keys that nobody asked for.
    pub fn finish(self) {
        let known = |key: &YamlKey| self.open || self.asked.contains(&key.name.as_str());
        for (key, _) in self.entries.iter().filter(|(key, _)| !known(key)) {
            let path = format!("{}{}", self.prefix, key.name);
            let hint = suggest::hint(&key.name, self.asked.iter().copied());
            let problem = format!("unknown key, expected one of {}{hint}", self.asked.join(", "));
            self.report.add(key.line, &path, problem);
        }
    }
}
