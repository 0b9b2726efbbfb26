//! Where snapshots are kept: a local folder, or an object store.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::RangeInclusive;
use std::path::Path;

use foreshock_operators::time::Time;

use super::folder::{Folder, Temporary};
use super::format::{ReadError, SnapshotEncoder};
use super::header::Header;
#[cfg(feature = "cloud")]
use super::objects::Objects;
use super::snapshot::Snapshot;
use crate::faults;

/// The end of a snapshot's name.
const SUFFIX: &str = ".snapshot";

/// Bytes that are written or read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// What could not be done with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("can't keep snapshots at {location:?}: {problem}")]
    Location { location: String, problem: String },
    #[error("another process is busy with the snapshots of {shard}")]
    Busy { shard: String },
    #[error("could not {what}")]
    Io {
        what: String,
        #[source]
        error: io::Error,
    },
}

/// The snapshots of one job. Copies are of the same one.
#[derive(Clone, Debug)]
pub struct Store {
    job: String,
    location: String,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Folder(Folder),
    #[cfg(feature = "cloud")]
    Objects(Objects),
}

/// A snapshot that is there; whether it can be used shows when it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub topic: String,
    pub partition: i32,
    /// The next offset to process behind it.
    pub offset: i64,
    pub bytes: u64,
    /// When it was published, by the store's clock.
    pub stored_at: Time,
}

/// The newest snapshot that can be used.
#[derive(Debug)]
pub struct Newest<T> {
    /// What was made of it.
    pub found: Option<T>,
    /// Newer ones that can't be used, the newest first.
    pub skipped: Vec<Skipped>,
}

/// A snapshot that can't be used, and why.
#[derive(Debug)]
pub struct Skipped {
    pub entry: Entry,
    pub error: anyhow::Error,
}

impl Entry {
    /// `topic/partition`, as in a row's source.
    pub fn shard(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    /// `topic/partition@offset`.
    pub fn name(&self) -> String {
        format!("{}@{}", self.shard(), self.offset)
    }

    fn file(&self) -> String {
        file_name(&self.topic, self.partition, self.offset)
    }
}

/// Neither number has a sign, so they are told from the right however many dashes the topic has.
fn file_name(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic}-{partition}-{offset}{SUFFIX}")
}

/// Topic, partition and offset; `None` for a name that this program does not give.
fn parse_name(name: &str) -> Option<(String, i32, i64)> {
    let (rest, offset) = name.strip_suffix(SUFFIX)?.rsplit_once('-')?;
    let (topic, partition) = rest.rsplit_once('-')?;
    let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
    // Not `+1` or `007`, which are numbers too.
    (name == file_name(topic, partition, offset)).then(|| (topic.to_owned(), partition, offset))
}

impl Store {
    /// The store of a job at a folder, or at a URL: `file:///folder`, `s3://bucket/prefix`, `gs://...`, `az://...`.
    /// Nothing is made or asked yet.
    ///
    /// # Errors
    /// When this is no place for snapshots.
    pub fn open(location: &str, job: &str) -> Result<Store, StoreError> {
        let refuse = |problem: &str| {
            Err(StoreError::Location { location: location.to_owned(), problem: problem.to_owned() })
        };
        if job.is_empty() || job.starts_with('.') || job.contains(['/', '\0']) {
            return refuse(&format!("the job's name {job:?} can't be that of a folder"));
        }
        let place = match location.split_once("://") {
            None if location.is_empty() => return refuse("it names no folder"),
            None => Place::Folder(Folder::at(Path::new(location).join(job))),
            Some(("file", path)) if path.starts_with('/') => {
                Place::Folder(Folder::at(Path::new(path).join(job)))
            }
            Some(("file", _)) => return refuse("the path must begin with a slash, as in file:///folder"),
            Some(("s3" | "gs" | "az", _)) => cloud(location, job)?,
            Some(_) => return refuse("expected a folder, or a URL with file://, s3://, gs:// or az://"),
        };
        Ok(Store { job: job.to_owned(), location: location.to_owned(), place })
    }

