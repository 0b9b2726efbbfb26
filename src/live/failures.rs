//! Remembers how a job has failed, so that one that fails again and again at the same place stays down.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::debug;

/// The third start that would fail at the same place is the last.
const FAILURES_MAX: u32 = 3;

/// What happened to a job at a place of its input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The committed offsets of the shards that stand still, by name.
    pub committed: Vec<(String, i64)>,
    pub count: u32,
    pub error: String,
}

/// A job has failed too often at one place.
#[derive(Debug, thiserror::Error)]
#[error(
    "the job has failed {} times at the same place ({place}): {error}; it stays down until that is put right: then \
     start it with --retry",
    FAILURES_MAX
)]
pub struct StaysDown {
    place: String,
    error: String,
}

impl From<Failure> for StaysDown {
    fn from(Failure { committed, error, .. }: Failure) -> StaysDown {
        let place: Vec<String> =
            committed.iter().map(|(shard, offset)| format!("{shard}/{offset}")).collect();
        StaysDown { place: place.join(", "), error }
    }
}

/// Where failures are remembered: a file beside the snapshots, one for each process of a job.
#[derive(Clone, Debug)]
pub struct FailureLog {
    path: PathBuf,
}

impl FailureLog {
    /// Those of a process of a job. Nothing is read or made yet.
    pub fn of(folder: PathBuf, process: usize) -> FailureLog {
        FailureLog { path: folder.join(format!("failure-{process}.json")) }
    }

    /// Why the job is to stay down at this place, if it is.
    pub fn stays_down(&self, committed: &[(String, i64)]) -> Option<Failure> {
        let stands_still = |failure: &Failure| failure.committed.iter().all(|at| committed.contains(at));
        self.read().filter(|failure| failure.count >= FAILURES_MAX && stands_still(failure))
    }

    /// Remembers a failure with these shards at these offsets, and rows behind them. Those that have moved since the
    /// last failure are not to blame for it.
    pub fn note(&self, mut committed: Vec<(String, i64)>, error: String) {
        let mut count = 1;
        if let Some(before) = self.read() {
            let same: Vec<_> = committed.iter().filter(|at| before.committed.contains(at)).cloned().collect();
            if !same.is_empty() {
                (committed, count) = (same, before.count + 1);
            }
        }
        if committed.is_empty() {
            return;
        }
        let failure = Failure { committed, count, error };
        let written = serde_json::to_vec(&failure).map_err(std::io::Error::other).and_then(|json| {
            self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let aside = self.path.with_extension("tmp");
            fs::write(&aside, json)?;
            fs::rename(&aside, &self.path)
        });
        if let Err(error) = written {
            // Then it is started again as often as somebody likes.
            debug!(%error, "a failure can't be remembered");
        }
    }

    /// Forgets what happened.
    pub fn forget(&self) {
        // There may be nothing to forget.
        let _ = fs::remove_file(&self.path);
    }

    fn read(&self) -> Option<Failure> {
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_failure_at_a_place_keeps_a_job_down_and_another_place_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let failures = FailureLog::of(folder.path().join("job"), 0);
        let place = |offset| vec![("t/0".to_owned(), offset)];
        for _ in 0..2 {
            failures.note(place(7), "bad".to_owned());
            assert_eq!(failures.stays_down(&place(7)), None);
        }
        failures.note(place(7), "worse".to_owned());
        assert_eq!(failures.stays_down(&place(7)).unwrap().error, "worse");
        assert_eq!(failures.stays_down(&place(8)), None, "it has got on");
        let among_others = |other| [place(8), vec![("t/1".to_owned(), other)]].concat();
        failures.note(among_others(1), "bad".to_owned());
        assert_eq!(failures.stays_down(&place(8)), None);
        failures.note(among_others(2), "bad".to_owned());
        failures.note(among_others(3), "bad".to_owned());
        let failure = failures.stays_down(&among_others(4)).unwrap();
        assert_eq!(failure.committed, place(8), "the other one gets on");
        failures.forget();
        assert_eq!(failures.stays_down(&place(8)), None);
    }
}
