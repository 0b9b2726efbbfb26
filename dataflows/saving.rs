//! Saves the states of a shard behind one cut while its later rows are already on their way.
//!
//! ```text
//! Cut with a wish ─► each operator marks its states ─► one is saved before its next row, or by a sweep ─► pieces
//! ```
//! Nothing is copied at the cut. The pieces of all operators together are the state behind it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SendError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foreshock_operators::row::InstrumentId;

/// How long one sweep may take: rows wait as long.
pub const SWEEP: Duration = Duration::from_micros(500);

/// Rows that went through an operator so recently are still on their way through the graph: sweeps let them pass. The
/// graph is several steps long, and each would otherwise wait for a sweep.
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
    /// The operator's name.
    pub section: &'static str,
    pub what: PieceContent,
}

/// What a piece holds.
#[derive(Debug)]
pub enum PieceContent {
    /// The state of one instrument.
    Instrument(InstrumentId, Vec<u8>),
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

/// Memory of pieces that were worked off, by section: the next of a section is about as long. Memory that is new to the
/// process costs several times what writing a state into it does, and rows wait for both.
#[derive(Debug, Default)]
struct Spare {
    bytes: usize,
    of_sections: BTreeMap<&'static str, Vec<Vec<u8>>>,
}

/// Who sweeps, and when.
#[derive(Debug, Default)]
struct Turns {
    /// The sections that are not done, in the order of the graph: they sweep one after the other.
    sections: VecDeque<&'static str>,
    /// When rows last came to an operator that has something to save.
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
        self.pending_bytes.fetch_sub(piece.what.room(), Ordering::AcqRel);
        if let PieceContent::Instrument(_, bytes) = piece.what {
            self.spare().put(piece.section, bytes);
        }
    }

    /// Empty memory for a piece.
    pub(crate) fn room(&self, section: &'static str) -> Vec<u8> {
        self.spare().take_buffer(section)
    }

    /// Gives what belongs to a shard as a whole: a section of one piece.
    pub fn shard(&self, shard: u32, number: u64, section: &'static str, bytes: Vec<u8>) {
        self.give(Piece { shard, number, section, what: PieceContent::Shard(bytes) });
        self.give(Piece { shard, number, section, what: PieceContent::Done });
    }

    pub(crate) fn begin_section(&self, section: &'static str) {
        let mut turns = self.turns();
        turns.sections.push_back(section);
        turns.swept_at = Some(Instant::now());
    }

    pub(crate) fn instrument(
        &self,
        shard: u32,
        number: u64,
        section: &'static str,
        instrument: InstrumentId,
        bytes: Vec<u8>,
    ) {
        self.give(Piece { shard, number, section, what: PieceContent::Instrument(instrument, bytes) });
    }

    pub(crate) fn end_section(&self, shard: u32, number: u64, section: &'static str) {
        self.turns().sections.retain(|other| *other != section);
        self.give(Piece { shard, number, section, what: PieceContent::Done });
    }

    /// Whether it is this section's turn to sweep, no rows are on their way, and there is room for what it finds.
    pub(crate) fn may_sweep(&self, section: &'static str) -> bool {
        let Turns { sections, rows_at, swept_at } = &*self.turns();
        let is_past = |at: &Option<Instant>, span| at.is_none_or(|at| at.elapsed() >= span);
        sections.front() == Some(&section)
            && (is_past(rows_at, ROWS_PASS) || is_past(swept_at, SWEEP_AT_LEAST_EVERY))
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
        self.pending_bytes.fetch_add(piece.what.room(), Ordering::AcqRel);
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
    fn take_buffer(&mut self, section: &'static str) -> Vec<u8> {
        let bytes = self.of_sections.get_mut(section).and_then(Vec::pop).unwrap_or_default();
        self.bytes -= bytes.capacity();
        bytes
    }

    fn put(&mut self, section: &'static str, mut bytes: Vec<u8>) {
        if self.bytes + bytes.capacity() <= PENDING_BYTES_MAX {
            bytes.clear();
            self.bytes += bytes.capacity();
            self.of_sections.entry(section).or_default().push(bytes);
        }
    }
}

impl PieceContent {
    /// The memory that it takes.
    fn room(&self) -> usize {
        match self {
            PieceContent::Instrument(_, bytes) | PieceContent::Shard(bytes) => bytes.capacity(),
            PieceContent::Done => 0,
        }
    }
}
