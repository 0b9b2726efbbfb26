//! Which changes hold in a shard, and which of them each instrument was given (docs/definitions.md, "Checkpoints").
//!
//! ```text
//! control record ─► Shard: answered, kept ─► placed before the next row of each instrument, its first ever too
//! ```
//! All of it follows from the shard's log alone, so every worker of a backtest comes to the same.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use foreshock_operators::account::{DeadLetter, Ledger, Reason};
use foreshock_operators::change::{Change, ChangeAt, ChangeKind, Parameters};
use foreshock_operators::operator::{RestoreError, load, save};
use foreshock_operators::row::{InstrumentId, Row};
use foreshock_operators::rules::check_rules;
use foreshock_operators::stages::MAX_HORIZONS;
use foreshock_operators::time::{Nanos, Time};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator as _;

use crate::batch::{Batch, FromFiles};
use crate::control::{Answer, Command, ControlRecord, ControlRefusal, Fate, FoundRecord, read};
use crate::decode::LogFile;
use crate::instruments::Instruments;
use crate::settings::Settings;

/// The section of a snapshot that a shard's changes are saved in.
pub const NAME: &str = "changes";

/// How many changes may hold at a time: others wait for their moment, or were not replaced.
pub const HOLDING_MAX: usize = 64;

/// How many ids of records are remembered.
pub const IDS_REMEMBERED: usize = 1_024;

/// What a shard knows of its changes.
#[derive(Clone, Debug)]
pub struct ShardChanges {
    /// Those that the records have put in force last, or the configuration.
    settings: Arc<Settings>,
    /// Whether a record has put them in force.
    reconfigured: bool,
    /// The number of the newest change; 0: there was none.
    newest: u32,
    /// Those that an instrument is still to be given, in the order of their numbers.
    holding: Vec<Arc<Change>>,
    /// Replaced ones that some state may still name: they last as long as it.
    replaced: Vec<Weak<Change>>,
    /// The ids of the last records that were obeyed.
    ids: VecDeque<Arc<str>>,
    /// The number of the newest change that an instrument was given; without an entry none.
    given: FxHashMap<InstrumentId, u32>,
}

/// What is saved of a shard.
#[derive(Serialize, Deserialize)]
struct Saved {
    settings: Option<Settings>,
    newest: u32,
    holding: Vec<Arc<Change>>,
    replaced: Vec<Arc<Change>>,
    ids: VecDeque<Arc<str>>,
    /// By exchange and symbol.
    given: Vec<(Arc<str>, Arc<str>, u32)>,
}

/// What a shard begins with.
#[derive(Debug)]
pub struct RestoredShard {
    pub shard: ShardChanges,
    /// As the settings in force see them.
    pub instruments: Instruments,
    /// The changes that the shard's states may name; they must be kept until those are restored.
    pub changes: Vec<Arc<Change>>,
}

impl RestoredShard {
    /// Reads what [`ShardChanges::snapshot`] wrote of this shard, which began with `settings`.
    ///
    /// # Errors
    /// When the bytes are none that were saved.
    pub fn read(
        number: u32,
        settings: Arc<Settings>,
        bytes: &[u8],
        instruments: &Instruments,
    ) -> Result<RestoredShard, RestoreError> {
        let mut view = instruments.clone();
        let (shard, changes) = ShardChanges::restore(settings, bytes, |settings, named| {
            view = instruments.under(settings.instruments.clone());
            named.iter().map(|(exchange, symbol, _)| view.enter_owned(exchange, symbol, number)).collect()
        })?;
        Ok(RestoredShard { shard, instruments: view, changes })
    }
}

/// What became of a record, and the settings that it put in force.
#[derive(Debug)]
pub struct Taken {
    pub answer: Answer,
    pub settings: Option<Arc<Settings>>,
}

impl ShardChanges {
    /// Nothing has changed yet.
    pub fn new(settings: Arc<Settings>) -> ShardChanges {
        ShardChanges {
            settings,
            reconfigured: false,
            newest: 0,
            holding: Vec::new(),
            replaced: Vec::new(),
            ids: VecDeque::new(),
            given: FxHashMap::default(),
        }
    }

    /// The settings in force of decoding: where rows come from and which are taken.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// All changes that states of the shard may name.
    pub fn changes(&self) -> Vec<Arc<Change>> {
        self.replaced.iter().filter_map(Weak::upgrade).chain(self.holding.iter().cloned()).collect()
    }

    /// Takes a record found in the log. `may_take` has the last word on settings.
    pub fn take_record(
        &mut self,
        found: FoundRecord,
        message: &[u8],
        may_take: impl FnOnce(&Settings) -> Result<(), String>,
    ) -> Taken {
        let record = read(message, self.horizons()).and_then(|record| {
            let allowed = match &record.command {
                Command::Settings(settings) if !self.ids.contains(&record.id) => may_take(settings),
                _ => Ok(()),
            };
            let refused = |reason| ControlRefusal {
                id: Some(record.id.clone()),
                kind: Some(record.command.kind().to_owned()),
                reason,
            };
            allowed.map_err(refused).map(|()| record.clone())
        });
        match record {
            Ok(record) => self.obey(found, record),
            Err(ControlRefusal { id, kind, reason }) => Taken {
                answer: Answer {
                    order: found.order,
                    offset: found.source.line,
                    id,
                    kind,
                    fate: Fate::Refused,
                    reason: Some(reason),
                    effective_at: None,
                    name: None,
                    version: None,
                },
                settings: None,
            },
        }
    }

