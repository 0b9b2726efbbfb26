//! Changes of model, rules and settings while a job runs (docs/definitions.md, "Control records").
//!
//! ```text
//! control record in the log ─► Change, given to each instrument before its next row
//!     ─order─► Placed before the first row behind the record with T >= `effective_at` ─► every operator
//! ```
//! A state names the change that its settings came from by its number, so states need not hold whole models.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::Model;
use crate::parameters::FeatureSettings;
use crate::row::InstrumentId;
use crate::rule::Rule;
use crate::time::Time;

pub use crate::parameters::Parameters;

/// Something that holds from a place of the log on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Counts the changes of a shard from 1.
    pub number: u32,
    /// A shard takes each id once.
    pub id: Arc<str>,
    /// Where the record stands in its log.
    pub offset: u64,
    /// An instrument waits for this moment; `None`: it takes effect at once.
    pub effective_at: Option<Time>,
    pub kind: ChangeKind,
}

/// What a change puts in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ChangeKind {
    Model(Arc<Model>),
    Rules(Arc<[Rule]>),
    Parameters(Arc<Parameters>),
    /// A part of the log is gone: what was computed from the rows before is stale.
    StateLost,
}

/// A change at its place among an instrument's values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeAt<K = InstrumentId> {
    pub key: K,
    /// Index of the value that it stands before; the count of values where it stands behind all.
    pub before: u32,
    /// Position in the batch of the row that it takes effect at.
    pub order: u32,
    /// The instrument's clock at that row.
    pub at: Time,
    pub digits: u8,
    pub change: Arc<Change>,
}

impl Change {
    /// Whether it leaves nothing to do for an older one, not even for one that still waits for its moment.
    pub fn replaces(&self, older: &Change) -> bool {
        self.effective_at.is_none() && self.number > older.number && self.kind.covers(&older.kind)
    }

    /// Whether it may take effect at this moment.
    pub fn is_due(&self, clock: Time) -> bool {
        self.effective_at.is_none_or(|from| clock >= from)
    }

    /// The model that it puts in force, if any.
    pub fn model(&self) -> Option<&Arc<Model>> {
        match &self.kind {
            ChangeKind::Model(model) => Some(model),
            ChangeKind::Parameters(parameters) => Some(&parameters.model),
            ChangeKind::Rules(_) | ChangeKind::StateLost => None,
        }
    }

    /// The rules that it puts in force, if any.
    pub fn rules(&self) -> Option<&Arc<[Rule]>> {
        match &self.kind {
            ChangeKind::Rules(rules) => Some(rules),
            ChangeKind::Parameters(parameters) => Some(&parameters.rules),
            ChangeKind::Model(_) | ChangeKind::StateLost => None,
        }
    }

    /// What it has features be, if anything.
    pub fn features(&self) -> Option<&Arc<FeatureSettings>> {
        self.parameters().map(|parameters| &parameters.features)
    }

    /// The parameters that it puts in force, if any.
    pub fn parameters(&self) -> Option<&Arc<Parameters>> {
        match &self.kind {
            ChangeKind::Parameters(parameters) => Some(parameters),
            ChangeKind::Model(_) | ChangeKind::Rules(_) | ChangeKind::StateLost => None,
        }
    }
}

impl ChangeKind {
    /// Whether what this says takes the place of all that `older` says.
    fn covers(&self, older: &ChangeKind) -> bool {
        match self {
            ChangeKind::Parameters(_) => !matches!(older, ChangeKind::StateLost),
            ChangeKind::Model(_) => matches!(older, ChangeKind::Model(_)),
            ChangeKind::Rules(_) => matches!(older, ChangeKind::Rules(_)),
            ChangeKind::StateLost => matches!(older, ChangeKind::StateLost),
        }
    }
}

/// What an instrument is computed by, and from which changes that came.
#[derive(Clone, Debug)]
pub struct InForce {
    pub parameters: Arc<Parameters>,
    pub since: Since,
    /// Those changes themselves: a shard remembers a replaced one as long as some state may name it.
    named: [Option<Arc<Change>>; 3],
}

/// Numbers of the changes that put something in force; 0: the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// All parameters together.
    pub settings: u32,
    pub model: u32,
    pub rules: u32,
}

/// A change that takes effect at an input.
#[derive(Clone, Copy, Debug)]
pub struct Effect<'a> {
    pub change: &'a Change,
    pub before: &'a Parameters,
    pub now: &'a Parameters,
    /// The clock at the input.
    pub at: Time,
    pub digits: u8,
}

impl InForce {
    /// What configuration says.
    pub fn configured(parameters: Arc<Parameters>) -> InForce {
        InForce { parameters, since: Since::default(), named: Default::default() }
    }

    /// What is in force once this change has taken effect.
    pub fn after(&self, change: &Arc<Change>) -> InForce {
        let mut next = self.clone();
        let number = change.number;
        match &change.kind {
            ChangeKind::Parameters(parameters) => {
                next.parameters = parameters.clone();
                next.since = Since { settings: number, model: number, rules: number };
                next.named = std::array::from_fn(|_| Some(change.clone()));
            }
            ChangeKind::Model(model) => {
                let model = model.clone();
                next.parameters = Arc::new(Parameters { model, ..Parameters::clone(&next.parameters) });
                next.since.model = number;
                next.named[1] = Some(change.clone());
            }
            ChangeKind::Rules(rules) => {
                let rules = rules.clone();
                next.parameters = Arc::new(Parameters { rules, ..Parameters::clone(&next.parameters) });
                next.since.rules = number;
                next.named[2] = Some(change.clone());
            }
            ChangeKind::StateLost => {}
        }
        next
    }
}
