//! How a job begins where it has been before: fence, ask, load, read again.
//!
//! ```text
//! per shard: take over its outputs ─► committed offset C and the note beside it ─► newest snapshot at S <= C
//!            ─► read from S: suppressed up to C, emitted from there
//! ```
//! In this order: what is committed is known only when nobody else can commit any more.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use foreshock_dataflows::changes::{self, RestoredShard};
use foreshock_dataflows::control::settings_record;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::market::Market;
use foreshock_dataflows::settings::Settings;
use tracing::{info, warn};

use super::OFFSETS_WITHIN;
use super::hanging::HangingTransactions;
use super::incarnation::{Conditions, Incarnation, ParentIncarnation};
use super::shard_start::{ResumePoint, ShardPlace, ShardStart};
use crate::cluster::place::ProcessPlace;
use crate::faults;
use crate::kafka::admin::append::append;
use crate::kafka::admin::offsets::{Committed, Offsets};
use crate::kafka::admin::peek::first_record;
use crate::kafka::out::transactions::{Client, Group};
use crate::kafka::progress::{Partition, Shard};
use crate::live::Job;
use crate::live::account::ShardAccount;
use crate::live::snapshots::DEFINITION;
use crate::misuse::Misuse;
use crate::state::{Header, Skipped, Snapshot, Store};

/// How long a coordinator may take to end what a predecessor has left.
const FENCED_WITHIN: Duration = Duration::from_secs(20);

/// Producers that are made at the same time.
const OPENED_AT_ONCE: usize = 32;

/// What all shards are begun with.
pub struct Recovery<'a> {
    pub job: &'a Job,
    pub store: Option<&'a Store>,
    pub conditions: &'a Conditions,
    /// How many partitions the topics have.
    pub partitions: &'a BTreeMap<String, usize>,
    pub instruments: &'a Instruments,
}

