//! Configuration: read once at the start, checked whole, passed down.
//!
//! ```text
//! config/foreshock.yaml (built in) ─► --config FILE ... ─► environment ─► values by key ─► Config
//!                                                                          │
//!                                  instruments.yaml, alerts.yaml, a model ─┘ (the files that keys name)
//! ```
//! [`keys`] says which keys there are and [`crate::documents::kind`] what their values may be; nothing else decides that.

mod alerts;
mod check;
mod instruments;
pub mod keys;
mod layers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use foreshock_dataflows::settings::{
    ClockChoice, ExchangeSettings, InheritedLimit, InstrumentSettings, Settings, Unknown,
};
use foreshock_operators::change::Parameters;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::model::{Model, ModelKind};
use foreshock_operators::order::OrderSettings;
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::row::Channel;
use foreshock_operators::seconds::SecondSettings;
use foreshock_operators::venues::{EXCHANGES, Format};

use crate::documents::duration;
use crate::documents::error::{ConfigErrors, Origin};
use crate::documents::file::FileRef;
use crate::documents::kind::Setting;
use crate::models;

pub use alerts::read as rules_of;
pub use check::check_config;
pub use layers::Effective;

use keys::KEYS;
use layers::Layers;

/// What the program is about to do: some defaults depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A live job.
    Run,
    Backtest,
    Demo,
}

impl Mode {
    /// The name of its command.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Run => "run",
            Mode::Backtest => "backtest",
            Mode::Demo => "demo",
        }
    }
}

/// Everything that was configured.
#[derive(Clone, Debug)]
pub struct Config {
    pub mode: Mode,
    /// What changes results.
    pub settings: Settings,
    pub input: InputConfig,
    pub backtest: BacktestConfig,
    pub job: String,
    pub delivery: DeliveryGuarantee,
    /// Bytes that a process may hold of what is on its way, state aside.
    pub memory_budget: usize,
    /// Whether control records are obeyed and may be appended.
    pub control: bool,
    pub kafka: Kafka,
    pub topics: TopicsConfig,
    pub state: StateStore,
    pub cluster: ClusterConfig,
    /// `None`: there is to be no HTTP server.
    pub http: Option<Http>,
    pub metrics: MetricsConfig,
    pub log: LogConfig,
    /// Every key with the value in force and where it comes from, in the order of the table of keys.
    pub values: Vec<(&'static str, Effective)>,
}

/// How messages are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputConfig {
    /// `None`: told from the messages.
    pub format: Option<Format>,
    pub max_message_bytes: usize,
}

/// How recorded files are worked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacktestConfig {
    pub chunk_bytes: usize,
}

/// How brokers are reached and what is asked of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, with commas between them.
    pub brokers: String,
    pub from_earliest: bool,
    pub create_topics: bool,
    pub partitions: i32,
    /// `None`: the broker's default.
    pub replication_factor: Option<i32>,
    pub commit_interval: Duration,
    pub transaction_timeout: Duration,
    pub lost_offsets: LostOffsets,
    pub stalled_after: Duration,
    pub stop_timeout: Duration,
    /// librdkafka's own names and values; may hold secrets.
    pub properties: Vec<(String, String)>,
    pub consumer_properties: Vec<(String, String)>,
    pub producer_properties: Vec<(String, String)>,
}

/// What is promised of outputs when a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryGuarantee {
    /// Each is there once.
    ExactlyOnce,
    /// Each is there, some perhaps twice.
    AtLeastOnce,
}

/// What to do where the input no longer has the next row to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostOffsets {
    Fail,
    /// Go on at the first row that is left, with a gap.
    Gap,
    /// Begin anew at the first row that is left.
    Earliest,
}

/// Where snapshots are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateStore {
    /// A folder, or the URL of an object store.
    pub store: String,
    pub interval: Duration,
    /// Snapshots of each shard.
    pub keep: usize,
}

/// How processes of one job find each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    pub secret_file: Option<PathBuf>,
    pub connect_timeout: Duration,
}

/// What is read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicsConfig {
    pub input: Vec<String>,
    /// By kind; `scored` is for files only.
    pub output: BTreeMap<OutputKind, String>,
}

/// Where and how far the HTTP server goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub listen: SocketAddr,
    pub max_body_bytes: usize,
    pub max_rows: usize,
    pub max_connections: usize,
    /// Further connections, on which probes alone are answered.
    pub probe_connections: usize,
    pub timeout: Duration,
}

/// What metrics tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Upper bounds, ascending.
    pub latency_buckets: Vec<Duration>,
}

/// How the program logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub json: bool,
    /// A level, or levels by module: `warn,foreshock=debug`.
    pub level: String,
}

