//! Opens recorded files: plain, zstd or gzip, members of zip archives, or standard input.

use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};

use super::archive::{ZipMember, members};
use super::follow::{FollowedFile, LOOK_EVERY};
use super::log::LogSettings;
use crate::misuse::Misuse;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Of what some writers put before their first frame; the lowest four bits may be any.
const ZSTD_SKIPPED_MAGIC: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZIP_MAGIC: [u8; 4] = *b"PK\x03\x04";
/// Of an archive without files.
const EMPTY_ZIP_MAGIC: [u8; 4] = *b"PK\x05\x06";

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// Told by the first bytes; `None`: it isn't, or by something else.
    pub fn of(magic: &[u8]) -> Option<Compression> {
        let is_skipped =
            |magic: &[u8]| magic[0] & 0xf0 == ZSTD_SKIPPED_MAGIC[0] && magic[1..4] == ZSTD_SKIPPED_MAGIC[1..];
        if magic.starts_with(&ZSTD_MAGIC) || magic.len() >= 4 && is_skipped(magic) {
            return Some(Compression::Zstd);
        }
        magic.starts_with(&GZIP_MAGIC).then_some(Compression::Gzip)
    }

    /// The name, which is that of the program too.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// An input that is open for reading.
pub struct OpenInput {
    /// What it holds. Where a file is followed that has nothing new, reading says so with `WouldBlock`.
    pub reader: Box<dyn Read + Send>,
    pub compression: Option<Compression>,
    pub taken: Arc<TakenBytes>,
}

/// What was taken from disk.
#[derive(Debug, Default)]
pub struct TakenBytes {
    pub bytes: AtomicU64,
    /// It was the system that could not read on, not a decoder.
    pub failed: AtomicBool,
}

/// Where a log is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedInput {
    Stdin,
    File(PathBuf),
    /// A file of this name that is built into the program.
    Builtin(&'static str, &'static [u8]),
    /// A file in a zip archive.
    Member(PathBuf, ZipMember),
}

impl RecordedInput {
    /// `-` is standard input.
    pub fn named(path: &Path) -> RecordedInput {
        if path.as_os_str() == "-" { RecordedInput::Stdin } else { RecordedInput::File(path.to_path_buf()) }
    }

    /// The name printed in rows' sources: the file's own, without its folder.
    pub fn name(&self) -> String {
        match self {
            RecordedInput::Stdin => "-".to_string(),
            RecordedInput::Builtin(name, _) => (*name).to_string(),
            RecordedInput::File(path) => file_name(path),
            RecordedInput::Member(path, member) => format!("{}/{}", file_name(path), member.name),
        }
    }

    /// The path as it was given.
    pub fn path(&self) -> String {
        match self {
            RecordedInput::Stdin => "-".to_string(),
            RecordedInput::Builtin(name, _) => (*name).to_string(),
            RecordedInput::File(path) => path.to_string_lossy().into_owned(),
            RecordedInput::Member(path, member) => format!("{}/{}", path.to_string_lossy(), member.name),
        }
    }

    /// The name in error messages.
    pub fn described(&self) -> String {
        match self {
            RecordedInput::Stdin => "standard input".to_string(),
            RecordedInput::Builtin(name, _) => format!("the built-in file {name:?}"),
            RecordedInput::File(path) => format!("{:?}", path.display().to_string()),
            RecordedInput::Member(..) => format!("{:?}", self.path()),
        }
    }

    /// Bytes on disk, where that is known.
    pub fn size(&self) -> Option<u64> {
        match self {
            RecordedInput::Stdin => None,
            RecordedInput::Member(_, member) => Some(member.packed),
            RecordedInput::Builtin(_, bytes) => Some(bytes.len() as u64),
            RecordedInput::File(path) => {
                path.metadata().ok().filter(|data| data.is_file()).map(|data| data.len())
            }
        }
    }

