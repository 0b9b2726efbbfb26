//! The files in a zip archive, each read from its own place in it.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use zip::{CompressionMethod, ZipArchive};

use super::foreign::quoted;

/// Each file that is open holds a block of what it has.
const MEMBERS_MAX: usize = 1_000;

/// Ways to compress that we don't read.
const OTHER_METHODS: [(CompressionMethod, &str); 6] = [
    (CompressionMethod::DEFLATE64, "deflate64"),
    (CompressionMethod::BZIP2, "bzip2"),
    (CompressionMethod::LZMA, "lzma"),
    (CompressionMethod::XZ, "xz"),
    (CompressionMethod::PPMD, "ppmd"),
    (CompressionMethod::IMPLODE, "implode"),
];

/// A file in a zip archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZipMember {
    pub name: String,
    /// Where its bytes begin in the archive, and how many they are there.
    start: u64,
    pub packed: u64,
    method: ZipMethod,
    /// Of what it holds.
    size: u64,
    checksum: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZipMethod {
    Stored,
    Deflated,
    Zstd,
}

/// The files in an archive, in its order, but for what other programs put beside them.
///
/// # Errors
/// When it can't be read as an archive, or one of its files can't be read by us.
pub fn members(path: &Path, described: &str) -> Result<Vec<ZipMember>> {
    let file = File::open(path).with_context(|| format!("could not open {described}"))?;
    let shown = quoted(&path.display().to_string());
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
        anyhow!(
            "could not read the list of files of the zip archive {described}, which stands at its end ({error}): it was cut \
             off or damaged; repair it with: zip -FF {shown} --out whole.zip"
        )
    })?;
    let mut members = Vec::new();
    for index in 0..archive.len() {
        let entry = archive
            .by_index_raw(index)
            .with_context(|| format!("could not read file {} of the zip archive {described}", index + 1))?;
        let member = entry.name().map_or_else(|_| format!("file {}", index + 1), |name| name.into_owned());
        if entry.is_dir() || is_beside(&member) {
            continue;
        }
        if member == "[Content_Types].xml" {
            bail!(
                "{described} is an Office document, not a log; save its table as CSV and make each row a message \
                 (docs/inputs.md, \"Files of other kinds\")"
            );
        }
        let of_archive = format!("{member:?} in the zip archive {described}");
        if entry.encrypted() {
            bail!("{of_archive} is encrypted; {}", unzipped("unzip -P PASSWORD -p", &shown, &member));
        }
        let method = match entry.compression() {
            CompressionMethod::Stored => ZipMethod::Stored,
            CompressionMethod::Deflated => ZipMethod::Deflated,
            CompressionMethod::ZSTD => ZipMethod::Zstd,
            other => {
                let name = OTHER_METHODS.iter().find(|(method, _)| *method == other).map(|(_, name)| *name);
                bail!(
                    "{of_archive} is compressed with {}, expected deflate, zstd or nothing; {}",
                    name.unwrap_or("a method that we don't know"),
                    unzipped("7z x -so", &shown, &member),
                )
            }
        };
        let Some(start) = entry.data_start() else { bail!("could not find {of_archive}") };
        members.push(ZipMember {
            start,
            packed: entry.compressed_size(),
            method,
            size: entry.size(),
            checksum: entry.crc32(),
            name: member,
        });
        if members.len() > MEMBERS_MAX {
            bail!("{described} holds more than {MEMBERS_MAX} files; unzip it and name fewer at a time");
        }
    }
    Ok(members)
}

fn unzipped(command: &str, archive: &str, member: &str) -> String {
    format!("unzip it on the way in: {command} {archive} {} | foreshock backtest -", quoted(member))
}

/// What file managers put beside the files of an archive.
fn is_beside(name: &str) -> bool {
    name.starts_with("__MACOSX/") || name.ends_with(".DS_Store") || name.ends_with("Thumbs.db")
}

impl ZipMember {
    /// What it holds. `count` looks on as bytes are taken from the archive.
    ///
    /// # Errors
    /// When there is nothing at its place.
    pub fn open(
        &self,
        mut archive: File,
        count: impl FnOnce(File) -> Box<dyn Read + Send>,
    ) -> io::Result<Box<dyn Read + Send>> {
        archive.seek(SeekFrom::Start(self.start))?;
        let packed = count(archive).take(self.packed);
        let unpacked: Box<dyn Read + Send> = match self.method {
            ZipMethod::Stored => Box::new(packed),
            ZipMethod::Deflated => Box::new(flate2::read::DeflateDecoder::new(packed)),
            ZipMethod::Zstd => Box::new(zstd::Decoder::new(packed)?),
        };
        let sum = crc32fast::Hasher::new();
        Ok(Box::new(Summed { unpacked, sum, left: self.size, expected: self.checksum }))
    }
}

/// Compares what was unpacked with what the archive says of it.
struct Summed {
    unpacked: Box<dyn Read + Send>,
    sum: crc32fast::Hasher,
    left: u64,
    expected: u32,
}

impl Read for Summed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.unpacked.read(buffer)?;
        self.sum.update(&buffer[..length]);
        let is_longer = length as u64 > self.left;
        self.left = self.left.saturating_sub(length as u64);
        if length == 0 && !buffer.is_empty() && self.left > 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it ends early"));
        }
        let is_whole = self.left == 0 && length == 0;
        if is_longer || is_whole && !buffer.is_empty() && self.sum.clone().finalize() != self.expected {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "its checksum is another than the archive says",
            ));
        }
        Ok(length)
    }
}
