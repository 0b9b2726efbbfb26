//! What a tick costs from recorded bytes to written lines, and what the dataflow adds to it.
//!
//! `cargo bench --bench end_to_end` makes its own input: 300,000 Coinbase tickers of 20 instruments. The same
//! work is done twice, so that figures of one run compare: `plain_loop` calls decoder, operators and encoder one
//! after the other on one thread, `backtest` is the program's own run with its threads, queues and files. Items are
//! ticks: 1 / throughput is the wall time per tick.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use foreshock::backtest::Backtest;
use foreshock::backtest::output::Destination;
use foreshock::config::{Config, Mode};
use foreshock::recordings::input::RecordedInput;
use foreshock::recordings::sniff::Expected;
use foreshock_dataflows::batch::{Chunk, Run, TimeRange};
use foreshock_dataflows::decode::{Decode, DecodeSettings, LogFile};
use foreshock_dataflows::encode_lines::EncodeLines;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::market::Market;
use foreshock_operators::encode::Encoder;
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::venues::coinbase::COINBASE_EXCHANGE;
use foreshock_testkit::feed;
use tempfile::TempDir;

const TICKS: usize = 300_000;
const CHUNK_BYTES: usize = 256 * 1024;

/// A folder with the feed, and the feed.
static FEED: LazyLock<(TempDir, PathBuf, Vec<u8>)> = LazyLock::new(|| {
    let recipe =
        feed::Recipe { seed: 7, products: 20, pace: 20_000, ties: true, dirt: false, silences: false };
    let mut bytes = Vec::new();
    for message in feed::Feed::new(recipe).tickers().take(TICKS) {
        bytes.extend_from_slice(message.line.as_bytes());
        bytes.push(b'\n');
    }
    let folder = TempDir::new().expect("a temporary folder can be made");
    let path = folder.path().join("feed.ndjson");
    fs::write(&path, &bytes).expect("the feed can be written");
    (folder, path, bytes)
});

fn main() {
    LazyLock::force(&FEED);
    divan::main();
}

fn config() -> Config {
    Config::load(&[], [], Mode::Backtest).expect("the defaults are valid")
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn plain_loop(bencher: Bencher) {
    let (_, _, bytes) = &*FEED;
    let settings = config().settings;
    bencher.counter(ItemsCount::new(TICKS)).bench_local(|| {
        let instruments = Instruments::new(settings.instruments.clone());
        let name = "feed.ndjson".to_string();
        let file =
            LogFile { name, counted: "line", format: COINBASE_EXCHANGE, exchange: None, inferred: false };
        let files: Arc<[LogFile]> = vec![file].into();
        let decode_settings = DecodeSettings {
            files: files.clone(),
            range: TimeRange::default(),
            max_message_bytes: 8 << 20,
            control: true,
        };
        let mut decode = Decode::new(decode_settings, &instruments);
        let mut market = Market::new(&settings, &instruments);
        let encoder = Encoder::new(&settings.parameters.features.horizons, &settings.parameters.model);
        let mut encode_lines =
            EncodeLines::new(vec![OutputKind::Scored].into(), files, instruments.clone(), encoder, 1);
        let mut written = 0;
        for (epoch, chunk) in chunks(bytes).enumerate() {
            for rows in decode.chunk(Chunk { epoch: epoch as u64, ..chunk }, 1) {
                let part = encode_lines.batch(market.on_batch(rows));
                written += black_box(&part.lines[0].bytes).len();
            }
        }
        written
    });
}

/// The feed cut into chunks of whole lines.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &bytes[at..];
        let end = match rest.get(..CHUNK_BYTES) {
            Some(full) => full.iter().rposition(|byte| *byte == b'\n')? + 1,
            None => rest.len(),
        };
        at += end;
        let run = Run { file: 0, first_line: 1, start: 0, end, too_large: None };
        let chunk = Chunk { epoch: 0, end: false, bytes: Arc::new(rest[..end].to_vec()), runs: vec![run] };
        (end > 0).then_some(chunk)
    })
}

#[divan::bench(args = [1, 2], sample_count = 5, sample_size = 1)]
fn backtest(bencher: Bencher, workers: usize) {
    let (folder, path, _) = &*FEED;
    bencher.counter(ItemsCount::new(TICKS)).bench_local(|| {
        let config = config();
        let run = Backtest {
            inputs: vec![RecordedInput::named(path)],
            expected: Expected::default(),
            workers,
            range: TimeRange::default(),
            kinds: vec![OutputKind::Scored],
            destination: Destination::Folder(folder.path().join("out")),
            chunk_bytes: CHUNK_BYTES,
            max_message_bytes: config.input.max_message_bytes,
            control: true,
            settings: config.settings,
            progress: Box::new(|_, _| {}),
            take_whole: false,
            follow: false,
            interrupted: Arc::new(AtomicBool::new(false)),
        };
        let summary = run.run().expect("the feed is valid");
        assert_eq!(summary.counts.ticks, TICKS as i64);
    });
}
