//! Writes one worker's publications to their topics, and knows when they have arrived.
//!
//! ```text
//! publication ─► client (or kept, while its queue is full) ─► broker ─► delivery report ─► progress of the shard
//! ```
//! Nothing here waits: what the client can't take is kept, and a shard is not read on while its share of
//! `kafka.backlog` is on the way. A shard's progress moves over a publication when it and all before it have arrived,
//! so an offset is never committed ahead of its outputs. Publications are kept until then: a client that has stopped
//! delivering can be replaced.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use foreshock_dataflows::batch::Cut;
use foreshock_dataflows::emit::Kind;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::publish::{Key, Publication, Record};
use foreshock_operators::row::{Extent, InstrumentId};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Role, client_config, refused};
use super::progress::{Progress, Shard};
use super::reports::{Reports, SOURCE, tag};
use super::ways::Ways;
use crate::config::{Kafka, Topics};

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
    /// By shard: its publications that have not arrived, the oldest first.
    kept: BTreeMap<u32, VecDeque<Kept>>,
    /// Shard and number of those that the client has not taken whole, in the order they came.
    unsent: VecDeque<(u32, u64)>,
    source: SourceText,
    reports: Reports,
}

struct Kept {
    publication: Publication,
    /// Predictions among its records.
    predictions: usize,
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
            kept: BTreeMap::new(),
            unsent: VecDeque::new(),
            source: SourceText::default(),
            reports,
        })
    }

    /// Takes a publication; [`Sink::pump`] sends it.
    pub fn take(&mut self, mut publication: Publication) {
        let predictions = std::mem::take(&mut publication.predictions).len();
        publication.records.shrink_to_fit();
        publication.bytes.shrink_to_fit();
        let records = publication.records.len();
        // What is kept weighs too where there is nothing to send.
        let bytes = publication.bytes.len() + records * size_of::<Record>() + size_of::<Kept>();
        let shard = publication.cut.shard;
        let number = self.reports.ways().enter(shard, publication.settled, bytes, records);
        let kept = Kept { publication, predictions, number, next: 0, is_accepted: false };
        self.kept.entry(shard).or_default().push_back(kept);
        self.unsent.push_back((shard, number));
    }

    /// Sends what the client takes and reads what has arrived, without waiting. Tells of each publication that
    /// the client has taken whole.
    ///
    /// # Errors
    /// When a record can't be delivered at all: the error names its row.
    pub fn pump(&mut self, mut accepted: impl FnMut(Accepted)) -> Result<()> {
        let mut sent = 0;
        'sending: while let Some((shard, number)) = self.unsent.front().copied() {
            while let Some(record) = find(&self.kept, shard, number).and_then(Kept::next_record) {
                if !self.send(shard, number, record)? {
                    break 'sending;
                }
                if let Some(kept) = self.kept_mut(shard, number) {
                    kept.next += 1;
                }
                sent += 1;
                if sent % SENDS_PER_POLL == 0 {
                    self.producer.poll(Duration::ZERO);
                }
            }
            if let Some(kept) = self.kept_mut(shard, number).filter(|kept| !kept.is_accepted) {
                kept.is_accepted = true;
                accepted(Accepted { cut: kept.publication.cut, predictions: kept.predictions });
            }
            self.unsent.pop_front();
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
        self.let_go();
    }

    /// Lets go of publications that have arrived, shard by shard: one that is stuck keeps nothing of the others.
    fn let_go(&mut self) {
        let ways = self.reports.ways();
        for (shard, kept) in &mut self.kept {
            // One without records may have arrived and still be to be told of.
            while kept.front().is_some_and(|kept| kept.is_accepted && ways.has_arrived(*shard, kept.number)) {
                kept.pop_front();
            }
        }
    }

    fn kept_mut(&mut self, shard: u32, number: u64) -> Option<&mut Kept> {
        let kept = self.kept.get_mut(&shard)?;
        let first = kept.front()?.number;
        kept.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
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

    /// Whether a shard's outputs have been on their way for so long without anything arriving; longer each time that
    /// a new client has not helped it.
    pub fn is_stalled(&self, after: Duration) -> bool {
        self.reports.ways().is_stalled(after)
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
        self.let_go();
        self.unsent.clear();
        for (shard, kept) in &mut self.kept {
            for kept in kept {
                kept.next = 0;
                self.unsent.push_back((*shard, kept.number));
            }
        }
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
    fn send(&mut self, shard: u32, number: u64, record: Record) -> Result<bool> {
        let Record { kind, key, value, offset, index } = record;
        let Some(Kept { publication: Publication { bytes, .. }, .. }) = find(&self.kept, shard, number)
        else {
            return Ok(true);
        };
        let at = shard as usize;
        let Some(topic) = &self.topics[kind as usize] else { bail!("{} have no topic", kind.name()) };
        if let Key::Instrument(id) = key {
            introduce(&mut self.keys, &self.instruments, id);
        }
        let source = self.source.write(&self.names[at], offset, index);
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: SOURCE, value: Some(source) });
        let mut record = BaseRecord::with_opaque_to(topic, tag(shard, number))
            .partition(self.shards[at].partition)
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

fn find(kept: &BTreeMap<u32, VecDeque<Kept>>, shard: u32, number: u64) -> Option<&Kept> {
    let kept = kept.get(&shard)?;
    kept.get(usize::try_from(number.checked_sub(kept.front()?.number)?).ok()?)
}

fn producer(kafka: &Kafka, group: &str, reports: &Reports) -> Result<BaseProducer<Reports>> {
    let config = client_config(kafka, group, Role::Producer);
    refused(config.create_with_context(reports.clone()), "producer")
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
}
