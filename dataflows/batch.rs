//! What moves through the graph: the rows of one segment of a log, together, with their account.

use std::sync::Arc;

use foreshock_operators::account::Ledger;
use foreshock_operators::change::ChangeAt;
use foreshock_operators::links::Tagged;
use foreshock_operators::row::{Extent, InstrumentId, Level};
use foreshock_operators::time::Time;
use foreshock_operators::venues::Receipt;
use serde::{Deserialize, Serialize};

use crate::control::{Answer, FoundRecord};

/// A chunk of the log as it was read, before decoding. Epochs count the chunks of a log from 0 without a
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

/// Messages of one shard as they were read, before decoding.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The job reads no further: this delivery is empty, and what waits for more of the log is let go.
    pub end: bool,
    /// The messages, one behind the other, each behind its key.
    pub bytes: Arc<Vec<u8>>,
    pub messages: Vec<Delivered>,
    pub cut: Cut,
}

/// One message of a [`Delivery`].
#[derive(Clone, Debug)]
pub struct Delivered {
    pub offset: u64,
    pub key: Extent,
    /// `None`: the message has no value.
    pub body: Option<Extent>,
    /// When the venue's message was received.
    pub received: Option<Receipt>,
    /// The exchange, where header or key names it.
    pub exchange: Option<Arc<str>>,
    /// It is a control record of ours, whatever it holds.
    pub control: bool,
    /// What is wrong with what came beside the message: then it is refused unread.
    pub problem: Option<String>,
}

/// The end of a segment of a shard: travels behind its last row. A checkpoint barrier (Flink), a marker (Chandy and Lamport);
/// since a shard has one way through the graph, nothing has to be aligned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Position in the list of shards.
    pub shard: u32,
    /// Where the shard goes on.
    pub next_offset: i64,
    /// When the segment was read, by a clock of the process that only goes forward, in nanoseconds.
    pub read_at: u64,
    /// Kafka's timestamp of the last message, in milliseconds.
    pub stamped_at: i64,
    /// What comes of the segment was emitted before this process began: states take its rows, outputs are suppressed.
    pub suppressed: bool,
    /// The state behind the segment is to be saved.
    pub snapshot: Option<SnapshotCut>,
}

/// The request for a snapshot of a shard's state behind a [`Cut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotCut {
    /// Counts the snapshots of a process.
    pub number: u64,
    /// Everything is saved now: no more rows come. Otherwise each state is saved before its next row, or when there
    /// is time.
    pub at_once: bool,
}

/// What a live batch comes from: the messages of a shard between two cuts.
#[derive(Clone, Debug)]
pub struct SourceSegment {
    pub cut: Cut,
    pub messages: Vec<Delivered>,
    /// Offset and index of each row and refused row, by its position in the batch.
    pub positions: Vec<(u64, u32)>,
}

impl SourceSegment {
    /// The key of the message at an offset.
    pub fn key(&self, offset: u64) -> Option<Extent> {
        let at = self.messages.binary_search_by_key(&offset, |message| message.offset).ok()?;
        Some(self.messages[at].key)
    }
}

/// Values of keys of one worker, on their way through the graph, with all that they need. `O` says where they come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch<T, O, K = InstrumentId> {
    /// The log has ended behind these.
    pub end: bool,
    /// In the order of the log.
    pub values: Vec<Tagged<T, K>>,
    /// Changes that hold from some of the values on, in the order of their places.
    pub changes: Vec<ChangeAt<K>>,
    /// The fates of what this batch stands for, so far.
    pub ledger: Ledger,
    /// The originals of dead letters.
    pub bytes: Arc<Vec<u8>>,
    /// Levels of order books: the values hold extents of them.
    pub levels: Vec<Level>,
    pub origin: O,
}

/// Where a batch comes from.
pub trait BatchOrigin {
    /// The cut behind the batch, where it is one of a shard.
    fn cut(&self) -> Option<Cut>;

    /// Notes the offset of the oldest message of the shard of which some value waits for others.
    fn note_waiting(&mut self, oldest: Option<u64>);
}

/// A part of a chunk of files: that of one worker's instruments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FromFiles {
    pub epoch: u64,
    /// The worker whose instruments these are.
    pub worker: usize,
    /// Control records that are still to be read: every worker sees all of them.
    pub records: Vec<FoundRecord>,
}

/// A delivery of a shard; it never leaves its worker.
#[derive(Clone, Debug)]
pub struct FromShard {
    pub segment: Arc<SourceSegment>,
    /// Answers to control records.
    pub answers: Vec<Answer>,
    /// The offset of the oldest message of which a row waits for others: what is behind it can't be called done.
    pub waiting: Option<u64>,
}

impl BatchOrigin for FromFiles {
    fn cut(&self) -> Option<Cut> {
        None
    }

    fn note_waiting(&mut self, _: Option<u64>) {}
}

impl BatchOrigin for FromShard {
    fn cut(&self) -> Option<Cut> {
        Some(self.segment.cut)
    }

    fn note_waiting(&mut self, oldest: Option<u64>) {
        self.waiting = [self.waiting, oldest].into_iter().flatten().min();
    }
}

/// The part of a log that a job looks at, by event time: `from` inclusive, `to` exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    pub from: Option<Time>,
    pub to: Option<Time>,
}

impl TimeRange {
    /// Whether the range has this moment.
    pub fn contains(&self, time: Time) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }
}
