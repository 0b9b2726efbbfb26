//! Deliveries of a live log ─decode─► batches of rows, each of one shard, on the worker that read them.
//!
//! Nothing is exchanged on this path: a shard is read, decoded and computed by one worker, in the order of its
//! log, and its [`Cut`](crate::batch::Cut)s travel behind their rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use foreshock_operators::account::{Ledger, Reason};
use foreshock_operators::change::ChangeAt;
use foreshock_operators::links::Tagged;
use foreshock_operators::row::{Extent, InstrumentId, Row, Source};
use foreshock_operators::venues::{Envelope, Format, format_of};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator as _;

use crate::batch::{Batch, Delivered, Delivery, FromShard, SourceSegment};
use crate::changes::{self, RestoredShard, ShardChanges, Taken};
use crate::control::{Answer, FoundRecord};
use crate::instruments::Instruments;
use crate::messages::{BatchLedger, Limits, Messages};
use crate::meter::Meter;
use crate::saving::Saver;
use crate::settings::Settings;

/// How live messages become rows.
#[derive(Clone, Debug)]
pub struct LiveSettings {
    /// `topic/partition` of each shard, by its number.
    pub shards: Arc<[String]>,
    /// The format of all messages; `None`: each message's own, by its exchange and shape.
    pub format: Option<Format>,
    /// The exchange of messages that name none themselves.
    pub exchange: Option<Arc<str>>,
    pub limits: Limits,
    /// The configuration's, which each shard begins with.
    pub settings: Arc<Settings>,
}

/// When each instrument's last row was read, by the clock of [`Cut::read_at`](crate::batch::Cut::read_at).
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastSeen(Arc<Mutex<Vec<Option<u64>>>>);

impl LastSeen {
    fn note(&self, rows: &[Tagged<Row>], read_at: u64) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let at = row.key.0 as usize;
            if times.len() <= at {
                times.resize(at + 1, None);
            }
            times[at] = Some(read_at);
        }
    }

    /// The instruments seen so far, with the time of their last row.
    pub fn times(&self) -> Vec<(InstrumentId, u64)> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let numbered = (0..).map(InstrumentId).zip(times.iter());
        numbered.filter_map(|(id, time)| Some((id, (*time)?))).collect()
    }
}

/// Turns the deliveries of one worker's shards into rows. Knows nothing of timely.
pub struct LiveDecode {
    settings: LiveSettings,
    instruments: Instruments,
    shards: BTreeMap<u32, ShardDecode>,
    saver: Option<Saver>,
    last_seen: LastSeen,
}

impl LiveDecode {
    pub fn new(settings: LiveSettings, instruments: &Instruments, last_seen: LastSeen) -> LiveDecode {
        LiveDecode {
            settings,
            instruments: instruments.clone(),
            shards: BTreeMap::new(),
            saver: None,
            last_seen,
        }
    }

    /// Decodes a delivery into one batch.
    pub fn delivery(&mut self, delivery: Delivery) -> Batch<Row, FromShard> {
        let Delivery { end, bytes, messages, cut } = delivery;
        let mut account = BatchLedger::default();
        let mut decoded = Decoded::with_room(messages.len());
        let LiveDecode { settings, instruments, shards, .. } = self;
        let shard = shards.entry(cut.shard).or_insert_with(|| {
            ShardDecode::new(
                cut.shard,
                ShardChanges::new(settings.settings.clone()),
                settings.limits,
                instruments,
            )
        });
        for message in &messages {
            shard.message(message, &bytes, settings, &mut account, &mut decoded);
            for found in account.records.drain(..) {
                shard.record(&found, &bytes, &mut account.ledger, &mut decoded.answers);
            }
        }
        if let (Some(saver), Some(snapshot)) = (&self.saver, cut.snapshot) {
            let mut saved = Vec::new();
            shard.changes.snapshot(&shard.instruments, &mut saved);
            saver.shard(cut.shard, snapshot.number, changes::NAME, saved);
        }
        let Decoded { values, positions, changes, answers } = decoded;
        self.last_seen.note(&values, cut.read_at);
        let BatchLedger { mut ledger, .. } = account;
        self.check_ownership(&mut ledger);
        let segment = Arc::new(SourceSegment { cut, messages, positions });
        let origin = FromShard { segment, answers, waiting: None };
        Batch { end, values, changes, ledger, bytes, levels: Vec::new(), origin }
    }

    /// Has snapshots go there: the section [`changes::NAME`] of each shard.
    pub fn save_to(&mut self, saver: Saver) {
        self.saver = Some(saver);
    }

    /// Has a shard go on from there.
    pub fn resume_shard(&mut self, shard: u32, begun: RestoredShard) {
        let RestoredShard { shard: changes, instruments, .. } = begun;
        let decode = ShardDecode::new(shard, changes, self.settings.limits, &instruments);
        self.shards.insert(shard, decode);
    }

