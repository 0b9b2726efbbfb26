//! What is to be told of the files of a log, besides what they hold.

use std::sync::{Mutex, PoisonError};

use tracing::warn;

/// More are not kept for the summary.
const NOTES_MAX: usize = 1_000;

/// What was told of files so far: each thing once, however often a log is read.
#[derive(Debug, Default)]
pub struct LogNotes(Mutex<Vec<String>>);

impl LogNotes {
    /// Warns of a file, unless the same was told already.
    pub fn tell(&self, file: &str, what: &str) {
        let note = format!("{file} {what}");
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= NOTES_MAX || notes.contains(&note) {
            return;
        }
        warn!("{note}");
        notes.push(note);
    }

    /// All that was told.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
