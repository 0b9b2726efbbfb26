//! What `check-config` prints: the configuration in force, as a file that could be used, and where it comes from.

use std::io::{self, Write};

use super::yaml::{self, Value};
use super::{Config, Unknown};
use crate::models::kind_name;

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
    let (model, instruments) = (&config.settings.model, &config.settings.instruments);
    let unknown = match instruments.unknown {
        Unknown::Accept => "accepted",
        Unknown::DeadLetter => "dead-lettered",
    };
    let rules: Vec<&str> =
        config.settings.rules.iter().filter(|rule| rule.enabled).map(|rule| &*rule.name).collect();
    writeln!(out)?;
    writeln!(out, "# command: {}", config.mode.name())?;
    writeln!(
        out,
        "# model: {} {} ({}), sha256 {}",
        model.name,
        model.version,
        kind_name(model),
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
        // Quoted only where it would be read as something else.
        Value::Text(text) if yaml::parse(text).is_ok_and(|node| node.value == *value) => text.clone(),
        Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        other => other.to_string(),
    }
}