    /// The local folder, where it is one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder.path()),
            #[cfg(feature = "cloud")]
            Place::Objects(_) => None,
        }
    }

    /// The store of a job in an object store that was made elsewhere, under a prefix.
    ///
    /// # Errors
    /// When there can be no runtime.
    #[cfg(feature = "cloud")]
    pub fn of_objects(
        objects: std::sync::Arc<dyn object_store::ObjectStore>,
        prefix: &str,
        job: &str,
    ) -> Result<Store, StoreError> {
        let objects = Objects::of(objects, object_store::path::Path::from(prefix).join(job))
            .map_err(|error| StoreError::Io { what: "start a runtime".to_owned(), error })?;
        Ok(Store { job: job.to_owned(), location: prefix.to_owned(), place: Place::Objects(objects) })
    }

    /// Where it is, as it was named.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Begins a snapshot. Writing waits for the disk, as all here does: not for a worker's thread.
    ///
    /// # Errors
    /// When the folder can't be made or written to.
    ///
    /// # Panics
    /// When the header is another job's, or has a negative partition or offset.
    pub fn begin_snapshot(&self, header: &Header) -> Result<Writer, StoreError> {
        assert!(header.job == self.job, "a snapshot is kept in its own job's store");
        assert!(header.partition >= 0 && header.offset >= 0, "an offset is not negative");
        let entry = Entry {
            topic: header.topic.clone(),
            partition: header.partition,
            offset: header.offset,
            bytes: 0,
            stored_at: header.made_at,
        };
        let failed = |error| StoreError::Io { what: format!("begin a snapshot of {}", entry.name()), error };
        let draft = match &self.place {
            Place::Folder(folder) => folder.begin_file(&entry.file()).map(Draft::Named),
            #[cfg(feature = "cloud")]
            Place::Objects(_) => super::objects::nameless().map(Draft::Nameless),
        };
        let out = BufWriter::with_capacity(BUFFER_BYTES, draft.map_err(failed)?);
        let encoder = SnapshotEncoder::begin_frames(out, header).map_err(failed)?;
        Ok(Writer { store: self.clone(), entry, encoder })
    }

    /// The snapshots of a shard, the one of the newest offset first.
    ///
    /// # Errors
    /// When the store can't be looked at.
    pub fn list(&self, topic: &str, partition: i32) -> Result<Vec<Entry>, StoreError> {
        let mut entries = self.list_all()?;
        entries.retain(|entry| entry.topic == topic && entry.partition == partition);
        Ok(entries)
    }

    /// The snapshots of all shards by topic and partition, of each the one of the newest offset first.
    ///
    /// # Errors
    /// When the store can't be looked at.
    pub fn list_all(&self) -> Result<Vec<Entry>, StoreError> {
        let found = match &self.place {
            Place::Folder(folder) => folder.list(),
            #[cfg(feature = "cloud")]
            Place::Objects(objects) => objects.list(),
        };
        let found = found.map_err(|error| StoreError::Io {
            what: format!("list the snapshots of {:?} at {:?}", self.job, self.location),
            error,
        })?;
        let mut entries: Vec<Entry> = found
            .into_iter()
            .filter_map(|found| {
                let (topic, partition, offset) = parse_name(&found.name)?;
                Some(Entry { topic, partition, offset, bytes: found.bytes, stored_at: found.stored_at })
            })
            .collect();
        entries.sort_by(|a, b| (&a.topic, a.partition, b.offset).cmp(&(&b.topic, b.partition, a.offset)));
        Ok(entries)
    }

    /// Where the snapshot is: a path, or the name of an object.
    pub fn path(&self, entry: &Entry) -> String {
        match &self.place {
            Place::Folder(folder) => folder.place(&entry.file()).display().to_string(),
            #[cfg(feature = "cloud")]
            Place::Objects(objects) => objects.place(&entry.file()),
        }
    }

    /// Reads a snapshot and checks all of it.
    ///
    /// # Errors
    /// When it can't be used, see [`ReadError`].
    pub fn load(&self, entry: &Entry) -> Result<Snapshot, ReadError> {
        let input: Box<dyn Read> = match &self.place {
            Place::Folder(folder) => {
                Box::new(BufReader::with_capacity(BUFFER_BYTES, folder.open(&entry.file())?))
            }
            #[cfg(feature = "cloud")]
            Place::Objects(objects) => Box::new(objects.open_ranges(&entry.file(), entry.bytes)),
        };
        let snapshot = Snapshot::read(input)?;
        let header = &snapshot.header;
        let same_shard = header.topic == entry.topic && header.partition == entry.partition;
        if header.job != self.job || !same_shard || header.offset != entry.offset {
            let found = format!("{}@{} of the job {:?}", header.shard(), header.offset, header.job);
            let expected = format!("{} of the job {:?}", entry.name(), self.job);
            return Err(ReadError::Other { found, expected });
        }
        Ok(snapshot)
    }

    /// The newest snapshot of a shard in a range of offsets that can be used, and those that were skipped for it: what
    /// can't be read to its end, and what `take` has an error for. Those that it gives `None` for are not looked for.
    ///
    /// # Errors
    /// When the store can't be looked at, or reading from it fails: a store that is away has lost nothing.
    pub fn newest<T>(
        &self,
        topic: &str,
        partition: i32,
        offsets: RangeInclusive<i64>,
        mut take: impl FnMut(Snapshot) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Newest<T>> {
        let mut newest = Newest { found: None, skipped: Vec::new() };
        let entries = self.list(topic, partition)?;
        for entry in entries.into_iter().filter(|entry| offsets.contains(&entry.offset)) {
            let taken = match self.load(&entry) {
                Err(error) if error.is_away() => return Err(error.into()),
                loaded => loaded.map_err(anyhow::Error::from).and_then(&mut take),
            };
            match taken {
                Ok(None) => {}
                Ok(found) => return Ok(Newest { found, ..newest }),
                Err(error) => newest.skipped.push(Skipped { entry, error }),
            }
        }
        Ok(newest)
    }

    /// Removes all but the `keep` newest snapshots of a shard, and what crashes left of it; gives how many snapshots
    /// it removed.
    ///
    /// Newest is both by offset and by time, which differ only where a shard was begun anew further back: then those
    /// from before stay until they are passed, and the new ones stay too.
    ///
    /// # Errors
    /// When another process is at this shard just now, or something can't be removed.
    pub fn prune(&self, topic: &str, partition: i32, keep: usize) -> Result<usize, StoreError> {
        self.remove_from(topic, partition, |entries| {
            let mut by_time = entries.to_vec();
            by_time.sort_by_key(|entry| std::cmp::Reverse((entry.stored_at, entry.offset)));
            let newest: Vec<i64> = entries
                .iter()
                .take(keep)
                .chain(by_time.iter().take(keep))
                .map(|entry| entry.offset)
                .collect();
            entries.iter().filter(|entry| !newest.contains(&entry.offset)).cloned().collect()
        })
    }

    /// Removes those of a shard's snapshots that are picked from all of them, the newest first.
    fn remove_from(
        &self,
        topic: &str,
        partition: i32,
        pick: impl Fn(&[Entry]) -> Vec<Entry>,
    ) -> Result<usize, StoreError> {
        let failed =
            |error| StoreError::Io { what: format!("remove old snapshots of {topic}/{partition}"), error };
        self.clean(topic, partition).map_err(failed)?;
        let entries = self.list(topic, partition)?;
        if entries.is_empty() {
            return Ok(0);
        }
        let _lock = self.lock(topic, partition)?;
        let mut removed = 0;
        for entry in pick(&entries) {
            match &self.place {
                Place::Folder(folder) => folder.remove(&entry.file()),
                #[cfg(feature = "cloud")]
                Place::Objects(objects) => objects.remove(&entry.file()),
            }
            .map_err(failed)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes what crashes left of a shard. Drafts of uploads have no name, so nothing is left of them.
    fn clean(&self, topic: &str, partition: i32) -> io::Result<()> {
        let is_ours = |name: &str| {
            parse_name(name).is_some_and(|(other, number, _)| other == topic && number == partition)
        };
        match &self.place {
            Place::Folder(folder) => folder.clean(is_ours),
            #[cfg(feature = "cloud")]
            Place::Objects(_) => Ok(()),
        }
    }

    /// The lock of a shard: for the moment of a change, as processes share a folder. Object stores have none, and need
    /// none: an upload shows whole or not at all.
    fn lock(&self, topic: &str, partition: i32) -> Result<Option<File>, StoreError> {
        let shard = || format!("{topic}/{partition}");
        match &self.place {
            Place::Folder(folder) => match folder.lock(&format!("{topic}-{partition}")) {
                Ok(Some(lock)) => Ok(Some(lock)),
                Ok(None) => Err(StoreError::Busy { shard: shard() }),
                Err(error) => {
                    Err(StoreError::Io { what: format!("lock the snapshots of {}", shard()), error })
                }
            },
            #[cfg(feature = "cloud")]
            Place::Objects(_) => Ok(None),
        }
    }
}

#[cfg(feature = "cloud")]
fn cloud(location: &str, job: &str) -> Result<Place, StoreError> {
    Objects::open(location, job)
        .map(Place::Objects)
        .map_err(|problem| StoreError::Location { location: location.to_owned(), problem })
}

#[cfg(not(feature = "cloud"))]
fn cloud(location: &str, _job: &str) -> Result<Place, StoreError> {
    Err(StoreError::Location {
        location: location.to_owned(),
        problem: "this foreshock was built without object stores: build it with `--features cloud`"
            .to_owned(),
    })
}

/// What is written to before there is a snapshot.
#[derive(Debug)]
enum Draft {
    /// In the folder, under a temporary name.
    Named(Temporary),
    /// To be uploaded.
    #[cfg(feature = "cloud")]
    Nameless(File),
}

impl Draft {
    fn file(&self) -> &File {
        match self {
            Draft::Named(temporary) => &temporary.file,
            #[cfg(feature = "cloud")]
            Draft::Nameless(file) => file,
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// Writes a snapshot. Sections come in any order, each once; dropped before its end, nothing is left of it.
pub struct Writer {
    store: Store,
    entry: Entry,
    encoder: SnapshotEncoder<BufWriter<Draft>>,
}

impl Writer {
    /// Adds a section of the shard.
    ///
    /// # Errors
    /// When it can't be written; then the snapshot can't be finished either.
    pub fn section(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.encoder.section(name, bytes).map_err(|error| self.failed(error))
    }

    /// Adds a section of an instrument.
    ///
    /// # Errors
    /// Those of [`Writer::section`].
    pub fn instrument(
        &mut self,
        exchange: &str,
        symbol: &str,
        section: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        faults::point("during_snapshot");
        let done = self.encoder.instrument(exchange, symbol, section, bytes);
        done.map_err(|error| self.failed(error))
    }

    /// Writes the end and waits until all is on the disk. There is no snapshot yet: see [`Written::publish`].
    ///
    /// # Errors
    /// When not all could be written.
    pub fn finish(self) -> Result<Written, StoreError> {
        let Writer { store, mut entry, encoder } = self;
        let failed =
            |error| StoreError::Io { what: format!("write the snapshot of {}", entry.name()), error };
        let (out, bytes) = encoder.finish().map_err(failed)?;
        let draft = out.into_inner().map_err(io::IntoInnerError::into_error).map_err(failed)?;
        draft.file().sync_all().map_err(failed)?;
        entry.bytes = bytes;
        Ok(Written { bytes, store, entry, draft })
    }

    fn failed(&self, error: io::Error) -> StoreError {
        StoreError::Io { what: format!("write the snapshot of {}", self.entry.name()), error }
    }
}

/// A whole snapshot that nobody sees yet; dropped, nothing is left of it.
#[derive(Debug)]
pub struct Written {
    /// Its size.
    pub bytes: u64,
    store: Store,
    entry: Entry,
    draft: Draft,
}

impl Written {
    /// Makes it a snapshot: renames it, or uploads it. It replaces one of the same offset.
    ///
    /// # Errors
    /// When another process is at this shard just now, or it can't be renamed or uploaded.
    pub fn publish(self) -> Result<Entry, StoreError> {
        let entry = self.entry;
        let _lock = self.store.lock(&entry.topic, entry.partition)?;
        match (&self.store.place, &self.draft) {
            (Place::Folder(folder), Draft::Named(temporary)) => folder.publish(temporary, &entry.file()),
            #[cfg(feature = "cloud")]
            (Place::Objects(objects), draft) => objects.upload(&entry.file(), draft.file(), self.bytes),
            #[cfg(feature = "cloud")]
            (Place::Folder(_), Draft::Nameless(_)) => unreachable!("a folder's draft is in the folder"),
        }
        .map_err(|error| StoreError::Io {
            what: format!("publish the snapshot of {}", entry.name()),
            error,
        })?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is_however_many_dashes_the_topic_has() {
        for (topic, partition, offset) in
            [("a-1", 0, 5), ("a", 1, 0), ("a-1-0", 5, 7), ("a", 1, i64::MAX), ("x.y_z", 10, 0)]
        {
            let name = file_name(topic, partition, offset);
            assert_eq!(parse_name(&name), Some((topic.to_owned(), partition, offset)), "{name}");
        }
        for name in [
            "a-1.snapshot",
            "a-1-x.snapshot",
            "a-01-5.snapshot",
            "a-1-+5.snapshot",
            "a-1-5",
            "a-1--5.snapshot",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
