//! Reads a file in blocks of whole lines.

use std::io::Read;
use std::ops::Range;

use anyhow::{Context, Result};

use super::input::Input;

/// How much of a line that is too long is kept, for its dead letter.
const TOO_LARGE_KEPT: usize = foreshock_operators::encode::ORIGINAL_MAX;

/// Whole lines of one file.
#[derive(Debug)]
pub struct Block {
    pub bytes: Vec<u8>,
    /// Number of the first line, from 1.
    pub first_line: u64,
    /// The block is the beginning of one line, which is this long: more than a message may be.
    pub too_large: Option<u64>,
}

/// Cuts a stream of bytes into blocks of whole lines. Holds at most one block and one line.
pub struct Blocks {
    reader: Box<dyn Read + Send>,
    described: String,
    block_bytes: usize,
    line_max: usize,
    /// The beginning of a line whose end was not in the last block.
    rest: Vec<u8>,
    next_line: u64,
    ended: bool,
}

impl Blocks {
    pub fn new(input: &Input, reader: Box<dyn Read + Send>, block_bytes: usize, line_max: usize) -> Blocks {
        let described = input.described();
        Blocks { reader, described, block_bytes, line_max, rest: Vec::new(), next_line: 1, ended: false }
    }

    /// The next block; `None` at the end of the file.
    ///
    /// # Errors
    /// When the file can't be read to its end, or is compressed and damaged or cut off.
    pub fn next(&mut self) -> Result<Option<Block>> {
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.reserve_exact(self.block_bytes.saturating_sub(bytes.len()));
        let mut searched = 0;
        loop {
            self.fill(&mut bytes)?;
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
            searched = bytes.len();
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let first_line = self.next_line;
        self.next_line += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        Ok(Some(Block { bytes, first_line, too_large: None }))
    }

    /// Reads a block's worth behind what is there.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        let wanted = self.block_bytes.saturating_sub(bytes.len()).max(self.block_bytes / 4);
        let read = (&mut self.reader)
            .take(wanted as u64)
            .read_to_end(bytes)
            .with_context(|| format!("could not read {} to its end", self.described))?;
        self.ended = read < wanted;
        Ok(())
    }

    /// Keeps the beginning of a line that is too long and reads on to its end.
    fn skip_line(&mut self, mut bytes: Vec<u8>) -> Result<Block> {
        let mut length = bytes.len() as u64;
        let mut more = Vec::new();
        loop {
            let end = memchr::memchr(b'\n', &more);
            if let Some(at) = end {
                self.rest = more.split_off(at + 1);
                more.pop();
            }
            length += more.len() as u64;
            let room = TOO_LARGE_KEPT.saturating_sub(bytes.len());
            bytes.extend_from_slice(&more[..more.len().min(room)]);
            if end.is_some() || self.ended {
                break;
            }
            more.clear();
            self.fill(&mut more)?;
        }
        bytes.truncate(TOO_LARGE_KEPT);
        let first_line = self.next_line;
        self.next_line += 1;
        Ok(Block { bytes, first_line, too_large: Some(length) })
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
