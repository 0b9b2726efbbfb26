//! Several recorded files as one log.
//!
//! Files are merged by the largest receive time so far in each (the event time where lines carry none), ties in
//! the order named; no line moves within its file (docs/definitions.md, "Input").

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Result;
use foreshock_dataflows::batch::{Chunk, Run};
use foreshock_dataflows::decode::LogFile;
use foreshock_operators::row::{Extent, InstrumentId, Source};
use foreshock_operators::time::{MINUTE, Nanos, Time};
use foreshock_operators::venues::{
    ClockSource, Envelope, Format, Line, Receipt, Resolve, Resolved, decode, split_line,
};

use super::blocks::{Block, Blocks, LINES_MAX, PREFIX_MAX};
use super::input::RecordedInput;
use super::sniff::{self, Expected};

/// A row whose time lies further ahead of its receipt says nothing of the log's times.
const AHEAD_MAX: Nanos = 60 * MINUTE;

/// How a log is read.
#[derive(Clone, Debug)]
pub struct LogSettings {
    pub inputs: Vec<RecordedInput>,
    /// What the user says the files hold.
    pub expected: Expected,
    pub chunk_bytes: usize,
    pub max_message_bytes: usize,
    /// Bytes taken from disk so far.
    pub progress: Arc<AtomicU64>,
}

/// A log being read, chunk by chunk. Holds a block of each file at the most.
pub struct RecordedLog {
    files: Vec<LogFile>,
    cursors: Vec<Cursor>,
    chunk_bytes: usize,
    epoch: u64,
}

/// One file of several, at the line to come next.
struct Cursor {
    file: u32,
    blocks: Blocks,
    /// `None` at the end of the file.
    block: Option<Block>,
    at: usize,
    line: u64,
    format: Format,
    exchange: Option<String>,
    /// A longer message is refused, so that its own time is of no use.
    max_message_bytes: usize,
    /// Largest time so far, the line to come included.
    time: Time,
}

impl RecordedLog {
    /// Opens all files and tells what each of them holds from its first lines.
    ///
    /// # Errors
    /// When a file can't be opened or read, or holds something else than expected.
    pub fn open(settings: &LogSettings) -> Result<RecordedLog> {
        let line_max = settings.max_message_bytes + PREFIX_MAX;
        let (mut files, mut cursors) = (Vec::new(), Vec::new());
        for (at, input) in settings.inputs.iter().enumerate() {
            let reader = input.open(&settings.progress)?;
            let mut blocks = Blocks::new(input, reader, settings.chunk_bytes, line_max);
            let block = blocks.read()?;
            let found = sniff::sniff(input, block.as_ref(), &settings.expected)?;
            cursors.push(Cursor {
                file: at as u32,
                blocks,
                line: 1,
                block,
                at: 0,
                format: found.format,
                exchange: found.exchange.clone(),
                max_message_bytes: settings.max_message_bytes,
                time: Time(i64::MIN),
            });
            files.push(found);
        }
        for (file, input) in files.iter_mut().zip(&settings.inputs) {
            // Two files of one name are told apart by their paths.
            let same = |other: &&RecordedInput| other.name() == input.name();
            if settings.inputs.iter().filter(same).count() > 1 {
                file.name = input.path();
            }
        }
        let mut log = RecordedLog { files, cursors, chunk_bytes: settings.chunk_bytes, epoch: 0 };
        if log.cursors.len() > 1 {
            log.cursors.iter_mut().for_each(Cursor::look);
        }
        Ok(log)
    }

    /// What each file holds, in the order named.
    pub fn files(&self) -> Arc<[LogFile]> {
        self.files.clone().into()
    }

