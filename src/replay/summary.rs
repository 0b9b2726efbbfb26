//! What a replay came to.

use std::fmt;

use serde_json::{Value, json};

/// Why a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The log is at its end.
    RecordedLog,
    /// As much of recorded time has passed as was asked for.
    Duration,
    /// It was told to.
    Stopped,
    /// Brokers took no more.
    Failed,
}

/// What a replay came to. Everything sent has met its fate.
#[derive(Clone, Debug)]
pub struct ReplaySummary {
    pub topic: String,
    pub partitions: i32,
    pub ended: Ended,
    /// Messages delivered.
    pub messages: u64,
    /// Bytes of the values sent.
    pub bytes: u64,
    /// How many keys they had.
    pub keys: usize,
    /// Lines that are no messages and were left out: the recorder's own.
    pub control: u64,
    pub blank: u64,
    /// Lines that are longer than a message may be, left out.
    pub too_large: u64,
    /// Messages that were not delivered.
    pub undelivered: u64,
    /// The first of them, and why; or why there can be no more.
    pub failure: Option<String>,
    pub passes: u64,
    pub seconds: f64,
    /// How much recorded time was played.
    pub recorded_seconds: f64,
    /// Pauses that were cut to `--max-pause`, and how long they would have been on top of it.
    pub pauses_cut: u64,
    pub seconds_cut: f64,
    /// What was told of the files.
    pub notes: Vec<String>,
}

impl ReplaySummary {
    fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.messages as f64 / self.seconds } else { 0.0 }
    }

    /// The summary as `--json` prints it.
    pub fn to_json(&self) -> Value {
        let mut fields = json!({
            "topic": self.topic,
            "partitions": self.partitions,
            "ended": match self.ended {
                Ended::RecordedLog => "log",
                Ended::Duration => "duration",
                Ended::Stopped => "stopped",
                Ended::Failed => "failed",
            },
            "messages": self.messages,
            "bytes": self.bytes,
            "keys": self.keys,
            "control": self.control,
            "blank": self.blank,
            "too_large": self.too_large,
            "undelivered": self.undelivered,
            "failure": self.failure,
            "passes": self.passes,
            "seconds": self.seconds,
            "messages_per_second": self.per_second(),
            "recorded_seconds": self.recorded_seconds,
            "pauses_cut": self.pauses_cut,
            "seconds_cut": self.seconds_cut,
        });
        if !self.notes.is_empty() {
            fields["notes"] = self.notes.as_slice().into();
        }
        fields
    }
}

impl fmt::Display for ReplaySummary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReplaySummary { topic, messages, seconds, bytes, keys, recorded_seconds, .. } = self;
        write!(
            out,
            "{messages} messages to {topic} in {seconds:.1} s ({:.0} a second), {bytes} bytes, {keys} keys, \
             {recorded_seconds:.1} s of recorded time",
            self.per_second()
        )?;
        for (count, what) in [
            (self.control, "of the recorder's own lines left out"),
            (self.blank, "blank lines left out"),
            (self.too_large, "lines too long for a message left out"),
            (self.undelivered, "not delivered"),
        ] {
            if count > 0 {
                write!(out, ", {count} {what}")?;
            }
        }
        if self.pauses_cut > 0 {
            let plural = if self.pauses_cut == 1 { "" } else { "s" };
            write!(
                out,
                ", {} pause{plural} cut by {:.1} s (--max-pause)",
                self.pauses_cut, self.seconds_cut
            )?;
        }
        for note in &self.notes {
            write!(out, "; {note}")?;
        }
        if self.passes > 1 {
            write!(out, ", {} passes", self.passes)?;
        }
        match self.ended {
            Ended::Stopped => out.write_str("; stopped"),
            Ended::Failed => out.write_str("; failed"),
            Ended::RecordedLog | Ended::Duration => Ok(()),
        }
    }
}
