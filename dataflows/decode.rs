//! Chunks of a log ─decode─► batches of rows, one for each worker ─in order─► by instrument, in log order.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::account::{Ledger, Reason};
use foreshock_operators::links::Tagged;
use foreshock_operators::row::{Extent, Row, Source};
use foreshock_operators::venues::{Envelope, Format, Line, Receipt, split_line};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Operator as _;

use crate::batch::{Batch, Chunk, FromFiles, Run, TimeRange};
use crate::instruments::Instruments;
use crate::messages::{BatchLedger, Limits, Messages};

/// What is known of a file before its first line is decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFile {
    /// As printed in a row's source.
    pub name: String,
    /// What a place in it counts: lines, or the elements of an array.
    pub counted: &'static str,
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
    pub range: TimeRange,
    /// A longer message is refused.
    pub max_message_bytes: usize,
    /// Whether control records are obeyed, not counted only.
    pub control: bool,
}

/// Turns chunks into rows, for one worker. Knows nothing of timely.
pub struct Decode {
    files: Arc<[LogFile]>,
    messages: Messages,
}

impl Decode {
    pub fn new(settings: DecodeSettings, instruments: &Instruments) -> Decode {
        let DecodeSettings { files, range, max_message_bytes, control } = settings;
        let limits = Limits { range, max_message_bytes, control };
        Decode { files, messages: Messages::new(limits, instruments.resolver()) }
    }

    /// Decodes a chunk into one batch for each of `workers`. Instruments are dealt to workers by number. The
    /// account of the messages goes with one of the batches.
    pub fn chunk(&mut self, chunk: Chunk, workers: usize) -> Vec<Batch<Row, FromFiles>> {
        let Chunk { epoch, end, bytes, runs } = chunk;
        let mut account = BatchLedger::default();
        let per_worker = bytes.len() / 256 / workers;
        let mut batches: Vec<Batch<Row, FromFiles>> = (0..workers)
            .map(|worker| Batch {
                end,
                values: Vec::with_capacity(per_worker),
                changes: Vec::new(),
                ledger: Ledger::default(),
                bytes: bytes.clone(),
                levels: Vec::new(),
                origin: FromFiles { epoch, worker, records: Vec::new() },
            })
            .collect();
        for run in &runs {
            self.run(run, &bytes, &mut account, &mut batches);
        }
        // They hold for every worker's instruments.
        batches.iter_mut().for_each(|batch| batch.origin.records.clone_from(&account.records));
        batches[(epoch % workers as u64) as usize].ledger = account.ledger;
        batches
    }

    fn run(
        &mut self,
        run: &Run,
        bytes: &[u8],
        account: &mut BatchLedger,
        batches: &mut [Batch<Row, FromFiles>],
    ) {
        let file = &self.files[run.file as usize];
        let mut source = Source { file: run.file, line: run.first_line };
        if let Some(length) = run.too_large {
            too_large_line(&self.messages, &bytes[run.start..run.end], length, run.start, source, account);
            return;
        }
        let mut at = run.start;
        while at < run.end {
            let line_end = memchr::memchr(b'\n', &bytes[at..run.end]).map_or(run.end, |length| at + length);
            let line = &bytes[at..line_end];
            match split_line(line) {
                Line::Blank => {}
                Line::Control => account.control_message(),
                Line::BadReceipt { receipt, body } => {
                    let extent = Extent { start: (at + body.start) as u32, length: body.len() as u32 };
                    let receipt = String::from_utf8_lossy(&line[receipt]);
                    let detail = format!(
                        "the line begins with {receipt:.40}: a time of receipt from 2000 to 2100 in s, ms, µs or ns since 1970 \
                         is allowed there"
                    );
                    account.refuse_message(source, extent, Reason::TimeRange, detail);
                }
                Line::Message { received, body } => {
                    let envelope = Envelope {
                        received: received.map(Receipt::Stated),
                        exchange: file.exchange.as_deref(),
                        checked: true,
                        source,
                        extent: Extent { start: (at + body.start) as u32, length: body.len() as u32 },
                    };
                    let give = |order, row: Row| {
                        let worker = row.instrument.0 as usize % batches.len();
                        batches[worker].values.push(Tagged { key: row.instrument, order, value: row });
                    };
                    let contradiction =
                        self.messages.take_message(file.format, &line[body], &envelope, account, give);
                    if let Some(detail) = contradiction
                        && file.inferred
                    {
                        let why = "split it by market, or name the one to keep with --exchange";
                        let (name, counted, line) = (&file.name, file.counted, source.line);
                        account
                            .ledger
                            .unusable
                            .get_or_insert_with(|| format!("{name:?}, {counted} {line}: {detail}; {why}"));
                    }
                }
            }
            at = line_end + 1;
            source.line += 1;
        }
    }
}

/// Counts a line of which only the beginning is here, as if all of it were.
fn too_large_line(
    messages: &Messages,
    beginning: &[u8],
    length: u64,
    at: usize,
    source: Source,
    account: &mut BatchLedger,
) {
    let start = match split_line(beginning) {
        Line::Control => return account.control_message(),
        Line::Message { body, .. } | Line::BadReceipt { body, .. } => body.start,
        Line::Blank => 0,
    };
    let length = length - start as u64;
    let extent = Extent { start: (at + start) as u32, length: u32::try_from(length).unwrap_or(u32::MAX) };
    account.refuse_message(source, extent, Reason::TooLarge, messages.too_large(length));
}

/// Decodes the chunks that this worker's source read, and gives each worker its part.
pub fn decode<'scope>(
    chunks: StreamVec<'scope, u64, Chunk>,
    settings: DecodeSettings,
    instruments: &Instruments,
    workers: usize,
) -> StreamVec<'scope, u64, Batch<Row, FromFiles>> {
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
pub fn in_order(
    batches: StreamVec<'_, u64, Batch<Row, FromFiles>>,
) -> StreamVec<'_, u64, Batch<Row, FromFiles>> {
    let by_worker = Exchange::new(|batch: &Batch<Row, FromFiles>| batch.origin.worker as u64);
    batches.unary(by_worker, "in_order", move |_capability, _info| {
        let mut next = 0;
        let mut held: BTreeMap<u64, Batch<Row, FromFiles>> = BTreeMap::new();
        move |input, output| {
            input.for_each(|capability, batches| {
                // Held batches leave with the capability of the one that sets them free: an earlier epoch's.
                let mut session = output.session(&capability);
                for batch in batches.drain(..) {
                    held.insert(batch.origin.epoch, batch);
                    while let Some(batch) = held.remove(&next) {
                        next += 1;
                        session.give(batch);
                    }
                }
            });
        }
    })
}
