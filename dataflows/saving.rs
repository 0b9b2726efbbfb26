//! Saves the states of a shard behind one cut while its later rows are already on their way.
//!
//! ```text
//! cut with a request ─► states are marked ─► each is saved before its next row, or by a sweep ─► pieces
//! ```
//! Nothing is copied at the cut. All pieces together are the state behind it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SendError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long one sweep may take: rows wait as long.
pub const SWEEP: Duration = Duration::from_micros(500);

/// Rows that went through states so recently are still on their way through the graph: sweeps let them pass.
const ROWS_PASS: Duration = Duration::from_micros(100);

/// Where rows never cease, a sweep comes after so long all the same.
const SWEEP_AT_LEAST_EVERY: Duration = Duration::from_millis(10);

/// Pieces that nobody has taken yet: with more of them sweeps wait. Of their memory no more is kept for the next ones.
const PENDING_BYTES_MAX: usize = 16 << 20;

/// A piece of the snapshot of one shard.
#[derive(Debug)]
pub struct Piece {
    pub shard: u32,
    pub number: u64,
    pub section: &'static str,
    pub content: PieceContent,
}

/// What a piece holds.
#[derive(Debug)]
pub enum PieceContent {
    /// The state of the key of this index.
    Key(usize, Vec<u8>),
    /// What belongs to the shard as a whole.
    Shard(Vec<u8>),
    /// All pieces of this section were given.
    Done,
}

/// Takes the pieces of one worker's snapshots. Clones are one.
#[derive(Clone, Debug)]
pub struct Saver {
    pieces: Sender<Piece>,
    pending_bytes: Arc<AtomicUsize>,
    turns: Arc<Mutex<Turns>>,
    spare: Arc<Mutex<Spare>>,
}

/// Memory of pieces that were worked off: the next are about as long. Memory that is new to the process costs several times
/// what writing a state into it does, and rows wait for both.
#[derive(Debug, Default)]
struct Spare {
    bytes: usize,
    pieces: Vec<Vec<u8>>,
}

/// When sweeps may be.
#[derive(Debug, Default)]
struct Turns {
    /// When rows last came to states that have something to save.
    rows_at: Option<Instant>,
    /// When the last sweep ended.
    swept_at: Option<Instant>,
}

impl Saver {
    /// Pieces go into this channel; whoever takes one gives it to [`Saver::piece_done`].
    pub fn new(pieces: Sender<Piece>) -> Saver {
        Saver { pieces, pending_bytes: Arc::default(), turns: Arc::default(), spare: Arc::default() }
    }

    /// Takes a piece back that was worked off.
    pub fn piece_done(&self, piece: Piece) {
        self.pending_bytes.fetch_sub(piece.content.room(), Ordering::AcqRel);
        if let PieceContent::Key(_, bytes) = piece.content {
            self.spare().put(bytes);
        }
    }

    /// Empty memory for a piece.
    pub(crate) fn room(&self) -> Vec<u8> {
        self.spare().take_buffer()
    }

    /// Gives what belongs to a shard as a whole: a section of one piece.
    pub fn shard(&self, shard: u32, number: u64, section: &'static str, bytes: Vec<u8>) {
        self.give(Piece { shard, number, section, content: PieceContent::Shard(bytes) });
        self.give(Piece { shard, number, section, content: PieceContent::Done });
    }

    /// Gives the state of the key of this index.
    pub(crate) fn key(&self, shard: u32, number: u64, section: &'static str, key: usize, bytes: Vec<u8>) {
        self.give(Piece { shard, number, section, content: PieceContent::Key(key, bytes) });
    }

    pub(crate) fn end_section(&self, shard: u32, number: u64, section: &'static str) {
        self.give(Piece { shard, number, section, content: PieceContent::Done });
    }

    /// Whether no rows are on their way, and there is room for what a sweep finds.
    pub(crate) fn may_sweep(&self) -> bool {
        let Turns { rows_at, swept_at } = &*self.turns();
        let is_past = |at: &Option<Instant>, span| at.is_none_or(|at| at.elapsed() >= span);
        (is_past(rows_at, ROWS_PASS) || is_past(swept_at, SWEEP_AT_LEAST_EVERY))
            && self.pending_bytes.load(Ordering::Acquire) < PENDING_BYTES_MAX
    }

    /// Notes that rows are on their way through the graph.
    pub(crate) fn note_rows(&self) {
        self.turns().rows_at = Some(Instant::now());
    }

    /// Notes that a sweep has taken its time.
    pub(crate) fn note_sweep(&self) {
        self.turns().swept_at = Some(Instant::now());
    }

    fn give(&self, piece: Piece) {
        self.pending_bytes.fetch_add(piece.content.room(), Ordering::AcqRel);
        // Nobody takes pieces any more only where the job ends: then the snapshot isn't wanted.
        if let Err(SendError(piece)) = self.pieces.send(piece) {
            self.piece_done(piece);
        }
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spare {
    fn take_buffer(&mut self) -> Vec<u8> {
        let bytes = self.pieces.pop().unwrap_or_default();
        self.bytes -= bytes.capacity();
        bytes
    }

    fn put(&mut self, mut bytes: Vec<u8>) {
        if self.bytes + bytes.capacity() <= PENDING_BYTES_MAX {
            bytes.clear();
            self.bytes += bytes.capacity();
            self.pieces.push(bytes);
        }
    }
}

impl PieceContent {
    /// The memory that it takes.
    fn room(&self) -> usize {
        match self {
            PieceContent::Key(_, bytes) | PieceContent::Shard(bytes) => bytes.capacity(),
            PieceContent::Done => 0,
        }
    }
}
