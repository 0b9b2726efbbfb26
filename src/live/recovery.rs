//! How a job begins where it has been before: fence, ask, load, read again.
//!
//! ```text
//! per shard: take over its outputs ─► committed offset C and the note beside it ─► newest snapshot at S <= C
//!            ─► read from S, silently up to C, aloud from there
//! ```
//! In this order: what is committed is known only when nobody else can commit any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use foreshock_dataflows::changes::{self, Begun};
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::market::Market;
use tracing::{info, warn};

use super::Job;
use super::account::ShardAccount;
use super::life::Life;
use crate::cluster::place::Place as WorkerPlace;
use crate::faults;
use crate::kafka::offsets::{Bounds, Committed, Offsets};
use crate::kafka::peek::first_record;
use crate::kafka::progress::Shard;
use crate::kafka::transactions::{Client, Group};
use crate::state::{Entry, Header, Snapshot, Store};

/// How long one answer of the brokers may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a coordinator may take to end what a predecessor has left.
const FENCED_WITHIN: Duration = Duration::from_secs(20);

/// Producers that are made at the same time.
const OPENED_AT_ONCE: usize = 32;

/// Where a shard begins, and what it needs for that.
pub struct Beginning {
    pub shard: Shard,
    pub client: Arc<Client>,
    pub life: Life,
    pub account: ShardAccount,
    /// The offset of the snapshot that its state is from.
    pub saved: Option<i64>,
}

/// What all shards are begun with.
pub struct Recovery<'a> {
    pub job: &'a Job,
    pub store: Option<&'a Store>,
    /// Fingerprint of the settings that are configured.
    pub settings: &'a str,
    pub instruments: &'a Instruments,
}

/// Tells when all that was told of before has been read again.
#[derive(Debug)]
pub struct Watch {
    since: Instant,
    is_over: AtomicBool,
}

impl Watch {
    /// Begins to watch.
    pub fn start() -> Watch {
        Watch { since: Instant::now(), is_over: AtomicBool::new(false) }
    }

    /// Whether all shards were there at some time.
    pub fn has_ended(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// How long it took, the first time that this is asked with all shards there.
    pub fn is_over(&self, mut shards_there: impl Iterator<Item = bool>) -> Option<Duration> {
        if self.is_over.load(Ordering::Relaxed) || !shards_there.all(|is_there| is_there) {
            return None;
        }
        (!self.is_over.swap(true, Ordering::AcqRel)).then(|| self.since.elapsed())
    }
}

/// A place in the input.
pub type Partition = (String, i32);

impl Recovery<'_> {
    /// Begins these shards, each with its number; their states go to the worker of this process that is to have them.
    ///
    /// # Errors
    /// When brokers don't answer, the input is not what it was, or the configuration isn't.
    pub fn begin(
        &self,
        shards: &[(u32, Partition)],
        offsets: &Offsets,
        workers: WorkerPlace,
        markets: &mut [Market],
    ) -> Result<BTreeMap<u32, Beginning>> {
        let clients = self.take_over(shards)?;
        let settled = Offsets::connect_settled(&self.job.config.kafka, &self.job.config.job)?;
        let partitions: Vec<Partition> = shards.iter().map(|(_, partition)| partition.clone()).collect();
        let committed = settled.committed_texts(&partitions, ANSWER_WITHIN)?;
        let mut begun = BTreeMap::new();
        for (((number, (topic, partition)), client), committed) in shards.iter().zip(clients).zip(committed) {
            let committed = committed
                .ok_or_else(|| anyhow!("it is not fixed where {topic}/{partition} begins, which is a bug"))?;
            let bounds = offsets
                .bounds(topic, *partition, ANSWER_WITHIN)
                .with_context(|| format!("could not ask where {topic}/{partition} begins and ends"))?;
            let market = &mut markets[workers.worker_of(*number as usize) - workers.first()];
            let place = Place { number: *number, topic, partition: *partition, bounds };
            let beginning = self.begin_one(&place, client, committed, market)?;
            begun.insert(*number, beginning);
        }
        Ok(begun)
    }

