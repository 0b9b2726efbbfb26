//! Writes one worker's publications to their topics, and knows when they have arrived.
//!
//! ```text
//! publication ─► waiting (while the client's queue is full) ─► client ─► broker ─► delivery report ─► progress
//! ```
//! Nothing here waits: what the client can't take is kept, and the source stops reading while more than
//! `kafka.backlog` bytes are on their way. A shard's progress moves over a publication when it and all before it
//! have arrived, so an offset is never committed ahead of its outputs.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
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
use crate::config::{Kafka, Topics};

/// Header of every output: the row it comes from, `topic/partition/offset/index`.
const SOURCE: &str = "source";

/// Delivery reports are taken after this many sends, so that they don't pile up.
const SENDS_PER_POLL: usize = 256;

/// Where all of a worker's outputs leave.
pub struct Sink {
    producer: BaseProducer<Reports>,
    /// By `Kind as usize`.
    topics: [Option<String>; Kind::ALL.len()],
    shards: Arc<[Shard]>,
    /// `topic/partition` of each shard.
    names: Arc<[String]>,
    instruments: Instruments,
    /// `<exchange>:<instrument>` by instrument number; empty until first used.
    keys: Vec<String>,
    waiting: VecDeque<Waiting>,
    source: SourceText,
}

/// A publication that the client has not taken whole.
struct Waiting {
    publication: Publication,
    number: usize,
    /// Records before this one are with the client.
    next: usize,
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
        progress: Arc<[Arc<Progress>]>,
        instruments: Instruments,
    ) -> Result<Sink> {
        let config = client_config(kafka, group, Role::Producer);
        let reports = Reports(Arc::new(Mutex::new(OnTheirWay { progress, ..OnTheirWay::default() })));
        let producer = refused(config.create_with_context(reports), "producer")?;
        let names = shards.iter().map(Shard::name).collect();
        let topics = Kind::ALL.map(|kind| topics.output.get(&kind).cloned());
        Ok(Sink {
            producer,
            topics,
            shards,
            names,
            instruments,
            keys: Vec::new(),
            waiting: VecDeque::new(),
            source: SourceText::default(),
        })
    }

    /// Takes a publication; [`Sink::pump`] sends it.
    pub fn take(&mut self, publication: Publication) {
        let number = self.on_their_way().enter(&publication);
        self.waiting.push_back(Waiting { publication, number, next: 0 });
    }

    /// Sends what the client takes and reads what has arrived, without waiting. Tells of each publication that
    /// the client has taken whole.
    ///
    /// # Errors
    /// When a record can't be delivered at all: the error names its row.
    pub fn pump(&mut self, mut accepted: impl FnMut(Accepted)) -> Result<()> {
        let mut sent = 0;
        'sending: while let Some(mut waiting) = self.waiting.pop_front() {
            while let Some(record) = waiting.publication.records.get(waiting.next) {
                if !self.send(&waiting, *record)? {
                    self.waiting.push_front(waiting);
                    break 'sending;
                }
                waiting.next += 1;
                sent += 1;
                if sent % SENDS_PER_POLL == 0 {
                    self.producer.poll(Duration::ZERO);
                }
            }
            let Publication { cut, predictions, .. } = waiting.publication;
            accepted(Accepted { cut, predictions: predictions.len() });
        }
        // One event each: many reports come in one.
        for _ in 0..8 {
            let before = self.producer.in_flight_count();
            self.producer.poll(Duration::ZERO);
            if before == 0 || self.producer.in_flight_count() == before {
                break;
            }
        }
        match self.on_their_way().failed.take() {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }

    /// Bytes that were taken and have not arrived.
    pub fn backlog_bytes(&self) -> usize {
        self.on_their_way().bytes
    }

    /// Records that the client holds.
    pub fn queued_records(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or_default()
    }

    /// Sends all that was taken and waits until it has arrived.
    ///
    /// # Errors
    /// When it has not by then, or can't be delivered at all.
    pub fn drain(&mut self, at_most: Duration, mut accepted: impl FnMut(Accepted)) -> Result<()> {
        let deadline = Instant::now() + at_most;
        loop {
            self.pump(&mut accepted)?;
            let (publications, bytes) = {
                let way = self.on_their_way();
                (way.publications.len(), way.bytes)
            };
            if publications == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{bytes} bytes of outputs were not delivered within {at_most:?}; their input is read again at \
                     the next start"
                );
            }
            self.producer.poll(Duration::from_millis(1));
        }
    }

    /// Hands a record to the client; `false` where its queue is full.
    fn send(&mut self, waiting: &Waiting, record: Record) -> Result<bool> {
        let Record { kind, key, value, offset, index } = record;
        let Publication { cut, bytes, .. } = &waiting.publication;
        let Some(topic) = &self.topics[kind as usize] else { return Ok(true) };
        if let Key::Instrument(id) = key {
            introduce(&mut self.keys, &self.instruments, id);
        }
        let key = match key {
            Key::Instrument(id) => self.keys[id.0 as usize].as_bytes(),
            Key::Text(extent) => part(bytes, extent),
        };
        let source = self.source.write(&self.names[cut.shard as usize], offset, index);
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: SOURCE, value: Some(source) });
        let record = BaseRecord::with_opaque_to(topic, waiting.number)
            .partition(self.shards[cut.shard as usize].partition)
            .key(key)
            .payload(part(bytes, value))
            .headers(headers);
        match self.producer.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => bail!("could not send a row of {source} to {topic}: {error}"),
        }
    }

    fn on_their_way(&self) -> MutexGuard<'_, OnTheirWay> {
        self.producer.context().lock()
    }
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

