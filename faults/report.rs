//! What a campaign has done and found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::judge::Verdict;
use crate::marks::Open;

/// Counts over all rounds.
#[derive(Debug, Default)]
pub struct Report {
    /// Kills by the kind of fault.
    pub kills: BTreeMap<&'static str, usize>,
    /// Rounds by the kind of fault.
    pub rounds: BTreeMap<&'static str, usize>,
    /// How often each failpoint was come to.
    pub failpoints: BTreeMap<&'static str, usize>,
    /// Kills that found a transaction open.
    pub in_transaction: usize,
    /// Kills that found a snapshot being written.
    pub in_snapshot: usize,
    /// Kills of the broker that found a transaction open.
    pub broker_in_transaction: usize,
    /// Starts after the first.
    pub restarts: usize,
    /// Times that the job ended by itself with an error that says why.
    pub stops: usize,
    /// Clean stops that ended with exit status 0.
    pub clean_stops: usize,
    /// From the start of a process to its first committed output.
    pub recoveries: Vec<Duration>,
    /// Records of transactions that were aborted.
    pub hidden: usize,
    /// Other than differences.
    pub wrong: Vec<String>,
    pub verdict: Verdict,
}

impl Report {
    pub fn kill(&mut self, kind: &'static str, open: Open) {
        *self.kills.entry(kind).or_default() += 1;
        self.in_transaction += usize::from(open.transactions > 0);
        self.in_snapshot += usize::from(open.snapshots > 0);
    }

    pub fn killed(&self) -> usize {
        self.kills.values().sum()
    }

    pub fn is_clean(&self) -> bool {
        self.verdict.differences() == 0 && self.wrong.is_empty()
    }

    /// The recovery that this part of all were at most, in seconds.
    fn recovery(&self, part: f64) -> Option<f64> {
        let mut seconds: Vec<f64> = self.recoveries.iter().map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let at = (part * seconds.len() as f64).ceil() as usize;
        seconds.get(at.saturating_sub(1)).copied()
    }

    pub fn to_json(&self) -> Value {
        json!({
            "kills": self.killed(),
            "kills_by_kind": self.kills,
            "rounds_by_kind": self.rounds,
            "failpoints": self.failpoints,
            "kills_in_transaction": self.in_transaction,
            "kills_in_snapshot": self.in_snapshot,
            "broker_kills_in_transaction": self.broker_in_transaction,
            "restarts": self.restarts,
            "stops_by_itself": self.stops,
            "clean_stops": self.clean_stops,
            "outputs_compared": self.verdict.compared,
            "outputs_aborted": self.hidden,
            "differences": self.verdict.differences(),
            "missing": self.verdict.missing,
            "extra": self.verdict.extra,
            "disordered": self.verdict.disordered,
            "wrong": self.wrong,
            "recovery_p50_s": self.recovery(0.5),
            "recovery_p95_s": self.recovery(0.95),
            "recoveries": self.recoveries.len(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.kills.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        write!(f, "{} kills ({}), ", self.killed(), kinds.join(", "))?;
        write!(
            f,
            "{} inside an open transaction, {} inside a snapshot, ",
            self.in_transaction, self.in_snapshot
        )?;
        write!(f, "{} restarts, {} stops by itself, ", self.restarts, self.stops)?;
        write!(f, "{} outputs compared, {} aborted, ", self.verdict.compared, self.hidden)?;
        write!(f, "{} differences", self.verdict.differences())?;
        if self.verdict.differences() > 0 {
            let Verdict { missing, extra, disordered, .. } = &self.verdict;
            write!(f, " ({missing} missing, {extra} too many, {disordered} logs in disorder)")?;
        }
        write!(f, ", {} other faults found", self.wrong.len())?;
        if let (Some(p50), Some(p95)) = (self.recovery(0.5), self.recovery(0.95)) {
            write!(f, ", recovery p50 {p50:.2} s p95 {p95:.2} s")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_measured() {
        let mut report = Report::default();
        assert_eq!(report.recovery(0.5), None);
        report.recoveries = (1..=20).rev().map(Duration::from_secs).collect();
        assert_eq!((report.recovery(0.5), report.recovery(0.95)), (Some(10.0), Some(19.0)));
    }

    #[test]
    fn other_faults_count_like_differences() {
        let mut report = Report::default();
        assert!(report.is_clean());
        report.wrong.push("a zombie lived on".to_owned());
        assert!(!report.is_clean());
    }
}
