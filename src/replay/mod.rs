//! Feeds recorded files into a Kafka topic, at the pace at which they were recorded or another.
//!
//! ```text
//! files ─reader thread─► lines ─► key, partition, headers ─wait until due─► producer ─► topic
//!   ▲                      │
//!   └──── next pass ◄──────┘ --loop: times and ids moved
//! ```

pub mod pace;
pub mod passes;
mod reader;
pub mod summary;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use foreshock_dataflows::batch::Chunk;
use foreshock_dataflows::decode::LogFile;
use foreshock_operators::decode::{Line, Subject, split_line, subject};
use foreshock_operators::time::{Nanos, Time};
use tracing::{info, warn};

use crate::backtest::Misuse;
use crate::backtest::input::Input;
use crate::backtest::log::{self, LogSettings};
use crate::config::Kafka;
use crate::kafka::partitioner::partition_of;
use crate::kafka::sender::{Outgoing, Sender};
use crate::kafka::topics::Topics;

use pace::{Pace, Schedule};
use passes::Passes;
use reader::News;
use summary::{Ended, Summary};

/// How often something that waits looks whether it shall stop.
const TICK: Duration = Duration::from_millis(50);

/// What the producer's clock can't tell apart.
const FINEST_WAIT: Duration = Duration::from_millis(2);

/// A wait longer than this is told of.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// Keys beyond these are not counted.
const KEYS_MAX: usize = 1_000_000;

/// Bits of a failure's tag that are the line's number; the ones above are the file's.
const LINE_BITS: u32 = 40;

/// Recorded files to be played.
#[derive(Clone, Debug)]
pub struct Feed {
    pub log: LogSettings,
    pub pace: Pace,
    /// Ends the replay after so much recorded time.
    pub duration: Option<Nanos>,
    /// Starts over at the end of the log, with times and ids that go on.
    pub looped: bool,
}

/// Where messages go.
#[derive(Clone, Debug)]
pub struct Target {
    pub kafka: Kafka,
    pub client_id: String,
    pub topic: String,
    /// How many partitions the topic has; `None`: as many as it has, or `kafka.partitions` where it is missing.
    pub partitions: Option<i32>,
}

/// How far a replay has come, for whoever watches it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Handed to the producer so far.
    pub messages: AtomicU64,
    pub bytes: AtomicU64,
    pub passes: AtomicU64,
}

impl Feed {
    /// Plays the log to its end, for the duration asked for, or until `stop` is set. Whatever the end, it waits for
    /// what was sent; the summary tells of messages that were not delivered.
    ///
    /// # Errors
    /// When the log can't be read or understood, brokers can't be reached, the topic can't be had as asked for, or
    /// messages are still on their way after `kafka.stop_timeout` without progress.
    pub fn run(&self, target: &Target, stop: &AtomicBool, counters: &Counters) -> Result<Summary> {
        if self.looped && self.log.inputs.contains(&Input::Stdin) {
            bail!(Misuse("standard input can be read only once: --loop takes files".to_owned()));
        }
        let news = reader::read(self.log.clone(), self.looped)?;
        // What can't be understood shall create no topic.
        let files = match next(&news, stop)? {
            Some(News::Opened(files)) => files,
            _ => bail!("stopped before the log was open"),
        };
        let partitions = partitions(target)?;
        let sender =
            Sender::new(&target.kafka, &target.client_id, &target.topic, self.log.max_message_bytes)?;
        info!(topic = target.topic, partitions, brokers = target.kafka.brokers, "feeding");
        let mut play = Play {
            feed: self,
            files,
            partitions,
            sender,
            stop,
            counters,
            schedule: Schedule::new(self.pace),
            passes: Passes::default(),
            key: Vec::new(),
            keys: HashSet::new(),
            control: 0,
            blank: 0,
            too_large: 0,
        };
        let started = Instant::now();
        let ended = play.run(&news);
        // What was sent is delivered even where the log turned out to be damaged.
        let drained = play.sender.drain(target.kafka.stop_timeout);
        let ended = ended?;
        drained?;
        Ok(play.summary(target, ended, started.elapsed()))
    }
}