/// The environment of this process; what is not UTF-8 in it is replaced.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, text)| (name.to_string_lossy().into_owned(), text.to_string_lossy().into_owned()))
        // No keys, so that the secret is never printed among them.
        .filter(|(name, _)| *name != *crate::cluster::secret::VARIABLE && !crate::faults::is_variable(name))
}

impl Config {
    /// Reads the defaults, then these files, then the environment, and checks all of it.
    pub fn load(
        files: &[PathBuf],
        environment: impl IntoIterator<Item = (String, String)>,
        mode: Mode,
    ) -> Result<Config, ConfigErrors> {
        let mut layers = Layers::default();
        let defaults = std::iter::once(FileRef::defaults());
        for file in defaults.chain(files.iter().map(|path| FileRef::OnDisk(path.clone()))) {
            match file.read() {
                Ok(document) => layers.apply_file(&file, &document),
                Err(problem) => {
                    let origin = Origin::File { name: file.to_string().into(), line: 0 };
                    layers.errors.add(origin, "", problem);
                }
            }
        }
        layers.apply_environment(environment.into_iter());
        check_windows(&mut layers);
        check_topics(&mut layers);
        check_properties(&mut layers, mode);
        check_transactions(&mut layers);

        let listed = layers.read_file("instruments.file").map(|document| instruments::read(&document));
        let rules = layers.read_file("alerts.file").map(|document| alerts::read(&document));
        let listed = take_errors_out(&mut layers, listed).unwrap_or_default();
        let rules = take_errors_out(&mut layers, rules).unwrap_or_default();
        let max = layers.integer("instruments.max");
        if listed.len() as i64 > max {
            let problem = format!("found {max}, but the instruments file lists {}", listed.len());
            layers.refuse("instruments.max", problem);
        }
        let model = load_model(&mut layers);
        let Some(model) = model.filter(|_| layers.errors.is_empty()) else {
            return Err(layers.errors);
        };

        let exchanges: BTreeMap<String, ExchangeSettings> =
            EXCHANGES.iter().map(|name| ((*name).to_owned(), exchange(&layers, name))).collect();
        let parameters = Parameters {
            max_ahead: layers.duration("input.max_ahead").unwrap_or_default(),
            order: OrderSettings { reorder: layers.duration("order.reorder").unwrap_or_default() },
            features: Arc::new(FeatureSettings {
                window: layers.duration("features.window").unwrap_or_default(),
                horizons: layers.durations("features.return_horizons"),
                spread_window: layers.integer("features.spread_window") as u32,
                spread_min: layers.integer("features.spread_min_samples") as u32,
            }),
            seconds: SecondSettings {
                zscore_window: layers.integer("zscore.window") as u32,
                zscore_min_samples: layers.integer("zscore.min_samples") as u32,
            },
            model: Arc::new(model),
            rules: rules.into(),
        };
        let settings = Settings {
            parameters: Arc::new(parameters),
            instruments: InstrumentSettings {
                unknown: unknown(layers.word("instruments.unknown"), mode),
                max: max as usize,
                gap_after: layers.duration("gaps.after"),
                max_jump: layers.duration("input.max_jump"),
                exchanges,
                listed,
            },
        };
        Ok(Config {
            mode,
            settings,
            input: InputConfig {
                format: Format::parse(layers.word("input.format")),
                max_message_bytes: layers.integer("input.max_message_bytes") as usize,
            },
            job: layers.text("job.name").unwrap_or_default().to_owned(),
            delivery: delivery(layers.word("job.delivery"), mode),
            memory_budget: layers.integer("job.memory_budget") as usize,
            control: layers.word("job.control") == "on",
            kafka: kafka(&layers),
            topics: topics(&layers),
            state: StateStore {
                store: layers.text("state.store").unwrap_or_default().to_owned(),
                interval: layers.time("state.interval"),
                keep: layers.integer("state.keep") as usize,
            },
            cluster: ClusterConfig {
                secret_file: layers.path("cluster.secret_file"),
                connect_timeout: layers.time("cluster.connect_timeout"),
            },
            http: http(&layers),
            metrics: MetricsConfig { latency_buckets: layers.times("metrics.latency_buckets") },
            backtest: BacktestConfig { chunk_bytes: layers.integer("backtest.chunk_bytes") as usize },
            log: LogConfig {
                json: layers.word("log.format") == "json",
                level: layers.text("log.level").unwrap_or_default().to_owned(),
            },
            values: layers.into_values(),
        })
    }
}

