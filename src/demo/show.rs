//! The whole of foreshock in one process: a broker, two feeds, a job on two workers and its HTTP server.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::time::{MILLISECOND, MINUTE, Nanos, TimeText};

use super::market::{EXCHANGE, MadeUpMarket, MarketSettings};
use crate::config::Config;
use crate::http::Server;
use crate::kafka::embedded::Embedded;
use crate::kafka::partitioner::partition_of;
use crate::kafka::sender::{Outgoing, Sender};
use crate::live::Job;
use crate::metrics::Metrics;
use crate::recordings::input::RecordedInput;
use crate::recordings::log::LogSettings;
use crate::recordings::sniff::Expected;
use crate::replay::pace::Pace;
use crate::replay::{Feed, ReplayCounters, Target};
use crate::status::{AlertChange, JobStatus, Phase, State, wall_time};

/// The recorded slice: 36 s of BTCUSDT on Binance, spot and perpetual.
const RECORDED: [(&str, &[u8]); 2] = [
    ("btcusdt-usdm.log.zst", include_bytes!("../../tests/data/btcusdt-usdm.log.zst")),
    ("btcusdt-spot.log.zst", include_bytes!("../../tests/data/btcusdt-spot.log.zst")),
];

/// Partitions of every topic.
const PARTITIONS: i32 = 4;

/// How often a line tells what is happening.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// The recorded slice has no longer pause.
const MAX_PAUSE: Nanos = MINUTE;

/// How often something that waits looks whether it shall stop.
const TICK: Duration = Duration::from_millis(50);

/// How long the job may take at the end for what was fed last.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);

/// Runs until `stop` is set.
///
/// # Errors
/// When a port is in use, or one of the parts can't go on.
pub fn run(mut config: Config, workers: usize, kinds: Vec<OutputKind>, stop: &Arc<AtomicBool>) -> Result<()> {
    let topics = config.topics.clone();
    let all = topics.input.iter().chain(topics.output.values()).map(|topic| (topic.as_str(), PARTITIONS));
    let broker = Embedded::start(all)?;
    config.kafka.brokers = broker.address();
    let (job_status, metrics) = (Arc::<JobStatus>::default(), Metrics::new(&config.metrics));
    let http = config.http.as_ref();
    let server = http.map(|http| Server::start(http, job_status.clone(), metrics.clone())).transpose()?;
    introduce(&config, server.as_ref(), workers)?;

    let feeding = Arc::new(AtomicBool::new(false));
    let job_stop = Arc::new(AtomicBool::new(false));
    let job = Job {
        config: config.clone(),
        workers,
        kinds,
        format: None,
        exchange: None,
        from_beginning: true,
        adopt: false,
        retry: false,
        until_end: false,
        job_status: job_status.clone(),
        metrics,
        stop: job_stop.clone(),
    };
    let result = thread::scope(|scope| -> Result<(i64, i64)> {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let job = named("job").spawn_scoped(scope, || job.run())?;
        let recorded = named("recorded").spawn_scoped(scope, || recorded(&config, &feeding))?;
        let made_up = named("made up").spawn_scoped(scope, || made_up(&config, &feeding))?;
        let shown =
            tell(&job_status, stop, || job.is_finished() || recorded.is_finished() || made_up.is_finished());
        // First the feeds, so that the job has all of what they sent.
        feeding.store(true, Ordering::Relaxed);
        let fed = [recorded, made_up].map(|feed| feed.join().map_err(|_| anyhow!("a feed panicked")));
        let messages: i64 = fed.iter().flatten().flatten().sum();
        let deadline = Instant::now() + SETTLE_WITHIN;
        while !job.is_finished()
            && job_status.state().counts.messages_in < messages
            && Instant::now() < deadline
        {
            thread::sleep(TICK);
        }
        job_stop.store(true, Ordering::Relaxed);
        let done = job.join().map_err(|_| anyhow!("the job panicked"))?;
        for fed in fed {
            fed??;
        }
        shown?;
        Ok((messages, done?.counts.messages_in))
    });
    server.into_iter().for_each(Server::stop);
    let (fed, read) = result?;
    say(format_args!("stopped: of {fed} messages that were fed {read} are read, computed and delivered"))
}

fn introduce(config: &Config, server: Option<&Server>, workers: usize) -> Result<()> {
    let broker = &config.kafka.brokers;
    let http = server.map_or("(off)".to_owned(), |server| server.address().to_string());
    let predictions = config.topics.output.get(&OutputKind::Predictions).map_or("", String::as_str);
    let alerts = config.topics.output.get(&OutputKind::Alerts).map_or("", String::as_str);
    say(format_args!(
        "foreshock demo: an embedded broker, a recorded slice of BTCUSDT and a made-up market, {workers} workers\n\
         \n  \
         look      http://{http}/  /health  /metrics  /stats  /graph  /model/info\n  \
         try       http://{http}/docs  (POST /predict and the rest, in the browser)\n  \
         read      kcat -C -b {broker} -t {predictions}\n            \
         kcat -C -b {broker} -t {alerts}\n  \
         stop      Ctrl-C\n\
         \n\
         The made-up market has its first burst of volatility after half a minute.\n",
    ))
}

