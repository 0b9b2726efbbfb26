//! Several recorded files as one log.
//!
//! Files are merged by the largest receive time so far in each (the event time where lines carry none), ties in
//! the order named; no line moves within its file (docs/definitions.md, "Input").

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use anyhow::{Result, bail};
use foreshock_dataflows::batch::{Chunk, Run};
use foreshock_dataflows::decode::LogFile;
use foreshock_operators::row::{Extent, InstrumentId, Source};
use foreshock_operators::time::{MINUTE, Nanos, SECOND, Time};
use foreshock_operators::venues::{
    ClockSource, Envelope, Format, Line, Receipt, Resolve, Resolved, decode, split_line,
};

use super::blocks::{Block, Blocks, LINES_MAX};
use super::input::RecordedInput;
use super::notes::LogNotes;
use super::sniff::{self, Expected};

/// A row whose time lies further ahead of its receipt says nothing of the log's times.
const AHEAD_MAX: Nanos = 60 * MINUTE;

/// A line without a receipt whose time lies further ahead of those before it is held against the next line.
const JUMP_MAX: Nanos = 5 * SECOND;

/// By how much the next line may be older without saying that the one before it is wrong.
const OLDER_MAX: Nanos = SECOND;

/// How a log is read.
#[derive(Clone, Debug)]
pub struct LogSettings {
    pub inputs: Vec<RecordedInput>,
    /// What the user says the files hold.
    pub expected: Expected,
    pub chunk_bytes: usize,
    pub max_message_bytes: usize,
    /// Reads a file that is cut off or damaged as far as it is whole.
    pub take_whole: bool,
    /// Waits for more at the ends of files, until this is set.
    pub follow: Option<Arc<AtomicBool>>,
    /// Bytes taken from disk so far.
    pub progress: Arc<AtomicU64>,
    /// What is to be told of the files.
    pub notes: Arc<LogNotes>,
}

/// A log being read, chunk by chunk. Holds two blocks of each file at the most.
pub struct RecordedLog {
    files: Vec<LogFile>,
    cursors: Vec<Cursor>,
    chunk_bytes: usize,
    is_followed: bool,
    notes: Arc<LogNotes>,
    epoch: u64,
}

/// One file of several, at the line to come next.
struct Cursor {
    file: u32,
    blocks: Blocks,
    /// `None` at the end of the file, or where more is waited for.
    block: Option<Block>,
    /// The block behind it, where its last line had to be held against what follows.
    ahead: Option<Block>,
    at: usize,
    line: u64,
    format: Format,
    exchange: Option<String>,
    /// A longer message is refused, so that its own time is of no use.
    max_message_bytes: usize,
    /// Largest time so far, the line to come included.
    time: Time,
    /// What follows the line to come has to say whether its time is right, and is not there yet.
    is_undecided: bool,
    described: String,
}

