//! Notices when a job has recovered: when its states are again where the last commit was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tells when all that was emitted before has been read again.
#[derive(Debug)]
pub struct RecoveryWatch {
    since: Instant,
    is_over: AtomicBool,
}

impl RecoveryWatch {
    /// Begins to watch.
    pub fn start() -> RecoveryWatch {
        RecoveryWatch { since: Instant::now(), is_over: AtomicBool::new(false) }
    }

    /// Whether all shards were there at some time.
    pub fn has_ended(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// How long it took, the first time that this is asked with all shards there.
    pub fn is_over(&self, mut shards_there: impl Iterator<Item = bool>) -> Option<Duration> {
        if self.is_over.load(Ordering::Relaxed) || !shards_there.all(|is_there| is_there) {
            return None;
        }
        (!self.is_over.swap(true, Ordering::AcqRel)).then(|| self.since.elapsed())
    }
}
