//! The bytes of a snapshot.
//!
//! ```text
//! magic (8) │ version (4) │ header │ section or instrument's section ... │ end
//!
//! each of the last:  kind (1) │ length (4) │ payload │ crc32 of all three (4)
//! payload of a header: JSON; of a section: its names, each with a length (4) before it, then its bytes
//! payload of the end: how many came before it (8) │ sha256 of the file before it (32)
//! ```
//! Numbers are little-endian. A file that was cut off has no end, and one that was changed has another checksum; so
//! nothing that was read before the end may be used until the end has been reached.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use super::header::Header;

/// How each snapshot begins. The first byte is no text and the last a line break, so that a copy made as text shows.
const MAGIC: [u8; 8] = *b"\xf5SHOCKS\n";

/// The version that is written and read. Version 1 had a section for each operator of an instrument; since version 2 there
/// is one for its whole chain; since version 3 it says which stamps are believed.
pub const VERSION: u32 = 3;

const HEADER: u8 = 1;
const SECTION: u8 = 2;
const INSTRUMENT: u8 = 3;
const END: u8 = 4;

/// Bytes before the payload of a frame: its kind and length.
const HEAD_BYTES: usize = 5;
/// Bytes of the payload of the last frame.
const END_BYTES: usize = 40;

/// Why a file can't be used as a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("it is no snapshot of foreshock's")]
    Foreign,
    #[error("its format is version {found}, but this foreshock reads version {VERSION}")]
    Newer { found: u32 },
    #[error(
        "its format is version {found}, of an earlier foreshock, and this one reads version {VERSION}: the state is made \
         again from the log"
    )]
    Older { found: u32 },
    #[error("damaged at byte {at}: found {found}, expected {expected}")]
    Damaged { at: u64, found: String, expected: String },
    #[error("it is of {found}, not of {expected}")]
    Other { found: String, expected: String },
    #[error("could not read it")]
    Io(#[from] io::Error),
}

impl ReadError {
    /// One word for it, as metrics and JSON have it.
    pub fn kind(&self) -> &'static str {
        match self {
            ReadError::Foreign => "foreign",
            ReadError::Newer { .. } => "newer",
            ReadError::Older { .. } => "older",
            ReadError::Damaged { .. } => "damaged",
            ReadError::Other { .. } => "other",
            ReadError::Io(_) => "io",
        }
    }

    /// Whether reading has failed, rather than what was read.
    pub fn is_away(&self) -> bool {
        // What is not there any more was removed meanwhile.
        matches!(self, ReadError::Io(error) if error.kind() != io::ErrorKind::NotFound)
    }
}

/// Writes a snapshot, frame by frame.
pub struct SnapshotEncoder<W> {
    out: W,
    digest: Sha256,
    bytes: u64,
    frames: u64,
    /// A write has failed, so what follows would stand in the wrong place.
    is_broken: bool,
}

impl<W: Write> SnapshotEncoder<W> {
    /// Begins with a header.
    ///
    /// # Errors
    /// Those of the writer, here and below; after one the snapshot can't be finished.
    pub fn begin_frames(out: W, header: &Header) -> io::Result<SnapshotEncoder<W>> {
        let mut encoder =
            SnapshotEncoder { out, digest: Sha256::new(), bytes: 0, frames: 0, is_broken: false };
        encoder.put(&MAGIC)?;
        encoder.put(&VERSION.to_le_bytes())?;
        encoder.frame(HEADER, &[&serde_json::to_vec(header)?])?;
        Ok(encoder)
    }

    /// Adds a section of the shard.
    pub fn section(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.frame(SECTION, &[&length(name)?, name.as_bytes(), bytes])
    }

    /// Adds a section of an instrument.
    pub fn instrument(&mut self, exchange: &str, symbol: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (of_exchange, of_symbol, of_name) = (length(exchange)?, length(symbol)?, length(name)?);
        let names = [&of_exchange, exchange.as_bytes(), &of_symbol, symbol.as_bytes(), &of_name];
        self.frame(INSTRUMENT, &[&names.concat(), name.as_bytes(), bytes])
    }

    /// Writes the end; gives the writer back, and how many bytes were written in all.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        let digest = self.digest.clone().finalize();
        self.frame(END, &[&self.frames.to_le_bytes(), &digest])?;
        self.out.flush()?;
        Ok((self.out, self.bytes))
    }

    fn frame(&mut self, kind: u8, payload: &[&[u8]]) -> io::Result<()> {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a section has at most 4 GiB"))?;
        let mut head = [kind; HEAD_BYTES];
        head[1..].copy_from_slice(&length.to_le_bytes());
        let mut checksum = crc32fast::Hasher::new();
        for part in [&head[..]].iter().chain(payload) {
            checksum.update(part);
            self.put(part)?;
        }
        self.put(&checksum.finalize().to_le_bytes())?;
        self.frames += 1;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("an earlier write has failed"));
        }
        self.out.write_all(bytes).inspect_err(|_| self.is_broken = true)?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

fn length(name: &str) -> io::Result<[u8; 4]> {
    let length = u32::try_from(name.len());
    let length = length.map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a name is too long"))?;
    Ok(length.to_le_bytes())
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first of all.
    Header(Header),
    Section {
        name: String,
        bytes: Vec<u8>,
    },
    Instrument {
        exchange: String,
        symbol: String,
        name: String,
        bytes: Vec<u8>,
    },
}

