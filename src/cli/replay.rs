//! `foreshock replay`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use crossbeam_channel::{RecvTimeoutError, bounded};
use foreshock_operators::time::Nanos;
use foreshock_operators::venues::Format;
use indicatif::{ProgressBar, ProgressStyle};
use tracing::info;

use super::{format_help, on_signals, parse_brokers, parse_format};
use crate::config::{Config, Mode, environment};
use crate::documents::duration;
use crate::documents::kind::is_topic;
use crate::logs;
use crate::misuse::Misuse;
use crate::recordings::input::RecordedInput;
use crate::recordings::log::LogSettings;
use crate::recordings::sniff::Expected;
use crate::replay::pace::Pace;
use crate::replay::{Feed, ReplayCounters, Target};
use crate::summary::print;

/// How often a terminal is told of progress.
const BAR_EACH: Duration = Duration::from_secs(1);

/// How often a log is.
const LOG_EACH: Duration = Duration::from_secs(10);

/// More partitions than this are a slip of the finger.
const PARTITIONS_MAX: i32 = 10_000;

/// Feed recorded files into a Kafka topic, at the pace at which they were recorded.
///
/// Messages go out as they came, with their instrument as key, so that a running job reads them as if the venue had
/// sent them now.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// Recorded files, merged as one log: JSON lines, plain or with a receive time before each, or a JSON array; also as
    /// .zst, .gz and .zip; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Topic to write to; by default the first of topics.input.
    #[arg(long, value_name = "NAME", value_parser = parse_topic)]
    topic: Option<String>,

    /// So many times as fast as it was recorded, or `max` for as fast as the brokers take it.
    #[arg(long, value_name = "X|max", default_value = "1", value_parser = parse_pace)]
    speed: Pace,

    /// Wait no longer than this between two messages, like 500ms, 60s or 1h: longer silences of the recording, and times
    /// that are far off, are cut to it, and told of.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    max_pause: Nanos,

    /// End after so much of recorded time, like 90s, 5m or 1h; at twice the speed that takes half as long.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Nanos>,

    /// Read a file that was cut off or is damaged as far as it is whole, and say what was lost.
    #[arg(long)]
    take_whole: bool,

    /// Read files that are still being written: wait for more at their ends, go on where they are rotated or truncated,
    /// until Ctrl-C or SIGTERM.
    #[arg(long, conflicts_with = "looped")]
    follow: bool,

    /// Start over at the end, for ever, with times and ids that go on.
    #[arg(long = "loop")]
    looped: bool,

    /// Brokers to ask first, `host:port` with commas between them; by default kafka.brokers.
    #[arg(long, value_name = "ADDRESSES", value_parser = parse_brokers)]
    brokers: Option<String>,

    /// Partitions that the topic gets where it is missing, and must have where it is not; by default
    /// kafka.partitions, or as many as it has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=i64::from(PARTITIONS_MAX)))]
    partitions: Option<i32>,

    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,

    #[arg(long, value_parser = parse_format, help = format_help("What the files hold; told from their first lines"))]
    format: Option<Format>,

    /// Whose messages they are, where the format has several: binance, binance-usdm, binance-coinm.
    #[arg(long, value_name = "NAME")]
    exchange: Option<String>,

    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn replay(args: ReplayArgs) -> Result<()> {
    // As if set in the environment, so that it is checked like any other value.
    let brokers = args.brokers.map(|brokers| ("FORESHOCK_KAFKA__BROKERS".to_owned(), brokers));
    let config = Config::load(&args.configs, environment().chain(brokers), Mode::Run)?;
    logs::start(&config.log);
    let stop = on_signals()?;
    let inputs: Vec<RecordedInput> = args.files.iter().map(|path| RecordedInput::named(path)).collect();
    if inputs.iter().filter(|input| **input == RecordedInput::Stdin).count() > 1 {
        bail!(Misuse("standard input can be read only once".to_owned()));
    }
    if args.follow && inputs.contains(&RecordedInput::Stdin) {
        bail!(Misuse("standard input is read to its end in any case: --follow takes files".to_owned()));
    }
    let topic = args.topic.or_else(|| config.topics.input.first().cloned());
    let target = Target {
        client_id: format!("{}-replay", config.job),
        topic: topic.ok_or_else(|| Misuse("topics.input is empty: name one with --topic".to_owned()))?,
        partitions: args.partitions,
        kafka: config.kafka,
    };
    let read = Arc::new(AtomicU64::new(0));
    let total = inputs.iter().map(RecordedInput::size).sum::<Option<u64>>().filter(|_| !args.looped);
    let feed = Feed {
        log: LogSettings {
            inputs,
            expected: Expected { format: args.format.or(config.input.format), exchange: args.exchange },
            chunk_bytes: config.backtest.chunk_bytes,
            max_message_bytes: config.input.max_message_bytes,
            take_whole: args.take_whole,
            follow: args.follow.then(|| stop.clone()),
            progress: read.clone(),
            notes: Arc::default(),
        },
        pace: args.speed,
        max_pause: args.max_pause,
        duration: args.duration,
        looped: args.looped,
    };
    let counters = Arc::new(ReplayCounters::default());
    let (finished, on_finished) = bounded(1);
    let watched = counters.clone();
    let thread = thread::Builder::new().name("feed".into()).spawn(move || {
        // The main thread waits for it.
        let _ = finished.send(feed.run(&target, &stop, &watched));
    })?;
    let mut shown = Shown::new(total);
    let summary = loop {
        match on_finished.recv_timeout(shown.each()) {
            Ok(summary) => break summary,
            Err(RecvTimeoutError::Timeout) => shown.show(&counters, read.load(Ordering::Relaxed)),
            Err(RecvTimeoutError::Disconnected) => break Err(anyhow!("the feed ended without a result")),
        }
    };
    shown.bar.finish_and_clear();
    let summary = summary?;
    thread.join().map_err(|_| anyhow!("the feed panicked"))?;
    let text = if args.json { summary.to_json().to_string() } else { summary.to_string() };
    print(format!("{text}\n").as_bytes())?;
    match summary.failure {
        Some(why) if summary.undelivered == 0 => bail!("the producer can't go on: {why}"),
        Some(first) => bail!("{} messages were not delivered; the first: {first}", summary.undelivered),
        None => Ok(()),
    }
}

