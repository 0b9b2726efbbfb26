//! Plays a log: each message at its time, to its partition.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use crossbeam_channel::Receiver;
use foreshock_dataflows::batch::Chunk;
use foreshock_dataflows::decode::LogFile;
use foreshock_operators::time::Time;
use foreshock_operators::venues::{Line, Subject, split_line, subject};
use tracing::{info, warn};

use super::pace::{Pace, Schedule};
use super::passes::Passes;
use super::reader::{ReaderMessage, TICK, next};
use super::summary::{Ended, ReplaySummary};
use super::{Feed, ReplayCounters, Target};
use crate::kafka::partitioner::partition_of;
use crate::kafka::sender::{Outgoing, SendFailure, Sender};
use crate::recordings::log;

/// What the producer's clock can't tell apart.
const FINEST_WAIT: Duration = Duration::from_millis(2);

/// Keys beyond these are not counted.
const KEYS_MAX: usize = 1_000_000;

/// Bits of a failure's tag that are the line's number; the ones above are the file's.
const LINE_BITS: u32 = 40;

/// A replay under way.
pub struct Play<'f> {
    feed: &'f Feed,
    files: Arc<[LogFile]>,
    partitions: i32,
    sender: Sender,
    stop: &'f AtomicBool,
    counters: &'f ReplayCounters,
    schedule: Schedule,
    passes: Passes,
    key: Vec<u8>,
    /// Hashes of the keys so far.
    keys: HashSet<u64>,
    messages: u64,
    bytes: u64,
    control: u64,
    blank: u64,
    too_large: u64,
}

impl<'f> Play<'f> {
    /// Begins to play; the log is to be read from `news`.
    pub fn new(
        feed: &'f Feed,
        files: Arc<[LogFile]>,
        partitions: i32,
        sender: Sender,
        stop: &'f AtomicBool,
        counters: &'f ReplayCounters,
    ) -> Play<'f> {
        Play {
            feed,
            files,
            partitions,
            sender,
            stop,
            counters,
            schedule: Schedule::new(feed.pace, Duration::from_nanos(feed.max_pause.unsigned_abs())),
            passes: Passes::default(),
            key: Vec::new(),
            keys: HashSet::new(),
            messages: 0,
            bytes: 0,
            control: 0,
            blank: 0,
            too_large: 0,
        }
    }

    /// Plays until the log, the duration or the patience of whoever stops it ends.
    pub fn run(&mut self, news: &Receiver<Result<ReaderMessage>>) -> Result<Ended> {
        self.counters.passes.store(1, Ordering::Relaxed);
        while let Some(what) = next(news, self.stop)? {
            match what {
                ReaderMessage::Opened(files) => self.files = files,
                ReaderMessage::Chunk(chunk) => {
                    if let Some(ended) = self.chunk(&chunk)? {
                        return Ok(ended);
                    }
                }
                ReaderMessage::Ended => {
                    if self.messages == 0 {
                        let names: Vec<_> =
                            self.files.iter().map(|file| format!("{:?}", file.name)).collect();
                        bail!("there is no message in {}", names.join(", "));
                    }
                    if !self.feed.looped {
                        return Ok(Ended::RecordedLog);
                    }
                    self.passes.advance()?;
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
            // Behind the last line break there is no line.
            let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
            for (number, line) in (run.first_line..).zip(lines.split(|byte| *byte == b'\n')) {
                match split_line(line) {
                    Line::Blank => self.blank += 1,
                    Line::Control => self.control += 1,
                    Line::Message { received, body } => {
                        let ended = self.message(&line[body], received, run.file, number)?;
                        if ended.is_some() {
                            return Ok(ended);
                        }
                    }
                    // The job can't be told of a receipt that is none, so it judges the line as it stands.
                    Line::BadReceipt { .. } => {
                        let ended = self.message(line, None, run.file, number)?;
                        if ended.is_some() {
                            return Ok(ended);
                        }
                    }
                }
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
            let due = self.schedule.due(time, Instant::now());
            if let Some(cut) = self.schedule.take_cut() {
                let (file, pause) = (&files[file as usize].name, self.schedule.max_pause());
                let (silent, waits) = (cut.as_secs_f64() + pause.as_secs_f64(), pause.as_secs_f64());
                info!(
                    file,
                    line,
                    silent_seconds = silent,
                    waits_seconds = waits,
                    "a pause is cut to --max-pause"
                );
            }
            if let Some(due) = due
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
        self.messages += 1;
        self.bytes += length;
        self.counters.messages.store(self.messages, Ordering::Relaxed);
        self.counters.bytes.store(self.bytes, Ordering::Relaxed);
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
    fn wait_until(&mut self, due: Instant) -> bool {
        let left = || due.saturating_duration_since(Instant::now());
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

    /// Waits for what was sent, as long as there is progress within `patience`.
    pub fn drain(&mut self, patience: Duration) -> Result<()> {
        self.sender.drain(patience)
    }

    /// What it came to.
    pub fn summary(&self, target: &Target, ended: Ended, elapsed: Duration) -> ReplaySummary {
        let failure = self.sender.failure();
        let undelivered = failure.as_ref().map_or(0, |failure| failure.count);
        ReplaySummary {
            topic: target.topic.clone(),
            partitions: self.partitions,
            ended,
            messages: self.messages - undelivered,
            bytes: self.bytes,
            keys: self.keys.len(),
            control: self.control,
            blank: self.blank,
            too_large: self.too_large,
            undelivered,
            failure: failure.map(|failure| self.describe(&failure)).or_else(|| self.sender.fatal()),
            passes: self.passes.begun(),
            seconds: elapsed.as_secs_f64(),
            recorded_seconds: self.schedule.recorded() as f64 / 1e9,
            pauses_cut: self.schedule.pauses_cut(),
            seconds_cut: self.schedule.seconds_cut(),
            notes: self.feed.log.notes.all(),
        }
    }

    /// A failure with the place of its message.
    fn describe(&self, failure: &SendFailure) -> String {
        let (file, line) = (failure.tag >> LINE_BITS, failure.tag & ((1 << LINE_BITS) - 1));
        format!("{:?}, line {line}: {}", self.files[file].name, failure.error)
    }
}
