//! Chunks of a log ─decode─► batches of rows, one for each worker ─in order─► by instrument, in log order.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::account::{DeadLetter, Ledger, Reason};
use foreshock_operators::decode::{
    Envelope, Format, Line, Refused, Verdict, decode as decode_message, split_line,
};
use foreshock_operators::operator::Tagged;
use foreshock_operators::row::{Extent, Row, Source};
use foreshock_operators::time::{Nanos, Time};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Operator as _;

use crate::batch::{Batch, Chunk, Range, Run};
use crate::instruments::{Instruments, Resolver};

/// What is known of a file before its first line is decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFile {
    /// As printed in a row's source.
    pub name: String,
    pub format: Format,
    /// The exchange, where the format has several.
    pub exchange: Option<String>,
    /// Whether `exchange` was told from the shape of the file's messages: then one of another market makes the
    /// whole file unusable, as nobody knows what it holds.
    pub inferred: bool,
}

/// How lines become rows.
#[derive(Clone, Debug)]
pub struct DecodeSettings {
    pub files: Arc<[LogFile]>,
    pub range: Range,
    pub max_ahead: Nanos,
    /// A longer message is refused.
    pub max_message_bytes: usize,
}

/// Turns chunks into rows, for one worker. Knows nothing of timely.
pub struct Decode {
    settings: DecodeSettings,
    resolver: Resolver,
    rows: Vec<Row>,
    refused: Vec<Refused>,
}

impl Decode {
    pub fn new(settings: DecodeSettings, instruments: &Instruments) -> Decode {
        Decode { settings, resolver: instruments.resolver(), rows: Vec::new(), refused: Vec::new() }
    }

    /// Decodes a chunk into one batch for each of `workers`. Instruments are dealt to workers by number. The
    /// account of the messages goes with one of the batches.
    pub fn chunk(&mut self, chunk: Chunk, workers: usize) -> Vec<Batch<Row>> {
        let Chunk { epoch, end, bytes, runs } = chunk;
        let mut ledger = Ledger::default();
        let per_worker = bytes.len() / 256 / workers;
        let mut batches: Vec<Batch<Row>> = (0..workers)
            .map(|worker| Batch {
                epoch,
                worker,
                end,
                values: Vec::with_capacity(per_worker),
                ledger: Ledger::default(),
                bytes: bytes.clone(),
            })
            .collect();
        let mut order = 0;
        for run in &runs {
            self.run(run, &bytes, &mut order, &mut ledger, &mut batches);
        }
        batches[(epoch % workers as u64) as usize].ledger = ledger;
        batches
    }

