//! What `check-config` prints: the configuration in force, as a file that could be used, and where it comes from.

use std::io::{self, Write};

use super::{Config, Unknown};
use crate::documents::yaml::{self, Value};

/// Column at which origins start, where the value leaves room.
const ORIGIN_COLUMN: usize = 48;

/// Prints every key with its value and origin, and what follows from them.
pub fn check_config(config: &Config, out: &mut impl Write) -> io::Result<()> {
    let mut open: Vec<&str> = Vec::new();
    for (path, effective) in &config.values {
        let mut levels: Vec<&str> = path.split('.').collect();
        let name = levels.pop().unwrap_or_default();
        let shared = open.iter().zip(&levels).take_while(|(a, b)| a == b).count();
        for (depth, level) in levels.iter().enumerate().skip(shared) {
            writeln!(out, "{:1$}{level}:", "", 2 * depth)?;
        }
        let line = format!("{:1$}{name}: {2}", "", 2 * levels.len(), written(&effective.shown));
        writeln!(out, "{line:ORIGIN_COLUMN$} # {}", effective.origin)?;
        open = levels;
    }
    conclusions(config, out)
}

fn conclusions(config: &Config, out: &mut impl Write) -> io::Result<()> {
    let (model, instruments) = (&config.settings.parameters.model, &config.settings.instruments);
    let unknown = match instruments.unknown {
        Unknown::Accept => "accepted",
        Unknown::DeadLetter => "dead-lettered",
    };
    let rules: Vec<&str> =
        config.settings.parameters.rules.iter().filter(|rule| rule.enabled).map(|rule| &*rule.name).collect();
    writeln!(out)?;
    writeln!(out, "# command: {}", config.mode.name())?;
    writeln!(
        out,
        "# model: {} {} ({}), sha256 {}",
        model.name,
        model.version,
        model.kind.name(),
        model.sha256
    )?;
    writeln!(out, "# instruments: {} listed, others are {unknown}", instruments.listed.len())?;
    writeln!(
        out,
        "# alert rules in force: {}",
        if rules.is_empty() { "none".to_owned() } else { rules.join(", ") }
    )
}

/// A value as YAML on one line.
fn written(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| written(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, node)| format!("{}: {}", key.name, property(&key.name, &node.value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        // Quoted only where it would be read as something else.
        Value::Text(text) if yaml::parse(text).is_ok_and(|node| node.value == *value) => text.clone(),
        Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        other => other.to_string(),
    }
}

/// Words in the names of properties whose values are nobody's business.
const SECRET: [&str; 6] = ["password", "secret", "key", "token", "sasl.oauthbearer", "sasl.jaas"];

/// A property's value, unless it may be a secret.
fn property(name: &str, value: &Value) -> String {
    let name = name.to_ascii_lowercase();
    if SECRET.iter().any(|word| name.contains(word)) { "(not shown)".to_owned() } else { written(value) }
}
