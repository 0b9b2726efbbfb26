//! Recorded feeds to measure with.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use tempfile::TempDir;

use foreshock_testkit::feed::{Feed, Fullest, Recipe};

/// Coinbase tickers: how many, of how many instruments, and how many a second each has in the mean.
#[derive(Clone, Copy)]
pub struct Shape {
    pub ticks: usize,
    pub instruments: usize,
    pub per_second: f64,
}

/// A file with such a feed.
#[derive(Clone)]
pub struct Input {
    pub path: PathBuf,
    pub ticks: usize,
    /// The most ticks within 60 s of each instrument, summed over all of them.
    pub window_ticks: usize,
}

/// Files that are removed when this is dropped.
pub struct Inputs(TempDir);

impl Inputs {
    pub fn new() -> Inputs {
        Inputs(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    pub fn make(&self, shape: Shape) -> Input {
        let Shape { ticks, instruments, per_second } = shape;
        let path = self.0.path().join(format!("{instruments}x{per_second}-{ticks}.ndjson"));
        let file = File::create(&path).expect("there is room for the input");
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let mut fullest = Fullest::default();
        for message in Feed::new(Recipe::tickers_only(7, instruments, per_second)).tickers().take(ticks) {
            fullest.add(&message);
            writer
                .write_all(message.line.as_bytes())
                .and_then(|()| writer.write_all(b"\n"))
                .expect("there is room for the input");
        }
        writer.flush().expect("there is room for the input");
        Input { path, ticks, window_ticks: fullest.ticks() }
    }
}
