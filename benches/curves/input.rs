//! Recorded feeds to measure with.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use tempfile::TempDir;

use crate::feed::{Feed, Recipe};

/// Microseconds of the window that is the default's.
const WINDOW: i64 = 60_000_000;

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
        let mut windows = Windows::default();
        for message in Feed::new(Recipe::tickers_only(7, instruments, per_second)).tickers().take(ticks) {
            windows.push(message.product, message.time);
            writer
                .write_all(message.line.as_bytes())
                .and_then(|()| writer.write_all(b"\n"))
                .expect("there is room for the input");
        }
        writer.flush().expect("there is room for the input");
        Input { path, ticks, window_ticks: windows.fullest() }
    }
}

/// Times within the last 60 s, by instrument, and the most there ever were.
#[derive(Default)]
struct Windows(BTreeMap<usize, (VecDeque<i64>, usize)>);

impl Windows {
    fn push(&mut self, product: usize, time: i64) {
        let (times, most) = self.0.entry(product).or_default();
        times.push_back(time);
        while times.front().is_some_and(|first| *first <= time - WINDOW) {
            times.pop_front();
        }
        *most = times.len().max(*most);
    }

    fn fullest(&self) -> usize {
        self.0.values().map(|(_, most)| most).sum()
    }
}
