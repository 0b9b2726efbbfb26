//! Every key of `foreshock.yaml`, with its type and limits.

use std::sync::LazyLock;

use foreshock_operators::outputs::OutputKind;
use foreshock_operators::stages::MAX_HORIZONS;
use foreshock_operators::time::{MILLISECOND, Nanos, SECOND};
use foreshock_operators::venues::{EXCHANGES, Format};

use crate::documents::duration::{LONGEST, MICROSECOND};
use crate::documents::kind::{Charset, ValueKind};

/// What `input.format` may be.
static FORMATS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| std::iter::once("auto").chain(Format::all().map(Format::name)).collect());
/// What instruments may choose as their clock.
pub const CLOCKS: [&str; 3] = ["auto", "exchange", "received"];
/// What instruments may choose as their quote channel.
pub const QUOTE_CHANNELS: [&str; 3] = ["auto", "bookTicker", "ticker"];
/// What instruments may choose as their trade channel.
pub const TRADE_CHANNELS: [&str; 4] = ["auto", "trade", "aggTrade", "ticker"];

const HOUR: Nanos = 3600 * SECOND;
/// The largest window, in ticks or samples.
const MOST_SAMPLES: i64 = 100_000;

/// The most buckets of a histogram: each is a series for every endpoint.
const MAX_BUCKETS: usize = 50;

/// A key and what its value may be.
#[derive(Debug)]
pub struct ConfigKey {
    /// Its name, with dots between levels.
    pub path: String,
    pub kind: ValueKind,
}

impl ConfigKey {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("FORESHOCK_{}", self.path.to_uppercase().replace('.', "__").replace('-', "_"))
    }
}

/// A limit in time that may be left to the level above or switched off.
pub const fn limit(words: &'static [&'static str]) -> ValueKind {
    ValueKind::Duration { min: MILLISECOND, max: LONGEST, words }
}

const fn duration(min: Nanos, max: Nanos) -> ValueKind {
    ValueKind::Duration { min, max, words: &[] }
}

