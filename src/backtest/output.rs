//! Writes each kind to its file: aside first, under its own name when all is done.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use foreshock_dataflows::encode_lines::{Lines, merge};
use foreshock_operators::outputs::OutputKind;

const BUFFER_BYTES: usize = 256 * 1024;

/// How the names of unfinished files end.
const PARTIAL: &str = ".partial";

/// Where outputs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Only the summary is wanted.
    Nowhere,
    /// A single kind goes to standard output.
    Stdout,
    Folder(PathBuf),
}

impl Destination {
    /// Whether an output of this kind would take the place of this file.
    pub fn replaces(&self, file: &Path, kind: OutputKind) -> bool {
        let Destination::Folder(folder) = self else { return false };
        // What does not exist yet replaces nothing.
        let (Ok(folder), Ok(file)) = (folder.canonicalize(), file.canonicalize()) else { return false };
        file == folder.join(file_name(kind))
    }
}

fn file_name(kind: OutputKind) -> String {
    format!("{}.ndjson", kind.name())
}

/// The outputs of a run, one for each kind. Dropped without [`Outputs::finish`], it removes what it wrote.
pub struct Outputs {
    outputs: Vec<Output>,
    finished: bool,
}

struct Output {
    writer: BufWriter<Box<dyn Write + Send>>,
    described: String,
    /// Where the lines are written, and where they belong.
    paths: Option<(PathBuf, PathBuf)>,
}

impl Outputs {
    /// Opens an output for each kind.
    ///
    /// # Errors
    /// When the folder or a file in it can't be made.
    pub fn open(destination: &Destination, kinds: &[OutputKind]) -> Result<Outputs> {
        let mut outputs = Outputs { outputs: Vec::new(), finished: false };
        match destination {
            Destination::Nowhere => {}
            Destination::Stdout => {
                let writer: Box<dyn Write + Send> = Box::new(io::stdout());
                let writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
                let described = "standard output".to_string();
                outputs.outputs.push(Output { writer, described, paths: None });
            }
            Destination::Folder(folder) => {
                let described = folder.display();
                fs::create_dir_all(folder)
                    .with_context(|| format!("could not make the folder \"{described}\""))?;
                remove_abandoned(folder);
                for kind in kinds {
                    outputs.outputs.push(Output::aside(folder, *kind)?);
                }
            }
        }
        Ok(outputs)
    }

    /// The files being written, before they have their names.
    pub fn partial_files(&self) -> Vec<PathBuf> {
        self.outputs
            .iter()
            .filter_map(|output| output.paths.as_ref())
            .map(|(aside, _)| aside.clone())
            .collect()
    }

    /// Writes what is held back for being little.
    ///
    /// # Errors
    /// When a disk is full or a pipe closed.
    pub fn flush(&mut self) -> Result<()> {
        for output in &mut self.outputs {
            output.writer.flush().with_context(|| format!("could not write to {}", output.described))?;
        }
        Ok(())
    }

    /// Appends one epoch's lines of all kinds; `parts` holds each worker's lines by kind.
    ///
    /// # Errors
    /// When a disk is full or a pipe closed.
    pub fn write(&mut self, parts: &[Vec<Lines>]) -> Result<()> {
        for (at, output) in self.outputs.iter_mut().enumerate() {
            let written = match parts {
                [only] => output.writer.write_all(&only[at].bytes),
                _ => {
                    let mut written = Ok(());
                    merge(parts.iter().map(|lines| &lines[at]), |bytes| {
                        if written.is_ok() {
                            written = output.writer.write_all(bytes);
                        }
                    });
                    written
                }
            };
            written.with_context(|| format!("could not write to {}", output.described))?;
        }
        Ok(())
    }

    /// Writes out what is buffered and gives every file its name.
    ///
    /// # Errors
    /// When a disk is full, a pipe closed or a file can't be renamed.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        for output in &self.outputs {
            if let Some((aside, path)) = &output.paths {
                fs::rename(aside, path)
                    .with_context(|| format!("could not rename to {}", output.described))?;
            }
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        if !self.finished {
            remove(&self.partial_files());
        }
    }
}

/// Removes files that will not be finished. One that can't be removed stays under its partial name.
pub fn remove(partial_files: &[PathBuf]) {
    for path in partial_files {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "could not remove an unfinished file");
        }
    }
}

/// Removes the unfinished files of runs that were killed. A run holds a lock on the files that it writes, which
/// ends with it however it ends.
fn remove_abandoned(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_partial = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(PARTIAL)
            && OutputKind::ALL.iter().any(|kind| name.starts_with(&format!(".{}.", file_name(*kind))))
    };
    let is_abandoned = |path: &PathBuf| File::open(path).is_ok_and(|file| file.try_lock().is_ok());
    let abandoned: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(is_partial).filter(is_abandoned).collect();
    remove(&abandoned);
}

impl Output {
    fn aside(folder: &Path, kind: OutputKind) -> Result<Output> {
        let path = folder.join(file_name(kind));
        let aside = folder.join(format!(".{}.{}{PARTIAL}", file_name(kind), std::process::id()));
        let described = format!("\"{}\"", path.display());
        // Found out now: at the end, other files would have their names already.
        ensure!(!path.is_dir(), "could not make {described}: there is a folder of that name");
        let file = File::create(&aside).with_context(|| format!("could not make {described}"))?;
        // Where a file system has no locks, files of killed runs are left to their owner.
        let _ = file.try_lock();
        let writer: Box<dyn Write + Send> = Box::new(file);
        let writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
        Ok(Output { writer, described, paths: Some((aside, path)) })
    }
}