/// The topic's partitions, as they are or as they were asked for.
fn partitions(target: &Target) -> Result<i32> {
    let topics = Topics::new(&target.kafka, &target.client_id)?;
    let found = topics.ensure(&target.topic, target.partitions.unwrap_or(target.kafka.partitions))?;
    if let Some(wanted) = target.partitions.filter(|wanted| *wanted != found) {
        bail!(
            "the topic {:?} has {found} partitions, not {wanted}: leave out --partitions, or name another topic",
            target.topic
        );
    }
    Ok(found)
}

/// The next news of the log; `None`: stopped, or there is no more.
fn next(news: &Receiver<Result<News>>, stop: &AtomicBool) -> Result<Option<News>> {
    loop {
        match news.recv_timeout(TICK) {
            _ if stop.load(Ordering::Relaxed) => return Ok(None),
            Ok(what) => return what.map(Some),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// A replay under way.
struct Play<'f> {
    feed: &'f Feed,
    files: Arc<[LogFile]>,
    partitions: i32,
    sender: Sender,
    stop: &'f AtomicBool,
    counters: &'f Counters,
    schedule: Schedule,
    passes: Passes,
    key: Vec<u8>,
    /// Hashes of the keys so far.
    keys: HashSet<u64>,
    control: u64,
    blank: u64,
    too_large: u64,
}

impl Play<'_> {
    fn run(&mut self, news: &Receiver<Result<News>>) -> Result<Ended> {
        self.counters.passes.store(1, Ordering::Relaxed);
        while let Some(what) = next(news, self.stop)? {
            match what {
                News::Opened(files) => self.files = files,
                News::Chunk(chunk) => {
                    if let Some(ended) = self.chunk(&chunk)? {
                        return Ok(ended);
                    }
                }
                News::Ended => {
                    if self.counters.messages.load(Ordering::Relaxed) == 0 {
                        let names: Vec<_> =
                            self.files.iter().map(|file| format!("{:?}", file.name)).collect();
                        bail!("there is no message in {}", names.join(", "));
                    }
                    if !self.feed.looped {
                        return Ok(Ended::Log);
                    }
                    self.passes.next()?;
                    self.counters.passes.store(self.passes.begun(), Ordering::Relaxed);
                }
            }
        }
        Ok(Ended::Stopped)
    }

    /// Sends the messages of a chunk; `Some`: the replay has ended.
    fn chunk(&mut self, chunk: &Chunk) -> Result<Option<Ended>> {
        for run in &chunk.runs {
            let lines = &chunk.bytes[run.start..run.end];
            if let Some(length) = run.too_large {
                self.leave_out(lines, run.file, run.first_line, length);
                continue;
            }
            let mut number = run.first_line;
            // Behind the last line break there is no line.
            let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
            for line in lines.split(|byte| *byte == b'\n') {
                match split_line(line) {
                    Line::Blank => self.blank += 1,
                    Line::Control => self.control += 1,
                    Line::Message { received, body } => {
                        let ended = self.message(&line[body], received, run.file, number)?;
                        if ended.is_some() {
                            return Ok(ended);
                        }
                    }
                }
                number += 1;
            }
        }
        if self.sender.is_broken() {
            return Ok(Some(Ended::Failed));
        }
        Ok(None)
    }

    /// Counts a line that is too long, of which only the beginning is here.
    fn leave_out(&mut self, beginning: &[u8], file: u32, line: u64, length: u64) {
        if split_line(beginning) == Line::Control {
            self.control += 1;
            return;
        }
        if self.too_large == 0 {
            let expected = self.feed.log.max_message_bytes;
            let file = &self.files[file as usize].name;
            warn!(file, line, length, expected, "a line is too long for a message and is left out");
        }
        self.too_large += 1;
    }

    fn message(
        &mut self,
        message: &[u8],
        received: Option<Time>,
        file: u32,
        line: u64,
    ) -> Result<Option<Ended>> {
        let files = self.files.clone();
        let LogFile { format, exchange, .. } = &files[file as usize];
        let subject = subject(*format, message, exchange.as_deref());
        let is_measured = self.feed.looped && self.passes.is_first();
        let is_timed = self.feed.pace != Pace::Max || self.feed.duration.is_some();
        let mut event_time = None;
        if is_measured || is_timed && received.is_none() {
            event_time = log::event_time(*format, exchange.as_deref(), message, received);
        }
        let partition = self.address(subject.as_ref());
        if is_measured {
            let whose = String::from_utf8_lossy(&self.key);
            self.passes.measure(*format, message, &whose, event_time, received);
        }
        if let Some(time) = received.or(event_time).map(|time| self.passes.moved_time(time)) {
            if self.feed.duration.is_some_and(|duration| self.schedule.recorded_at(time) >= duration) {
                return Ok(Some(Ended::Duration));
            }
            if let Some(due) = self.schedule.due(time, Instant::now())
                && !self.wait_until(due)
            {
                let is_stopped = self.stop.load(Ordering::Relaxed);
                return Ok(Some(if is_stopped { Ended::Stopped } else { Ended::Failed }));
            }
        }
        if self.stop.load(Ordering::Relaxed) {
            return Ok(Some(Ended::Stopped));
        }
        let received = received.map(|time| self.passes.moved_time(time).0.to_string());
        let mut headers: Vec<(&str, &[u8])> = Vec::with_capacity(2);
        if let Some(subject) = &subject {
            headers.push(("exchange", subject.exchange.as_bytes()));
        }
        if let Some(received) = &received {
            headers.push(("received_at", received.as_bytes()));
        }
        let value = self.passes.moved(*format, message);
        let length = value.len() as u64;
        let outgoing = Outgoing {
            partition,
            key: (!self.key.is_empty()).then_some(&self.key),
            value,
            headers: &headers,
            tag: (file as usize) << LINE_BITS | line as usize,
        };
        if !self.sender.send(&outgoing, self.stop) {
            return Ok(Some(Ended::Stopped));
        }
        self.counters.messages.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(None)
    }

    /// Sets the key of a message, and gives its partition.
    fn address(&mut self, subject: Option<&Subject>) -> i32 {
        self.key.clear();
        let Some(Subject { exchange, symbol }) = subject else { return 0 };
        self.key.extend_from_slice(exchange.as_bytes());
        if let Some(symbol) = symbol {
            self.key.push(b':');
            self.key.extend_from_slice(symbol.as_bytes());
        }
        if self.keys.len() < KEYS_MAX {
            let mut hasher = DefaultHasher::new();
            self.key.hash(&mut hasher);
            self.keys.insert(hasher.finish());
        }
        if symbol.is_some() { partition_of(&self.key, self.partitions) } else { 0 }
    }

    /// Waits for a moment; `false`: the replay is to end before.
    fn wait_until(&self, due: Instant) -> bool {
        let left = || due.saturating_duration_since(Instant::now());
        if left() > LONG_WAIT {
            info!(seconds = left().as_secs(), "nothing was recorded for a while: waiting");
        }
        loop {
            let left = left();
            if left.is_zero() {
                return true;
            }
            if left < FINEST_WAIT {
                thread::sleep(left);
                continue;
            }
            if self.stop.load(Ordering::Relaxed) || self.sender.is_broken() {
                return false;
            }
            self.sender.wait(left.min(TICK));
        }
    }

    fn summary(&self, target: &Target, ended: Ended, elapsed: Duration) -> Summary {
        let failure = self.sender.failure();
        let sent = self.counters.messages.load(Ordering::Relaxed);
        let undelivered = failure.as_ref().map_or(0, |failure| failure.count);
        Summary {
            topic: target.topic.clone(),
            partitions: self.partitions,
            ended,
            messages: sent - undelivered,
            bytes: self.counters.bytes.load(Ordering::Relaxed),
            keys: self.keys.len(),
            control: self.control,
            blank: self.blank,
            too_large: self.too_large,
            undelivered,
            failure: failure.map(|failure| {
                let (file, line) = (failure.tag >> LINE_BITS, failure.tag & ((1 << LINE_BITS) - 1));
                format!("{:?}, line {line}: {}", self.files[file].name, failure.error)
            }),
            passes: self.passes.begun(),
            seconds: elapsed.as_secs_f64(),
            recorded_seconds: self.schedule.recorded() as f64 / 1e9,
        }
    }
}
