//! Outcomes ─encode─► records for topics, each with its key and the row it comes from.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::account::Counts;
use foreshock_operators::change::Change;
use foreshock_operators::encode::Encoder;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::links::Tagged;
use foreshock_operators::model::Model;
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::outputs::deadletter::dead_letter;
use foreshock_operators::row::{Extent, InstrumentId};
use foreshock_operators::stages::{Alert, Outcome};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator as _;

use crate::batch::{Batch, Cut, FromShard, SourceSegment};
use crate::control::Answer;
use crate::instruments::Instruments;
use crate::meter::Meter;
use crate::settings::Settings;

/// How much is kept of the key of a refused message: nobody knows what it is.
const KEY_MAX: u32 = 1024;

/// What a record is keyed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKey {
    /// `<exchange>:<instrument>`.
    Instrument(InstrumentId),
    /// This extent of the publication's bytes.
    Text(Extent),
    None,
}

/// One record for one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    pub kind: OutputKind,
    pub key: RecordKey,
    /// Its value in the publication's bytes.
    pub value: Extent,
    /// The row it comes from: offset and index in the message.
    pub offset: u64,
    pub index: u32,
}

/// All that a batch has to tell, and where its shard goes on behind it.
#[derive(Clone, Debug)]
pub struct Publication {
    pub cut: Cut,
    /// No row before this offset waits for others: without its state the shard could go on here.
    pub low_watermark: i64,
    pub bytes: Vec<u8>,
    /// In the order of the log.
    pub records: Vec<OutputRecord>,
    pub counts: Counts,
    /// The probability of each tick that was scored, and whether it is a spike.
    pub predictions: Vec<(f64, bool)>,
    /// The model that scores some instrument from a row of the batch on.
    pub model: Option<Arc<Model>>,
    /// What the features of some instrument are from a row of the batch on.
    pub features: Option<Arc<FeatureSettings>>,
    /// The changes of alerts among the records.
    pub alerts: Vec<(InstrumentId, Box<Alert>)>,
    /// The first message or row that was refused, and why.
    pub first_refused: Option<String>,
    /// What is worth a warning.
    pub notices: Vec<String>,
    /// Why the log can't be used at all, where a message of the batch says so.
    pub unusable: Option<String>,
}

/// Encodes one worker's live batches. Knows nothing of timely.
pub struct EncodeRecords {
    kinds: Arc<[OutputKind]>,
    /// `topic/partition` of each shard.
    shards: Arc<[String]>,
    instruments: Instruments,
    settings: Arc<Settings>,
    /// By shard: each has changes of its own.
    encoders: BTreeMap<u32, Encoder>,
    /// Bytes that an outcome took in the last publication: the next ones are likely to need as much.
    room_each: usize,
}

impl EncodeRecords {
    pub fn new(
        kinds: Arc<[OutputKind]>,
        shards: Arc<[String]>,
        instruments: Instruments,
        settings: Arc<Settings>,
    ) -> EncodeRecords {
        EncodeRecords { kinds, shards, instruments, settings, encoders: BTreeMap::new(), room_each: 0 }
    }

    /// Has a shard begin with these settings, and with what these changes have put in force.
    pub fn begin_shard(&mut self, shard: u32, settings: &Settings, changes: &[Arc<Change>]) {
        let mut encoder = encoder(settings);
        changes.iter().for_each(|change| encoder.learn(change));
        self.encoders.insert(shard, encoder);
    }

    /// The records of a batch.
    pub fn batch(&mut self, batch: Batch<Outcome, FromShard>) -> Publication {
        let FromShard { segment, answers, waiting } = batch.origin;
        // A row that waits is in no output yet: what is delivered reaches as far as the message it stands in.
        let delivered = waiting.and_then(|offset| i64::try_from(offset).ok());
        let low_watermark = segment.cut.next_offset.min(delivered.unwrap_or(i64::MAX));
        let mut out = Publication {
            cut: segment.cut,
            low_watermark,
            model: batch.changes.iter().rev().find_map(|placed| placed.change.model()).cloned(),
            features: batch.changes.iter().rev().find_map(|placed| placed.change.features()).cloned(),
            bytes: Vec::with_capacity(batch.values.len() * (self.room_each + self.room_each / 8)),
            records: Vec::with_capacity(2 * batch.values.len() + batch.ledger.dead.len()),
            counts: batch.ledger.counts,
            predictions: Vec::with_capacity(batch.values.len()),
            alerts: Vec::new(),
            first_refused: None,
            notices: if segment.cut.suppressed {
                Vec::new()
            } else {
                self.instruments.describe(&batch.ledger.notices)
            },
            unusable: batch.ledger.unusable,
        };
        let outcomes = batch.values.len();
        let number = segment.cut.shard;
        let mut encoder = self.encoders.remove(&number).unwrap_or_else(|| encoder(&self.settings));
        batch.changes.iter().for_each(|placed| encoder.learn(&placed.change));
        for tagged in batch.values {
            self.outcome(&mut encoder, tagged, &segment, &mut out);
        }
        self.encoders.insert(number, encoder);
        self.room_each = out.bytes.len().checked_div(outcomes).unwrap_or(self.room_each);
        let mut dead = batch.ledger.dead;
        dead.sort_by_key(|letter| letter.order);
        let shard = self.shards.get(segment.cut.shard as usize).map_or("", String::as_str);
        if let Some(letter) = dead.first() {
            let (line, reason) = (letter.source.line, letter.reason.name());
            out.first_refused = Some(format!("{shard}/{line}: {reason} ({})", letter.detail));
        }
        if self.kinds.contains(&OutputKind::Deadletter) && !segment.cut.suppressed {
            for letter in &dead {
                let message = letter.message(&batch.bytes);
                // The refused message's own key, which says at least where it was meant to go.
                let key = segment.key(letter.source.line).filter(|key| key.length > 0).map(|key| {
                    let key = Extent { length: key.length.min(KEY_MAX), ..key }.of(&batch.bytes);
                    extent(&mut out.bytes, |bytes| bytes.extend_from_slice(key))
                });
                let value = extent(&mut out.bytes, |bytes| dead_letter(letter, shard, message, bytes));
                out.records.push(OutputRecord {
                    kind: OutputKind::Deadletter,
                    key: match (key, &letter.original) {
                        (Some(key), _) => RecordKey::Text(key),
                        (None, Some(original)) => RecordKey::Instrument(original.instrument),
                        (None, None) => RecordKey::None,
                    },
                    value: without_line_break(value),
                    offset: letter.source.line,
                    index: letter.index,
                });
            }
        }
        if self.kinds.contains(&OutputKind::Control) && !segment.cut.suppressed {
            answers.iter().for_each(|found| answer(found, shard, &mut out));
        }
        out
    }

