//! Control records: what changes results while a job runs stands in the input itself (docs/definitions.md, "Control records").
//!
//! ```text
//! {"type":"control","id":"…","kind":"model","effective_at":"…","return_horizons":[…],"model":{…}}
//! {"type":"control","id":"…","kind":"rules","effective_at":"…","rules":[…]}
//! {"type":"control","id":"…","kind":"settings","settings":{…}}
//! ```

use std::sync::Arc;

use foreshock_operators::change::ChangeKind;
use foreshock_operators::model::Model;
use foreshock_operators::row::{Extent, Source};
use foreshock_operators::rules::{Rule, check_rules};
use foreshock_operators::time::{Nanos, Time, parse_rfc3339};
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

pub use foreshock_operators::outputs::control::{Answer, Fate};

/// The Kafka header that marks a control record.
pub const HEADER: &str = "foreshock-control";

/// The longest id of a record.
pub const ID_MAX: usize = 256;

/// A control record as it was found, before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRecord {
    /// Position in the batch: it holds for the rows behind it.
    pub order: u32,
    pub source: Source,
    pub extent: Extent,
}

/// A control record that was read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlRecord {
    pub id: Arc<str>,
    pub effective_at: Option<(Time, u8)>,
    pub command: Command,
}

/// What a record asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Model(Arc<Model>),
    Rules(Arc<[Rule]>),
    Settings(Arc<Settings>),
}

/// Why a record was not obeyed, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControlRefusal {
    pub id: Option<Arc<str>>,
    pub kind: Option<String>,
    pub reason: String,
}

impl Command {
    /// The name of what is asked for.
    pub fn kind(&self) -> &'static str {
        match self {
            Command::Model(_) => "model",
            Command::Rules(_) => "rules",
            Command::Settings(_) => "settings",
        }
    }

    /// The change that grants it.
    pub fn granted(&self) -> ChangeKind {
        match self {
            Command::Model(model) => ChangeKind::Model(model.clone()),
            Command::Rules(rules) => ChangeKind::Rules(rules.clone()),
            Command::Settings(settings) => ChangeKind::Parameters(settings.parameters.clone()),
        }
    }
}

/// A record as it is written; whoever reads it knows no other field.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "type")]
    message_type: String,
    id: String,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    effective_at: Option<String>,
    /// The return horizons that the model's features count in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    return_horizons: Option<Vec<Nanos>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Arc<Model>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rules: Option<Arc<[Rule]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settings: Option<Arc<Settings>>,
}

impl Written {
    fn new(id: &str, kind: &str) -> Written {
        Written {
            message_type: "control".to_owned(),
            id: id.to_owned(),
            kind: kind.to_owned(),
            effective_at: None,
            return_horizons: None,
            model: None,
            rules: None,
            settings: None,
        }
    }

    fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is plain data")
    }
}

/// The record that puts a model in force, of a job with these return horizons.
pub fn model_record(id: &str, effective_at: Option<&str>, model: &Arc<Model>, horizons: &[Nanos]) -> Vec<u8> {
    let written = Written {
        effective_at: effective_at.map(str::to_owned),
        return_horizons: Some(horizons.to_vec()),
        model: Some(model.clone()),
        ..Written::new(id, "model")
    };
    written.json()
}

/// The record that puts rules in force.
pub fn rules_record(id: &str, effective_at: Option<&str>, rules: &Arc<[Rule]>) -> Vec<u8> {
    let written = Written {
        effective_at: effective_at.map(str::to_owned),
        rules: Some(rules.clone()),
        ..Written::new(id, "rules")
    };
    written.json()
}

/// The record that puts all settings in force.
pub fn settings_record(id: &str, settings: &Settings) -> Vec<u8> {
    Written { settings: Some(Arc::new(settings.clone())), ..Written::new(id, "settings") }.json()
}

/// Whether a message is a control record of ours: venues have messages of type `control` too, but of no kind.
pub fn is_record(message: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(rename = "type")]
        message_type: &'a str,
        kind: serde::de::IgnoredAny,
    }
    memchr::memmem::find(message, b"\"control\"").is_some()
        && serde_json::from_slice::<Head>(message)
            .is_ok_and(|Head { message_type, kind: serde::de::IgnoredAny }| message_type == "control")
}

/// Reads a record for a shard with these return horizons.
///
/// # Errors
/// Says what is wrong with it; nothing of it may be obeyed then.
pub fn read(message: &[u8], horizons: &[Nanos]) -> Result<ControlRecord, ControlRefusal> {
    let head = read_head(message);
    read_written(message, horizons).map_err(|reason| ControlRefusal { reason, ..head })
}

/// As much of a record as can be told of one that is broken.
fn read_head(message: &[u8]) -> ControlRefusal {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Head {
        id: Option<serde_json::Value>,
        kind: Option<serde_json::Value>,
    }
    let Head { id, kind } = serde_json::from_slice(message).unwrap_or_default();
    let short =
        |value: Option<serde_json::Value>| Some(value?.as_str()?.to_owned()).filter(|t| t.len() <= ID_MAX);
    ControlRefusal { id: short(id).map(Arc::from), kind: short(kind), reason: String::new() }
}

fn read_written(message: &[u8], horizons: &[Nanos]) -> Result<ControlRecord, String> {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    let Kind { kind } = serde_json::from_slice(message).map_err(|error| error.to_string())?;
    if !["model", "rules", "settings"].contains(&&*kind) {
        return Err(format!("unknown kind {kind:.40?}, expected model, rules or settings"));
    }
    let written: Written = serde_json::from_slice(message).map_err(|error| error.to_string())?;
    if written.message_type != "control" {
        return Err(format!("found type {:.40?}, expected control", written.message_type));
    }
    if written.id.is_empty() || written.id.len() > ID_MAX {
        return Err(format!("an id has 1 to {ID_MAX} characters"));
    }
    let effective_at = match &written.effective_at {
        Some(text) => {
            let time = parse_rfc3339(text);
            Some(time.ok_or_else(|| {
                format!("effective_at: found {text:.40?}, expected a time like 2024-08-08T23:55:00Z")
            })?)
        }
        None => None,
    };
    let command = match (&*kind, written.model, written.rules, written.settings) {
        ("model", Some(model), None, None) => {
            if written.return_horizons.is_some_and(|named| named != horizons) {
                return Err("the model was made for other return horizons than those in force".to_owned());
            }
            model.check(horizons.len())?;
            Command::Model(model)
        }
        ("rules", None, Some(rules), None) => {
            check_rules(&rules)?;
            Command::Rules(rules)
        }
        ("settings", None, None, Some(settings)) => {
            if effective_at.is_some() {
                return Err("settings take effect at once, so they have no effective_at".to_owned());
            }
            settings.check()?;
            Command::Settings(settings)
        }
        _ => return Err(format!("expected {kind} and nothing else to put in force")),
    };
    Ok(ControlRecord { id: written.id.into(), effective_at, command })
}
