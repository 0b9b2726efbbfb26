//! What a run says at its end.

use std::fmt;
use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use foreshock_operators::account::{Counts, Reason};
use serde_json::Value;

use crate::account;

/// The account of a whole run.
#[derive(Clone, Debug)]
pub struct RunSummary {
    pub counts: Counts,
    /// Of the job since it began to read its input, where that is known: restarts and other processes included.
    pub account: Option<Counts>,
    pub rows_per_worker: Vec<i64>,
    pub elapsed: Duration,
    /// Most memory the process ever had, in bytes; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
    /// What was told of the files of a backtest.
    pub notes: Vec<String>,
    /// The first message or row that a backtest refused, and why.
    pub first_refused: Option<String>,
}

impl RunSummary {
    /// The account of a run that just ended.
    pub fn new(counts: Counts, rows_per_worker: Vec<i64>, elapsed: Duration) -> RunSummary {
        RunSummary {
            counts,
            account: None,
            rows_per_worker,
            elapsed,
            peak_rss_bytes: peak_rss_bytes().unwrap_or(0),
            notes: Vec::new(),
            first_refused: None,
        }
    }

    /// Ticks a second of wall time.
    pub fn ticks_per_second(&self) -> f64 {
        self.counts.ticks as f64 / self.elapsed.as_secs_f64()
    }

    /// How many messages and rows went to the dead letters.
    pub fn dead_letters(&self) -> i64 {
        self.counts.deadletter.iter().sum()
    }

    /// What to say where most of what was read was refused: how much, why, and the way out.
    pub fn mostly_refused(&self) -> Option<String> {
        let c = &self.counts;
        let refused = c.messages_deadlettered + c.rows_deadlettered + c.late;
        let read = c.messages_deadlettered + c.rows_in;
        if refused * 2 <= read {
            return None;
        }
        let (reason, count) = account::reasons(c).max_by_key(|(_, count)| *count)?;
        let share = (100 * refused) / read;
        let first = self.first_refused.as_deref().unwrap_or("see the dead letters");
        Some(format!(
            "{share} % of what was read was refused ({} of {} messages and rows), {} of them as {} ({}); the first: {first}; {}",
            grouped(refused),
            grouped(read),
            grouped(count),
            reason.name(),
            reason.meaning(),
            way_out(reason),
        ))
    }

    /// The object of `--json` (docs/definitions.md, "Command line").
    pub fn to_json(&self) -> Value {
        let mut fields = account::fields(&self.counts);
        fields.insert("rows_per_worker".to_owned(), self.rows_per_worker.as_slice().into());
        fields.insert("seconds".to_owned(), self.elapsed.as_secs_f64().into());
        fields.insert("ticks_per_second".to_owned(), self.ticks_per_second().into());
        fields.insert("peak_rss_bytes".to_owned(), self.peak_rss_bytes.into());
        if !self.notes.is_empty() {
            fields.insert("notes".to_owned(), self.notes.as_slice().into());
        }
        if let Some(account) = &self.account {
            fields.insert("account".to_owned(), Value::Object(account::fields(account)));
        }
        Value::Object(fields)
    }
}

/// Prints to standard output.
///
/// # Errors
/// When nobody takes it.
pub fn print(text: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.flush()).context("could not write to standard output")
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        let n = |count: i64| grouped(count);
        writeln!(
            f,
            "messages    {} in = {} with rows + {} control + {} ignored + {} dead-lettered",
            n(c.messages_in),
            n(c.messages_rows),
            n(c.messages_control),
            n(c.messages_ignored),
            n(c.messages_deadlettered),
        )?;
        writeln!(
            f,
            "rows        {} in = {} ticks + {} applied + {} duplicate + {} late + {} ignored + {} dead-lettered + {} buffered",
            n(c.rows_in),
            n(c.ticks),
            n(c.applied),
            n(c.duplicate),
            n(c.late),
            n(c.rows_ignored),
            n(c.rows_deadlettered),
            n(c.buffered),
        )?;
        if let Some(all) = self.account.as_ref().filter(|all| all.messages_in != c.messages_in) {
            let (messages, rows, ticks) = (n(all.messages_in), n(all.rows_in), n(all.ticks));
            writeln!(
                f,
                "altogether  {messages} messages, {rows} rows and {ticks} ticks since the job's first start"
            )?;
        }
        let reasons: Vec<String> =
            account::reasons(c).map(|(reason, count)| format!("{} {}", n(count), reason.name())).collect();
        if !reasons.is_empty() {
            writeln!(f, "refused     {}", reasons.join(", "))?;
        }
        if c.hurried > 0 {
            writeln!(f, "hurried     {} rows went on early: too many were waiting", n(c.hurried))?;
        }
        if c.outside > 0 {
            writeln!(f, "outside     {} rows before --from or after --to, not counted above", n(c.outside))?;
        }
        writeln!(f, "predictions {} made, {} ticks without", n(c.predictions), n(c.refused))?;
        writeln!(
            f,
            "found       {} samples, {} gaps, {} alert messages",
            n(c.samples),
            n(c.gaps),
            n(c.alerts)
        )?;
        for note in &self.notes {
            writeln!(f, "files       {note}")?;
        }
        let workers: Vec<String> = self.rows_per_worker.iter().map(|rows| n(*rows)).collect();
        writeln!(f, "workers     {} rows", workers.join(" + "))?;
        write!(
            f,
            "speed       {} ticks/s: {:.2} s, at most {:.1} MB of memory",
            n(self.ticks_per_second() as i64),
            self.elapsed.as_secs_f64(),
            self.peak_rss_bytes as f64 / 1e6,
        )?;
        match self.mostly_refused() {
            Some(warning) => write!(f, "\nwarning     {warning}"),
            None => Ok(()),
        }
    }
}

/// What to do where most messages or rows are refused for one reason.
fn way_out(reason: Reason) -> &'static str {
    match reason {
        Reason::BrokenJson | Reason::WrongType | Reason::Empty => {
            "compare it with docs/inputs.md: is it another format (--format), or not a message a line?"
        }
        Reason::TooLarge => "raise input.max_message_bytes",
        Reason::OtherMarket => "name the market with --exchange, or split the file",
        Reason::NoTime => {
            "name the clock that its messages have, with exchanges.<name>.clock or the instrument's clock"
        }
        Reason::TimeRange | Reason::TimeAhead => {
            "compare the times of its messages with their receive times, and both with their units"
        }
        Reason::NonFinite
        | Reason::NotPositive
        | Reason::NegativeSize
        | Reason::Crossed
        | Reason::EmptySide => "--emit deadletter --out DIR shows each of them",
        Reason::UnknownInstrument => {
            "list its instruments (instruments.file), or take all with instruments.unknown: accept"
        }
        Reason::Late => {
            "was it fed twice, or is a time far ahead in it? order.reorder puts in order what is late by little"
        }
        Reason::BadControl => "docs/control.md says what a control record holds",
    }
}

/// A number with a comma between thousands.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The system's high-water mark of this process's memory.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
