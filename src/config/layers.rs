//! Values by key: the defaults, then files, then the environment; the later wins, key by key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foreshock_operators::time::Nanos;

use super::keys::{self, ConfigKey, KEYS};
use crate::documents::error::{ConfigErrors, Origin};
use crate::documents::file::{Document, FileRef};
use crate::documents::kind::{Setting, ValueKind};
use crate::documents::section::Report;
use crate::documents::suggest;
use crate::documents::yaml::{Node, Value};

/// Variables that have a short name besides.
const SHORT_NAMES: [(&str, &str); 2] = [("MODEL_VARIANT", "model.variant"), ("LOG_LEVEL", "log.level")];

/// A value in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    pub setting: Setting,
    /// As it was written; a file's path as it was resolved.
    pub shown: Value,
    pub origin: Origin,
    /// Where relative paths start.
    folder: PathBuf,
}

/// The values so far.
#[derive(Debug, Default)]
pub struct Layers {
    values: BTreeMap<&'static str, Effective>,
    /// Keys that had a bad value in some layer: no conclusions are drawn from what they have left.
    failed: BTreeSet<&'static str>,
    pub errors: ConfigErrors,
}

impl Layers {
    /// Lays a file over the values.
    pub fn apply_file(&mut self, file: &FileRef, document: &Document) {
        let report = Report::new(document.name.clone());
        let folder = match file {
            FileRef::OnDisk(path) => path.parent().unwrap_or(Path::new("")).to_owned(),
            FileRef::Builtin(_) => PathBuf::new(),
        };
        let layer = Layer {
            report: &report,
            name: &document.name,
            folder: &folder,
            default: *file == FileRef::defaults(),
        };
        if let Some(node) = report.parse(document) {
            self.apply_section(&layer, "", node.line, &node);
        }
        self.errors.absorb(report.into_errors());
    }

    fn apply_section(&mut self, layer: &Layer, section: &str, line: u32, node: &Node) {
        let entries = match &node.value {
            // All of its keys are commented out.
            Value::Null => return,
            Value::Map(entries) => entries,
            found => {
                let names = keys::children(section).join(", ");
                return layer.report.add(
                    line,
                    section,
                    format!("found {found}, expected a section with {names}"),
                );
            }
        };
        for (at, (name, node)) in entries.iter().enumerate() {
            let path =
                if section.is_empty() { name.name.clone() } else { format!("{section}.{}", name.name) };
            if let Some((first, _)) = entries[..at].iter().find(|(earlier, _)| earlier.name == name.name) {
                layer.report.add(
                    name.line,
                    &path,
                    format!("found a second time, first at line {}", first.line),
                );
            } else if name.name.contains('.') {
                let problem = "found a dot in a key, expected one section inside the other";
                layer.report.add(name.line, &path, problem);
            } else if let Some(key) = keys::key(&path) {
                match key.kind.read(&node.value) {
                    Ok(setting) => self.set(key, setting, &node.value, layer.origin(name.line), layer.folder),
                    Err(problem) => {
                        self.failed.insert(&key.path);
                        layer.report.add(name.line, &path, problem);
                    }
                }
            } else if !keys::children(&path).is_empty() {
                self.apply_section(layer, &path, name.line, node);
            } else {
                layer.report.add(name.line, &path, unknown_key(section, &name.name));
            }
        }
    }

    fn set(
        &mut self,
        key: &'static ConfigKey,
        setting: Setting,
        shown: &Value,
        origin: Origin,
        folder: &Path,
    ) {
        let effective = Effective { setting, shown: shown.clone(), origin, folder: folder.to_owned() };
        self.values.insert(&key.path, effective);
    }

    /// Lays the environment over the values: `FORESHOCK_...`, and the two short names below it.
    pub fn apply_environment(&mut self, environment: impl Iterator<Item = (String, String)>) {
        let variables: BTreeMap<String, String> = environment.filter(|(_, text)| !text.is_empty()).collect();
        for (name, path) in SHORT_NAMES {
            if let (Some(text), Some(key)) = (variables.get(name), keys::key(path)) {
                self.apply_variable(name, key, text);
            }
        }
        for (name, text) in &variables {
            if !name.starts_with("FORESHOCK_") || is_service_link(name, text) {
                continue;
            }
            match KEYS.iter().find(|key| key.variable() == *name) {
                Some(key) => self.apply_variable(name, key, text),
                None => {
                    let names: Vec<String> = KEYS.iter().map(ConfigKey::variable).collect();
                    let hint = suggest::hint(name, names.iter().map(String::as_str));
                    let problem =
                        format!("unknown, expected FORESHOCK_ and a key's path with __ between levels{hint}");
                    self.errors.add(Origin::Variable(name.as_str().into()), "", problem);
                }
            }
        }
    }