/// Publications that have not arrived, the oldest first.
#[derive(Default)]
struct OnTheirWay {
    publications: VecDeque<Publishing>,
    /// The number of the oldest.
    first: usize,
    bytes: usize,
    /// Why a record can't be delivered.
    failed: Option<String>,
    /// By shard.
    progress: Arc<[Arc<Progress>]>,
}

struct Publishing {
    cut: Cut,
    bytes: usize,
    /// Records that have not arrived.
    missing: usize,
}

impl OnTheirWay {
    fn enter(&mut self, publication: &Publication) -> usize {
        let (bytes, missing) = (publication.bytes.len(), publication.records.len());
        self.publications.push_back(Publishing { cut: publication.cut, bytes, missing });
        self.bytes += bytes;
        let number = self.first + self.publications.len() - 1;
        self.settle();
        number
    }

    fn arrived(&mut self, number: usize) {
        if let Some(publishing) = self.publications.get_mut(number.wrapping_sub(self.first)) {
            publishing.missing -= 1;
        }
        self.settle();
    }

    /// Moves progress over all that has arrived with nothing missing before it.
    fn settle(&mut self) {
        while self.publications.front().is_some_and(|publishing| publishing.missing == 0) {
            let Some(Publishing { cut, bytes, .. }) = self.publications.pop_front() else { break };
            self.first += 1;
            self.bytes -= bytes;
            if let Some(progress) = self.progress.get(cut.shard as usize) {
                progress.deliver(cut.next_offset);
            }
        }
    }
}

/// Takes the client's delivery reports.
#[derive(Clone)]
struct Reports(Arc<Mutex<OnTheirWay>>);

impl Reports {
    fn lock(&self) -> MutexGuard<'_, OnTheirWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Words.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.lock().failed.get_or_insert_with(|| format!("the producer can't go on: {reason}"));
        }
        Words.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult, number: usize) {
        match result {
            Ok(_) => self.lock().arrived(number),
            Err((error, message)) => {
                let headers = message.headers();
                let source = headers.and_then(|headers| headers.iter().find(|header| header.key == SOURCE));
                let source = source.and_then(|header| header.value).map(String::from_utf8_lossy);
                let why = format!(
                    "could not deliver an output of {} to {}/{}: {error}",
                    source.unwrap_or_default(),
                    message.topic(),
                    message.partition(),
                );
                self.lock().failed.get_or_insert(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(shard: u32, next_offset: i64, records: usize) -> Publication {
        let record = Record {
            kind: Kind::Features,
            key: Key::Text(Extent::default()),
            value: Extent::default(),
            offset: 0,
            index: 0,
        };
        Publication {
            cut: Cut { shard, next_offset, ..Cut::default() },
            bytes: vec![0; 10 * records],
            records: vec![record; records],
            counts: Default::default(),
            predictions: Vec::new(),
            alerts: Vec::new(),
            first_refused: None,
            unusable: None,
        }
    }

    #[test]
    fn progress_moves_only_over_what_has_arrived_with_nothing_missing_before_it() {
        let progress: Arc<[Arc<Progress>]> = (0..2).map(|_| Arc::new(Progress::from(5))).collect();
        let mut way = OnTheirWay { progress: progress.clone(), ..OnTheirWay::default() };
        let first = way.enter(&publication(0, 7, 2));
        let second = way.enter(&publication(1, 9, 1));
        let empty = way.enter(&publication(0, 8, 0));
        let delivered = || [progress[0].delivered(), progress[1].delivered()];
        assert_eq!((first, second, empty, way.bytes), (0, 1, 2, 30));
        way.arrived(second);
        way.arrived(first);
        assert_eq!((delivered(), way.bytes), ([5, 5], 30));
        way.arrived(first);
        assert_eq!((delivered(), way.bytes), ([8, 9], 0));
        let third = way.enter(&publication(0, 12, 0));
        assert_eq!((third, delivered()), (3, [12, 9]));
    }

    #[test]
    fn a_source_names_shard_offset_and_index() {
        let mut source = SourceText::default();
        assert_eq!(source.write("a/0", 7, 0), "a/0/7/0");
        assert_eq!(source.write("a/0", 7, 1), "a/0/7/1");
        assert_eq!(source.write("b/0", 7, 1), "b/0/7/1");
    }
}
