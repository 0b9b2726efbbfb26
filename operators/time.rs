//! Event time: UTC nanoseconds inside, RFC 3339 outside.

use serde::{Deserialize, Serialize};

/// A span of time in nanoseconds.
pub type Nanos = i64;

/// One millisecond in nanoseconds.
pub const MILLISECOND: Nanos = 1_000_000;
/// One second in nanoseconds.
pub const SECOND: Nanos = 1_000_000_000;

/// A moment in event time: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub i64);

impl Time {
    /// The moment `span` after this one.
    pub fn plus(self, span: Nanos) -> Time {
        Time(self.0.saturating_add(span))
    }

    /// The moment `span` before this one.
    pub fn minus(self, span: Nanos) -> Time {
        Time(self.0.saturating_sub(span))
    }

    /// Nanoseconds from `earlier` to this moment.
    pub fn since(self, earlier: Time) -> Nanos {
        self.0.saturating_sub(earlier.0)
    }
}
