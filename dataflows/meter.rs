//! How long a worker's operators work: what a metric tells, nothing that changes a result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The times of one worker's operators. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Vec<OperatorTime>>>);

/// The time that one operator has worked so far. Clones share it.
#[derive(Clone, Debug)]
pub struct OperatorTime {
    pub name: &'static str,
    nanoseconds: Arc<AtomicU64>,
}

impl Meter {
    /// The time of the operator of this name, from 0.
    pub fn operator(&self, name: &'static str) -> OperatorTime {
        let time = OperatorTime { name, nanoseconds: Arc::default() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(time.clone());
        time
    }

    /// All operators' times, in the order of the graph.
    pub fn operators(&self) -> Vec<OperatorTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl OperatorTime {
    /// Does the work and adds the time it took.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
        done
    }

    /// Nanoseconds so far.
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }
}