    /// The next chunk of the log; `None` at its end.
    ///
    /// # Errors
    /// When a file can't be read to its end.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let (bytes, runs) = match &mut self.cursors[..] {
            [only] => {
                let Some(block) = only.block.take() else { return Ok(None) };
                only.block = only.blocks.read()?;
                let Block { bytes, first_line, too_large } = block;
                let run = Run { file: 0, first_line, start: 0, end: bytes.len(), too_large };
                (bytes, vec![run])
            }
            _ => self.merge()?,
        };
        if runs.is_empty() {
            return Ok(None);
        }
        let chunk = Chunk { epoch: self.epoch, end: false, bytes: Arc::new(bytes), runs };
        self.epoch += 1;
        Ok(Some(chunk))
    }

    /// The chunk that says the log has ended.
    pub fn end_chunk(&mut self) -> Chunk {
        let chunk = Chunk { epoch: self.epoch, end: true, bytes: Arc::default(), runs: Vec::new() };
        self.epoch += 1;
        chunk
    }

    /// Takes lines from the files, whichever is behind, until a chunk is full.
    fn merge(&mut self) -> Result<(Vec<u8>, Vec<Run>)> {
        let mut bytes = Vec::with_capacity(self.chunk_bytes);
        let mut runs: Vec<Run> = Vec::new();
        let mut lines = 0;
        while bytes.len() < self.chunk_bytes && lines < LINES_MAX {
            lines += 1;
            let waiting = self.cursors.iter_mut().filter(|cursor| cursor.block.is_some());
            let Some(next) = waiting.min_by_key(|cursor| (cursor.time, cursor.file)) else { break };
            let start = bytes.len();
            let too_large = next.take_line(&mut bytes)?;
            let (file, line, end) = (next.file, next.line, bytes.len());
            next.line += 1;
            next.look();
            match runs.last_mut() {
                Some(run) if run.file == file && run.too_large.is_none() && too_large.is_none() => {
                    run.end = end
                }
                _ => runs.push(Run { file, first_line: line, start, end, too_large }),
            }
        }
        Ok((bytes, runs))
    }
}

impl Cursor {
    /// Moves the line to come into `bytes`, ended by a newline. Returns its length where it is too long.
    fn take_line(&mut self, bytes: &mut Vec<u8>) -> Result<Option<u64>> {
        let Some(block) = &self.block else { return Ok(None) };
        let too_large = block.too_large;
        let line = block.line(self.at).unwrap_or(self.at..self.at);
        self.at = line.end + 1;
        bytes.extend_from_slice(&block.bytes[line]);
        bytes.push(b'\n');
        if self.at >= block.bytes.len() || too_large.is_some() {
            self.block = self.blocks.read()?;
            self.at = 0;
        }
        Ok(too_large)
    }

    /// Looks at the time of the line to come.
    fn look(&mut self) {
        let Some(block) = &self.block else { return };
        let Some(line) = block.line(self.at) else { return };
        let line = &block.bytes[line];
        if let Line::Message { received, body } = split_line(line) {
            let exchange = self.exchange.as_deref();
            let is_read = block.too_large.is_none() && body.len() <= self.max_message_bytes;
            let time = received
                .or_else(|| is_read.then(|| event_time(self.format, exchange, &line[body], None)).flatten());
            self.time = self.time.max(time.unwrap_or(self.time));
        }
    }
}

/// The event time of a message's first row; `None` where it has no row, or one whose time lies far ahead of its
/// receipt.
pub fn event_time(
    format: Format,
    exchange: Option<&str>,
    message: &[u8],
    received: Option<Time>,
) -> Option<Time> {
    let envelope = Envelope {
        received: received.map(Receipt::Stated),
        exchange,
        checked: false,
        source: Source::default(),
        extent: Extent::default(),
    };
    let (mut rows, mut refused) = (Vec::new(), Vec::new());
    decode(format, message, &envelope, &mut AnyInstrument, &mut rows, &mut refused);
    let is_far_ahead = |time: Time| received.is_some_and(|received| time.since(received) > AHEAD_MAX);
    rows.first().map(|row| row.event_time).filter(|time| !is_far_ahead(*time))
}

/// Takes every symbol: only the time is looked at.
struct AnyInstrument;

impl Resolve for AnyInstrument {
    fn resolve(&mut self, _exchange: &str, _symbol: &str) -> Option<Resolved> {
        Some(Resolved { instrument: InstrumentId(0), clock: ClockSource::Exchange })
    }
}
