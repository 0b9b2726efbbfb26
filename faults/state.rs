//! What is done to the folder of snapshots while no job runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::plan::Damage;
use foreshock_testkit::random::Random;

/// Spoils the newest snapshot; gives its file, `None` where there is none.
pub fn spoil(folder: &Path, damage: Damage, random: &mut Random) -> Result<Option<PathBuf>> {
    let newest = files(folder)?.into_iter().max();
    let Some((_, path)) = newest else { return Ok(None) };
    let mut bytes = fs::read(&path)?;
    let at = random.below(bytes.len());
    match damage {
        Damage::Truncate => bytes.truncate(at),
        Damage::Flip => bytes[at] ^= 1 << random.below(8),
    }
    fs::write(&path, bytes).with_context(|| format!("could not spoil {}", path.display()))?;
    Ok(Some(path))
}

/// All snapshots, and when they were last changed; a hidden file is one that was never finished.
fn files(folder: &Path) -> Result<Vec<(SystemTime, PathBuf)>> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(found) };
    for entry in entries {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            found.extend(files(&entry.path())?);
        } else if about.len() > 0 && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push((about.modified()?, entry.path()));
        }
    }
    Ok(found)
}

/// Makes a folder and those in it writable or not.
pub fn set_writable(folder: &Path, writable: bool) -> Result<()> {
    if !folder.exists() {
        fs::create_dir_all(folder)?;
    }
    let mode = if writable { 0o755 } else { 0o555 };
    fs::set_permissions(folder, Permissions::from_mode(mode))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set_writable(&entry.path(), writable)?;
        }
    }
    Ok(())
}

/// Copies a folder and all in it, as to another machine.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            // A job that is only stopped may hold what is no longer there by now.
            match fs::copy(entry.path(), &target) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spoils_one_file_and_says_which() {
        for damage in [Damage::Truncate, Damage::Flip] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("job").join("raw-0-1.snapshot");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"all is well").unwrap();
            fs::write(path.with_file_name(".raw-0-2.tmp"), b"not yet").unwrap();
            let spoilt = spoil(folder.path(), damage, &mut Random::new(1)).unwrap();
            assert_eq!(spoilt.as_ref(), Some(&path));
            assert_ne!(fs::read(&path).unwrap(), b"all is well");
        }
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(spoil(empty.path(), Damage::Flip, &mut Random::new(1)).unwrap(), None);
    }

    #[test]
    fn copies_what_is_in_folders() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        fs::create_dir_all(from.join("job")).unwrap();
        fs::write(from.join("job").join("one"), b"1").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("job").join("one")).unwrap(), b"1");
    }
}