    /// Makes the producers of all shards: from then on nobody else's commits count.
    fn take_over(&self, shards: &[(u32, Partition)]) -> Result<Vec<Arc<Client>>> {
        let config = &self.job.config;
        let group = Group::of_job(&config.kafka, &config.job)?;
        let open = |(number, (topic, partition)): &(u32, Partition)| {
            let (topic, partition) = (topic.clone(), *partition);
            let shard = Shard { topic, partition, start: 0, emit_from: 0, end: 0 };
            Client::open(&config.kafka, &config.job, &group, &shard, *number, FENCED_WITHIN).map(Arc::new)
        };
        let mut clients = Vec::new();
        for some in shards.chunks(OPENED_AT_ONCE) {
            let opened: Vec<Result<Arc<Client>>> = thread::scope(|scope| {
                let opening: Vec<_> = some.iter().map(|shard| scope.spawn(move || open(shard))).collect();
                let joined = opening.into_iter().map(|opening| opening.join());
                joined.map(|client| client.map_err(|_| anyhow!("a thread panicked"))?).collect()
            });
            clients.extend(opened.into_iter().collect::<Result<Vec<_>>>()?);
        }
        Ok(clients)
    }

    fn begin_one(
        &self,
        place: &Place,
        client: Arc<Client>,
        committed: Committed,
        market: &mut Market,
    ) -> Result<Beginning> {
        let (shard, bounds) = (place.name(), place.bounds);
        let Some(life) = Life::parse(&committed.metadata) else {
            // Committed by a job that promises less, or by hand: what its state was nobody knows.
            warn!(
                shard,
                offset = committed.offset,
                "no state belongs to the committed offset; beginning with empty windows"
            );
            if !(bounds.low..=bounds.high).contains(&committed.offset) {
                bail!(place.lost(committed.offset, &self.job.config.job));
            }
            let life = Life::begin(committed.offset, self.settings);
            client.commit(committed.offset, &life.to_string())?;
            return Ok(place.beginning(client, life, committed.offset, None));
        };
        if life.settings != self.settings {
            bail!(
                "the job {:?} was configured differently when it processed {shard} up to {}: results would change \
                 there; put the settings back, or start with --adopt to have them change from here on",
                self.job.config.job,
                committed.offset
            );
        }
        if !(bounds.low..=bounds.high).contains(&committed.offset) {
            bail!(place.lost(committed.offset, &self.job.config.job));
        }
        if let Some((header, account)) = self.restore(place, &life, committed.offset, market)? {
            let saved = Some((header.offset, account));
            info!(shard, snapshot = header.offset, committed = committed.offset, "state restored");
            return Ok(place.beginning(client, life, committed.offset, saved));
        }
        if !life.is_cold || life.origin < bounds.low {
            bail!(
                "no snapshot of {shard} can be used, and its state can't be made again by reading from its origin \
                 {}: {}; see kafka.lost_offsets",
                life.origin,
                if life.is_cold {
                    format!("the broker has only {} to {}", bounds.low, bounds.high)
                } else {
                    "rows were missing there already".to_owned()
                }
            );
        }
        if committed.offset > life.origin {
            info!(
                shard,
                from = life.origin,
                committed = committed.offset,
                "no snapshot: the state is made again from its origin"
            );
        }
        Ok(place.beginning(client, life, committed.offset, None))
    }

