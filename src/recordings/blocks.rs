//! Reads a file in blocks of whole lines.

use std::io::{ErrorKind, Read};
use std::ops::Range;

use anyhow::{Error, Result};

use super::input::RecordedInput;

/// Longest prefix that a recorder puts before a message.
pub const PREFIX_MAX: usize = 64;

/// What some editors put before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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
    /// Size of the block to come.
    wanted: usize,
    block_bytes: usize,
    line_max: usize,
    /// The beginning of a line whose end was not in the last block.
    rest: Vec<u8>,
    next_line: u64,
    ended: bool,
}

impl Blocks {
    pub fn new(
        input: &RecordedInput,
        reader: Box<dyn Read + Send>,
        block_bytes: usize,
        line_max: usize,
    ) -> Blocks {
        let described = input.described();
        let wanted = FIRST_BLOCK_BYTES;
        Blocks {
            reader,
            described,
            wanted,
            block_bytes,
            line_max,
            rest: Vec::new(),
            next_line: 1,
            ended: false,
        }
    }

    /// The next block; `None` at the end of the file.
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
        Ok(block)
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
                break;
            }
            if bytes.len() > self.line_max {
                return self.skip_line(bytes).map(Some);
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
        while end < bytes.len() && !self.ended {
            match self.reader.read(&mut bytes[end..]) {
                Ok(read) => {
                    end += read;
                    self.ended = read == 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let what = format!("could not read {} to its end", self.described);
                    return Err(Error::from(error).context(what));
                }
            }
        }
        bytes.truncate(end);
        Ok(())
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

impl Block {
    /// The first line at or after `at`, without its line break.
    pub fn line(&self, at: usize) -> Option<Range<usize>> {
        if at >= self.bytes.len() {
            return None;
        }
        let length = memchr::memchr(b'\n', &self.bytes[at..]).unwrap_or(self.bytes.len() - at);
        Some(at..at + length)
    }
}
