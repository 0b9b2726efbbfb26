//! Reads along with the job's committed outputs: what it has achieved, and when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;

use crate::topics;

#[derive(Default)]
struct Seen {
    outputs: usize,
    /// What a committed output is awaited from: since when, in milliseconds, and the first of it.
    since: i64,
    first: Option<Instant>,
}

/// A reader of committed outputs that runs on.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    end: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start(brokers: &str, topics: &[String], partitions: i32) -> Result<Watch> {
        let consumer = topics::consumer(brokers, true)?;
        consumer.assign(&topics::all_partitions(topics, partitions)?)?;
        let (seen, end) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (seen_too, end_too) = (seen.clone(), end.clone());
        let reader = thread::spawn(move || {
            while !end_too.load(Ordering::Relaxed) {
                // Errors pass: a broker that is away comes back.
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
                    note(&mut lock(&seen_too), message.timestamp().to_millis().unwrap_or(0));
                }
            }
        });
        Ok(Watch { seen, end, reader: Some(reader) })
    }

    /// Committed outputs so far.
    pub fn outputs(&self) -> usize {
        lock(&self.seen).outputs
    }

    /// From now on [`Watch::first`] is about records that were sent at this time or later.
    pub fn expect_since(&self, milliseconds: i64) {
        let mut seen = lock(&self.seen);
        seen.since = milliseconds;
        seen.first = None;
    }

    /// When the first committed output since then was read.
    pub fn first(&self) -> Option<Instant> {
        lock(&self.seen).first
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It has nothing more to say.
            let _ = reader.join();
        }
    }
}

fn note(seen: &mut Seen, timestamp: i64) {
    seen.outputs += 1;
    if timestamp >= seen.since && seen.first.is_none() {
        seen.first = Some(Instant::now());
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
