//! What a job puts out: a file for each kind of output, with its name, topic, key and fields.
//!
//! Encoders, the command line, the keys `topics.*` and docs/outputs.md go by these tables.

pub mod alerts;
pub mod control;
pub mod deadletter;
pub mod features;
pub mod field;
pub mod gaps;
pub mod metrics;
pub mod predictions;
pub mod scored;

use crate::time::Nanos;
use field::{FieldDoc, OutputField};

/// A kind of output: a topic, or a file `<name>.ndjson`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputKind {
    Features,
    Predictions,
    Metrics,
    Gaps,
    Alerts,
    Deadletter,
    Control,
    Scored,
}

/// What is the same for all records of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// On the command line, in file names and in the key `topics.<name>`.
    pub name: &'static str,
    /// The topic, unless another is configured; `None`: files only.
    pub topic: Option<&'static str>,
    pub has_file: bool,
    /// What its records are keyed by, for documents; those of an instrument begin with its names, too.
    pub key: &'static str,
    /// What has one record, for documents.
    pub one_for: &'static str,
}

/// The key of records of an instrument.
const INSTRUMENT: &str = "`<exchange>:<instrument>`";

impl OutputKind {
    pub const ALL: [OutputKind; 8] = [
        OutputKind::Features,
        OutputKind::Predictions,
        OutputKind::Metrics,
        OutputKind::Gaps,
        OutputKind::Alerts,
        OutputKind::Deadletter,
        OutputKind::Control,
        OutputKind::Scored,
    ];

    /// Its row of the table.
    pub const fn output(self) -> Output {
        match self {
            OutputKind::Features => features::OUTPUT,
            OutputKind::Predictions => predictions::OUTPUT,
            OutputKind::Metrics => metrics::OUTPUT,
            OutputKind::Gaps => gaps::OUTPUT,
            OutputKind::Alerts => alerts::OUTPUT,
            OutputKind::Deadletter => deadletter::OUTPUT,
            OutputKind::Control => control::OUTPUT,
            OutputKind::Scored => scored::OUTPUT,
        }
    }

    /// The name on the command line and in file names.
    pub const fn name(self) -> &'static str {
        self.output().name
    }

    /// Those that go to files.
    pub fn of_files() -> impl Iterator<Item = OutputKind> {
        OutputKind::ALL.into_iter().filter(|kind| kind.output().has_file)
    }

    /// Those that go to topics.
    pub fn of_topics() -> impl Iterator<Item = OutputKind> {
        OutputKind::ALL.into_iter().filter(|kind| kind.output().topic.is_some())
    }

    /// The fields of a record in a job with these return horizons, in their order.
    pub fn fields(self, horizons: &[Nanos]) -> Vec<FieldDoc> {
        fn docs<R>(fields: Vec<OutputField<R>>) -> Vec<FieldDoc> {
            fields.into_iter().map(OutputField::into_doc).collect()
        }
        let own = match self {
            OutputKind::Features => docs(features::fields(horizons)),
            OutputKind::Predictions => docs(predictions::fields()),
            OutputKind::Metrics => docs(metrics::fields()),
            OutputKind::Gaps => docs(gaps::fields()),
            OutputKind::Alerts => docs(alerts::fields()),
            OutputKind::Deadletter => docs(deadletter::fields()),
            OutputKind::Control => docs(control::fields()),
            OutputKind::Scored => docs(scored::fields(horizons)),
        };
        let names = [("exchange", "as configured, or as the venue is called"), ("instrument", "its name")];
        let is_of_instrument = !matches!(self, OutputKind::Deadletter | OutputKind::Control);
        let names = names.into_iter().filter(|_| is_of_instrument);
        names.map(|(name, meaning)| FieldDoc { name: name.to_owned(), meaning }).chain(own).collect()
    }
}