/// Reads a snapshot to its end and hands each frame to `take`.
///
/// # Errors
/// When it is none, or not whole, or `take` refuses: what was taken before then is worth nothing.
pub fn decode(
    input: impl Read,
    mut take: impl FnMut(Frame) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut decoder = Decoder { input, digest: Sha256::new(), at: 0, frames: 0 };
    decoder.check_magic()?;
    while let Some(frame) = decoder.frame()? {
        take(frame)?;
    }
    decoder.nothing_more()
}

struct Decoder<R> {
    input: R,
    /// Of all before the frame that is being read.
    digest: Sha256,
    at: u64,
    frames: u64,
}

impl<R: Read> Decoder<R> {
    fn check_magic(&mut self) -> Result<(), ReadError> {
        let mut magic = Vec::new();
        (&mut self.input).take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic != MAGIC {
            return Err(ReadError::Foreign);
        }
        self.at = MAGIC.len() as u64;
        self.digest.update(MAGIC);
        let version = self.bytes(4, "a version")?;
        self.digest.update(&version);
        match u32::from_le_bytes(array(&version)) {
            0 => Err(damaged(MAGIC.len() as u64, "version 0", "a version")),
            VERSION => Ok(()),
            found if found < VERSION => Err(ReadError::Older { found }),
            found => Err(ReadError::Newer { found }),
        }
    }

    /// The next frame; `None` for the end.
    fn frame(&mut self) -> Result<Option<Frame>, ReadError> {
        let start = self.at;
        let head = self.bytes(HEAD_BYTES, "a section or the end")?;
        let (kind, length) = (head[0], u32::from_le_bytes(array(&head[1..])) as usize);
        let payload = self.bytes(length, "the rest of a section")?;
        let found = self.bytes(4, "a checksum")?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&head);
        checksum.update(&payload);
        let (found, expected) = (u32::from_le_bytes(array(&found)), checksum.finalize());
        if found != expected {
            return Err(damaged(
                start,
                format!("checksum {found:08x} of a section of {length} bytes"),
                format!("{expected:08x}"),
            ));
        }
        if kind == END {
            self.end(start, &payload)?;
            return Ok(None);
        }
        for part in [&head[..], &payload, &found.to_le_bytes()] {
            self.digest.update(part);
        }
        self.frames += 1;
        if (kind == HEADER) != (self.frames == 1) {
            return Err(damaged(start, format!("a frame of kind {kind}"), "one header before all else"));
        }
        content(kind, payload).map(Some).ok_or_else(|| {
            damaged(start, format!("a frame of kind {kind} that can't be read"), "a header or a section")
        })
    }

    fn end(&mut self, start: u64, payload: &[u8]) -> Result<(), ReadError> {
        let expected = [&self.frames.to_le_bytes()[..], &self.digest.clone().finalize()].concat();
        if self.frames == 0 || payload.len() != END_BYTES || payload != expected {
            let expected = format!("the end of {} frames with their sha256", self.frames);
            return Err(damaged(start, "the end of another snapshot", expected));
        }
        Ok(())
    }

    fn nothing_more(&mut self) -> Result<(), ReadError> {
        let mut more = Vec::new();
        (&mut self.input).take(1).read_to_end(&mut more)?;
        if more.is_empty() { Ok(()) } else { Err(damaged(self.at, "more bytes", "the end of the file")) }
    }

    /// Exactly so many bytes. Memory grows with what is there, not with what a damaged length asks for.
    fn bytes(&mut self, length: usize, what: &str) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        (&mut self.input).take(length as u64).read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64;
        if bytes.len() < length {
            return Err(damaged(self.at, "the end of the file", format!("{what} of {length} bytes")));
        }
        Ok(bytes)
    }
}

fn damaged(at: u64, found: impl Into<String>, expected: impl Into<String>) -> ReadError {
    ReadError::Damaged { at, found: found.into(), expected: expected.into() }
}

/// The first bytes, which are there.
fn array(bytes: &[u8]) -> [u8; 4] {
    bytes.first_chunk().copied().unwrap_or_default()
}

/// Reads a payload; `None` where it is none of this kind.
fn content(kind: u8, mut payload: Vec<u8>) -> Option<Frame> {
    match kind {
        HEADER => serde_json::from_slice(&payload).ok().map(Frame::Header),
        SECTION => {
            let mut rest = &payload[..];
            let name = name(&mut rest)?;
            let names = payload.len() - rest.len();
            payload.drain(..names);
            Some(Frame::Section { name, bytes: payload })
        }
        INSTRUMENT => {
            let mut rest = &payload[..];
            let (exchange, symbol, name) = (name(&mut rest)?, name(&mut rest)?, name(&mut rest)?);
            let names = payload.len() - rest.len();
            payload.drain(..names);
            Some(Frame::Instrument { exchange, symbol, name, bytes: payload })
        }
        _ => None,
    }
}

fn name(rest: &mut &[u8]) -> Option<String> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (name, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    String::from_utf8(name.to_vec()).ok()
}
