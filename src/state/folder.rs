//! Snapshots in a local folder, which several processes of one job may share.
//!
//! A file is written under a temporary name, synced, renamed, and then the folder is synced. Its writer holds a lock
//! on it: a temporary file without one is left over from a crash.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use foreshock_operators::time::Time;

/// The end of a temporary file's name.
const TEMPORARY: &str = ".tmp";

/// How often a temporary file is made anew because somebody took it for left over.
const ATTEMPTS: usize = 10;

/// The folder of one job.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

/// A file of the folder.
#[derive(Clone, Debug)]
pub struct StoredFile {
    pub name: String,
    pub bytes: u64,
    pub stored_at: Time,
}

/// A file that is being written; removed unless it was published.
#[derive(Debug)]
pub struct Temporary {
    pub file: File,
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may have another name by now; what can't be removed is found by the next clean-up.
        let _ = fs::remove_file(&self.path);
    }
}

impl Folder {
    /// Nothing is made before there is something to write.
    pub fn at(path: PathBuf) -> Folder {
        Folder { path }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of this name is.
    pub fn place(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Begins a file that will have this name.
    pub fn begin_file(&self, name: &str) -> io::Result<Temporary> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        if !self.path.is_dir() {
            fs::create_dir_all(&self.path)?;
            // The new folder's own name is in the one above.
            self.path.parent().map_or(Ok(()), sync)?;
        }
        for _ in 0..ATTEMPTS {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = self.path.join(format!(".{name}.{}.{count}{TEMPORARY}", std::process::id()));
            let file = match File::options().write(true).create_new(true).open(&path) {
                // Left by a process that had the same id, as all have that are alone in a container.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.clean(|left| left == name)?;
                    continue;
                }
                opened => opened?,
            };
            match file.try_lock() {
                // Between its making and its lock it may have been taken for left over.
                Ok(()) if file.metadata()?.nlink() > 0 => return Ok(Temporary { file, path }),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    let _ = fs::remove_file(&path);
                    return Err(error);
                }
            }
        }
        Err(io::Error::other("no temporary file could be made"))
    }

    /// Gives a file, all of which is on the disk, its name. One that has it already is replaced.
    pub fn publish(&self, temporary: &Temporary, name: &str) -> io::Result<()> {
        crate::faults::point("before_rename");
        fs::rename(&temporary.path, self.path.join(name))?;
        crate::faults::point("after_rename");
        sync(&self.path)
    }

    /// All files but hidden ones; none where there is no folder yet.
    pub fn list(&self) -> io::Result<Vec<StoredFile>> {
        let mut found = Vec::new();
        for (name, entry) in self.names(|name| !name.starts_with('.'))? {
            match entry.metadata() {
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(metadata) if metadata.is_file() => {
                    let nanos = metadata.mtime().saturating_mul(1_000_000_000) + metadata.mtime_nsec();
                    found.push(StoredFile { name, bytes: metadata.len(), stored_at: Time(nanos) });
                }
                Ok(_) => {}
            }
        }
        Ok(found)
    }

    pub fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.path.join(name))
    }

    /// Removes a file; it may be gone already.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        gone(fs::remove_file(self.path.join(name)))
    }

    /// Removes temporary files that nobody writes any more, of those whose final name is asked for.
    pub fn clean(&self, is_asked: impl Fn(&str) -> bool) -> io::Result<()> {
        let is_left = |name: &str| final_name(name).is_some_and(&is_asked);
        for (_, entry) in self.names(is_left)? {
            let Ok(file) = File::open(entry.path()) else { continue };
            if file.try_lock().is_ok() {
                gone(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }

    /// Takes the lock of this name; `None` where somebody else has it. Held until it is dropped.
    pub fn lock(&self, name: &str) -> io::Result<Option<File>> {
        let path = self.path.join(format!(".{name}.lock"));
        // Never removed: a process could hold the old file and another one the new.
        let file = File::options().create(true).append(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn names(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<Vec<(String, fs::DirEntry)>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            // No file of ours has another name.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_wanted(&name) {
                found.push((name, entry));
            }
        }
        Ok(found)
    }
}

/// The name that a temporary file was to have.
fn final_name(name: &str) -> Option<&str> {
    let name = name.strip_prefix('.')?.strip_suffix(TEMPORARY)?;
    let (name, _count) = name.rsplit_once('.')?;
    name.rsplit_once('.').map(|(name, _process)| name)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// A rename is on the disk only when its folder is.
fn sync(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}
