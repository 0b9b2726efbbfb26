//! How far each shard is read and delivered: written by the worker that reads it, read by whoever commits and
//! reports.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// One partition of an input topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub topic: String,
    pub partition: i32,
    /// The offset to begin at.
    pub start: i64,
}

impl Shard {
    /// `topic/partition`, as in a row's source.
    pub fn name(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }
}

/// How far one shard has come.
#[derive(Debug)]
pub struct Progress {
    position: AtomicI64,
    delivered: AtomicI64,
    stamped_at: AtomicI64,
    at_end: AtomicBool,
}

impl Progress {
    /// A shard about to be read from this offset.
    pub fn from(start: i64) -> Progress {
        Progress {
            position: AtomicI64::new(start),
            delivered: AtomicI64::new(start),
            stamped_at: AtomicI64::new(0),
            at_end: AtomicBool::new(false),
        }
    }

    /// Notes that messages were read up to this offset, the last of them stamped by Kafka with this time in
    /// milliseconds.
    pub fn read(&self, next_offset: i64, stamped_at: i64) {
        self.at_end.store(false, Ordering::Relaxed);
        self.stamped_at.store(stamped_at, Ordering::Relaxed);
        self.position.store(next_offset, Ordering::Release);
    }

    /// Notes that the broker has no more at the moment.
    pub fn reached_end(&self) {
        self.at_end.store(true, Ordering::Release);
    }

    /// Notes that all outputs of the messages before this offset are delivered.
    pub fn deliver(&self, next_offset: i64) {
        self.delivered.store(next_offset, Ordering::Release);
    }

    /// The next offset to read.
    pub fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// The offset that may be committed: all outputs of the messages before it are delivered.
    pub fn delivered(&self) -> i64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// Kafka's timestamp of the last message read, in milliseconds; `None` before the first.
    pub fn stamped_at(&self) -> Option<i64> {
        Some(self.stamped_at.load(Ordering::Relaxed)).filter(|stamp| *stamp > 0)
    }

    /// Whether the broker had no more when it was asked last.
    pub fn is_at_end(&self) -> bool {
        self.at_end.load(Ordering::Acquire)
    }
}
