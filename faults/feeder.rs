//! Sends the input, slice by slice and not all at once, so that there is something to do in each of the job's lives.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::feed::Record;
use crate::topics;

/// How many messages are sent at a time.
pub const PORTION: usize = 3;

/// How long the last messages may take to arrive.
const PATIENCE: Duration = Duration::from_secs(180);

/// How many messages may be sent by now.
#[derive(Default)]
struct Gate {
    allowed: Mutex<usize>,
    opened: Condvar,
}

/// Feeds the input topic.
pub struct Feeder {
    gate: Arc<Gate>,
    total: usize,
    thread: JoinHandle<Result<()>>,
}

impl Feeder {
    /// `pause` comes after each portion.
    pub fn start(brokers: &str, topic: &str, records: Vec<Record>, pause: Duration) -> Result<Feeder> {
        let mut config = topics::client(brokers);
        // In order, each once, however often the broker is killed.
        config.set("enable.idempotence", "true").set("message.timeout.ms", "0").set("linger.ms", "1");
        let producer: BaseProducer = config.create()?;
        let (gate, topic, total) = (Arc::<Gate>::default(), topic.to_owned(), records.len());
        let gate_too = gate.clone();
        let thread = thread::spawn(move || send_all(&producer, &topic, &records, &gate_too, pause));
        Ok(Feeder { gate, total, thread })
    }

    /// Lets so many more messages through.
    pub fn allow(&self, more: usize) {
        let mut allowed = self.gate.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        *allowed = (*allowed + more).min(self.total);
        self.gate.opened.notify_all();
    }

    /// Lets all through and waits until they have arrived.
    pub fn finish(self) -> Result<()> {
        self.allow(self.total);
        self.thread.join().map_err(|_| anyhow!("the feeder panicked"))?
    }
}

fn send_all(
    producer: &BaseProducer,
    topic: &str,
    records: &[Record],
    gate: &Gate,
    pause: Duration,
) -> Result<()> {
    for (number, portion) in records.chunks(PORTION).enumerate() {
        let end = number * PORTION + portion.len();
        let mut allowed = gate.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        while *allowed < end {
            allowed = gate.opened.wait(allowed).unwrap_or_else(PoisonError::into_inner);
        }
        let is_last_slice = *allowed >= records.len();
        drop(allowed);
        for record in portion {
            send(producer, topic, record)?;
        }
        // Nobody looks for kills in what is fed at the very end.
        producer.poll(if is_last_slice { Duration::ZERO } else { pause });
    }
    producer.flush(PATIENCE).context("the input could not be fed")?;
    ensure!(producer.in_flight_count() == 0, "the input could not be fed within {PATIENCE:?}");
    Ok(())
}

fn send(producer: &BaseProducer, topic: &str, record: &Record) -> Result<()> {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &record.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let mut new = BaseRecord::<str, [u8]>::to(topic).partition(record.partition).headers(headers);
    new.key = record.key.as_deref();
    new.payload = Some(&record.value);
    loop {
        match producer.send(new) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                new = back;
                producer.poll(Duration::from_millis(50));
            }
            Err((error, _)) => return Err(error).context("the input could not be fed"),
        }
    }
}
