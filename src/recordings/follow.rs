//! Reads a file that is still being written, as `tail -F` does.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::input::Compression;
use super::notes::LogNotes;

/// How often a file that has nothing new is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A file that grows. Where nothing more has been written it says so with `WouldBlock`, until it is told to end.
pub struct FollowedFile {
    file: File,
    path: PathBuf,
    described: String,
    read: u64,
    /// Whether what was read last ended a line.
    line_ended: bool,
    /// Whether it holds text, to which a line break may be added where it goes on in another file.
    is_text: bool,
    end: Arc<AtomicBool>,
    notes: Arc<LogNotes>,
}

impl FollowedFile {
    pub fn new(
        file: File,
        path: PathBuf,
        described: String,
        end: Arc<AtomicBool>,
        notes: Arc<LogNotes>,
    ) -> FollowedFile {
        FollowedFile { file, path, described, read: 0, line_ended: true, is_text: true, end, notes }
    }

    /// Goes on where the file was made shorter, or another one has its name now; `true`: there may be more to read.
    fn goes_on(&mut self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        if own.len() < self.read {
            let what = "was truncated while it was followed: reading goes on at its beginning";
            self.notes.tell(&self.described, what);
            self.file.seek(SeekFrom::Start(0))?;
            self.read = 0;
            return Ok(true);
        }
        // Between two steps of a rotation there may be no file of this name.
        let Ok(named) = fs::metadata(&self.path) else { return Ok(false) };
        if is_same(&own, &named) || own.len() > self.read {
            return Ok(own.len() > self.read);
        }
        let Ok(file) = File::open(&self.path) else { return Ok(false) };
        // What was written to the old one at the last moment.
        if self.file.metadata()?.len() > self.read {
            return Ok(true);
        }
        let what = "was replaced by another file while it was followed: reading goes on at the beginning of that one, \
                    and its lines are counted on";
        self.notes.tell(&self.described, what);
        (self.file, self.read) = (file, 0);
        Ok(true)
    }
}

impl Read for FollowedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // Before the look at the file, so that what was written before the end is read.
        let is_ending = self.end.load(Ordering::Acquire);
        let before = self.read;
        loop {
            // A line that was cut by a rotation is not the beginning of the next file's first.
            if self.read == 0 && before > 0 && self.is_text && !self.line_ended {
                self.line_ended = true;
                buffer[0] = b'\n';
                return Ok(1);
            }
            let length = self.file.read(buffer)?;
            if length > 0 {
                if self.read == 0 && before == 0 {
                    self.is_text = Compression::of(&buffer[..length]).is_none();
                }
                self.read += length as u64;
                self.line_ended = buffer[length - 1] == b'\n';
                return Ok(length);
            }
            if !self.goes_on()? {
                return if is_ending { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
            }
        }
    }
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}
