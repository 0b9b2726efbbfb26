//! Outcomes ─encode─► lines of JSON, by kind, ready to be put together with the other workers'.

use std::sync::Arc;

use foreshock_operators::account::{Counts, DeadLetter};
use foreshock_operators::encode::Encoder;
use foreshock_operators::links::Tagged;
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::outputs::deadletter::dead_letter;
use foreshock_operators::stages::Outcome;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator as _;

use crate::batch::{Batch, FromFiles};
use crate::decode::LogFile;
use crate::instruments::Instruments;

/// Lines of one kind.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    pub bytes: Vec<u8>,
    /// Where the lines of each causing row end, so that parts of several workers can be merged in input order.
    /// Empty with a single worker.
    pub marks: Vec<Mark>,
}

/// The lines up to `end` were caused by the row at `order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub order: u32,
    pub end: u32,
}

impl Lines {
    /// Notes that all bytes since the last mark come from the row at `order`.
    fn mark(&mut self, order: u32) {
        let end = self.bytes.len() as u32;
        match self.marks.last_mut() {
            Some(last) if last.order == order => last.end = end,
            Some(last) if last.end == end => {}
            None if end == 0 => {}
            _ => self.marks.push(Mark { order, end }),
        }
    }
}

/// What one worker has to say of one epoch.
#[derive(Clone, Debug)]
pub struct Part {
    pub epoch: u64,
    pub worker: usize,
    /// By position in the list of kinds that the job emits.
    pub lines: Vec<Lines>,
    pub counts: Counts,
    /// The first message or row of the batch that was refused, and why.
    pub first_refused: Option<String>,
    /// What is worth a warning.
    pub notices: Vec<String>,
    /// Why the log can't be used at all, where a message of the batch says so.
    pub unusable: Option<String>,
}

/// Encodes one worker's batches. Knows nothing of timely.
pub struct EncodeLines {
    kinds: Arc<[OutputKind]>,
    files: Arc<[LogFile]>,
    instruments: Instruments,
    encoder: Encoder,
    /// Whether parts of several workers will have to be merged.
    marked: bool,
    /// Bytes of each kind in the last part: the next one is likely to need as much.
    sizes: Vec<usize>,
}

impl EncodeLines {
    pub fn new(
        kinds: Arc<[OutputKind]>,
        files: Arc<[LogFile]>,
        instruments: Instruments,
        encoder: Encoder,
        workers: usize,
    ) -> EncodeLines {
        let sizes = vec![0; kinds.len()];
        EncodeLines { kinds, files, instruments, encoder, marked: workers > 1, sizes }
    }

    /// The lines of a batch.
    pub fn batch(&mut self, batch: Batch<Outcome, FromFiles>) -> Part {
        let room = |size: &usize| Lines { bytes: Vec::with_capacity(size + size / 8), marks: Vec::new() };
        let mut lines: Vec<Lines> = self.sizes.iter().map(room).collect();
        batch.changes.iter().for_each(|placed| self.encoder.learn(&placed.change));
        for tagged in &batch.values {
            self.outcome(tagged, &mut lines);
        }
        let mut dead = batch.ledger.dead;
        dead.sort_by_key(|letter| letter.order);
        if let Some(at) = self.kinds.iter().position(|kind| *kind == OutputKind::Deadletter) {
            for letter in &dead {
                let message = letter.message(&batch.bytes);
                let file = &self.files[letter.source.file as usize];
                dead_letter(letter, &file.name, message, &mut lines[at].bytes);
                if self.marked {
                    lines[at].mark(letter.order);
                }
            }
        }
        let first_refused = dead.first().map(|letter| self.describe(letter));
        self.sizes = lines.iter().map(|lines| lines.bytes.len()).collect();
        Part {
            epoch: batch.origin.epoch,
            worker: batch.origin.worker,
            lines,
            counts: batch.ledger.counts,
            first_refused,
            notices: self.instruments.describe(&batch.ledger.notices),
            unusable: batch.ledger.unusable,
        }
    }

    fn describe(&self, letter: &DeadLetter) -> String {
        let LogFile { name, counted, .. } = &self.files[letter.source.file as usize];
        let (line, reason) = (letter.source.line, letter.reason.name());
        format!("{name:?}, {counted} {line}: {reason} ({})", letter.detail)
    }

    fn outcome(&mut self, tagged: &Tagged<Outcome>, lines: &mut [Lines]) {
        let instrument = tagged.key;
        if !self.encoder.knows(instrument) {
            self.encoder.introduce(&self.instruments.get(instrument));
        }
        for (kind, lines) in self.kinds.iter().zip(lines) {
            if !self.encoder.outcome(*kind, instrument, &tagged.value, &mut lines.bytes) {
                continue;
            }
            if self.marked {
                lines.mark(tagged.order);
            }
        }
    }
}

/// Encodes all that arrives and hands it over; nothing flows on.
pub fn encode_lines<'scope>(
    outcomes: StreamVec<'scope, u64, Batch<Outcome, FromFiles>>,
    mut encode_lines: EncodeLines,
    mut deliver: impl FnMut(Part) + 'static,
) {
    outcomes.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
        Pipeline,
        "emit",
        move |_capability, _info| {
            move |input, _output| {
                input.for_each(|_capability, batches| {
                    for batch in batches.drain(..) {
                        deliver(encode_lines.batch(batch));
                    }
                });
            }
        },
    );
}

/// Puts the workers' lines of one kind and epoch together in input order.
pub fn merge<'a>(parts: impl Iterator<Item = &'a Lines>, mut write: impl FnMut(&'a [u8])) {
    struct Cursor<'a> {
        lines: &'a Lines,
        mark: usize,
        start: usize,
    }
    let mut cursors: Vec<Cursor> = parts
        .filter(|lines| !lines.marks.is_empty())
        .map(|lines| Cursor { lines, mark: 0, start: 0 })
        .collect();
    while let Some(next) = cursors.iter_mut().min_by_key(|cursor| cursor.lines.marks[cursor.mark].order) {
        let end = next.lines.marks[next.mark].end as usize;
        write(&next.lines.bytes[next.start..end]);
        next.start = end;
        next.mark += 1;
        cursors.retain(|cursor| cursor.mark < cursor.lines.marks.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merged_parts_are_in_input_order(owners in prop::collection::vec((0usize..3, 0u8..4), 0..60)) {
            let mut parts = vec![Lines::default(); 3];
            let mut expected = Vec::new();
            for (order, (owner, count)) in owners.into_iter().enumerate() {
                for line in 0..count {
                    let text = format!("{order}.{line};");
                    parts[owner].bytes.extend_from_slice(text.as_bytes());
                    parts[owner].mark(order as u32);
                    expected.extend_from_slice(text.as_bytes());
                }
            }
            let mut merged = Vec::new();
            merge(parts.iter(), |bytes| merged.extend_from_slice(bytes));
            prop_assert_eq!(merged, expected);
        }
    }
}