impl RecordedLog {
    /// Opens all files and tells what each of them holds from its first lines. Empty ones are told of and passed over.
    ///
    /// # Errors
    /// When a file can't be opened or read, or holds something else than expected, or none holds anything.
    pub fn open(settings: &LogSettings) -> Result<RecordedLog> {
        let (mut files, mut cursors, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        let mut inputs = Vec::new();
        for input in &settings.inputs {
            let expanded = input.expanded(settings.follow.is_some())?;
            if expanded.is_empty() {
                empty.push((input.described(), "is an archive without files".to_owned()));
            }
            inputs.extend(expanded);
        }
        for input in &inputs {
            let (mut blocks, found, compression) = Blocks::open(input, settings)?;
            if let Some(suspect) = &found.suspect {
                bail!(suspect.text(input, compression));
            }
            let mut first = blocks.read_next()?;
            let is_empty = first.is_none();
            while first.as_ref().is_some_and(Block::is_blank) {
                first = blocks.read_next()?;
            }
            let Some(block) = first else {
                let what = match (blocks.take_loss(), is_empty) {
                    (Some(lost), _) => lost,
                    (None, true) => "is empty".to_owned(),
                    (None, false) => "holds nothing but blank lines".to_owned(),
                };
                empty.push((input.described(), what));
                continue;
            };
            let file = sniff::sniff(input, &block, &settings.expected, found.layout)?;
            cursors.push(Cursor {
                file: files.len() as u32,
                blocks,
                line: block.first_line,
                block: Some(block),
                ahead: None,
                at: 0,
                format: file.format,
                exchange: file.exchange.clone(),
                max_message_bytes: settings.max_message_bytes,
                time: Time(i64::MIN),
                is_undecided: false,
                described: input.described(),
            });
            // Two files of one name are told apart by their paths.
            let same = |other: &&RecordedInput| other.name() == input.name();
            let is_shared = inputs.iter().filter(same).count() > 1;
            files.push(if is_shared { LogFile { name: input.path(), ..file } } else { file });
        }
        if cursors.is_empty() {
            let why: Vec<String> = empty.iter().map(|(file, what)| format!("{file} {what}")).collect();
            bail!("{}: there is no message to read", why.join(", "));
        }
        for (file, what) in empty {
            settings.notes.tell(&file, &format!("{what}, and is passed over"));
        }
        let mut log = RecordedLog {
            files,
            cursors,
            chunk_bytes: settings.chunk_bytes,
            is_followed: settings.follow.is_some(),
            notes: settings.notes.clone(),
            epoch: 0,
        };
        if log.cursors.len() > 1 {
            for cursor in &mut log.cursors {
                cursor.look(&log.notes)?;
            }
        }
        Ok(log)
    }

    /// What each file holds, in the order named.
    pub fn files(&self) -> Arc<[LogFile]> {
        self.files.clone().into()
    }

    /// Whether more may come although there is nothing now.
    pub fn is_waiting(&self) -> bool {
        self.cursors
            .iter()
            .any(|cursor| (cursor.block.is_none() || cursor.is_undecided) && !cursor.blocks.is_ended())
    }

    /// The next chunk of the log; `None` at its end, or where [`RecordedLog::is_waiting`].
    ///
    /// # Errors
    /// When a file can't be read to its end.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let (bytes, runs) = match &mut self.cursors[..] {
            [only] => {
                only.refill(&self.notes)?;
                let Some(block) = only.block.take() else { return Ok(None) };
                only.refill(&self.notes)?;
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
            // Which line is next is known when every file has shown one, or its end.
            if self.is_followed && !self.has_all_next_lines()? {
                break;
            }
            lines += 1;
            let waiting = self.cursors.iter_mut().filter(|cursor| cursor.block.is_some());
            let Some(next) = waiting.min_by_key(|cursor| (cursor.time, cursor.file)) else { break };
            let start = bytes.len();
            let too_large = next.take_line(&mut bytes, &self.notes)?;
            let (file, line, end) = (next.file, next.line, bytes.len());
            next.line += 1;
            next.look(&self.notes)?;
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

/// Tells what was lost at the end of a file.
fn tell_loss(blocks: &mut Blocks, described: &str, notes: &LogNotes) {
    if let Some(lost) = blocks.take_loss() {
        notes.tell(described, &lost);
    }
}

impl RecordedLog {
    /// Looks for lines in files that had none to give; `false`: one of them may have more, but not now.
    fn has_all_next_lines(&mut self) -> Result<bool> {
        for cursor in self.cursors.iter_mut().filter(|cursor| cursor.block.is_none() || cursor.is_undecided) {
            cursor.refill(&self.notes)?;
            cursor.look(&self.notes)?;
        }
        Ok(!self.is_waiting())
    }
}

impl Cursor {
    /// Reads the next block, where there is none and more to read.
    fn refill(&mut self, notes: &LogNotes) -> Result<()> {
        if self.block.is_none() {
            self.block = self.ahead.take();
            self.at = 0;
            if self.block.is_none() && !self.blocks.is_ended() {
                self.block = self.blocks.read()?;
            }
        }
        if self.blocks.is_ended() {
            tell_loss(&mut self.blocks, &self.described, notes);
        }
        Ok(())
    }

    /// Moves the line to come into `bytes`, ended by a newline. Returns its length where it is too long.
    fn take_line(&mut self, bytes: &mut Vec<u8>, notes: &LogNotes) -> Result<Option<u64>> {
        let Some(block) = &self.block else { return Ok(None) };
        let too_large = block.too_large;
        let line = block.line(self.at).unwrap_or(self.at..self.at);
        self.at = line.end + 1;
        bytes.extend_from_slice(&block.bytes[line]);
        bytes.push(b'\n');
        if self.at >= block.bytes.len() || too_large.is_some() {
            self.block = None;
            self.refill(notes)?;
        }
        Ok(too_large)
    }

    /// Looks at the time of the line to come. One that is from the future by itself does not count: the line comes where it
    /// stands in its file, and no other file goes first because of it.
    fn look(&mut self, notes: &LogNotes) -> Result<()> {
        self.is_undecided = false;
        let Some((time, is_received)) = self.block.as_ref().and_then(|block| self.time_of(block, self.at))
        else {
            return Ok(());
        };
        let is_doubtful = !is_received && self.time > Time(i64::MIN) && time > self.time.plus(JUMP_MAX);
        if !(is_doubtful && self.is_denied(time, notes)?) {
            self.time = self.time.max(time);
        }
        Ok(())
    }

    /// Whether the line behind the one to come is older than `time`. At the end of what is there nobody denies it.
    fn is_denied(&mut self, time: Time, notes: &LogNotes) -> Result<bool> {
        let Some(block) = &self.block else { return Ok(false) };
        let behind = block.line(self.at).map_or(block.bytes.len(), |line| line.end + 1);
        let next = if behind < block.bytes.len() && block.too_large.is_none() {
            self.time_of(block, behind)
        } else {
            if self.ahead.is_none() && !self.blocks.is_ended() {
                self.ahead = self.blocks.read()?;
                self.is_undecided = self.ahead.is_none() && !self.blocks.is_ended();
            }
            if self.blocks.is_ended() {
                tell_loss(&mut self.blocks, &self.described, notes);
            }
            self.ahead.as_ref().and_then(|block| self.time_of(block, 0))
        };
        Ok(next.is_some_and(|(next, _)| next < time.minus(OLDER_MAX)))
    }

    /// The time of the line at `at`, and whether it is a receipt.
    fn time_of(&self, block: &Block, at: usize) -> Option<(Time, bool)> {
        let line = &block.bytes[block.line(at)?];
        let Line::Message { received, body } = split_line(line) else { return None };
        if let Some(received) = received {
            return Some((received, true));
        }
        let is_read = block.too_large.is_none() && body.len() <= self.max_message_bytes;
        let exchange = self.exchange.as_deref();
        let time = is_read.then(|| event_time(self.format, exchange, &line[body], None)).flatten();
        Some((time?, false))
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