    /// A part of a shard's log before this offset is gone: its instruments start anew, with a gap.
    pub fn lose(&mut self, shard: u32, offset: u64) {
        let LiveDecode { settings, instruments, shards, .. } = self;
        let shard = shards.entry(shard).or_insert_with(|| {
            ShardDecode::new(
                shard,
                ShardChanges::new(settings.settings.clone()),
                settings.limits,
                instruments,
            )
        });
        shard.changes.lose(offset);
    }

    /// An instrument in two shards has no order, so no results.
    fn check_ownership(&self, ledger: &mut Ledger) {
        let Some(conflict) = self.instruments.conflict() else { return };
        let instrument = self.instruments.get(conflict.instrument);
        let shard = |number: u32| self.settings.shards.get(number as usize).map_or("", String::as_str);
        ledger.unusable = Some(format!(
            "{}:{} was met in {} and in {}: an instrument's rows must be in one partition of one topic, so that \
             they have an order; key the messages by <exchange>:<symbol>",
            instrument.exchange,
            instrument.symbol,
            shard(conflict.owner),
            shard(conflict.met_in),
        ));
    }
}

/// What comes of a delivery.
struct Decoded {
    values: Vec<Tagged<Row>>,
    positions: Vec<(u64, u32)>,
    changes: Vec<ChangeAt>,
    answers: Vec<Answer>,
}

impl Decoded {
    fn with_room(messages: usize) -> Decoded {
        let (values, positions) = (Vec::with_capacity(messages), Vec::with_capacity(messages));
        Decoded { values, positions, changes: Vec::new(), answers: Vec::new() }
    }
}

/// What decoding knows of one shard.
struct ShardDecode {
    number: u32,
    messages: Messages,
    changes: ShardChanges,
    /// As the settings in force see them.
    instruments: Instruments,
}

impl ShardDecode {
    fn new(number: u32, changes: ShardChanges, limits: Limits, instruments: &Instruments) -> ShardDecode {
        let messages = Messages::new(limits, instruments.resolver_of_shard(number));
        ShardDecode { number, messages, changes, instruments: instruments.clone() }
    }

    fn message(
        &mut self,
        message: &Delivered,
        bytes: &[u8],
        settings: &LiveSettings,
        account: &mut BatchLedger,
        decoded: &mut Decoded,
    ) {
        let LiveSettings { format, exchange, .. } = settings;
        let source = Source { file: self.number, line: message.offset };
        let Some(extent) = message.body else {
            let extent = Extent { start: message.key.start + message.key.length, length: 0 };
            return account.refuse_message(source, extent, Reason::Empty, String::new());
        };
        if message.control {
            return self.messages.headed_control(source, extent, account);
        }
        if let Some(problem) = &message.problem {
            return account.refuse_message(source, extent, Reason::NoTime, problem.clone());
        }
        let body = extent.of(bytes);
        let exchange = message.exchange.as_deref().or(exchange.as_deref());
        let envelope = Envelope { received: message.received, exchange, checked: true, source, extent };
        let format = format.unwrap_or_else(|| format_of(body, exchange));
        let ShardDecode { messages, changes, .. } = self;
        messages.take_message(format, body, &envelope, account, |order, row| {
            // Refused rows take a place too; they know their own position.
            decoded.positions.resize(order as usize, (message.offset, 0));
            decoded.positions.push((message.offset, row.index));
            changes.place(&row, order, decoded.values.len(), &mut decoded.changes);
            decoded.values.push(Tagged { key: row.instrument, order, value: row });
        });
    }

    /// Takes a control record. New settings hold from the next message on.
    fn record(&mut self, found: &FoundRecord, bytes: &[u8], ledger: &mut Ledger, answers: &mut Vec<Answer>) {
        let Taken { answer, settings } = self.changes.take_record(*found, found.extent.of(bytes), |_| Ok(()));
        changes::account(found, &answer, ledger);
        answers.push(answer);
        if let Some(settings) = settings {
            self.instruments = self.instruments.under(settings.instruments.clone());
            self.messages.resolve_by(self.instruments.resolver_of_shard(self.number));
        }
    }
}

/// Decodes the deliveries that this worker's source read.
pub fn decode<'scope>(
    deliveries: StreamVec<'scope, u64, Delivery>,
    mut decode: LiveDecode,
    meter: &Meter,
) -> StreamVec<'scope, u64, Batch<Row, FromShard>> {
    let work = meter.operator("decode");
    deliveries.unary(Pipeline, "decode", move |_capability, _info| {
        move |input, output| {
            input.for_each(|capability, deliveries| {
                let mut session = output.session(&capability);
                for delivery in deliveries.drain(..) {
                    let messages = delivery.messages.len();
                    session.give(work.measure(messages, || decode.delivery(delivery)));
                }
            });
        }
    })
}
