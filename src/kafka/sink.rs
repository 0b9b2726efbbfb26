//! Writes one worker's publications to their topics, and knows when they have arrived.
//!
//! ```text
//! publication ─► client (or kept, while its queue is full) ─► broker ─► delivery report ─► progress of the shard
//! ```
//! Nothing here waits: what the client can't take is kept, and a shard is not read on while its share of
//! `kafka.backlog` is on the way. A shard's progress moves over a publication when it and all before it have arrived,
//! so an offset is never committed ahead of its outputs. Publications are kept until then: a client that has stopped
//! delivering can be replaced.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use foreshock_dataflows::batch::Cut;
use foreshock_dataflows::emit::Kind;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::publish::{Key, Publication, Record};
use foreshock_operators::row::{Extent, InstrumentId};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Role, Words, client_config, refused};
use super::progress::{Progress, Shard};
use super::ways::Ways;
use crate::config::{Kafka, Topics};

/// Header of every output: the row it comes from, `topic/partition/offset/index`.
const SOURCE: &str = "source";

/// Delivery reports are taken after this many sends, so that they don't pile up.
const SENDS_PER_POLL: usize = 256;

/// Where all of a worker's outputs leave.
pub struct Sink {
    kafka: Kafka,
    group: String,
    producer: BaseProducer<Reports>,
    /// By `Kind as usize`.
    topics: [Option<String>; Kind::ALL.len()],
    shards: Arc<[Shard]>,
    /// `topic/partition` of each shard.
    names: Arc<[String]>,
    instruments: Instruments,
    /// `<exchange>:<instrument>` by instrument number; empty until first used.
    keys: Vec<String>,
    /// Publications that have not arrived, in the order they came; some in the middle may have.
    kept: VecDeque<Kept>,
    /// Those before this one are with the client.
    unsent: usize,
    source: SourceText,
    reports: Reports,
}

struct Kept {
    publication: Publication,
    number: u64,
    /// Records before this one are with the client.
    next: usize,
    /// It was told of as accepted.
    is_accepted: bool,
}

/// What was taken whole by the client.
pub struct Accepted {
    pub cut: Cut,
    /// Predictions among the records.
    pub predictions: usize,
}

