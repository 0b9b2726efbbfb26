//! Which shards are to save their state, and where they did: between the thread that keeps snapshots and the workers.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};

use foreshock_dataflows::batch::SnapshotCut;

/// A snapshot that has begun: all rows before the offset are in it.
#[derive(Clone, Debug)]
pub struct StartedSnapshot {
    pub shard: u32,
    pub number: u64,
    pub offset: i64,
    /// Offset and digest of the last record before it, where one was read.
    pub last_record: Option<(i64, [u8; 32])>,
}

/// The snapshot requests for all shards of a process.
#[derive(Debug)]
pub struct SnapshotRequests {
    /// By shard: 0, or the number of the snapshot that is requested.
    requested: Vec<AtomicU64>,
    /// By shard: the offset of the last snapshot that is published.
    saved: Vec<AtomicI64>,
    numbers: AtomicU64,
    begun: Mutex<Sender<StartedSnapshot>>,
}

impl SnapshotRequests {
    /// No requests; `saved` are the offsets of the snapshots that there are.
    pub fn new(saved: impl Iterator<Item = i64>, begun: Sender<StartedSnapshot>) -> SnapshotRequests {
        let saved: Vec<AtomicI64> = saved.map(AtomicI64::new).collect();
        SnapshotRequests {
            requested: saved.iter().map(|_| AtomicU64::new(0)).collect(),
            saved,
            numbers: AtomicU64::new(1),
            begun: Mutex::new(begun),
        }
    }

    /// Wishes for a snapshot behind a shard's next rows; gives its number.
    pub fn request_snapshot(&self, shard: u32) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.requested[shard as usize].store(number, Ordering::Release);
        number
    }

    /// Takes a request back; says whether it was still there.
    pub fn withdraw(&self, shard: u32) -> bool {
        self.requested[shard as usize].swap(0, Ordering::AcqRel) != 0
    }

    /// Takes up the request for a shard, if there is one.
    pub fn take_request(&self, shard: u32) -> Option<SnapshotCut> {
        let requested = &self.requested[shard as usize];
        // Looked at first: nearly always there is none.
        if requested.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let number = requested.swap(0, Ordering::AcqRel);
        (number != 0).then_some(SnapshotCut { number, at_once: false })
    }

    /// A snapshot for the end of the job, unless the last one has all of it.
    pub fn last(&self, shard: u32, offset: i64) -> Option<SnapshotCut> {
        self.withdraw(shard);
        let is_new = self.saved[shard as usize].load(Ordering::Acquire) != offset;
        is_new.then(|| SnapshotCut { number: self.numbers.fetch_add(1, Ordering::Relaxed), at_once: true })
    }

    /// Tells of a snapshot that has begun, before its pieces come.
    pub fn note_started(&self, begun: StartedSnapshot) {
        // Nobody listens any more only where the job ends early.
        let _ = self.begun.lock().unwrap_or_else(PoisonError::into_inner).send(begun);
    }

    /// Notes that a snapshot is published.
    pub fn note_published(&self, shard: u32, offset: i64) {
        self.saved[shard as usize].store(offset, Ordering::Release);
    }

    /// The offset of a shard's last snapshot.
    pub fn saved(&self, shard: u32) -> i64 {
        self.saved[shard as usize].load(Ordering::Acquire)
    }
}
