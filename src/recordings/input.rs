//! Opens recorded files: plain, zstd or gzip, or standard input.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Where a log is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedInput {
    Stdin,
    File(PathBuf),
    /// A file of this name that is built into the program.
    Builtin(&'static str, &'static [u8]),
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
            RecordedInput::File(path) => {
                path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
            }
        }
    }

    /// The path as it was given.
    pub fn path(&self) -> String {
        match self {
            RecordedInput::Stdin => "-".to_string(),
            RecordedInput::Builtin(name, _) => (*name).to_string(),
            RecordedInput::File(path) => path.to_string_lossy().into_owned(),
        }
    }

    /// The name in error messages.
    pub fn described(&self) -> String {
        match self {
            RecordedInput::Stdin => "standard input".to_string(),
            RecordedInput::Builtin(name, _) => format!("the built-in file {name:?}"),
            RecordedInput::File(path) => format!("{:?}", path.display().to_string()),
        }
    }

    /// Bytes on disk, where that is known.
    pub fn size(&self) -> Option<u64> {
        match self {
            RecordedInput::Stdin => None,
            RecordedInput::Builtin(_, bytes) => Some(bytes.len() as u64),
            RecordedInput::File(path) => {
                path.metadata().ok().filter(|data| data.is_file()).map(|data| data.len())
            }
        }
    }

    /// Opens the input for reading; what is compressed is told by its first bytes, not by its name. `progress`
    /// counts the bytes taken from disk.
    ///
    /// # Errors
    /// When it is missing, unreadable, a folder, or empty.
    pub fn open(&self, progress: &Arc<AtomicU64>) -> Result<Box<dyn Read + Send>> {
        let raw: Box<dyn Read + Send> = match self {
            RecordedInput::Stdin => Box::new(io::stdin()),
            RecordedInput::Builtin(_, bytes) => Box::new(*bytes),
            RecordedInput::File(path) => {
                let file =
                    File::open(path).with_context(|| format!("could not open {}", self.described()))?;
                let data =
                    file.metadata().with_context(|| format!("could not look at {}", self.described()))?;
                if data.is_dir() {
                    bail!("{} is a folder, expected a file", self.described());
                }
                Box::new(file)
            }
        };
        let mut raw = Counted { inner: raw, count: progress.clone() };
        let mut magic = Vec::with_capacity(ZSTD_MAGIC.len());
        (&mut raw)
            .take(ZSTD_MAGIC.len() as u64)
            .read_to_end(&mut magic)
            .with_context(|| format!("could not read {}", self.described()))?;
        if magic.is_empty() {
            bail!("{} is empty", self.described());
        }
        let is_zstd = magic == ZSTD_MAGIC;
        let is_gzip = magic.starts_with(&GZIP_MAGIC);
        let whole = Cursor::new(magic).chain(raw);
        Ok(if is_zstd {
            Box::new(zstd::Decoder::new(whole).context("could not start the zstd decoder")?)
        } else if is_gzip {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(128 * 1024, whole)))
        } else {
            Box::new(whole)
        })
    }
}

/// Counts the bytes that pass.
struct Counted {
    inner: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