fn kafka(layers: &Layers) -> Kafka {
    Kafka {
        brokers: layers.text("kafka.brokers").unwrap_or_default().to_owned(),
        from_earliest: layers.word("kafka.start") == "earliest",
        create_topics: layers.flag("kafka.create_topics"),
        partitions: layers.integer("kafka.partitions") as i32,
        replication_factor: match layers.get("kafka.replication_factor").setting {
            Setting::Integer(factor) => Some(factor as i32),
            _ => None,
        },
        commit_interval: layers.time("kafka.commit_interval"),
        transaction_timeout: layers.time("kafka.transaction_timeout"),
        lost_offsets: match layers.word("kafka.lost_offsets") {
            "gap" => LostOffsets::Gap,
            "earliest" => LostOffsets::Earliest,
            _ => LostOffsets::Fail,
        },
        stalled_after: layers.time("kafka.stalled_after"),
        stop_timeout: layers.time("kafka.stop_timeout"),
        properties: layers.properties("kafka.properties"),
        consumer_properties: layers.properties("kafka.consumer_properties"),
        producer_properties: layers.properties("kafka.producer_properties"),
    }
}

/// What one worker may hold of a process's memory budget: half of it is for outputs, the rest for what clients hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShare {
    /// Bytes of outputs that wait for delivery.
    pub outputs: usize,
    /// Bytes read ahead.
    pub fetched: usize,
    /// Bytes in the queues of producers.
    pub queued: usize,
}

impl Config {
    /// The share of one of so many workers.
    pub fn memory_share(&self, workers: usize) -> MemoryShare {
        let each = self.memory_budget / workers.max(1);
        MemoryShare { outputs: each / 2, fetched: each / 4, queued: each / 4 }
    }
}

fn delivery(word: &str, mode: Mode) -> DeliveryGuarantee {
    match (word, mode) {
        ("at_least_once", _) | ("auto", Mode::Demo) => DeliveryGuarantee::AtLeastOnce,
        _ => DeliveryGuarantee::ExactlyOnce,
    }
}

fn topics(layers: &Layers) -> TopicsConfig {
    let output = OutputKind::of_topics();
    let named = |kind: OutputKind| Some((kind, layers.text(&keys::topic_key(kind))?.to_owned()));
    TopicsConfig { input: layers.texts("topics.input"), output: output.filter_map(named).collect() }
}

fn http(layers: &Layers) -> Option<Http> {
    Some(Http {
        listen: layers.text("http.listen")?.parse().ok()?,
        max_body_bytes: layers.integer("http.max_body_bytes") as usize,
        max_rows: layers.integer("http.max_rows") as usize,
        max_connections: layers.integer("http.max_connections") as usize,
        probe_connections: layers.integer("http.probe_connections") as usize,
        timeout: layers.time("http.timeout"),
    })
}

/// No two kinds of rows go to one topic, and none back to where it came from.
fn check_topics(layers: &mut Layers) {
    let mut taken: Vec<(String, &str)> =
        layers.texts("topics.input").into_iter().map(|name| (name, "topics.input")).collect();
    let outputs = KEYS.iter().filter(|key| key.path.starts_with("topics.") && key.path != "topics.input");
    for key in outputs {
        let name = layers.text(&key.path).unwrap_or_default().to_owned();
        if let Some((_, other)) = taken.iter().find(|(other, _)| *other == name) {
            layers.refuse(&key.path, format!("found {name:?}, which is also in {other}"));
        }
        taken.push((name, &key.path));
    }
}

/// Properties on which the job's promises rest; `None`: it has a key of its own.
const OURS: [(&str, Option<&str>); 12] = [
    ("bootstrap.servers", Some("kafka.brokers")),
    ("metadata.broker.list", Some("kafka.brokers")),
    ("group.id", Some("job.name")),
    ("enable.auto.commit", None),
    ("enable.auto.offset.store", None),
    ("auto.offset.reset", None),
    ("enable.partition.eof", None),
    ("enable.idempotence", None),
    ("delivery.report.only.error", None),
    ("transactional.id", None),
    ("transaction.timeout.ms", Some("kafka.transaction_timeout")),
    ("isolation.level", None),
];

/// Offsets are committed behind delivered outputs, whatever is configured.
fn check_properties(layers: &mut Layers, mode: Mode) {
    for path in ["kafka.properties", "kafka.consumer_properties", "kafka.producer_properties"] {
        for (name, value) in layers.properties(path) {
            if !cfg!(feature = "tls") && mode == Mode::Run && needs_tls(&name, &value) {
                let problem = format!(
                    "found {name}: {value}, which needs the cargo feature tls (cargo build --release --features tls)"
                );
                layers.refuse(path, problem);
            }
            match OURS.iter().find(|(ours, _)| *ours == name) {
                Some((_, Some(key))) => layers.refuse(path, format!("found {name}, which {key} sets")),
                Some((_, None)) => {
                    layers.refuse(path, format!("found {name}, which is the job's own to set"))
                }
                None => {}
            }
        }
    }
}