    fn obey(&mut self, found: FoundRecord, record: ControlRecord) -> Taken {
        let ControlRecord { id, effective_at, command } = record;
        let model = match &command {
            Command::Model(model) => Some(model.clone()),
            Command::Settings(settings) => Some(settings.parameters.model.clone()),
            Command::Rules(_) => None,
        };
        let mut answer = Answer {
            order: found.order,
            offset: found.source.line,
            id: Some(id.clone()),
            kind: Some(command.kind().to_owned()),
            fate: Fate::Applied,
            reason: None,
            effective_at,
            name: model.as_ref().map(|model| model.name.clone()),
            version: model.map(|model| model.version.clone()),
        };
        if self.ids.contains(&id) {
            answer.fate = Fate::Duplicate;
            return Taken { answer, settings: None };
        }
        if effective_at.is_some() && self.holding.len() >= HOLDING_MAX {
            answer.fate = Fate::Refused;
            answer.reason = Some(format!(
                "{HOLDING_MAX} changes hold already, expected one without effective_at, which replaces those of \
                 its kind"
            ));
            return Taken { answer, settings: None };
        }
        if self.ids.len() >= IDS_REMEMBERED {
            self.ids.pop_front();
        }
        self.ids.push_back(id.clone());
        let effective_at = effective_at.map(|(time, _)| time);
        self.hold(id, found.source.line, effective_at, command.granted());
        let settings = match command {
            Command::Settings(settings) => Some(settings),
            Command::Model(_) | Command::Rules(_) => None,
        };
        if let Some(settings) = &settings {
            self.settings = settings.clone();
            self.reconfigured = true;
        }
        Taken { answer, settings }
    }

    /// An instrument begins anew: it is given all that holds.
    pub fn forget(&mut self, instrument: InstrumentId) {
        self.given.remove(&instrument);
    }

    /// A part of the log before this offset is gone: all instruments start anew, with a gap.
    pub fn lose(&mut self, offset: u64) {
        self.hold("".into(), offset, None, ChangeKind::StateLost);
    }

    /// Places the changes that an instrument was not given yet before its next row, which will stand at `before`.
    #[inline]
    pub fn place(&mut self, row: &Row, order: u32, before: usize, placed: &mut Vec<ChangeAt>) {
        if self.newest > 0 {
            self.place_since(row, order, before, placed);
        }
    }

    fn place_since(&mut self, row: &Row, order: u32, before: usize, placed: &mut Vec<ChangeAt>) {
        let given = self.given.entry(row.instrument).or_insert(0);
        if *given == self.newest {
            return;
        }
        let missing = self.holding.iter().filter(|change| change.number > *given);
        placed.extend(missing.map(|change| ChangeAt {
            key: row.instrument,
            before: before as u32,
            order,
            at: row.event_time,
            digits: row.digits,
            change: change.clone(),
        }));
        *given = self.newest;
    }

    /// Appends the shard's changes to `bytes`. Instruments are named, since their numbers are of this process.
    pub fn snapshot(&self, instruments: &Instruments, bytes: &mut Vec<u8>) {
        let named = self.given.iter().map(|(id, number)| {
            let instrument = instruments.get(*id);
            (instrument.exchange.clone(), instrument.symbol.clone(), *number)
        });
        let mut given: Vec<_> = named.collect();
        given.sort();
        let saved = Saved {
            settings: self.reconfigured.then(|| Settings::clone(&self.settings)),
            newest: self.newest,
            holding: self.holding.clone(),
            replaced: self.replaced.iter().filter_map(Weak::upgrade).collect(),
            ids: self.ids.clone(),
            given,
        };
        save(&saved, bytes);
    }

    /// Reads what [`ShardChanges::snapshot`] wrote, for a shard that began with `settings`. `find` gives the numbers of
    /// instruments under the settings in force.
    fn restore(
        settings: Arc<Settings>,
        bytes: &[u8],
        find: impl FnOnce(&Settings, &[(Arc<str>, Arc<str>, u32)]) -> Vec<Option<InstrumentId>>,
    ) -> Result<(ShardChanges, Vec<Arc<Change>>), RestoreError> {
        let Saved { settings: changed, newest, holding, replaced, ids, given } = load(NAME, bytes)?;
        let unreadable = |why: String| RestoreError::Unreadable { operator: NAME, why };
        let reconfigured = changed.is_some();
        let settings = changed.map_or(settings, Arc::new);
        settings.check().map_err(unreadable)?;
        for change in holding.iter().chain(&replaced) {
            check(change).map_err(unreadable)?;
        }
        if ids.len() > IDS_REMEMBERED || holding.iter().any(|change| change.number > newest) {
            return Err(unreadable("its parts do not fit each other".to_string()));
        }
        let ids_of = find(&settings, &given);
        let numbers = given.iter().map(|(_, _, number)| *number);
        let given = ids_of.into_iter().zip(numbers).filter_map(|(id, number)| Some((id?, number))).collect();
        let weak = replaced.iter().map(Arc::downgrade).collect();
        let changes = replaced.into_iter().chain(holding.iter().cloned()).collect();
        Ok((ShardChanges { settings, reconfigured, newest, holding, replaced: weak, ids, given }, changes))
    }

