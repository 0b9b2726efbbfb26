//! Snapshots in an object store, by URL.
//!
//! A snapshot is written to a nameless local file first and uploaded whole, in parts where it is large. What is there
//! is read in ranges, so that a reader needs no more memory than the snapshot itself.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foreshock_operators::time::Time;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart, parse_url_opts};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use url::Url;

use super::folder::StoredFile;

/// Bytes that are sent or asked for at a time.
const PART_BYTES: u64 = 8 << 20;

/// Parts that are under way at a time.
const PARTS_MAX: usize = 4;

/// How long one request may take, with all its retries.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);

/// The objects of one job.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    runtime: Arc<Runtime>,
}

impl Objects {
    /// The folder of a job at a URL; keys and endpoints are those of the environment, as the stores' own tools have
    /// them (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
    pub fn open(location: &str, job: &str) -> Result<Objects, String> {
        let url = Url::parse(location).map_err(|error| error.to_string())?;
        let variables = std::env::vars_os()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        let (store, prefix) = parse_url_opts(&url, variables).map_err(|error| error.to_string())?;
        Objects::of(store.into(), prefix.join(job)).map_err(|error| error.to_string())
    }

    pub fn of(store: Arc<dyn ObjectStore>, folder: Path) -> io::Result<Objects> {
        let runtime = Arc::new(Builder::new_current_thread().enable_all().build()?);
        Ok(Objects { store, folder, runtime })
    }

    /// The name of an object.
    pub fn place(&self, name: &str) -> String {
        self.folder.clone().join(name).to_string()
    }

    pub fn list(&self) -> io::Result<Vec<StoredFile>> {
        let listed = self.wait(self.store.list_with_delimiter(Some(&self.folder)))?;
        let found = listed.objects.into_iter().filter_map(|object| {
            let stored_at = Time(object.last_modified.timestamp_nanos_opt().unwrap_or_default());
            Some(StoredFile { name: object.location.filename()?.to_owned(), bytes: object.size, stored_at })
        });
        Ok(found.collect())
    }

    /// Uploads so many bytes of a file. Until all have arrived there is no object of this name.
    pub fn upload(&self, name: &str, file: &File, bytes: u64) -> io::Result<()> {
        let path = self.folder.clone().join(name);
        crate::faults::point("before_rename");
        if bytes <= PART_BYTES {
            let all = part(file, 0, bytes)?;
            self.wait(self.store.put(&path, all.into()))?;
        } else {
            self.upload_in_parts(&path, file, bytes)?;
        }
        crate::faults::point("after_rename");
        Ok(())
    }

    fn upload_in_parts(&self, path: &Path, file: &File, bytes: u64) -> io::Result<()> {
        let upload = self.wait(self.store.put_multipart(path))?;
        let mut upload = {
            let _inside = self.runtime.enter();
            WriteMultipart::new_with_chunk_size(upload, PART_BYTES as usize)
        };
        let mut send = || {
            let mut at = 0;
            while at < bytes {
                let part = part(file, at, PART_BYTES.min(bytes - at))?;
                at += part.len() as u64;
                self.wait(async {
                    upload.wait_for_capacity(PARTS_MAX).await?;
                    upload.write(&part);
                    Ok(())
                })?;
            }
            Ok(())
        };
        match send() {
            Ok(()) => self.wait(upload.finish()).map(|_| ()),
            Err(error) => {
                // Without this its parts would be kept, and paid for.
                let _ = self.wait(upload.abort());
                Err(error)
            }
        }
    }

    pub fn open_ranges(&self, name: &str, bytes: u64) -> Ranges {
        let path = self.folder.clone().join(name);
        Ranges { objects: self.clone(), path, bytes, next: 0, part: io::Cursor::default() }
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.folder.clone().join(name);
        match self.wait(self.store.delete(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn wait<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
        match self.runtime.block_on(async { timeout(REQUEST_WITHIN, request).await }) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error @ object_store::Error::NotFound { .. })) => {
                Err(io::Error::new(io::ErrorKind::NotFound, error))
            }
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the object store has not answered within {} s", REQUEST_WITHIN.as_secs()),
            )),
        }
    }
}

/// Reads an object in parts.
pub struct Ranges {
    objects: Objects,
    path: Path,
    bytes: u64,
    /// The first byte behind `part`.
    next: u64,
    part: io::Cursor<Vec<u8>>,
}

impl Read for Ranges {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.part.position() as usize == self.part.get_ref().len() && self.next < self.bytes {
            let range = self.next..self.bytes.min(self.next + PART_BYTES);
            let part = self.objects.wait(self.objects.store.get_range(&self.path, range.clone()))?;
            if part.is_empty() {
                return Ok(0);
            }
            self.next = range.end;
            self.part = io::Cursor::new(part.to_vec());
        }
        self.part.read(into)
    }
}

/// These bytes of a file.
fn part(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// A file that has no name: whatever happens, nothing is left of it.
pub fn nameless() -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("foreshock-{}-{count}.tmp", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