    /// The files that are to be read for it: those in it where it is an archive, else itself.
    ///
    /// # Errors
    /// When an archive can't be read.
    pub fn expanded(&self, is_followed: bool) -> Result<Vec<RecordedInput>> {
        let RecordedInput::File(path) = self else { return Ok(vec![self.clone()]) };
        let mut magic = Vec::with_capacity(ZIP_MAGIC.len());
        // A pipe may be opened only once, and what can't be read is told where it is opened.
        if !path.metadata().is_ok_and(|data| data.is_file()) {
            return Ok(vec![self.clone()]);
        }
        let looked =
            File::open(path).and_then(|file| file.take(ZIP_MAGIC.len() as u64).read_to_end(&mut magic));
        if looked.is_err() || magic != ZIP_MAGIC && magic != EMPTY_ZIP_MAGIC {
            return Ok(vec![self.clone()]);
        }
        if is_followed {
            let described = self.described();
            bail!(Misuse(format!(
                "{described} is a zip archive, which is written at once: --follow can't read it"
            )));
        }
        let members = members(path, &self.described())?;
        Ok(members.into_iter().map(|member| RecordedInput::Member(path.clone(), member)).collect())
    }

    /// Opens the input for reading; what is compressed is told by its first bytes, not by its name.
    ///
    /// # Errors
    /// When it is missing, unreadable or a folder.
    pub fn open(&self, settings: &LogSettings) -> Result<OpenInput> {
        let taken = Arc::<TakenBytes>::default();
        let counted = |inner: Box<dyn Read + Send>| Counted {
            inner,
            count: settings.progress.clone(),
            taken: taken.clone(),
        };
        let could_not_read = || format!("could not read {}", self.described());
        let mut raw: Box<dyn Read + Send> = match self {
            RecordedInput::Stdin => Box::new(counted(Box::new(io::stdin()))),
            RecordedInput::Builtin(_, bytes) => Box::new(counted(Box::new(*bytes))),
            RecordedInput::File(path) => Box::new(counted(self.open_file(path, settings)?)),
            RecordedInput::Member(path, member) => {
                let archive =
                    File::open(path).with_context(|| format!("could not open {}", self.described()))?;
                member
                    .open(archive, |archive| Box::new(counted(Box::new(archive))))
                    .with_context(could_not_read)?
            }
        };
        let mut magic = Vec::with_capacity(ZSTD_MAGIC.len());
        while magic.len() < ZSTD_MAGIC.len() {
            match (&mut raw).take((ZSTD_MAGIC.len() - magic.len()) as u64).read_to_end(&mut magic) {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK_EVERY),
                Err(error) => return Err(error).with_context(could_not_read),
            }
        }
        let compression = Compression::of(&magic);
        let whole = Cursor::new(magic).chain(raw);
        let reader: Box<dyn Read + Send> = match compression {
            Some(Compression::Zstd) => {
                Box::new(zstd::Decoder::new(whole).context("could not start the zstd decoder")?)
            }
            Some(Compression::Gzip) => {
                Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(128 * 1024, whole)))
            }
            None => Box::new(whole),
        };
        Ok(OpenInput { reader, compression, taken })
    }

    fn open_file(&self, path: &Path, settings: &LogSettings) -> Result<Box<dyn Read + Send>> {
        let described = self.described();
        let file = File::open(path).with_context(|| format!("could not open {described}"))?;
        let data = file.metadata().with_context(|| format!("could not look at {described}"))?;
        if data.is_dir() {
            bail!("{described} is a folder, expected a file");
        }
        let Some(end) = &settings.follow else { return Ok(Box::new(file)) };
        if !data.is_file() {
            bail!(Misuse(format!(
                "{described} is no regular file: --follow can't read it, and without it is read to its end"
            )));
        }
        let (end, notes) = (end.clone(), settings.notes.clone());
        Ok(Box::new(FollowedFile::new(file, path.to_path_buf(), described, end, notes)))
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Counts the bytes that pass.
struct Counted {
    inner: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
    taken: Arc<TakenBytes>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer).inspect_err(|error| {
            let is_passing = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
            self.taken.failed.fetch_or(!is_passing, Ordering::Relaxed);
        })?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        self.taken.bytes.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
