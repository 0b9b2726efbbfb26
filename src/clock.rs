//! The process's own clock, which only goes forward: for latencies, never for results.

use std::time::Instant;

/// Counts from the moment it was made. Copies count from the same one.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Nanoseconds since the start.
    pub fn nanoseconds(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since the start.
    pub fn milliseconds(&self) -> u64 {
        self.nanoseconds() / 1_000_000
    }
}
