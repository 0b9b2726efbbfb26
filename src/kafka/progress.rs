//! How far each shard is read and delivered: written by the worker that reads it, read by whoever commits and
//! reports.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// A partition of an input: topic and number.
pub type Partition = (String, i32);

/// One partition of an input topic, and where it is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub topic: String,
    pub partition: i32,
    /// The offset to begin at.
    pub start: i64,
    /// The first offset whose outputs are not there yet: rows before it only make the state.
    pub emit_from: i64,
    /// Where the log ended when the job began.
    pub end: i64,
}

impl Shard {
    /// `topic/partition`, as in a row's source.
    pub fn name(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }
}

/// How far one shard has come.
#[derive(Debug)]
pub struct ShardProgress {
    position: AtomicI64,
    delivered: AtomicI64,
    committed: AtomicI64,
    stamped_at: AtomicI64,
    end: AtomicI64,
    covered: AtomicI64,
    reachable: AtomicBool,
}

impl ShardProgress {
    /// A shard about to be read from `start`, with nothing in its state, whose log ended at `end` when it was looked
    /// at.
    pub fn between(start: i64, end: i64) -> ShardProgress {
        ShardProgress::of(&Shard { topic: String::new(), partition: 0, start, emit_from: start, end })
    }

    /// The progress of a shard that is about to begin.
    pub fn of(shard: &Shard) -> ShardProgress {
        let Shard { start, emit_from, end, .. } = *shard;
        ShardProgress {
            position: AtomicI64::new(start),
            delivered: AtomicI64::new(emit_from),
            committed: AtomicI64::new(emit_from),
            stamped_at: AtomicI64::new(0),
            end: AtomicI64::new(end),
            covered: AtomicI64::new(start),
            reachable: AtomicBool::new(true),
        }
    }

    /// Notes that messages were read up to this offset, the last of them stamped by Kafka with this time in
    /// milliseconds.
    pub fn read(&self, next_offset: i64, stamped_at: i64) {
        self.stamped_at.store(stamped_at, Ordering::Relaxed);
        self.position.store(next_offset, Ordering::Release);
        self.covered.fetch_max(next_offset, Ordering::AcqRel);
    }

    /// Notes that there is no message between the position and the end known so far: a log's last offsets may
    /// hold none.
    pub fn reached_end(&self) {
        self.covered.fetch_max(self.end.load(Ordering::Acquire), Ordering::AcqRel);
    }

    /// Notes where the log ends, as its leader has just said.
    pub fn ends_at(&self, end: i64) {
        self.end.store(end, Ordering::Release);
        self.reachable.store(true, Ordering::Release);
    }

    /// Notes that the log's leader does not answer.
    pub fn lose(&self) {
        self.reachable.store(false, Ordering::Release);
    }

    /// Whether the log's leader answered when it was asked last.
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Acquire)
    }

    /// Notes that all outputs of the messages before this offset are delivered.
    pub fn deliver(&self, next_offset: i64) {
        self.delivered.store(next_offset, Ordering::Release);
    }

    /// Notes that this offset is committed.
    pub fn commit(&self, next_offset: i64) {
        self.committed.store(next_offset, Ordering::Release);
    }

    /// The next offset to read.
    pub fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// The offset that may be committed: all outputs of the messages before it are delivered.
    pub fn delivered(&self) -> i64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// The offset committed last.
    pub fn committed(&self) -> i64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Kafka's timestamp of the last message read, in milliseconds; `None` before the first.
    pub fn stamped_at(&self) -> Option<i64> {
        Some(self.stamped_at.load(Ordering::Relaxed)).filter(|stamp| *stamp > 0)
    }

    /// The offset behind the log's last message, as it was known last; the position where there is nothing between.
    pub fn end(&self) -> i64 {
        let end = self.end.load(Ordering::Acquire);
        let position = self.position();
        if self.covered.load(Ordering::Acquire) >= end { position } else { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_what_is_not_covered_and_nothing_hides_it() {
        let progress = ShardProgress::between(5, 9);
        assert_eq!((progress.position(), progress.end()), (5, 9));
        progress.read(8, 1);
        assert_eq!((progress.position(), progress.end()), (8, 9));
        // The last offset is a marker of a transaction.
        progress.reached_end();
        assert_eq!((progress.position(), progress.end()), (8, 8));
        // New messages that are not read are lag again, whatever was reached before.
        progress.ends_at(20);
        assert_eq!((progress.position(), progress.end()), (8, 20));
        progress.read(20, 2);
        assert_eq!((progress.position(), progress.end()), (20, 20));
    }
}
