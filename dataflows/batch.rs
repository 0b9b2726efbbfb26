//! What moves through the graph: the rows of one stretch of a log, together, with their account.

use std::sync::Arc;

use foreshock_operators::account::Ledger;
use foreshock_operators::operator::Tagged;
use foreshock_operators::time::Time;
use serde::{Deserialize, Serialize};

/// A stretch of the log as it was read, before decoding. Epochs count the stretches of a log from 0 without a
/// hole: they are what order is restored by.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub epoch: u64,
    /// The log has ended: this chunk is empty, and what waits for more of the log is let go.
    pub end: bool,
    pub bytes: Arc<Vec<u8>>,
    /// Runs of lines in `bytes`, in the order of the log.
    pub runs: Vec<Run>,
}

/// Lines of one file that follow each other.
#[derive(Clone, Debug)]
pub struct Run {
    /// Position in the list of sources.
    pub file: u32,
    /// Number of the first line, from 1.
    pub first_line: u64,
    /// The lines in the chunk's bytes, each but perhaps the last ended by a newline.
    pub start: usize,
    pub end: usize,
    /// Length of the line, without white space at its end, where it is longer than a message may be: then the
    /// run is the beginning of that one line.
    pub too_large: Option<u64>,
}

/// The part of a chunk that belongs to one worker's instruments, on its way through the operators.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch<T> {
    pub epoch: u64,
    /// The worker whose instruments these are.
    pub worker: usize,
    pub end: bool,
    /// In the order of the log.
    pub values: Vec<Tagged<T>>,
    /// The fates of what this batch stands for, so far.
    pub ledger: Ledger,
    /// The chunk's bytes: the originals of dead letters.
    pub bytes: Arc<Vec<u8>>,
}

/// The part of a log that a job looks at, by event time: `from` inclusive, `to` exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub from: Option<Time>,
    pub to: Option<Time>,
}

impl Range {
    /// Whether the range has this moment.
    pub fn contains(&self, time: Time) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }
}