    /// Takes up the newest snapshot that can be used.
    fn restore(
        &self,
        place: &Place,
        life: &Life,
        committed: i64,
        market: &mut Market,
    ) -> Result<Option<(Header, ShardAccount)>> {
        let Some(store) = self.store else { return Ok(None) };
        let entries = match store.list(place.topic, place.partition) {
            Ok(entries) => entries,
            Err(error) => {
                warn!(shard = place.name(), error = %error, "snapshots can't be listed");
                return Ok(None);
            }
        };
        let from_log = place.bounds.low.max(life.origin)..=committed;
        for entry in entries.iter().filter(|entry| from_log.contains(&entry.offset)) {
            match self.load(store, entry, place, life, market) {
                Ok(restored) => {
                    self.check_record(place, &restored.0)?;
                    return Ok(Some(restored));
                }
                Err(error) => {
                    market.forget(place.number);
                    self.job.metrics.job.snapshots.with_label_values(&["unusable"]).inc();
                    warn!(
                        shard = place.name(),
                        offset = entry.offset,
                        error = format!("{error:#}"),
                        "a snapshot can't be used; trying the one before"
                    );
                }
            }
        }
        Ok(None)
    }

    fn load(
        &self,
        store: &Store,
        entry: &Entry,
        place: &Place,
        life: &Life,
        market: &mut Market,
    ) -> Result<(Header, ShardAccount)> {
        let Snapshot { header, sections, instruments } = store.load(entry)?;
        if header.life != life.id {
            bail!("it is of another life of the job, which began elsewhere");
        }
        faults::point("while_restoring");
        let account = sections.get(ShardAccount::SECTION).context("it has no account")?;
        let account = ShardAccount::read(account)?;
        let settings = Arc::new(self.job.config.settings.clone());
        let saved = sections.get(changes::NAME).context("it has no changes")?;
        let begun = Begun::read(place.number, settings, saved, self.instruments)?;
        for instrument in &instruments {
            let (exchange, symbol) = (&instrument.exchange, &instrument.symbol);
            let id = begun
                .instruments
                .enter_at_home(exchange, symbol, place.number)
                .with_context(|| format!("{exchange}:{symbol} is not taken any more"))?;
            market
                .restore(id, &begun.changes, &instrument.sections)
                .with_context(|| format!("could not take up {exchange}:{symbol}"))?;
        }
        market.begin(place.number, begun);
        Ok((header, account))
    }

    /// Whether the log still holds what the state was made of.
    fn check_record(&self, place: &Place, header: &Header) -> Result<()> {
        let Some(print) = header.last_record.filter(|print| print.offset >= place.bounds.low) else {
            return Ok(());
        };
        let config = &self.job.config;
        let at = (place.topic, place.partition, print.offset);
        let found = first_record(&config.kafka, &config.job, at, ANSWER_WITHIN)?;
        // One that is not there any more was compacted away; another one in its place is another log.
        match found {
            Some(found) if found.offset == print.offset && found.digest != print.sha256 => bail!(
                "{}/{} is not the record that the job {:?} has read: the topic was made anew; see kafka.lost_offsets",
                place.name(),
                print.offset,
                config.job
            ),
            _ => Ok(()),
        }
    }
}

/// One shard, and where its log begins and ends.
struct Place<'a> {
    number: u32,
    topic: &'a str,
    partition: i32,
    bounds: Bounds,
}

impl Place<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    fn beginning(
        &self,
        client: Arc<Client>,
        life: Life,
        committed: i64,
        saved: Option<(i64, ShardAccount)>,
    ) -> Beginning {
        let start = saved.as_ref().map_or(life.origin, |(offset, _)| *offset);
        let shard = Shard {
            topic: self.topic.to_owned(),
            partition: self.partition,
            start,
            emit_from: committed,
            end: self.bounds.high,
        };
        let (saved, account) =
            saved.map_or((None, ShardAccount::default()), |(at, account)| (Some(at), account));
        Beginning { shard, client, life, account, saved }
    }

    fn lost(&self, offset: i64, job: &str) -> String {
        let Bounds { low, high } = self.bounds;
        format!(
            "the job {job:?} has read {} up to offset {offset}, but the broker has only {low} to {high}: records \
             were removed, or the topic was made anew; start with --from-beginning to read what is there, from cold \
             windows",
            self.name()
        )
    }
}
