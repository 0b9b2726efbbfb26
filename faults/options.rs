//! What the campaign is asked to do.

use std::fmt;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Runs a job through kills and outages on a real Kafka and compares its outputs with those of an undisturbed run.
///
/// Exit status: 0 nothing was wrong, 3 something was, 1 the campaign itself failed.
#[derive(Parser, Clone, Debug)]
#[command(name = "scripts/faults", version, max_term_width = 100)]
pub struct Options {
    /// How many kills; 20 with all failpoints is the short form, 300 the long one.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub kills: usize,

    /// From what all of the campaign follows: input, faults and their moments. By default another one each time.
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// Numbers of worker threads to choose from for each start.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,4")]
    pub workers: Vec<usize>,

    /// Numbers of processes to choose from for each start.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2")]
    pub processes: Vec<usize>,

    /// Have the job do something wrong, which the judge must find; without faults.
    #[arg(long, value_name = "WHAT")]
    pub sabotage: Option<Sabotage>,

    /// Only faults of this kind, or kills at this failpoint: to look closely at one.
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,

    /// Twenty kills, every failpoint and every kind of fault among them.
    #[arg(long)]
    pub short: bool,

    /// Partitions of the input.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub partitions: i32,

    /// Messages of the input; by default as many as the kills need, at least 8000.
    #[arg(long, value_name = "N")]
    pub messages: Option<usize>,

    /// order.reorder in milliseconds; by default 400, or 0 for every third seed.
    #[arg(long, value_name = "MS")]
    pub reorder: Option<u64>,

    /// Leave out changes of model and rules in mid-stream.
    #[arg(long)]
    pub no_control_records: bool,

    /// job.delivery; with at_least_once the judge must find repeats.
    #[arg(long, value_name = "MODE", default_value = "exactly_once")]
    pub delivery: String,

    /// Write the counts to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// The program under test, built with the feature `faults`.
    #[arg(long, value_name = "FILE", hide = true)]
    pub binary: PathBuf,

    /// A folder for the broker, the state and the logs.
    #[arg(long, value_name = "DIR", hide = true)]
    pub work: PathBuf,
}

/// What the job is to do wrong.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    SkipCommit,
    Drop,
    Duplicate,
    Swap,
}

impl Sabotage {
    /// The value of the variable that asks for it: how often it happens is part of it.
    pub fn variable(self) -> &'static str {
        match self {
            Sabotage::SkipCommit => "skip-commit:1",
            Sabotage::Drop => "drop:97",
            Sabotage::Duplicate => "duplicate:97",
            Sabotage::Swap => "swap:7",
        }
    }
}

/// As a call that would do the same again.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        write!(f, "scripts/faults --kills {}", self.kills)?;
        if let Some(seed) = self.seed {
            write!(f, " --seed {seed}")?;
        }
        write!(f, " --workers {} --processes {}", list(&self.workers), list(&self.processes))?;
        write!(f, " --partitions {}", self.partitions)?;
        if let Some(messages) = self.messages {
            write!(f, " --messages {messages}")?;
        }
        if let Some(reorder) = self.reorder {
            write!(f, " --reorder {reorder}")?;
        }
        if self.no_control_records {
            write!(f, " --no-control-records")?;
        }
        if let Some(only) = &self.only {
            write!(f, " --only {only}")?;
        }
        if let Some(value) = self.sabotage.as_ref().and_then(ValueEnum::to_possible_value) {
            write!(f, " --sabotage {}", value.get_name())?;
        }
        write!(f, " --delivery {}", self.delivery)
    }
}
