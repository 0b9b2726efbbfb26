//! What a process had open when it was killed: it notes that in a file, through `src/faults.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use foreshock::faults::{SLOT_BYTES, slot};

/// The file of marks.
pub struct Marks {
    path: PathBuf,
    shards: u32,
}

/// What was open, for how many shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    pub transactions: usize,
    pub snapshots: usize,
}

impl Marks {
    pub fn new(path: PathBuf, shards: u32) -> Marks {
        Marks { path, shards }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets all marks.
    pub fn clear(&self) -> Result<()> {
        let bytes = slot("transaction", self.shards).unwrap_or(0) as usize;
        fs::write(&self.path, vec![0; bytes]).context("could not clear the file of marks")
    }

    /// What these processes had, or have, open.
    pub fn open(&self, processes: &[u32]) -> Result<Open> {
        let bytes = fs::read(&self.path).context("could not read the file of marks")?;
        let count = |what: &str| {
            let of_process = |shard: &u32| {
                let start = slot(what, *shard)? as usize;
                let bytes = bytes.get(start..start + SLOT_BYTES)?.try_into().ok()?;
                processes.contains(&u32::from_le_bytes(bytes)).then_some(())
            };
            (0..self.shards).filter(|shard| of_process(shard).is_some()).count()
        };
        Ok(Open { transactions: count("transaction"), snapshots: count("snapshot") })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn counts_what_a_process_has_open() {
        let folder = tempfile::tempdir().unwrap();
        let marks = Marks::new(folder.path().join("marks"), 4);
        marks.clear().unwrap();
        assert_eq!(marks.open(&[7, 8]).unwrap(), Open::default());
        let file = fs::OpenOptions::new().write(true).open(marks.path()).unwrap();
        for (what, shard, process) in [("transaction", 0, 7_u32), ("transaction", 3, 8), ("snapshot", 3, 7)] {
            file.write_all_at(&process.to_le_bytes(), slot(what, shard).unwrap()).unwrap();
        }
        assert_eq!(marks.open(&[7]).unwrap(), Open { transactions: 1, snapshots: 1 });
        assert_eq!(marks.open(&[7, 8]).unwrap(), Open { transactions: 2, snapshots: 1 });
        assert_eq!(marks.open(&[9]).unwrap(), Open::default());
    }
}
