//! Reads a file in blocks of whole lines.

use std::io::{Cursor, ErrorKind, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use anyhow::{Error, Result};
use foreshock_operators::venues::{Line, split_line};
use serde::de::IgnoredAny;

use super::elements::Elements;
use super::follow::LOOK_EVERY;
use super::input::{Compression, OpenInput, RecordedInput, TakenBytes};
use super::layout::{BYTE_ORDER_MARK, FileShape, Layout, shape};
use super::log::LogSettings;

/// Longest prefix that a recorder puts before a message.
pub const PREFIX_MAX: usize = 64;

/// How much of a line that is too long is kept, for its dead letter.
const TOO_LARGE_KEPT: usize = foreshock_operators::outputs::deadletter::ORIGINAL_MAX + PREFIX_MAX;

/// Most lines in a block: short lines that are all refused make far more of themselves than their bytes.
pub const LINES_MAX: usize = 8_192;

/// Size of the first block, from which it is told what the file holds: the same for blocks of any size.
const FIRST_BLOCK_BYTES: usize = 256 * 1024;

/// Whole lines of one file.
#[derive(Debug)]
pub struct Block {
    pub bytes: Vec<u8>,
    /// Number of the first line, from 1.
    pub first_line: u64,
    /// The block is the beginning of one line, which is this long without white space at its end: more than a
    /// message may be.
    pub too_large: Option<u64>,
}

/// Cuts a stream of bytes into blocks of whole lines. Holds at most one block and one line.
pub struct Blocks {
    reader: Box<dyn Read + Send>,
    described: String,
    layout: Layout,
    taken: Arc<TakenBytes>,
    /// Bytes on disk, where that is known.
    size: Option<u64>,
    /// Whether a file that ends in the middle of something is read as far as it is whole.
    take_whole: bool,
    /// Size of the block to come.
    wanted: usize,
    block_bytes: usize,
    line_max: usize,
    /// The beginning of a line whose end was not in the last block.
    rest: Vec<u8>,
    next_line: u64,
    ended: bool,
    /// There may be more, but not now.
    waiting: bool,
    /// What was lost at the end, for whoever asks.
    lost: Option<String>,
}

impl Blocks {
    /// Begins with an input, of which the first bytes are read to tell how its messages lie in it.
    ///
    /// # Errors
    /// When it can't be opened or read, or holds no lines of ours at all.
    pub fn open(
        input: &RecordedInput,
        settings: &LogSettings,
    ) -> Result<(Blocks, FileShape, Option<Compression>)> {
        let OpenInput { reader, compression, taken } = input.open(settings)?;
        let mut blocks = Blocks {
            reader,
            described: input.described(),
            layout: Layout::Lines,
            taken,
            size: input.size(),
            take_whole: settings.take_whole || settings.follow.is_some(),
            wanted: FIRST_BLOCK_BYTES,
            block_bytes: settings.chunk_bytes,
            line_max: settings.max_message_bytes + PREFIX_MAX,
            rest: Vec::new(),
            next_line: 1,
            ended: false,
            waiting: false,
            lost: None,
        };
        let mut head = Vec::new();
        loop {
            blocks.fill(&mut head)?;
            // A file that is being written may stay short for long; its first line tells.
            if !blocks.waiting || memchr::memchr(b'\n', &head).is_some() {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        let found = shape(&head, blocks.ended, &input.name());
        blocks.layout = found.layout;
        match found.layout {
            Layout::Lines | Layout::Commas => blocks.rest = head,
            Layout::Elements => {
                let reader = std::mem::replace(&mut blocks.reader, Box::new(std::io::empty()));
                // The end that was met is met once more behind the first bytes.
                let rest: Box<dyn Read + Send> =
                    if std::mem::take(&mut blocks.ended) { Box::new(std::io::empty()) } else { reader };
                let text = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&head).to_vec();
                blocks.reader = Box::new(Elements::new(Cursor::new(text).chain(rest)));
            }
        }
        Ok((blocks, found, compression))
    }

    /// The next block; `None` at the end of the file, or where nothing more is there yet.
    ///
    /// # Errors
    /// When the file can't be read to its end, or is compressed and damaged or cut off.
    pub fn read(&mut self) -> Result<Option<Block>> {
        let mut block = self.next_block()?;
        self.wanted = self.block_bytes;
        if let Some(first) = block.as_mut().filter(|block| block.first_line == 1)
            && first.bytes.starts_with(BYTE_ORDER_MARK)
        {
            first.bytes.drain(..BYTE_ORDER_MARK.len());
        }
        if self.layout == Layout::Commas
            && let Some(block) = block.as_mut()
        {
            block.leave_out_commas();
        }
        Ok(block)
    }

    /// The next block, waited for; `None` at the end of the file.
    ///
    /// # Errors
    /// As with [`Blocks::read`].
    pub fn read_next(&mut self) -> Result<Option<Block>> {
        loop {
            let block = self.read()?;
            if block.is_some() || self.is_ended() {
                return Ok(block);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether there is no more, and never will be.
    pub fn is_ended(&self) -> bool {
        self.ended && self.rest.is_empty()
    }

    /// What was lost at the end of the file, once.
    pub fn take_loss(&mut self) -> Option<String> {
        let lost = self.lost.take()?;
        let (count, what) = (self.next_line - 1, self.layout.counted());
        Some(format!("{lost}; {count} {what}s were read"))
    }

    fn next_block(&mut self) -> Result<Option<Block>> {
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.reserve_exact(self.wanted.saturating_sub(bytes.len()));
        let mut searched = 0;
        loop {
            // Whole lines may be left over from a block of short ones.
            if memchr::memchr(b'\n', &bytes[searched..]).is_none() {
                searched = bytes.len();
                self.fill(&mut bytes)?;
            }
            if let Some(at) = memchr::memrchr(b'\n', &bytes[searched..]) {
                self.rest = bytes.split_off(searched + at + 1);
                break;
            }
            if self.ended {
                self.leave_out_cut_line(&mut bytes);
                break;
            }
            if bytes.len() > self.line_max {
                return self.skip_line(bytes).map(Some);
            }
            if self.waiting {
                self.rest = bytes;
                return Ok(None);
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let first_line = self.next_line;
        let mut line_ends = memchr::memchr_iter(b'\n', &bytes);
        if let Some(last) = line_ends.nth(LINES_MAX - 1)
            && last + 1 < bytes.len()
        {
            let mut rest = bytes.split_off(last + 1);
            rest.append(&mut self.rest);
            self.rest = rest;
            bytes.shrink_to_fit();
        }
        self.next_line += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        Ok(Some(Block { bytes, first_line, too_large: None }))
    }

    /// Reads a block's worth behind what is there.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        let wanted = self.wanted.saturating_sub(bytes.len()).max(self.wanted / 4);
        let mut end = bytes.len();
        bytes.resize(end + wanted, 0);
        self.waiting = false;
        while end < bytes.len() && !self.ended && !self.waiting {
            match self.reader.read(&mut bytes[end..]) {
                Ok(read) => {
                    end += read;
                    self.ended = read == 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.waiting = true,
                Err(error) if self.take_whole && !self.taken.failed.load(Ordering::Relaxed) => {
                    let left = self
                        .size
                        .map_or(0, |size| size.saturating_sub(self.taken.bytes.load(Ordering::Relaxed)));
                    let behind =
                        if left > 0 { format!(", and its last {left} bytes") } else { String::new() };
                    self.lost =
                        Some(format!("is not whole ({error}): what stood behind that place is lost{behind}"));
                    self.ended = true;
                }
                Err(error) => {
                    let is_cut = error.kind() == ErrorKind::UnexpectedEof;
                    let way_out = match is_cut {
                        true => {
                            "; it was cut off or is still being written: --take-whole reads what is whole of it"
                        }
                        false if self.taken.failed.load(Ordering::Relaxed) => "",
                        false => "; it is damaged: --take-whole reads what is whole before that place",
                    };
                    let what = format!("could not read {} to its end: {error}{way_out}", self.described);
                    return Err(Error::msg(what));
                }
            }
        }
        bytes.truncate(end);
        Ok(())
    }

    /// Behind the last line break of a file that may be cut off: what stands there is taken where it is whole.
    fn leave_out_cut_line(&mut self, bytes: &mut Vec<u8>) {
        if !self.take_whole || is_whole(bytes) {
            return;
        }
        let (line, length) = (self.next_line, bytes.len());
        let what = self.layout.counted();
        let before = self.lost.take().unwrap_or_else(|| format!("ends in the middle of its {what} {line}"));
        self.lost = Some(format!("{before}; {what} {line} is left out, of which {length} bytes are there"));
        bytes.clear();
    }

    /// Keeps the beginning of a line that is too long and reads on to its end. Where only white space follows,
    /// what is kept is the line.
    fn skip_line(&mut self, mut bytes: Vec<u8>) -> Result<Block> {
        let mut read = bytes.len() as u64;
        // Without white space at the end.
        let mut length = bytes.trim_ascii_end().len() as u64;
        let mut is_whole = true;
        let mut more = Vec::new();
        loop {
            more.clear();
            self.fill(&mut more)?;
            if self.waiting {
                thread::sleep(LOOK_EVERY);
            }
            let line_end = memchr::memchr(b'\n', &more);
            let part = &more[..line_end.unwrap_or(more.len())];
            let text = part.trim_ascii_end();
            if !text.is_empty() {
                is_whole = false;
                length = read + text.len() as u64;
            }
            let kept = part.len().min(TOO_LARGE_KEPT.saturating_sub(bytes.len()));
            bytes.extend_from_slice(&part[..kept]);
            read += part.len() as u64;
            if let Some(at) = line_end {
                self.rest = more.split_off(at + 1);
            }
            if line_end.is_some() || self.ended {
                break;
            }
        }
        let first_line = self.next_line;
        self.next_line += 1;
        if !is_whole {
            bytes.truncate(TOO_LARGE_KEPT);
        }
        Ok(Block { bytes, first_line, too_large: (!is_whole).then_some(length) })
    }
}

/// Whether a line without a line break is all there.
fn is_whole(line: &[u8]) -> bool {
    match split_line(line) {
        Line::Blank | Line::Control => true,
        Line::Message { body, .. } | Line::BadReceipt { body, .. } => {
            serde_json::from_slice::<IgnoredAny>(&line[body]).is_ok()
        }
    }
}

impl Block {
    /// Whether it holds nothing but white space.
    pub fn is_blank(&self) -> bool {
        self.too_large.is_none() && self.bytes.trim_ascii_end().is_empty()
    }

    /// Puts a space in the place of the comma at the end of each line, and of a bracket that is all of a line.
    fn leave_out_commas(&mut self) {
        let mut at = 0;
        while let Some(line) = self.line(at) {
            at = line.end + 1;
            let text = self.bytes[line.clone()].trim_ascii_end();
            let last = line.start + text.len();
            if text.ends_with(b",") || matches!(text, b"[" | b"]") {
                self.bytes[last - 1] = b' ';
            }
        }
    }

    /// The first line at or after `at`, without its line break.
    pub fn line(&self, at: usize) -> Option<Range<usize>> {
        if at >= self.bytes.len() {
            return None;
        }
        let length = memchr::memchr(b'\n', &self.bytes[at..]).unwrap_or(self.bytes.len() - at);
        Some(at..at + length)
    }
}
