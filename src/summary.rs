//! What a run says at its end.

use std::fmt;
use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use foreshock_operators::account::Counts;
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

    /// The object of `--json` (docs/definitions.md, "Command line").
    pub fn to_json(&self) -> Value {
        let mut fields = account::fields(&self.counts);
        fields.insert("rows_per_worker".to_owned(), self.rows_per_worker.as_slice().into());
        fields.insert("seconds".to_owned(), self.elapsed.as_secs_f64().into());
        fields.insert("ticks_per_second".to_owned(), self.ticks_per_second().into());
        fields.insert("peak_rss_bytes".to_owned(), self.peak_rss_bytes.into());
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
        let workers: Vec<String> = self.rows_per_worker.iter().map(|rows| n(*rows)).collect();
        writeln!(f, "workers     {} rows", workers.join(" + "))?;
        write!(
            f,
            "speed       {} ticks/s: {:.2} s, at most {:.1} MB of memory",
            n(self.ticks_per_second() as i64),
            self.elapsed.as_secs_f64(),
            self.peak_rss_bytes as f64 / 1e6,
        )
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