    fn outcome(
        &self,
        encoder: &mut Encoder,
        tagged: Tagged<Outcome>,
        segment: &SourceSegment,
        out: &mut Publication,
    ) {
        let instrument = tagged.key;
        if !encoder.knows(instrument) {
            encoder.introduce(&self.instruments.get(instrument));
        }
        // What is let go at the end of a log comes from no row of the batch.
        let end = (u64::try_from(segment.cut.next_offset - 1).unwrap_or_default(), 0);
        let (mut offset, mut index) = segment.positions.get(tagged.order as usize).copied().unwrap_or(end);
        if segment.cut.suppressed {
            if let Outcome::Alert(alert) = tagged.value {
                out.alerts.push((instrument, alert));
            }
            return;
        }
        if let Outcome::Tick(features, prediction) = &tagged.value {
            // With a reorder buffer a tick may be older than the row that let it go.
            (offset, index) = (features.source.line, features.index);
            if let Some(spike) = prediction.spike {
                out.predictions.push((prediction.probability, spike));
            }
        }
        for kind in self.kinds.iter() {
            let mut key = RecordKey::Instrument(instrument);
            let start = out.bytes.len();
            if !encoder.outcome(*kind, instrument, &tagged.value, &mut out.bytes) {
                continue;
            }
            let value = Extent { start: start as u32, length: (out.bytes.len() - start) as u32 };
            if let Outcome::Alert(alert) = &tagged.value {
                key = RecordKey::Text(extent(&mut out.bytes, |bytes| {
                    bytes.extend_from_slice(alert.id.as_bytes())
                }));
            }
            let value = without_line_break(value);
            out.records.push(OutputRecord { kind: *kind, key, value, offset, index });
        }
        if let Outcome::Alert(alert) = tagged.value {
            out.alerts.push((instrument, alert));
        }
    }
}

fn encoder(settings: &Settings) -> Encoder {
    Encoder::new(&settings.parameters.features.horizons, &settings.parameters.model)
}

fn answer(found: &Answer, shard: &str, out: &mut Publication) {
    let key =
        found.id.as_ref().map(|id| extent(&mut out.bytes, |bytes| bytes.extend_from_slice(id.as_bytes())));
    let value = extent(&mut out.bytes, |bytes| found.line(shard, bytes));
    out.records.push(OutputRecord {
        kind: OutputKind::Control,
        key: key.map_or(RecordKey::None, RecordKey::Text),
        value: without_line_break(value),
        offset: found.offset,
        index: 0,
    });
}

/// Appends something and says where it is.
fn extent(bytes: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>)) -> Extent {
    let start = bytes.len();
    append(bytes);
    Extent { start: start as u32, length: (bytes.len() - start) as u32 }
}

/// Lines end in a line break, records don't.
fn without_line_break(line: Extent) -> Extent {
    Extent { length: line.length - 1, ..line }
}

/// Encodes all that arrives and hands it over; nothing flows on.
pub fn encode_records<'scope>(
    outcomes: StreamVec<'scope, u64, Batch<Outcome, FromShard>>,
    mut encode_records: EncodeRecords,
    mut deliver: impl FnMut(Publication) + 'static,
    meter: &Meter,
) {
    let work = meter.operator("publish");
    outcomes.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
        Pipeline,
        "publish",
        move |_capability, _info| {
            move |input, _output| {
                input.for_each(|_capability, batches| {
                    for batch in batches.drain(..) {
                        let rows = batch.values.len();
                        deliver(work.measure(rows, || encode_records.batch(batch)));
                    }
                });
            }
        },
    );
}
