//! Writes one worker's publications to their topics, and knows when they have arrived.
//!
//! ```text
//! publication ─► client (or kept, while its queue is full) ─► broker ─► delivery report ─► progress of the shard
//! ```
//! Nothing here waits: what the client can't take is kept, and a shard is not read on while its share of
//! `job.memory_budget` is on the way. A shard's progress moves over a publication when it and all before it have arrived,
//! so an offset is never committed ahead of its outputs. Publications are kept until then: a client that has stopped
//! delivering can be replaced.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use foreshock_dataflows::encode_records::{OutputRecord, Publication};
use foreshock_dataflows::instruments::Instruments;
use rdkafka::producer::{BaseProducer, Producer};
use timely::scheduling::SyncActivator;

use crate::config::{Kafka, TopicsConfig};
use crate::kafka::client::{Role, client_config, hold_at_most, refused};
use crate::kafka::closing::Closing;
use crate::kafka::out::in_flight::InFlight;
use crate::kafka::out::records::Records;
use crate::kafka::out::reports::{Reports, tag};
use crate::kafka::out::sink::{Accepted, Backlog, Sink};
use crate::kafka::progress::{Shard, ShardProgress};

/// Delivery reports are taken after this many sends, so that they don't pile up.
const SENDS_PER_POLL: usize = 256;

/// Where all of a worker's outputs leave.
pub struct AtLeastOnce {
    kafka: Kafka,
    group: String,
    /// Bytes that the client may hold.
    queued: usize,
    producer: Closing<BaseProducer<Reports>>,
    records: Records,
    /// By shard: its publications that have not arrived, the oldest first.
    kept: BTreeMap<u32, VecDeque<Kept>>,
    /// Shard and number of those that the client has not taken whole, in the order they came.
    unsent: VecDeque<(u32, u64)>,
    reports: Reports,
}

struct Kept {
    publication: Publication,
    /// Predictions among its records.
    predictions: usize,
    number: u64,
    /// Records before this one are with the client.
    next: usize,
    /// It was reported as accepted.
    is_accepted: bool,
}

impl AtLeastOnce {
    /// A sink for the outputs of these shards.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn start(
        kafka: &Kafka,
        topics: &TopicsConfig,
        group: &str,
        queued: usize,
        shards: Arc<[Shard]>,
        progress: &[Arc<ShardProgress>],
        instruments: Instruments,
    ) -> Result<AtLeastOnce> {
        let reports = Reports { in_flight: Arc::new(Mutex::new(InFlight::new(progress))), generation: 0 };
        Ok(AtLeastOnce {
            kafka: kafka.clone(),
            group: group.to_owned(),
            queued,
            producer: producer(kafka, group, queued, &reports)?,
            records: Records::new(topics, shards, instruments),
            kept: BTreeMap::new(),
            unsent: VecDeque::new(),
            reports,
        })
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
        let in_flight = self.reports.in_flight();
        for (shard, kept) in &mut self.kept {
            // One without records may have arrived and still be to be reported.
            while kept
                .front()
                .is_some_and(|kept| kept.is_accepted && in_flight.has_arrived(*shard, kept.number))
            {
                kept.pop_front();
            }
        }
    }

    fn kept_mut(&mut self, shard: u32, number: u64) -> Option<&mut Kept> {
        let kept = self.kept.get_mut(&shard)?;
        let first = kept.front()?.number;
        kept.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    /// Replaces the client by a new one, which sends all that has not arrived once more.
    ///
    /// # Errors
    /// When the new client can't be made.
    fn recreate_client(&mut self) -> Result<()> {
        self.reports.generation += 1;
        self.reports.in_flight().recreate_client(self.reports.generation);
        // What the old one still has to say concerns nobody.
        self.producer = producer(&self.kafka, &self.group, self.queued, &self.reports)?;
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

    /// Hands a record to the client; `false` where its queue is full.
    fn send(&mut self, shard: u32, number: u64, record: OutputRecord) -> Result<bool> {
        let Some(kept) = find(&self.kept, shard, number) else { return Ok(true) };
        self.records.send(&self.producer, shard, &kept.publication.bytes, record, tag(shard, number))
    }
}

impl Sink for AtLeastOnce {
    fn push(&mut self, mut publication: Publication) {
        let predictions = std::mem::take(&mut publication.predictions).len();
        publication.records.shrink_to_fit();
        publication.bytes.shrink_to_fit();
        let records = publication.records.len();
        // What is kept weighs too where there is nothing to send.
        let bytes = publication.bytes.len() + records * size_of::<OutputRecord>() + size_of::<Kept>();
        let shard = publication.cut.shard;
        let number = self.reports.in_flight().enter(shard, publication.low_watermark, bytes, records);
        let kept = Kept { publication, predictions, number, next: 0, is_accepted: false };
        self.kept.entry(shard).or_default().push_back(kept);
        self.unsent.push_back((shard, number));
    }

    fn poll(&mut self, accepted: &mut dyn FnMut(Accepted)) -> Result<()> {
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
        match self.reports.in_flight().failed.take() {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }

    fn drain(&mut self, at_most: Duration, accepted: &mut dyn FnMut(Accepted)) -> Result<()> {
        let deadline = Instant::now() + at_most;
        loop {
            self.poll(accepted)?;
            if self.reports.in_flight().is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} bytes of outputs were not delivered within {at_most:?}; their input is read again at the \
                     next start",
                    self.backlog().bytes
                );
            }
            self.producer.poll(Duration::from_millis(1));
        }
    }

    /// Delivery reports are asked for.
    fn wake(&mut self, _activator: Arc<SyncActivator>) {}

    fn backlog(&self) -> Backlog {
        Backlog {
            publications: self.kept.values().map(VecDeque::len).sum(),
            bytes: self.reports.in_flight().bytes(),
            queued_records: usize::try_from(self.producer.in_flight_count()).unwrap_or_default(),
        }
    }

    fn backlog_bytes_of(&self, shard: u32) -> usize {
        self.reports.in_flight().bytes_of(shard)
    }

    fn recreate_stalled_client(&mut self, after: Duration) -> Result<bool> {
        let is_stalled = self.reports.in_flight().is_stalled(after);
        if is_stalled {
            self.recreate_client()?;
        }
        Ok(is_stalled)
    }

    fn reset_stall_timer(&mut self) {
        self.reports.in_flight().reset_stall_timer();
    }
}

impl Kept {
    fn next_record(&self) -> Option<OutputRecord> {
        self.publication.records.get(self.next).copied()
    }
}

fn find(kept: &BTreeMap<u32, VecDeque<Kept>>, shard: u32, number: u64) -> Option<&Kept> {
    let kept = kept.get(&shard)?;
    kept.get(usize::try_from(number.checked_sub(kept.front()?.number)?).ok()?)
}

fn producer(
    kafka: &Kafka,
    group: &str,
    queued: usize,
    reports: &Reports,
) -> Result<Closing<BaseProducer<Reports>>> {
    let mut config = client_config(kafka, group, Role::Producer);
    hold_at_most(&mut config, kafka, queued);
    refused(config.create_with_context(reports.clone()), "producer").map(Closing::new)
}
