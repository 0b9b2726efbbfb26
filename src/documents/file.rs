//! Files that configuration is read from: those on disk, and those built into the program.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::suggest;
use super::yaml::MAX_BYTES;

/// Names a file that is built in.
const PREFIX: &str = "builtin:";

/// The files of `config/`, built in so that the program works from any folder.
const BUILTIN: [(&str, &str); 6] = [
    ("foreshock.yaml", include_str!("../../config/foreshock.yaml")),
    ("instruments.yaml", include_str!("../../config/instruments.yaml")),
    ("alerts.yaml", include_str!("../../config/alerts.yaml")),
    ("reference.yaml", include_str!("../../config/reference.yaml")),
    ("models/logistic.yaml", include_str!("../../config/models/logistic.yaml")),
    ("models/baseline.yaml", include_str!("../../config/models/baseline.yaml")),
];

/// A file that configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileRef {
    /// Position in the list of built-in files.
    Builtin(usize),
    OnDisk(PathBuf),
}

/// A file's bytes, and how errors call it.
#[derive(Clone, Debug)]
pub struct Document {
    pub name: Arc<str>,
    /// Where the paths start that the file names.
    pub folder: PathBuf,
    pub bytes: Vec<u8>,
}

impl FileRef {
    /// Reads `builtin:NAME`, or a path that starts at `folder`.
    pub fn named(text: &str, folder: &Path) -> Result<FileRef, String> {
        let Some(name) = text.strip_prefix(PREFIX) else {
            return Ok(FileRef::OnDisk(folder.join(text)));
        };
        BUILTIN.iter().position(|(builtin, _)| *builtin == name).map(FileRef::Builtin).ok_or_else(|| {
            let names: Vec<&str> = BUILTIN.iter().map(|(name, _)| *name).collect();
            let hint = suggest::hint(name, names.iter().copied());
            format!("found {text:?}, expected one of the built-in files {}{hint}", names.join(", "))
        })
    }

    /// The defaults themselves.
    pub(crate) fn defaults() -> FileRef {
        FileRef::Builtin(0)
    }

    /// Reads the whole file, at most [`MAX_BYTES`] of it.
    pub fn read(&self) -> Result<Document, String> {
        self.read_up_to(MAX_BYTES)
    }

    /// Reads the whole file, unless it has more bytes than `most`.
    pub fn read_up_to(&self, most: usize) -> Result<Document, String> {
        let (folder, bytes) = match self {
            FileRef::Builtin(at) => (PathBuf::new(), BUILTIN[*at].1.as_bytes().to_vec()),
            FileRef::OnDisk(path) => {
                let bytes = read_bounded(path, most)
                    .map_err(|problem| format!("could not read {path:?}: {problem}"))?;
                (path.parent().map(Path::to_owned).unwrap_or_default(), bytes)
            }
        };
        Ok(Document { name: self.to_string().into(), folder, bytes })
    }
}

fn read_bounded(path: &Path, most: usize) -> Result<Vec<u8>, String> {
    // Asked before opening: a pipe without a writer would be waited for.
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err(if about.is_dir() { "it is a folder" } else { "it is not a regular file" }.to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() > most {
        return Err(format!("it is larger than {most} bytes"));
    }
    Ok(bytes)
}

impl fmt::Display for FileRef {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            FileRef::Builtin(at) => write!(f, "{PREFIX}{}", BUILTIN[*at].0),
            FileRef::OnDisk(path) => write!(f, "{}", path.display()),
        }
    }
}