/// Tells every few seconds what is happening, until it is time to stop.
fn tell(job_status: &JobStatus, stop: &AtomicBool, is_over: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    let (mut ticks, mut shown_at) = (0, started);
    let mut last_alert: Option<AlertChange> = None;
    while !stop.load(Ordering::Relaxed) && !is_over() {
        thread::sleep(TICK);
        let state = job_status.state();
        if state.last_alert != last_alert {
            last_alert.clone_from(&state.last_alert);
            if let Some(alert) = &last_alert {
                say(format_args!("{:>5.0} s  {}", started.elapsed().as_secs_f64(), alert_text(alert)))?;
            }
        }
        if shown_at.elapsed() >= TELL_EVERY && state.phase == Phase::Running {
            let rate = (state.counts.ticks - ticks) as f64 / shown_at.elapsed().as_secs_f64();
            say(format_args!("{:>5.0} s  {}", started.elapsed().as_secs_f64(), line(&state, rate)))?;
            (ticks, shown_at) = (state.counts.ticks, Instant::now());
        }
    }
    Ok(())
}

fn line(state: &State, rate: f64) -> String {
    let lag: i64 = state.shards.iter().map(|shard| shard.lag()).sum();
    let last = state.last_alert.as_ref().map_or("none yet".to_owned(), alert_text);
    format!(
        "{} ticks ({rate:.0}/s), {} predictions, lag {lag}, {} alerts active; last: {last}",
        state.counts.ticks, state.counts.predictions, state.active_alerts,
    )
}

fn alert_text(alert: &AlertChange) -> String {
    let AlertChange { exchange, instrument, rule, priority, state, .. } = alert;
    let mut time = Vec::new();
    TimeText::default().write(alert.time, 3, &mut time);
    let time = String::from_utf8_lossy(&time);
    format!("{priority} {rule} {exchange}:{instrument} {state} at {time}")
}

fn say(text: std::fmt::Arguments) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).context("could not write to standard output")
}

/// Plays the recorded slice over and over; says how many messages that were.
fn recorded(config: &Config, stop: &AtomicBool) -> Result<i64> {
    let feed = Feed {
        log: LogSettings {
            inputs: RECORDED.map(|(name, bytes)| RecordedInput::Builtin(name, bytes)).into(),
            expected: Expected::default(),
            chunk_bytes: config.backtest.chunk_bytes,
            max_message_bytes: config.input.max_message_bytes,
            take_whole: false,
            follow: None,
            progress: Arc::new(AtomicU64::new(0)),
            notes: Arc::default(),
        },
        pace: Pace::Times(1.0),
        max_pause: MAX_PAUSE,
        duration: None,
        looped: true,
    };
    let target = Target {
        kafka: config.kafka.clone(),
        client_id: format!("{}-recorded", config.job),
        topic: config.topics.input[0].clone(),
        partitions: None,
    };
    let counters = ReplayCounters::default();
    feed.run(&target, stop, &counters).context("the recorded feed can't go on")?;
    Ok(counters.messages.load(Ordering::Relaxed) as i64)
}

/// Feeds the made-up market, each message when its time has come; says how many messages that were.
fn made_up(config: &Config, stop: &AtomicBool) -> Result<i64> {
    let client_id = format!("{}-made-up", config.job);
    let topic = &config.topics.input[0];
    let mut sender = Sender::new(&config.kafka, &client_id, topic, config.input.max_message_bytes)?;
    let market = MadeUpMarket::new(MarketSettings { start: wall_time(), ..MarketSettings::default() });
    for message in market {
        let mut ahead: Nanos = message.time.since(wall_time());
        while ahead > 0 && !stop.load(Ordering::Relaxed) {
            let wait = ahead.min(20 * MILLISECOND);
            sender.wait(Duration::from_nanos(wait.unsigned_abs()));
            ahead = message.time.since(wall_time());
        }
        let outgoing = Outgoing {
            partition: partition_of(message.key.as_bytes(), PARTITIONS),
            key: Some(message.key.as_bytes()),
            value: &message.bytes,
            headers: &[("exchange", EXCHANGE.as_bytes())],
            tag: 0,
        };
        if stop.load(Ordering::Relaxed) || !sender.send(&outgoing, stop) {
            break;
        }
        if let Some(failure) = sender.failure() {
            return Err(anyhow!("the made-up feed can't go on: {}", failure.error));
        }
    }
    sender.drain(config.kafka.stop_timeout).context("the made-up feed can't go on")?;
    Ok(sender.delivered() as i64)
}
