//! The head of a worker's graph: polls its shards for what has arrived.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use foreshock_dataflows::batch::Delivery;
use foreshock_dataflows::source::NextPoll;
use prometheus::IntCounter;

use super::ending::Ending;
use super::worker_ends::WorkerEnds;
use crate::kafka::source::Polled;

/// How long a worker sleeps when nothing wakes it: then it looks at delivery reports and at whether to stop.
pub const IDLE: Duration = Duration::from_millis(10);

/// How long a worker waits before it looks again whether the backlog has room.
const FULL: Duration = Duration::from_millis(1);

/// Polls the shards of one worker until they are to be read no further.
pub struct Poll {
    ends: WorkerEnds,
    ending: Arc<Ending>,
    /// Bytes of outputs that one shard may have in its backlog and still be read. Each has its share, so that one whose
    /// outputs wait leaves the others theirs.
    share_bytes: usize,
    /// Counts how often a shard had no room.
    waits: IntCounter,
}

impl Poll {
    /// Polls a source whose shards share so many bytes of outputs.
    pub fn new(ends: WorkerEnds, output_bytes: usize, ending: Arc<Ending>, waits: IntCounter) -> Poll {
        let share_bytes = output_bytes / ends.source().shards().max(1);
        Poll { ends, ending, share_bytes, waits }
    }

    /// Puts what has arrived into the list, without waiting.
    pub fn poll(&mut self, arrived: &mut Vec<Delivery>) -> NextPoll {
        let (mut source, sink) = (self.ends.source(), self.ends.sink());
        if self.ending.is_stopping() {
            // What failed leaves the state as it was saved last.
            if !self.ending.halt.is_set() {
                source.finish(arrived);
            }
            return self.read_no_further();
        }
        let is_full = Cell::new(false);
        let has_room = |shard| {
            let has_room = sink.backlog_bytes_of(shard) < self.share_bytes;
            is_full.set(is_full.get() || !has_room);
            has_room
        };
        let polled = source.poll(has_room, arrived);
        if is_full.get() {
            self.waits.inc();
        }
        match polled {
            Ok(Polled::More) => NextPoll::Again,
            Ok(Polled::Drained) if is_full.get() => NextPoll::Wait(FULL),
            Ok(Polled::Drained) => NextPoll::Wait(IDLE),
            Ok(Polled::Ended) => {
                source.finish(arrived);
                self.read_no_further()
            }
            Err(error) => {
                self.ending.halt.fail(error);
                self.read_no_further()
            }
        }
    }

    fn read_no_further(&self) -> NextPoll {
        self.ends.note_read_all();
        NextPoll::Ended
    }
}
