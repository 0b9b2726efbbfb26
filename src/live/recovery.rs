//! How a job begins where it has been before: fence, ask, load, read again.
//!
//! ```text
//! per shard: take over its outputs ─► committed offset C and the note beside it ─► newest snapshot at S <= C
//!            ─► read from S, silently up to C, aloud from there
//! ```
//! In this order: what is committed is known only when nobody else can commit any more.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use foreshock_dataflows::changes::{self, Begun};
use foreshock_dataflows::control::settings_record;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::market::Market;
use foreshock_dataflows::settings::Settings;
use tracing::{info, warn};

use super::Job;
use super::account::ShardAccount;
use super::life::{Ancestor, Conditions, Life};
use super::snapshots::DEFINITION;
use super::unended::Unended;
use crate::backtest::Misuse;
use crate::cluster::place::Place as WorkerPlace;
use crate::config::LostOffsets;
use crate::faults;
use crate::kafka::append::append;
use crate::kafka::offsets::{Bounds, Committed, Offsets};
use crate::kafka::peek::first_record;
use crate::kafka::progress::Shard;
use crate::kafka::transactions::{Client, Group};
use crate::state::{Header, Skipped, Snapshot, Store};

/// How long one answer of the brokers may take.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

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
    /// What was gone, and what was done about it.
    pub lost: Option<String>,
}

impl Beginning {
    fn after(self, shard: &str, policy: &str, why: &str) -> Beginning {
        Beginning { lost: Some(format!("{shard} began as kafka.lost_offsets: {policy} says: {why}")), ..self }
    }
}