/// All keys, in the order in which they are printed.
pub static KEYS: LazyLock<Vec<ConfigKey>> = LazyLock::new(|| {
    let samples = ValueKind::Integer { min: 2, max: MOST_SAMPLES };
    let before_exchanges = [
        ("input.format", ValueKind::Choice(&FORMATS)),
        ("input.max_message_bytes", ValueKind::Bytes { min: 1 << 10, max: 256 << 20 }),
        ("input.max_ahead", duration(0, LONGEST)),
        ("input.max_jump", limit(&["off"])),
        ("instruments.file", ValueKind::File),
        ("instruments.unknown", ValueKind::Choice(&["auto", "accept", "deadletter"])),
        ("instruments.max", ValueKind::Integer { min: 1, max: 1_000_000 }),
        ("order.reorder", duration(0, HOUR)),
        ("gaps.after", limit(&["off"])),
    ];
    let exchange = [
        ("gap_after", limit(&["inherit", "off"])),
        ("max_jump", limit(&["inherit", "off"])),
        ("clock", ValueKind::Choice(&CLOCKS)),
        ("quote_channel", ValueKind::Choice(&QUOTE_CHANNELS)),
        ("trade_channel", ValueKind::Choice(&TRADE_CHANNELS)),
    ];
    let before_outputs = [
        ("features.window", duration(MILLISECOND, LONGEST)),
        (
            "features.return_horizons",
            ValueKind::Durations { min: MILLISECOND, max: LONGEST, most: MAX_HORIZONS },
        ),
        ("features.spread_window", samples),
        ("features.spread_min_samples", samples),
        ("zscore.window", samples),
        ("zscore.min_samples", samples),
        ("model.variant", ValueKind::Choice(&["ml", "baseline"])),
        ("model.ml", ValueKind::File),
        ("model.sha256", ValueKind::Digest),
        ("model.baseline", ValueKind::File),
        ("model.baseline_sha256", ValueKind::Digest),
        ("alerts.file", ValueKind::File),
        ("job.name", ValueKind::Text(Charset::Id)),
        ("job.delivery", ValueKind::Choice(&["auto", "exactly_once", "at_least_once"])),
        ("job.memory_budget", ValueKind::Bytes { min: 8 << 20, max: 256 << 30 }),
        ("job.control", ValueKind::Choice(&["on", "off"])),
        ("kafka.brokers", ValueKind::Addresses),
        ("kafka.start", ValueKind::Choice(&["latest", "earliest"])),
        ("kafka.create_topics", ValueKind::Bool),
        ("kafka.partitions", ValueKind::Integer { min: 1, max: 10_000 }),
        ("kafka.replication_factor", ValueKind::IntegerOr { min: 1, max: 100, words: &["default"] }),
        ("kafka.commit_interval", duration(10 * MILLISECOND, 60 * SECOND)),
        ("kafka.transaction_timeout", duration(SECOND, 900 * SECOND)),
        ("kafka.lost_offsets", ValueKind::Choice(&["fail", "gap", "earliest"])),
        ("kafka.stalled_after", duration(SECOND, HOUR)),
        ("kafka.stop_timeout", duration(SECOND, HOUR)),
        ("kafka.properties", ValueKind::Properties),
        ("kafka.consumer_properties", ValueKind::Properties),
        ("kafka.producer_properties", ValueKind::Properties),
        ("topics.input", ValueKind::Topics),
    ];
    let behind_outputs = [
        ("state.store", ValueKind::Store),
        ("state.interval", duration(100 * MILLISECOND, HOUR)),
        ("state.keep", ValueKind::Integer { min: 1, max: 1000 }),
        ("cluster.secret_file", ValueKind::OptionalFile),
        ("cluster.connect_timeout", duration(SECOND, HOUR)),
        ("http.listen", ValueKind::Listen),
        ("http.max_body_bytes", ValueKind::Bytes { min: 1 << 10, max: 64 << 20 }),
        ("http.max_rows", ValueKind::Integer { min: 1, max: 100_000 }),
        ("http.max_connections", ValueKind::Integer { min: 1, max: 100_000 }),
        ("http.probe_connections", ValueKind::Integer { min: 1, max: 10_000 }),
        ("http.timeout", duration(100 * MILLISECOND, 300 * SECOND)),
        ("metrics.latency_buckets", ValueKind::Latencies { min: MICROSECOND, max: HOUR, most: MAX_BUCKETS }),
        ("backtest.chunk_bytes", ValueKind::Bytes { min: 4 << 10, max: 4 << 20 }),
        ("log.format", ValueKind::Choice(&["text", "json"])),
        ("log.level", ValueKind::LogLevel),
    ];
    let plain = |(path, kind): (&str, ValueKind)| ConfigKey { path: path.to_owned(), kind };
    let mut all: Vec<ConfigKey> = before_exchanges.into_iter().map(plain).collect();
    for name in EXCHANGES.iter() {
        all.extend(
            exchange
                .iter()
                .map(|(key, kind)| ConfigKey { path: format!("exchanges.{name}.{key}"), kind: *kind }),
        );
    }
    all.extend(before_outputs.into_iter().map(plain));
    all.extend(
        OutputKind::of_topics().map(|output| ConfigKey { path: topic_key(output), kind: ValueKind::Topic }),
    );
    all.extend(behind_outputs.into_iter().map(plain));
    all
});

/// The key that names the topic of an output.
pub fn topic_key(output: OutputKind) -> String {
    format!("topics.{}", output.name())
}

/// The key of this path.
pub fn key(path: &str) -> Option<&'static ConfigKey> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names one level below a section, `""` for the top; empty for what is no section.
pub fn children(section: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for key in KEYS.iter() {
        let below = match section {
            "" => Some(key.path.as_str()),
            _ => key.path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')),
        };
        let name = below.and_then(|rest| rest.split('.').next());
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_key_has_a_variable_of_its_own() {
        let variables: BTreeSet<String> = KEYS.iter().map(ConfigKey::variable).collect();
        assert_eq!(variables.len(), KEYS.len());
        assert!(variables.contains("FORESHOCK_EXCHANGES__BINANCE_USDM__GAP_AFTER"));
    }

    #[test]
    fn topics_are_called_as_their_outputs_say_unless_others_are_named() {
        let nothing_set = std::iter::empty::<(String, String)>();
        let config = crate::config::Config::load(&[], nothing_set, crate::config::Mode::Run).unwrap();
        let defaults = OutputKind::of_topics().map(|kind| (kind, kind.output().topic.unwrap().to_owned()));
        assert_eq!(config.topics.output, defaults.collect());
    }

    #[test]
    fn sections_know_their_children() {
        assert_eq!(children("zscore"), ["window", "min_samples"]);
        assert_eq!(children("exchanges"), *EXCHANGES);
        assert!(children("zscore.window").is_empty());
        assert!(children("zs").is_empty());
    }
}