    fn apply_variable(&mut self, name: &str, key: &'static ConfigKey, text: &str) {
        let origin = Origin::Variable(name.into());
        let value = key.kind.from_variable(text);
        match key.kind.read(&value) {
            Ok(setting) => self.set(key, setting, &value, origin, Path::new("")),
            Err(problem) => {
                self.failed.insert(&key.path);
                self.errors.add(origin, key.path.as_str(), problem);
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, path: &str) -> &Effective {
        self.values.get(path).unwrap_or_else(|| panic!("config/foreshock.yaml has a default for {path}"))
    }

    /// Whether all values that were given for a key are good.
    pub fn is_good(&self, path: &str) -> bool {
        !self.failed.contains(path)
    }

    /// Notes that a good value does not fit the others.
    pub fn refuse(&mut self, path: &str, problem: String) {
        let origin = self.get(path).origin.clone();
        self.errors.add(origin, path, problem);
    }

    /// The length of time of a key; `None` where a word stands for it.
    pub fn duration(&self, path: &str) -> Option<Nanos> {
        match self.get(path).setting {
            Setting::Duration(length) => Some(length),
            _ => None,
        }
    }

    /// The lengths of time of a key.
    pub fn durations(&self, path: &str) -> Vec<Nanos> {
        match &self.get(path).setting {
            Setting::Durations(lengths) => lengths.clone(),
            other => panic!("{path} holds durations, not {other:?}"),
        }
    }

    /// The lengths of time of a key, none of them negative.
    pub fn times(&self, path: &str) -> Vec<Duration> {
        self.durations(path).into_iter().map(|length| Duration::from_nanos(length.unsigned_abs())).collect()
    }

    /// The integer of a key.
    pub fn integer(&self, path: &str) -> i64 {
        match self.get(path).setting {
            Setting::Integer(v) => v,
            ref other => panic!("{path} holds an integer, not {other:?}"),
        }
    }

    /// The length of time of a key that always has one.
    pub fn time(&self, path: &str) -> Duration {
        Duration::from_nanos(
            self.duration(path).and_then(|length| u64::try_from(length).ok()).unwrap_or_default(),
        )
    }

    /// Whether the flag of a key is set.
    pub fn flag(&self, path: &str) -> bool {
        self.get(path).setting == Setting::Bool(true)
    }

    /// The texts of a key that is a list.
    pub fn texts(&self, path: &str) -> Vec<String> {
        match &self.get(path).setting {
            Setting::Texts(texts) => texts.clone(),
            other => panic!("{path} holds texts, not {other:?}"),
        }
    }

    /// The names and values of a key that is a set of properties.
    pub fn properties(&self, path: &str) -> Vec<(String, String)> {
        match &self.get(path).setting {
            Setting::Properties(properties) => properties.clone(),
            other => panic!("{path} holds properties, not {other:?}"),
        }
    }

    /// The word of a key; `""` where it holds something else.
    pub fn word(&self, path: &str) -> &'static str {
        match self.get(path).setting {
            Setting::Word(word) => word,
            _ => "",
        }
    }

    /// The text of a key, if it has one.
    pub fn text(&self, path: &str) -> Option<&str> {
        match &self.get(path).setting {
            Setting::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The path of the file that a key names, which starts at the folder of the file that says so.
    pub fn path(&self, path: &str) -> Option<PathBuf> {
        Some(self.get(path).folder.join(self.text(path)?))
    }

    /// Reads the file that a key names; `None`, noted, where that fails.
    pub fn read_file(&mut self, path: &str) -> Option<Document> {
        if !self.is_good(path) {
            return None;
        }
        let folder = self.get(path).folder.clone();
        let file = FileRef::named(self.text(path).unwrap_or_default(), &folder);
        match file.and_then(|file| file.read()) {
            Ok(document) => Some(document),
            Err(problem) => {
                self.refuse(path, problem);
                None
            }
        }
    }

    /// All values in force, in the order of the table, files as resolved.
    pub fn into_values(mut self) -> Vec<(&'static str, Effective)> {
        let take = |key: &'static ConfigKey| {
            let mut effective = self.values.remove(key.path.as_str())?;
            if let (ValueKind::File, Setting::Text(text)) = (key.kind, &effective.setting)
                && let Ok(file) = FileRef::named(text, &effective.folder)
            {
                effective.shown = Value::Text(file.to_string());
            }
            Some((key.path.as_str(), effective))
        };
        KEYS.iter().filter_map(take).collect()
    }
}

/// What all values of one file have in common.
struct Layer<'a> {
    report: &'a Report,
    name: &'a Arc<str>,
    folder: &'a Path,
    default: bool,
}

impl Layer<'_> {
    fn origin(&self, line: u32) -> Origin {
        if self.default { Origin::Default } else { Origin::File { name: self.name.clone(), line } }
    }
}

fn unknown_key(section: &str, name: &str) -> String {
    let siblings = keys::children(section);
    let elsewhere =
        || KEYS.iter().map(|key| key.path.as_str()).find(|path| path.ends_with(&format!(".{name}")));
    let meant = suggest::nearest(name, siblings.iter().copied()).or_else(elsewhere);
    let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    format!("unknown key, expected one of {}{hint}", siblings.join(", "))
}

/// Whether Kubernetes made this variable for a service that is called foreshock: it does so for every service
/// of a namespace (`FORESHOCK_SERVICE_HOST`, `FORESHOCK_PORT_8080_TCP_ADDR`). No key of ours has one level only.
fn is_service_link(name: &str, text: &str) -> bool {
    let port =
        name.split_once("PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    let service = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || port;
    let address = ["tcp://", "udp://", "sctp://"].iter().any(|protocol| text.starts_with(protocol));
    !name.contains("__") && (service || address)
}