/// What all shards are begun with.
pub struct Recovery<'a> {
    pub job: &'a Job,
    pub store: Option<&'a Store>,
    pub conditions: &'a Conditions,
    /// How many partitions the topics have.
    pub partitions: &'a BTreeMap<String, usize>,
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
        let partitions: Vec<Partition> = shards.iter().map(|(_, partition)| partition.clone()).collect();
        let committed = Unended::look(self.job, offsets)?.settle(&partitions, &clients)?;
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
            let queued = config.memory_budget / 4 / shards.len();
            Client::open(&config.kafka, &config.job, &group, &shard, (*number, queued), FENCED_WITHIN)
                .map(Arc::new)
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
        if self.job.from_beginning {
            return self.begin_cold(place, client, place.bounds.low, market);
        }
        let Committed { offset, metadata } = committed;
        let Some(life) = Life::parse(&metadata) else {
            // Committed by a job that promises less, or by hand: what its state was nobody knows.
            let shard = place.name();
            warn!(shard, offset, "no state belongs to the committed offset; beginning with empty windows");
            return match place.has(offset) {
                true => self.begin_cold(place, client, offset, market),
                false => self.begin_lost(place, client, None, offset, &place.gone(offset), market),
            };
        };
        self.check(place, &life, offset)?;
        if !place.has(offset) {
            return self.begin_lost(place, client, Some(life), offset, &place.gone(offset), market);
        }
        match self.find_state(place, &life, offset, market)? {
            Ok(state) => {
                let life = self.settle(place, &client, life, offset)?;
                Ok(place.beginning(client, life, offset, state))
            }
            Err(why) => self.begin_lost(place, client, Some(life), offset, &why, market),
        }
    }

    /// Whether a life may go on under the conditions of now.
    fn check(&self, place: &Place, life: &Life, offset: i64) -> Result<()> {
        let (job, shard) = (&self.job.config.job, place.name());
        let (had, has) = (life.partitions, self.partitions.get(place.topic).copied().unwrap_or_default());
        if had != has {
            bail!(Misuse(format!(
                "the topic {:?} had {had} partitions when the job {job:?} processed {shard} up to {offset}, and has \
                 {has}: keys may have moved, and with them instruments, whose state would be torn; go on under \
                 another job.name, which begins behind what is there (kafka.start: latest)",
                place.topic
            )));
        }
        if life.reading != self.conditions.reading {
            bail!(Misuse(format!(
                "the job {job:?} read its messages differently when it processed {shard} up to {offset}: put back \
                 --format, --exchange, input.format, input.max_message_bytes and job.control, or go on under another \
                 job.name"
            )));
        }
        if life.settings != self.conditions.settings && !self.job.adopt {
            bail!(Misuse(format!(
                "the job {job:?} was configured differently when it processed {shard} up to {offset}: results would \
                 change there unnoticed; put the settings back, or start with --adopt to have them change behind the \
                 last record there is now"
            )));
        }
        Ok(())
    }

    /// Has the configured settings come into force, where they are not those of before, and ends what a start before
    /// has begun of that.
    fn settle(&self, place: &Place, client: &Client, mut life: Life, offset: i64) -> Result<Life> {
        if life.settings != self.conditions.settings {
            self.conditions.settings.clone_into(&mut life.settings);
            if life.is_cold() && offset == life.origin {
                // Before the first row any settings will do.
                self.conditions.settings.clone_into(&mut life.base);
            } else {
                life.adopting = Some(format!("adopt-{}-{}-{offset}", life.settings, life.id));
            }
            // Noted first: were the record there alone, the job could go on as if it were not.
            client.commit(offset, &life.to_string())?;
        }
        if let Some(id) = life.adopting.take() {
            self.adopt(place, &id)?;
            client.commit(offset, &life.to_string())?;
        }
        Ok(life)
    }

    /// The state that a life has behind some offset at or before the committed one; inside, why there is none.
    fn find_state(
        &self,
        place: &Place,
        life: &Life,
        committed: i64,
        market: &mut Market,
    ) -> Result<Result<State, String>> {
        let shard = place.name();
        let low = place.bounds.low;
        let own = low.max(life.origin)..=committed;
        if let Some((header, account)) = self.restore(place, &life.id, own, None, market)? {
            if !self.is_same_record(place, &header)? {
                market.forget(place.number);
                let offset = header.last_record.map_or(0, |print| print.offset);
                return Ok(Err(format!("{shard}/{offset} is another record now: the topic was made anew")));
            }
            info!(shard, snapshot = header.offset, committed, "state restored");
            return Ok(Ok(State { start: header.offset, saved: Some(header.offset), account }));
        }
        if life.origin < low && committed > life.origin {
            let origin = life.origin;
            return Ok(Err(format!(
                "no snapshot of {shard} can be used, and the broker no longer has the rows since {origin} that would \
                 make its state again"
            )));
        }
        if let Some(Ancestor { life: parent, offset }) = &life.from {
            let lost = Some(life.origin.unsigned_abs());
            let Some((_, account)) = self.restore(place, parent, *offset..=*offset, lost, market)? else {
                return Ok(Err(format!("the snapshot of {shard} that its state came from is gone")));
            };
            info!(shard, snapshot = offset, committed, "state restored, with a gap behind it");
            return Ok(Ok(State { start: life.origin, saved: None, account }));
        }
        // Before the first row any settings will do.
        if life.base != self.conditions.settings && committed > life.origin {
            if life.settings != self.conditions.settings {
                bail!(Misuse(format!(
                    "there is no snapshot of {shard} to adopt other settings from: start with those of before once \
                     more, stop the job in order, which saves its state, and then start with --adopt"
                )));
            }
            return Ok(Err(format!(
                "no snapshot of {shard} can be used, and its state can only be made again with the settings that the \
                 job began with"
            )));
        }
        if committed > life.origin {
            info!(
                shard,
                from = life.origin,
                committed,
                "no snapshot: the state is made again from its origin"
            );
        }
        let account = ShardAccount { base: Some(self.configured()), ..ShardAccount::default() };
        Ok(Ok(State { start: life.origin, saved: None, account }))
    }

    /// Begins with empty windows.
    fn begin_cold(
        &self,
        place: &Place,
        client: Arc<Client>,
        offset: i64,
        market: &mut Market,
    ) -> Result<Beginning> {
        market.forget(place.number);
        let life = self.new_life(place, offset);
        client.commit(offset, &life.to_string())?;
        let account = ShardAccount { base: Some(self.configured()), ..ShardAccount::default() };
        Ok(place.beginning(client, life, offset, State { start: offset, saved: None, account }))
    }

    fn new_life(&self, place: &Place, origin: i64) -> Life {
        let partitions = self.partitions.get(place.topic).copied().unwrap_or_default();
        Life::begin(origin, self.conditions, partitions)
    }

    /// Does what is configured where rows or the state before the committed offset are gone.
    fn begin_lost(
        &self,
        place: &Place,
        client: Arc<Client>,
        life: Option<Life>,
        committed: i64,
        why: &str,
        market: &mut Market,
    ) -> Result<Beginning> {
        let (shard, low, job) = (place.name(), place.bounds.low, &self.job.config.job);
        let policy = self.job.config.kafka.lost_offsets;
        if policy == LostOffsets::Fail {
            bail!(
                "the job {job:?} can't go on with {shard} where it was: {why}; start with --from-beginning to read \
                 what is there from empty windows, or see kafka.lost_offsets"
            );
        }
        // Where the next row is still there only the state is lost.
        let next = if place.has(committed) { committed } else { low };
        let Some(old) = life.filter(|_| policy == LostOffsets::Gap) else {
            warn!(shard, offset = low, why, "beginning anew, with empty windows");
            let beginning = self.begin_cold(place, client, low, market)?;
            return Ok(beginning.after(&shard, "earliest", why));
        };
        let found = self.restore_lost(place, &old, next, market)?;
        let Some((from, account)) = found else {
            warn!(
                shard,
                offset = next,
                why,
                "no snapshot tells of which instruments: going on with empty windows"
            );
            let beginning = self.begin_cold(place, client, next, market)?;
            return Ok(beginning.after(&shard, "gap", why));
        };
        warn!(shard, offset = next, why, "going on with empty windows, and a gap for each instrument");
        let Life { base, settings, adopting, .. } = old;
        let life = Life { base, settings, adopting, from: Some(from), ..self.new_life(place, next) };
        client.commit(next, &life.to_string())?;
        let life = self.settle(place, &client, life, next)?;
        let state = State { start: next, saved: None, account };
        Ok(place.beginning(client, life, next, state).after(&shard, "gap", why))
    }

    /// Takes up the newest state of a life, or of the one that it came from, with a gap up to `next`.
    fn restore_lost(
        &self,
        place: &Place,
        life: &Life,
        next: i64,
        market: &mut Market,
    ) -> Result<Option<(Ancestor, ShardAccount)>> {
        market.forget(place.number);
        let lost = Some(next.unsigned_abs());
        let own = (life.id.clone(), 0..=i64::MAX);
        let parent = life.from.iter().map(|from| (from.life.clone(), from.offset..=from.offset));
        for (life, offsets) in std::iter::once(own).chain(parent) {
            if let Some((header, account)) = self.restore(place, &life, offsets, lost, market)? {
                return Ok(Some((Ancestor { life, offset: header.offset }, account)));
            }
        }
        Ok(None)
    }

    /// Appends the configured settings to the shard's log, so that they come into force there.
    fn adopt(&self, place: &Place, id: &str) -> Result<()> {
        let config = &self.job.config;
        if !config.control {
            bail!(Misuse(
                "--adopt writes a control record to the input, which job.control: off forbids".to_owned()
            ));
        }
        let record = settings_record(id, &config.settings);
        append(&config.kafka, &config.job, place.topic, &[place.partition], &record)?;
        info!(shard = place.name(), id, "other settings are adopted behind the last record there is now");
        Ok(())
    }

    /// Takes up the newest usable snapshot of a life whose offset lies in this range. Where rows are `lost` up to some
    /// offset, all instruments start anew there.
    fn restore(
        &self,
        place: &Place,
        life: &str,
        offsets: RangeInclusive<i64>,
        lost: Option<u64>,
        market: &mut Market,
    ) -> Result<Option<(Header, ShardAccount)>> {
        let Some(store) = self.store else { return Ok(None) };
        // Where the store is away the start fails, and may be tried again.
        let newest = store.newest(place.topic, place.partition, offsets, |snapshot| {
            if snapshot.header.life != life {
                return Ok(None);
            }
            let taken = self.take_up(snapshot, place, lost, market);
            taken.map(Some).inspect_err(|_| market.forget(place.number))
        })?;
        for Skipped { entry, error } in &newest.skipped {
            self.job.metrics.job.snapshots.with_label_values(&["unusable"]).inc();
            let (shard, error) = (place.name(), format!("{error:#}"));
            warn!(shard, offset = entry.offset, error, "a snapshot can't be used; tried the one before");
        }
        Ok(newest.found)
    }

    /// Takes up the state in a snapshot.
    fn take_up(
        &self,
        snapshot: Snapshot,
        place: &Place,
        lost: Option<u64>,
        market: &mut Market,
    ) -> Result<(Header, ShardAccount)> {
        let Snapshot { header, sections, instruments } = snapshot;
        faults::point("while_restoring");
        let account = sections.get(ShardAccount::SECTION).context("it has no account")?;
        let account = ShardAccount::read(account)?;
        let base = account.base.clone().context("it doesn't say with which settings it began")?;
        let saved = sections.get(changes::NAME).context("it has no changes")?;
        let seen = match *base == self.job.config.settings {
            true => self.instruments.clone(),
            // As those settings saw them, until the log says otherwise.
            false => self.instruments.under(base.instruments.clone()),
        };
        market.settle(place.number, &base);
        let mut begun = Begun::read(place.number, base, saved, &seen)?;
        for instrument in &instruments {
            let (exchange, symbol) = (&instrument.exchange, &instrument.symbol);
            let definition =
                instrument.sections.get(DEFINITION).context("it doesn't say what its instruments are")?;
            // One that is not taken any more, or is another one now, has no use for what it was.
            let Some(id) = begun.instruments.enter_at_home(exchange, symbol, place.number) else { continue };
            if begun.instruments.definition(id).as_bytes() != definition {
                begun.shard.forget(id);
                continue;
            }
            market
                .restore(id, &begun.changes, &instrument.sections)
                .with_context(|| format!("could not take up {exchange}:{symbol}"))?;
        }
        if let Some(offset) = lost {
            begun.shard.lose(offset);
        }
        market.begin(place.number, begun);
        Ok((header, account))
    }

    /// Whether the log still holds what the state was made of.
    fn is_same_record(&self, place: &Place, header: &Header) -> Result<bool> {
        let Some(print) = header.last_record.filter(|print| print.offset >= place.bounds.low) else {
            return Ok(true);
        };
        let config = &self.job.config;
        let at = (place.topic, place.partition, print.offset);
        let found = first_record(&config.kafka, &config.job, at, ANSWER_WITHIN)?;
        // One that is not there any more was compacted away; another one in its place is another log.
        Ok(found.is_none_or(|found| found.offset != print.offset || found.digest == print.sha256))
    }

    fn configured(&self) -> Arc<Settings> {
        Arc::new(self.job.config.settings.clone())
    }
}

/// The state that a shard begins with, which is that behind `start`.
struct State {
    start: i64,
    /// The offset of the snapshot that it is from.
    saved: Option<i64>,
    account: ShardAccount,
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

    fn beginning(&self, client: Arc<Client>, life: Life, committed: i64, state: State) -> Beginning {
        let State { start, saved, account } = state;
        let shard = Shard {
            topic: self.topic.to_owned(),
            partition: self.partition,
            start,
            emit_from: committed,
            end: self.bounds.high,
        };
        Beginning { shard, client, life, account, saved, lost: None }
    }

    /// Whether a job can go on at this offset.
    fn has(&self, offset: i64) -> bool {
        (self.bounds.low..=self.bounds.high).contains(&offset)
    }

    fn gone(&self, offset: i64) -> String {
        let Bounds { low, high } = self.bounds;
        format!(
            "it has read up to offset {offset}, but the broker has only {low} to {high}: records were removed, or \
             the topic was made anew"
        )
    }
}