/// Progress on standard error: a line that is redrawn on a terminal, else one in the log now and then.
struct Shown {
    bar: ProgressBar,
    total: Option<u64>,
    started: Instant,
}

impl Shown {
    fn new(total: Option<u64>) -> Shown {
        let is_terminal = io::stderr().is_terminal();
        let bar = if is_terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Shown { bar, total, started: Instant::now() }
    }

    fn each(&self) -> Duration {
        if self.bar.is_hidden() { LOG_EACH } else { BAR_EACH }
    }

    fn show(&mut self, counters: &ReplayCounters, read: u64) {
        let messages = counters.messages.load(Ordering::Relaxed);
        let passes = counters.passes.load(Ordering::Relaxed);
        let seconds = self.started.elapsed().as_secs();
        if self.bar.is_hidden() {
            info!(messages, passes, seconds, "feeding");
            return;
        }
        let part = self.total.filter(|total| *total > 0).map(|total| 100 * read.min(total) / total);
        let part = part.map_or_else(String::new, |part| format!(", {part} % read"));
        self.bar.set_message(format!("{messages} messages in {seconds} s, pass {passes}{part}"));
        self.bar.tick();
    }
}

fn parse_topic(name: &str) -> Result<String, String> {
    let expected = "expected 1 to 249 letters, digits, \".\", \"_\" and \"-\"";
    if is_topic(name) { Ok(name.to_owned()) } else { Err(expected.to_owned()) }
}

fn parse_pace(text: &str) -> Result<Pace, String> {
    Pace::parse(text).ok_or_else(|| "expected a number above 0, or max".to_owned())
}

fn parse_duration(text: &str) -> Result<Nanos, String> {
    let length = duration::parse(text).filter(|length| *length > 0);
    length.ok_or_else(|| "expected a time above 0 like 90s, 5m or 1h".to_owned())
}