    /// The return horizons that the next model must be made for.
    fn horizons(&self) -> &[Nanos] {
        &self.settings.parameters.features.horizons
    }

    fn hold(&mut self, id: Arc<str>, offset: u64, effective_at: Option<Time>, kind: ChangeKind) {
        self.newest += 1;
        let change = Arc::new(Change { number: self.newest, id, offset, effective_at, kind });
        self.replaced.retain(|older| older.strong_count() > 0);
        let replaced = self.holding.extract_if(.., |older| change.replaces(older));
        self.replaced.extend(replaced.map(|older| Arc::downgrade(&older)));
        self.holding.push(change);
    }
}

/// Whether operators survive a change that was read from outside.
fn check(change: &Change) -> Result<(), String> {
    match &change.kind {
        ChangeKind::Model(model) => model.check(MAX_HORIZONS),
        ChangeKind::Rules(rules) => check_rules(rules),
        ChangeKind::Parameters(parameters) => Parameters::check(parameters),
        ChangeKind::StateLost => Ok(()),
    }
}

/// Enters what became of a record in the account of its batch.
pub fn account(found: &FoundRecord, answer: &Answer, ledger: &mut Ledger) {
    let counts = &mut ledger.counts;
    counts.messages_in += 1;
    counts.control_records += 1;
    if answer.fate != Fate::Refused {
        counts.messages_control += 1;
        return;
    }
    counts.messages_deadlettered += 1;
    ledger.refuse(DeadLetter {
        order: found.order,
        reason: Reason::BadControl,
        detail: answer.reason.clone().unwrap_or_default(),
        source: found.source,
        index: 0,
        extent: found.extent,
        original: None,
    });
}

/// The changes of a log of files, on one worker: every worker sees all records, and places them for its own
/// instruments. Knows nothing of timely.
pub struct LogChanges {
    shard: ShardChanges,
    files: Arc<[LogFile]>,
    workers: usize,
}

impl LogChanges {
    pub fn new(settings: Arc<Settings>, files: Arc<[LogFile]>, workers: usize) -> LogChanges {
        LogChanges { shard: ShardChanges::new(settings), files, workers }
    }

    /// Takes the records of a batch and places the changes among its rows.
    pub fn on_batch(&mut self, mut batch: Batch<Row, FromFiles>) -> Batch<Row, FromFiles> {
        if batch.origin.records.is_empty() && self.shard.newest == 0 {
            return batch;
        }
        let records = std::mem::take(&mut batch.origin.records);
        let values = std::mem::take(&mut batch.values);
        let mut records = records.into_iter().peekable();
        for (before, tagged) in values.iter().enumerate() {
            while let Some(found) = records.next_if(|found| found.order < tagged.order) {
                self.record(&found, &mut batch);
            }
            self.shard.place(&tagged.value, tagged.order, before, &mut batch.changes);
        }
        for found in records {
            self.record(&found, &mut batch);
        }
        batch.values = values;
        batch
    }

    fn record(&mut self, found: &FoundRecord, batch: &mut Batch<Row, FromFiles>) {
        let base = self.shard.settings().clone();
        let mut beyond = None;
        let may_take = |settings: &Settings| {
            if settings.instruments != base.instruments {
                beyond = Some("it changes instruments, which a running job can do, but no backtest");
            }
            Ok(())
        };
        let Taken { answer, .. } = self.shard.take_record(*found, found.extent.of(&batch.bytes), may_take);
        // All workers take it, one keeps the account.
        if batch.origin.epoch % self.workers as u64 != batch.origin.worker as u64 {
            return;
        }
        account(found, &answer, &mut batch.ledger);
        if let Some(why) = beyond {
            let (name, line) = (&self.files[found.source.file as usize].name, found.source.line);
            let id = answer.id.unwrap_or_default();
            batch
                .ledger
                .unusable
                .get_or_insert_with(|| format!("{name:?}, line {line}: control record {id:?}: {why}"));
        }
    }
}

/// Places the changes of a log among the rows of this worker's batches, which must be in order.
pub fn changes<'scope>(
    batches: StreamVec<'scope, u64, Batch<Row, FromFiles>>,
    mut changes: LogChanges,
) -> StreamVec<'scope, u64, Batch<Row, FromFiles>> {
    batches.unary(Pipeline, NAME, move |_capability, _info| {
        move |input, output| {
            input.for_each(|capability, batches| {
                let mut session = output.session(&capability);
                for batch in batches.drain(..) {
                    session.give(changes.on_batch(batch));
                }
            });
        }
    })
}