impl Sink {
    /// A sink for outputs of these shards.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn start(
        kafka: &Kafka,
        topics: &Topics,
        group: &str,
        shards: Arc<[Shard]>,
        progress: &[Arc<Progress>],
        instruments: Instruments,
    ) -> Result<Sink> {
        let reports = Reports { ways: Arc::new(Mutex::new(Ways::new(progress))), generation: 0 };
        let names = shards.iter().map(Shard::name).collect();
        Ok(Sink {
            kafka: kafka.clone(),
            group: group.to_owned(),
            producer: producer(kafka, group, &reports)?,
            topics: Kind::ALL.map(|kind| topics.output.get(&kind).cloned()),
            shards,
            names,
            instruments,
            keys: Vec::new(),
            kept: VecDeque::new(),
            unsent: 0,
            source: SourceText::default(),
            reports,
        })
    }

    /// Takes a publication; [`Sink::pump`] sends it.
    pub fn take(&mut self, publication: Publication) {
        let (bytes, records) = (publication.bytes.len(), publication.records.len());
        let number = self.reports.ways().enter(publication.cut, bytes, records);
        self.kept.push_back(Kept { publication, number, next: 0, is_accepted: false });
    }

    /// Sends what the client takes and reads what has arrived, without waiting. Tells of each publication that
    /// the client has taken whole.
    ///
    /// # Errors
    /// When a record can't be delivered at all: the error names its row.
    pub fn pump(&mut self, mut accepted: impl FnMut(Accepted)) -> Result<()> {
        let mut sent = 0;
        'sending: while self.unsent < self.kept.len() {
            while let Some(record) = self.kept[self.unsent].next_record() {
                if !self.send(self.unsent, record)? {
                    break 'sending;
                }
                self.kept[self.unsent].next += 1;
                sent += 1;
                if sent % SENDS_PER_POLL == 0 {
                    self.producer.poll(Duration::ZERO);
                }
            }
            let kept = &mut self.kept[self.unsent];
            if !kept.is_accepted {
                kept.is_accepted = true;
                let Publication { cut, predictions, .. } = &kept.publication;
                accepted(Accepted { cut: *cut, predictions: predictions.len() });
            }
            self.unsent += 1;
        }
        self.take_reports();
        match self.reports.ways().failed.take() {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }

    fn take_reports(&mut self) {
        // One event each: many reports come in one.
        for _ in 0..8 {
            let before = self.producer.in_flight_count();
            self.producer.poll(Duration::ZERO);
            if before == 0 || self.producer.in_flight_count() == before {
                break;
            }
        }
        let ways = self.reports.ways();
        let has_arrived = |kept: &Kept| ways.has_arrived(kept.publication.cut.shard, kept.number);
        // What is not yet sent can have arrived too, where it has no records.
        while self.unsent > 0 && self.kept.front().is_some_and(has_arrived) {
            self.kept.pop_front();
            self.unsent -= 1;
        }
    }

    /// Bytes of all shards that were taken and have not arrived.
    pub fn backlog_bytes(&self) -> usize {
        self.reports.ways().bytes()
    }

    /// Bytes of one shard that were taken and have not arrived.
    pub fn backlog_bytes_of(&self, shard: u32) -> usize {
        self.reports.ways().bytes_of(shard)
    }

    /// Records that the client holds.
    pub fn queued_records(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or_default()
    }

    /// How long something has been on its way without anything arriving.
    pub fn stalled_for(&self) -> Duration {
        self.reports.ways().stalled_for()
    }

    /// Forgives the time so far without arrivals: there is a reason for it.
    pub fn forgive(&self) {
        self.reports.ways().forgive();
    }

    /// Replaces the client by a new one, which sends all that has not arrived once more.
    ///
    /// # Errors
    /// When the new client can't be made.
    pub fn renew(&mut self) -> Result<()> {
        self.reports.generation += 1;
        self.reports.ways().renew(self.reports.generation);
        let fresh = producer(&self.kafka, &self.group, &self.reports)?;
        let old = std::mem::replace(&mut self.producer, fresh);
        // Its end may take seconds; what it still has to say concerns nobody.
        thread::Builder::new()
            .name("old producer".to_owned())
            .spawn(move || drop(old))
            .context("could not end it")?;
        self.kept.iter_mut().for_each(|kept| kept.next = 0);
        self.unsent = 0;
        Ok(())
    }

    /// Sends all that was taken and waits until it has arrived.
    ///
    /// # Errors
    /// When it has not by then, or can't be delivered at all.
    pub fn drain(&mut self, at_most: Duration, mut accepted: impl FnMut(Accepted)) -> Result<()> {
        let deadline = Instant::now() + at_most;
        loop {
            self.pump(&mut accepted)?;
            if self.reports.ways().is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} bytes of outputs were not delivered within {at_most:?}; their input is read again at the \
                     next start",
                    self.backlog_bytes()
                );
            }
            self.producer.poll(Duration::from_millis(1));
        }
    }

    /// Hands a record to the client; `false` where its queue is full.
    fn send(&mut self, at: usize, record: Record) -> Result<bool> {
        let Record { kind, key, value, offset, index } = record;
        let Kept { publication: Publication { cut, bytes, .. }, number, .. } = &self.kept[at];
        let Some(topic) = &self.topics[kind as usize] else { bail!("{} have no topic", kind.name()) };
        if let Key::Instrument(id) = key {
            introduce(&mut self.keys, &self.instruments, id);
        }
        let source = self.source.write(&self.names[cut.shard as usize], offset, index);
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: SOURCE, value: Some(source) });
        let mut record = BaseRecord::with_opaque_to(topic, tag(cut.shard, *number))
            .partition(self.shards[cut.shard as usize].partition)
            .payload(part(bytes, value))
            .headers(headers);
        record.key = match key {
            Key::Instrument(id) => Some(self.keys[id.0 as usize].as_bytes()),
            Key::Text(extent) => Some(part(bytes, extent)),
            Key::None => None,
        };
        match self.producer.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => bail!("could not send a row of {source} to {topic}: {error}"),
        }
    }
}