    fn run(
        &mut self,
        run: &Run,
        bytes: &[u8],
        order: &mut u32,
        ledger: &mut Ledger,
        batches: &mut [Batch<Row>],
    ) {
        let mut source = Source { file: run.file, line: run.first_line };
        if let Some(length) = run.too_large {
            self.too_large_line(&bytes[run.start..run.end], length, run.start, source, order, ledger);
            return;
        }
        let mut at = run.start;
        while at < run.end {
            let line_end = memchr::memchr(b'\n', &bytes[at..run.end]).map_or(run.end, |length| at + length);
            let line = &bytes[at..line_end];
            match split_line(line) {
                Line::Blank => {}
                Line::Control => {
                    ledger.counts.messages_in += 1;
                    ledger.counts.messages_control += 1;
                }
                Line::Message { received, body } => {
                    let extent = Extent { start: (at + body.start) as u32, length: body.len() as u32 };
                    self.message(&line[body], received, source, extent, order, ledger, batches);
                }
            }
            at = line_end + 1;
            source.line += 1;
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one call, split for reading")]
    fn message(
        &mut self,
        message: &[u8],
        received: Option<Time>,
        source: Source,
        extent: Extent,
        order: &mut u32,
        ledger: &mut Ledger,
        batches: &mut [Batch<Row>],
    ) {
        if message.len() > self.settings.max_message_bytes {
            ledger.counts.messages_in += 1;
            let detail = self.too_large(message.len() as u64);
            refuse_message(source, extent, Reason::TooLarge, detail, order, ledger);
            return;
        }
        let file = &self.settings.files[source.file as usize];
        let envelope = Envelope {
            received,
            exchange: file.exchange.as_deref(),
            checked: true,
            source,
            extent,
            max_ahead: self.settings.max_ahead,
        };
        self.rows.clear();
        self.refused.clear();
        let verdict = decode_message(
            file.format,
            message,
            &envelope,
            &mut self.resolver,
            &mut self.rows,
            &mut self.refused,
        );
        let counts = &mut ledger.counts;
        counts.messages_in += 1;
        if may_be_control(&verdict) && is_control_record(message) {
            // Ours, whatever the venue: applied from the input itself once live jobs take them.
            counts.messages_control += 1;
            counts.control_records += 1;
            return;
        }
        match verdict {
            Verdict::Control => counts.messages_control += 1,
            Verdict::Ignored => counts.messages_ignored += 1,
            Verdict::Rows => self.deal_rows(source, extent, order, ledger, batches),
            Verdict::Refused { reason, detail } => {
                refuse_message(source, extent, reason, detail, order, ledger);
            }
            Verdict::Contradiction { found } => {
                let (name, line) = (&file.name, source.line);
                let expected = file.exchange.as_deref().unwrap_or_default();
                let detail = format!("a message of {found} in a file of {expected}");
                if file.inferred {
                    let why = "split it by market, or name the one to keep with --exchange";
                    ledger.unusable.get_or_insert_with(|| format!("{name:?}, line {line}: {detail}; {why}"));
                }
                refuse_message(source, extent, Reason::OtherMarket, detail, order, ledger);
            }
        }
    }

    /// Counts a line of which only the beginning is here, as if all of it were.
    fn too_large_line(
        &self,
        beginning: &[u8],
        length: u64,
        at: usize,
        source: Source,
        order: &mut u32,
        ledger: &mut Ledger,
    ) {
        ledger.counts.messages_in += 1;
        let start = match split_line(beginning) {
            Line::Control => {
                ledger.counts.messages_control += 1;
                return;
            }
            Line::Message { body, .. } => body.start,
            Line::Blank => 0,
        };
        let length = length - start as u64;
        let extent = Extent { start: (at + start) as u32, length: u32::try_from(length).unwrap_or(u32::MAX) };
        refuse_message(source, extent, Reason::TooLarge, self.too_large(length), order, ledger);
    }

    fn too_large(&self, length: u64) -> String {
        format!("{length} bytes, expected at most {}", self.settings.max_message_bytes)
    }

    fn deal_rows(
        &mut self,
        source: Source,
        extent: Extent,
        order: &mut u32,
        ledger: &mut Ledger,
        batches: &mut [Batch<Row>],
    ) {
        let before = self.rows.len() + self.refused.len();
        let range = self.settings.range;
        self.rows.retain(|row| range.contains(row.event_time));
        self.refused.retain(|refused| refused.event_time.is_none_or(|time| range.contains(time)));
        let outside = before - self.rows.len() - self.refused.len();
        ledger.counts.outside += outside as i64;
        if outside > 0 && self.rows.is_empty() && self.refused.is_empty() {
            ledger.counts.messages_in -= 1;
            return;
        }
        ledger.counts.messages_rows += 1;
        ledger.counts.rows_in += (self.rows.len() + self.refused.len()) as i64;
        for mut row in self.rows.drain(..) {
            row.alone = before == 1;
            let worker = row.instrument.0 as usize % batches.len();
            batches[worker].values.push(Tagged { instrument: row.instrument, order: *order, value: row });
            *order += 1;
        }
        for Refused { index, reason, detail, .. } in self.refused.drain(..) {
            ledger.counts.rows_deadlettered += 1;
            ledger.refuse(DeadLetter { order: *order, reason, detail, source, index, extent });
            *order += 1;
        }
    }
}

/// Whether a decoder's word leaves room for a control record, which stands in logs of any format (SPEC 7).
fn may_be_control(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Control | Verdict::Ignored => true,
        Verdict::Refused { reason, .. } => *reason == Reason::WrongType,
        Verdict::Rows | Verdict::Contradiction { .. } => false,
    }
}

fn is_control_record(message: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Record<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
    }
    memchr::memmem::find(message, b"\"control\"").is_some()
        && serde_json::from_slice::<Record>(message).is_ok_and(|record| record.kind == "control")
}

fn refuse_message(
    source: Source,
    extent: Extent,
    reason: Reason,
    detail: String,
    order: &mut u32,
    ledger: &mut Ledger,
) {
    ledger.counts.messages_deadlettered += 1;
    ledger.refuse(DeadLetter { order: *order, reason, detail, source, index: 0, extent });
    *order += 1;
}

/// Decodes the chunks that this worker's source read, and gives each worker its part.
pub fn decode<'scope>(
    chunks: StreamVec<'scope, u64, Chunk>,
    settings: DecodeSettings,
    instruments: &Instruments,
    workers: usize,
) -> StreamVec<'scope, u64, Batch<Row>> {
    let mut decode = Decode::new(settings, instruments);
    chunks.unary(Pipeline, "decode", move |_capability, _info| {
        move |input, output| {
            input.for_each(|capability, chunks| {
                let mut session = output.session(&capability);
                for chunk in chunks.drain(..) {
                    session.give_iterator(decode.chunk(chunk, workers).into_iter());
                }
            });
        }
    })
}

/// Brings each worker its batches, in the order of the log.
///
/// Every epoch has one batch for every worker, so order needs no frontier: a batch that comes before its turn is
/// held until the ones before it are here.
pub fn in_order(batches: StreamVec<'_, u64, Batch<Row>>) -> StreamVec<'_, u64, Batch<Row>> {
    let by_worker = Exchange::new(|batch: &Batch<Row>| batch.worker as u64);
    batches.unary(by_worker, "in_order", move |_capability, _info| {
        let mut next = 0;
        let mut held: BTreeMap<u64, Batch<Row>> = BTreeMap::new();
        move |input, output| {
            input.for_each(|capability, batches| {
                // Held batches leave with the capability of the one that sets them free: an earlier epoch's.
                let mut session = output.session(&capability);
                for batch in batches.drain(..) {
                    held.insert(batch.epoch, batch);
                    while let Some(batch) = held.remove(&next) {
                        next += 1;
                        session.give(batch);
                    }
                }
            });
        }
    })
}
