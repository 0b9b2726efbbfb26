//! Ends the threads of a run together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Error;

/// Ends a run early, with the first reason given.
#[derive(Clone, Default)]
pub struct Halt(Arc<(AtomicBool, Mutex<Option<Error>>)>);

impl Halt {
    /// Ends the run for this reason, unless there is one already.
    pub fn fail(&self, error: Error) {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.0.0.store(true, Ordering::Release);
    }

    /// Ends the run for a reason that is told otherwise.
    pub fn set(&self) {
        self.0.0.store(true, Ordering::Release);
    }

    /// The reason, as text.
    pub fn text(&self) -> Option<String> {
        let reason = self.0.1.lock().unwrap_or_else(PoisonError::into_inner);
        reason.as_ref().map(|error| format!("{error:#}"))
    }

    /// Whether the run is to end.
    pub fn is_set(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    /// The reason, once.
    pub fn reason(&self) -> Option<Error> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
