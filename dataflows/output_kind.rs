//! The kinds of outputs: which there are, and which go where.

/// A kind of output: a topic, or a file `<name>.ndjson`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputKind {
    Features,
    Predictions,
    Metrics,
    Gaps,
    Alerts,
    Deadletter,
    /// Answers to control records: a topic only.
    Control,
    /// Features and prediction of each tick in one row: the data set for training and evaluation; a
    /// file only.
    Scored,
}

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

    /// Those that go to files.
    pub fn of_files() -> impl Iterator<Item = OutputKind> {
        OutputKind::ALL.into_iter().filter(|kind| *kind != OutputKind::Control)
    }

    /// Those that go to topics.
    pub fn of_topics() -> impl Iterator<Item = OutputKind> {
        OutputKind::ALL.into_iter().filter(|kind| *kind != OutputKind::Scored)
    }

    /// The name on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            OutputKind::Features => "features",
            OutputKind::Predictions => "predictions",
            OutputKind::Metrics => "metrics",
            OutputKind::Gaps => "gaps",
            OutputKind::Alerts => "alerts",
            OutputKind::Deadletter => "deadletter",
            OutputKind::Control => "control",
            OutputKind::Scored => "scored",
        }
    }
}