impl Recovery<'_> {
    /// Begins these shards, each with its number; their states go to the worker of this process that is to have them.
    ///
    /// # Errors
    /// When brokers don't answer, the input is not what it was, or the configuration isn't.
    pub fn begin_shards(
        &self,
        shards: &[(u32, Partition)],
        offsets: &Offsets,
        workers: ProcessPlace,
        markets: &mut [Market],
    ) -> Result<BTreeMap<u32, ShardStart>> {
        let clients = self.take_over(shards)?;
        let partitions: Vec<Partition> = shards.iter().map(|(_, partition)| partition.clone()).collect();
        let committed = HangingTransactions::look(self.job, offsets)?.resolve(&partitions, &clients)?;
        let mut begun = BTreeMap::new();
        for (((number, (topic, partition)), client), committed) in shards.iter().zip(clients).zip(committed) {
            let committed = committed
                .ok_or_else(|| anyhow!("it is not fixed where {topic}/{partition} begins, which is a bug"))?;
            let bounds = offsets
                .bounds(topic, *partition, OFFSETS_WITHIN)
                .with_context(|| format!("could not ask where {topic}/{partition} begins and ends"))?;
            let market = &mut markets[workers.worker_of(*number as usize) - workers.first()];
            let place = ShardPlace { number: *number, topic, partition: *partition, bounds };
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
        place: &ShardPlace,
        client: Arc<Client>,
        committed: Committed,
        market: &mut Market,
    ) -> Result<ShardStart> {
        if self.job.from_beginning {
            return self.begin_cold(place, client, place.bounds.low, market);
        }
        let Committed { offset, metadata } = committed;
        let Some(incarnation) = Incarnation::parse(&metadata) else {
            // Committed by a job that promises less, or by hand: what its state was nobody knows.
            let shard = place.name();
            warn!(shard, offset, "no state belongs to the committed offset; beginning with empty windows");
            return match place.has(offset) {
                true => self.begin_cold(place, client, offset, market),
                false => self.begin_lost(place, client, None, offset, &place.gone(offset), market),
            };
        };
        self.check(place, &incarnation, offset)?;
        if !place.has(offset) {
            return self.begin_lost(place, client, Some(incarnation), offset, &place.gone(offset), market);
        }
        match self.find_state(place, &incarnation, offset, market)? {
            Ok(state) => {
                let incarnation = self.bring_settings_into_force(place, &client, incarnation, offset)?;
                Ok(place.beginning(client, incarnation, offset, state))
            }
            Err(why) => self.begin_lost(place, client, Some(incarnation), offset, &why, market),
        }
    }

    /// Whether an incarnation may go on under the conditions of now.
    fn check(&self, place: &ShardPlace, incarnation: &Incarnation, offset: i64) -> Result<()> {
        let (job, shard) = (&self.job.config.job, place.name());
        let (had, has) =
            (incarnation.partitions, self.partitions.get(place.topic).copied().unwrap_or_default());
        if had != has {
            bail!(Misuse(format!(
                "the topic {:?} had {had} partitions when the job {job:?} processed {shard} up to {offset}, and has \
                 {has}: keys may have moved, and with them instruments, whose state would be torn; go on under \
                 another job.name, which begins behind what is there (kafka.start: latest)",
                place.topic
            )));
        }
        if incarnation.reading != self.conditions.reading {
            bail!(Misuse(format!(
                "the job {job:?} read its messages differently when it processed {shard} up to {offset}: put back \
                 --format, --exchange, input.format, input.max_message_bytes and job.control, or go on under another \
                 job.name"
            )));
        }
        if incarnation.settings != self.conditions.settings && !self.job.adopt {
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
    pub(super) fn bring_settings_into_force(
        &self,
        place: &ShardPlace,
        client: &Client,
        mut incarnation: Incarnation,
        offset: i64,
    ) -> Result<Incarnation> {
        if incarnation.settings != self.conditions.settings {
            self.conditions.settings.clone_into(&mut incarnation.settings);
            if incarnation.is_cold() && offset == incarnation.origin {
                // Before the first row any settings will do.
                self.conditions.settings.clone_into(&mut incarnation.base);
            } else {
                incarnation.adopting =
                    Some(format!("adopt-{}-{}-{offset}", incarnation.settings, incarnation.id));
            }
            // Noted first: were the record there alone, the job could go on as if it were not.
            client.commit(offset, &incarnation.to_string())?;
        }
        if let Some(id) = incarnation.adopting.take() {
            self.adopt(place, &id)?;
            client.commit(offset, &incarnation.to_string())?;
        }
        Ok(incarnation)
    }

    /// The state that an incarnation has behind some offset at or before the committed one; inside, why there is none.
    fn find_state(
        &self,
        place: &ShardPlace,
        incarnation: &Incarnation,
        committed: i64,
        market: &mut Market,
    ) -> Result<Result<ResumePoint, String>> {
        let shard = place.name();
        let low = place.bounds.low;
        let own = low.max(incarnation.origin)..=committed;
        if let Some((header, account)) = self.restore(place, &incarnation.id, own, None, market)? {
            if !self.is_same_record(place, &header)? {
                market.forget(place.number);
                let offset = header.last_record.map_or(0, |print| print.offset);
                return Ok(Err(format!("{shard}/{offset} is another record now: the topic was made anew")));
            }
            info!(shard, snapshot = header.offset, committed, "state restored");
            return Ok(Ok(ResumePoint { start: header.offset, saved: Some(header.offset), account }));
        }
        if incarnation.origin < low && committed > incarnation.origin {
            let origin = incarnation.origin;
            return Ok(Err(format!(
                "no snapshot of {shard} can be used, and the broker no longer has the rows since {origin} that would \
                 make its state again"
            )));
        }
        if let Some(ParentIncarnation { incarnation: parent, offset }) = &incarnation.from {
            let lost = Some(incarnation.origin.unsigned_abs());
            let Some((_, account)) = self.restore(place, parent, *offset..=*offset, lost, market)? else {
                return Ok(Err(format!("the snapshot of {shard} that its state came from is gone")));
            };
            info!(shard, snapshot = offset, committed, "state restored, with a gap behind it");
            return Ok(Ok(ResumePoint { start: incarnation.origin, saved: None, account }));
        }
        // Before the first row any settings will do.
        if incarnation.base != self.conditions.settings && committed > incarnation.origin {
            if incarnation.settings != self.conditions.settings {
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
        if committed > incarnation.origin {
            info!(
                shard,
                from = incarnation.origin,
                committed,
                "no snapshot: the state is made again from its origin"
            );
        }
        let account = ShardAccount { base: Some(self.configured()), ..ShardAccount::default() };
        Ok(Ok(ResumePoint { start: incarnation.origin, saved: None, account }))
    }

    /// Begins with empty windows.
    pub(super) fn begin_cold(
        &self,
        place: &ShardPlace,
        client: Arc<Client>,
        offset: i64,
        market: &mut Market,
    ) -> Result<ShardStart> {
        market.forget(place.number);
        let incarnation = self.new_life(place, offset);
        client.commit(offset, &incarnation.to_string())?;
        let account = ShardAccount { base: Some(self.configured()), ..ShardAccount::default() };
        Ok(place.beginning(client, incarnation, offset, ResumePoint { start: offset, saved: None, account }))
    }

    pub(super) fn new_life(&self, place: &ShardPlace, origin: i64) -> Incarnation {
        let partitions = self.partitions.get(place.topic).copied().unwrap_or_default();
        Incarnation::starting_at(origin, self.conditions, partitions)
    }

    /// Appends the configured settings to the shard's log, so that they come into force there.
    fn adopt(&self, place: &ShardPlace, id: &str) -> Result<()> {
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

    /// Takes up the newest usable snapshot of an incarnation whose offset lies in this range. Where rows are `lost` up to some
    /// offset, all instruments start anew there.
    pub(super) fn restore(
        &self,
        place: &ShardPlace,
        incarnation: &str,
        offsets: RangeInclusive<i64>,
        lost: Option<u64>,
        market: &mut Market,
    ) -> Result<Option<(Header, ShardAccount)>> {
        let Some(store) = self.store else { return Ok(None) };
        // Where the store is away the start fails, and may be tried again.
        let newest = store.newest(place.topic, place.partition, offsets, |snapshot| {
            if snapshot.header.incarnation != incarnation {
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
        place: &ShardPlace,
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
        market.assume_settings(place.number, &base);
        let mut begun = RestoredShard::read(place.number, base, saved, &seen)?;
        for instrument in &instruments {
            let (exchange, symbol) = (&instrument.exchange, &instrument.symbol);
            let definition =
                instrument.sections.get(DEFINITION).context("it doesn't say what its instruments are")?;
            // One that is not taken any more, or is another one now, has no use for what it was.
            let Some(id) = begun.instruments.enter_owned(exchange, symbol, place.number) else { continue };
            if begun.instruments.definition(id).as_bytes() != definition {
                begun.shard.forget(id);
                continue;
            }
            let state =
                instrument.sections.get(Market::SECTION).context("it has no state of an instrument")?;
            market
                .restore(id, &begun.changes, state)
                .with_context(|| format!("could not take up {exchange}:{symbol}"))?;
        }
        if let Some(offset) = lost {
            begun.shard.lose(offset);
        }
        market.resume_shard(place.number, begun);
        Ok((header, account))
    }

    /// Whether the log still holds what the state was made of.
    fn is_same_record(&self, place: &ShardPlace, header: &Header) -> Result<bool> {
        let Some(print) = header.last_record.filter(|print| print.offset >= place.bounds.low) else {
            return Ok(true);
        };
        let config = &self.job.config;
        let at = (place.topic, place.partition, print.offset);
        let found = first_record(&config.kafka, &config.job, at, OFFSETS_WITHIN)?;
        // One that is not there any more was compacted away; another one in its place is another log.
        Ok(found.is_none_or(|found| found.offset != print.offset || found.digest == print.sha256))
    }

    fn configured(&self) -> Arc<Settings> {
        Arc::new(self.job.config.settings.clone())
    }
}