impl Kept {
    fn next_record(&self) -> Option<Record> {
        self.publication.records.get(self.next).copied()
    }
}

fn producer(kafka: &Kafka, group: &str, reports: &Reports) -> Result<BaseProducer<Reports>> {
    let config = client_config(kafka, group, Role::Producer);
    refused(config.create_with_context(reports.clone()), "producer")
}

/// Bits of a record's tag that are its publication's number; the ones above are the shard's.
const NUMBER_BITS: u32 = 40;

fn tag(shard: u32, number: u64) -> usize {
    (u64::from(shard) << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1)) as usize
}

fn untag(tag: usize) -> (u32, u64) {
    ((tag as u64 >> NUMBER_BITS) as u32, tag as u64 & ((1 << NUMBER_BITS) - 1))
}

fn part(bytes: &[u8], extent: Extent) -> &[u8] {
    &bytes[extent.start as usize..(extent.start + extent.length) as usize]
}

fn introduce(keys: &mut Vec<String>, instruments: &Instruments, id: InstrumentId) {
    let at = id.0 as usize;
    if keys.len() <= at {
        keys.resize(at + 1, String::new());
    }
    if keys[at].is_empty() {
        let instrument = instruments.get(id);
        keys[at] = format!("{}:{}", instrument.exchange, instrument.name);
    }
}

/// The text of the header, made once for all outputs of a row.
#[derive(Default)]
struct SourceText {
    text: String,
    of: Option<(u64, u32)>,
    shard: String,
}

impl SourceText {
    fn write(&mut self, shard: &str, offset: u64, index: u32) -> &str {
        if self.of != Some((offset, index)) || self.shard != shard {
            self.text.clear();
            // Writing to a string can't fail.
            let _ = write!(self.text, "{shard}/{offset}/{index}");
            self.of = Some((offset, index));
            shard.clone_into(&mut self.shard);
        }
        &self.text
    }
}

/// Takes a client's delivery reports.
#[derive(Clone)]
struct Reports {
    ways: Arc<Mutex<Ways>>,
    /// Counts the clients: what an old one still says doesn't count.
    generation: u32,
}

impl Reports {
    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, why: impl FnOnce() -> String) {
        let mut ways = self.ways();
        if ways.generation == self.generation {
            ways.failed.get_or_insert_with(why);
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Words.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fail(|| format!("the producer can't go on: {reason}"));
        }
        Words.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult, tag: usize) {
        match result {
            Ok(_) => {
                let (shard, number) = untag(tag);
                self.ways().arrived(self.generation, shard, number);
            }
            Err((error, message)) => self.fail(|| {
                let headers = message.headers();
                let source = headers.and_then(|headers| headers.iter().find(|header| header.key == SOURCE));
                let source = source.and_then(|header| header.value).map(String::from_utf8_lossy);
                format!(
                    "could not deliver an output of {} to {}/{}: {error}",
                    source.unwrap_or_default(),
                    message.topic(),
                    message.partition(),
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_shard_offset_and_index() {
        let mut source = SourceText::default();
        assert_eq!(source.write("a/0", 7, 0), "a/0/7/0");
        assert_eq!(source.write("a/0", 7, 1), "a/0/7/1");
        assert_eq!(source.write("b/0", 7, 1), "b/0/7/1");
    }

    #[test]
    fn a_tag_holds_shard_and_number() {
        for (shard, number) in [(0, 0), (1, 7), (9_999_999, (1 << 40) - 1)] {
            assert_eq!(untag(tag(shard, number)), (shard, number));
        }
    }
}