/// Whether a property asks for what librdkafka does with OpenSSL only.
fn needs_tls(name: &str, value: &str) -> bool {
    let value = value.to_ascii_uppercase();
    match name {
        "security.protocol" => value.ends_with("SSL"),
        "sasl.mechanism" | "sasl.mechanisms" => value.starts_with("SCRAM") || value == "OAUTHBEARER",
        _ => false,
    }
}

/// A transaction that is not committed well before its timeout is undone by the brokers.
fn check_transactions(layers: &mut Layers) {
    let (interval, timeout) = ("kafka.commit_interval", "kafka.transaction_timeout");
    let (often, longest) = (layers.duration(interval), layers.duration(timeout));
    if let (Some(often), Some(longest)) = (often, longest)
        && often > longest / 3
    {
        let problem = format!(
            "found {}, expected at most a third of {timeout}, which is {}",
            duration::show(often),
            duration::show(longest)
        );
        layers.refuse(interval, problem);
    }
}

/// Takes the errors out of a result.
fn take_errors_out<T>(layers: &mut Layers, result: Option<Result<T, ConfigErrors>>) -> Option<T> {
    result?.map_err(|errors| layers.errors.absorb(errors)).ok()
}

/// A window that never holds the samples it needs says nothing for ever.
fn check_windows(layers: &mut Layers) {
    let pairs =
        [("features.spread_window", "features.spread_min_samples"), ("zscore.window", "zscore.min_samples")];
    for (window, needed) in pairs {
        let (size, least) = (layers.integer(window), layers.integer(needed));
        if layers.is_good(window) && layers.is_good(needed) && least > size {
            let other = layers.get(window).origin.to_string();
            layers.refuse(
                needed,
                format!("found {least}, expected at most {window}, which is {size} ({other})"),
            );
        }
    }
}

/// Loads the model of the variant in force: the other one may be broken, or away.
fn load_model(layers: &mut Layers) -> Option<Model> {
    if !layers.is_good("model.variant") || !layers.is_good("features.return_horizons") {
        return None;
    }
    let variant = layers.word("model.variant");
    let (path, pin) = match variant {
        "baseline" => ("model.baseline", "model.baseline_sha256"),
        _ => ("model.ml", "model.sha256"),
    };
    let document = layers.read_file(path)?;
    let horizons = layers.durations("features.return_horizons");
    let model = models::read(&document, &horizons);
    let model = take_errors_out(layers, Some(model))?;
    if model.variant() != variant {
        let problem = format!(
            "found a model of kind {}, expected {}",
            model.kind.name(),
            kinds_of(variant).join(" or ")
        );
        layers.refuse(path, format!("{problem}, since model.variant is {variant}"));
    }
    if let Some(pinned) = layers.text(pin).filter(|pinned| **pinned != *model.sha256) {
        let problem = format!("found {pinned}, but {} has {}", document.name, model.sha256);
        layers.refuse(pin, problem);
    }
    Some(model)
}

/// The kinds of models that are of this variant.
fn kinds_of(variant: &str) -> Vec<&'static str> {
    ModelKind::ALL.into_iter().filter(|(_, of)| *of == variant).map(|(name, _)| name).collect()
}

fn exchange(layers: &Layers, name: &str) -> ExchangeSettings {
    let path = |key: &str| format!("exchanges.{name}.{key}");
    let limit = |key| inherited_limit(layers.duration(&path(key)), layers.word(&path(key)));
    ExchangeSettings {
        gap_after: limit("gap_after"),
        max_jump: limit("max_jump"),
        clock: clock(layers.word(&path("clock"))),
        quote_channel: channel(layers.word(&path("quote_channel"))),
        trade_channel: channel(layers.word(&path("trade_channel"))),
    }
}

fn inherited_limit(length: Option<i64>, word: &str) -> InheritedLimit {
    match (length, word) {
        (Some(length), _) => InheritedLimit::After(length),
        (None, "off") => InheritedLimit::Off,
        (None, _) => InheritedLimit::Inherit,
    }
}

fn clock(word: &str) -> ClockChoice {
    match word {
        "exchange" => ClockChoice::Exchange,
        "received" => ClockChoice::Received,
        _ => ClockChoice::Auto,
    }
}

/// The channel of this name; `None` for `auto`.
fn channel(word: &str) -> Option<Channel> {
    use Channel::{AggTrade, Book, BookTicker, Ticker, Trade};
    [BookTicker, Ticker, Book, Trade, AggTrade].into_iter().find(|channel| channel.name() == word)
}

fn unknown(word: &str, mode: Mode) -> Unknown {
    match (word, mode) {
        ("accept", _) | ("auto", Mode::Backtest | Mode::Demo) => Unknown::Accept,
        _ => Unknown::DeadLetter,
    }
}
