//! The account of a run: every message and every row has exactly one fate, and the fates add up (docs/definitions.md, "Input").

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::row::{Extent, InstrumentId, Source};

/// Why a message or a row was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Reason {
    /// Not JSON, cut off, or not UTF-8.
    BrokenJson,
    /// A needed field is missing, stands twice or has another type.
    WrongType,
    /// No message at all (a null value).
    Empty,
    /// Longer than the largest message taken.
    TooLarge,
    /// Of another market than the one that its file was said to hold.
    OtherMarket,
    /// No time, or one that cannot be read.
    NoTime,
    /// A time outside 2000 to 2100.
    TimeRange,
    /// A time too far ahead of its receipt, or of the instrument's other rows.
    TimeAhead,
    /// A price or size that is not a finite number.
    NonFinite,
    /// A price of 0 or below.
    NotPositive,
    /// A size below 0.
    NegativeSize,
    /// Bid above ask.
    Crossed,
    /// A quote without one of its sides.
    EmptySide,
    /// An instrument that `instruments.yaml` does not list, where only listed ones are taken.
    UnknownInstrument,
    /// Older than the newest row of its channel.
    Late,
    /// A control record that can't be obeyed.
    BadControl,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Reason; 16] = [
        Reason::BrokenJson,
        Reason::WrongType,
        Reason::Empty,
        Reason::TooLarge,
        Reason::OtherMarket,
        Reason::NoTime,
        Reason::TimeRange,
        Reason::TimeAhead,
        Reason::NonFinite,
        Reason::NotPositive,
        Reason::NegativeSize,
        Reason::Crossed,
        Reason::EmptySide,
        Reason::UnknownInstrument,
        Reason::Late,
        Reason::BadControl,
    ];

    /// The name printed in dead letters, summaries and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::BrokenJson => "broken_json",
            Reason::WrongType => "wrong_type",
            Reason::Empty => "empty",
            Reason::TooLarge => "too_large",
            Reason::OtherMarket => "other_market",
            Reason::NoTime => "no_time",
            Reason::TimeRange => "time_range",
            Reason::TimeAhead => "time_ahead",
            Reason::NonFinite => "non_finite",
            Reason::NotPositive => "not_positive",
            Reason::NegativeSize => "negative_size",
            Reason::Crossed => "crossed",
            Reason::EmptySide => "empty_side",
            Reason::UnknownInstrument => "unknown_instrument",
            Reason::Late => "late",
            Reason::BadControl => "bad_control",
        }
    }

    /// What it means, for documents.
    pub fn meaning(self) -> &'static str {
        match self {
            Reason::BrokenJson => "not JSON, cut off, or not UTF-8",
            Reason::WrongType => "a needed field is missing, stands twice or has another type",
            Reason::Empty => "there is no message",
            Reason::TooLarge => "longer than `input.max_message_bytes`",
            Reason::OtherMarket => "of another market than the one named with `--exchange`",
            Reason::NoTime => "no time, or one that can't be read",
            Reason::TimeRange => "a time outside 2000 to 2100",
            Reason::TimeAhead => {
                "too far ahead of its receipt or of the instrument's other rows ([clock](definitions.md#clock))"
            }
            Reason::NonFinite => "a price or size that is no finite number",
            Reason::NotPositive => "a price of 0 or below",
            Reason::NegativeSize => "a size below 0",
            Reason::Crossed => "bid above ask (equal is legal)",
            Reason::EmptySide => "a quote without bid or ask",
            Reason::UnknownInstrument => "not listed, where `instruments.unknown` is `deadletter`",
            Reason::Late => "older than the newest row of its channel",
            Reason::BadControl => "a control record that can't be obeyed ([control](control.md))",
        }
    }
}

/// A refused message or row on its way to the dead letters. The original is found through `extent` in the
/// bytes of the batch that refused it, unless it had waited longer than that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Position in the batch of what was refused: dead letters are written in this order.
    pub order: u32,
    pub reason: Reason,
    /// What was found and what was expected; empty where the reason says it all.
    pub detail: String,
    pub source: Source,
    pub index: u32,
    pub extent: Extent,
    /// The message, where it is none of the batch that refused it.
    pub original: Option<Original>,
}

/// A message that waited for its fate, and what it is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Original {
    pub instrument: InstrumentId,
    pub message: Arc<[u8]>,
}

impl DeadLetter {
    /// The message that was refused, of which the batch holds these bytes.
    pub fn message<'a>(&'a self, bytes: &'a [u8]) -> &'a [u8] {
        self.original.as_ref().map_or_else(|| self.extent.of(bytes), |original| &original.message)
    }
}

/// Counts of messages and rows by fate. Counts are signed because a row may be moved from one fate to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub messages_in: i64,
    pub messages_rows: i64,
    pub messages_control: i64,
    pub messages_ignored: i64,
    pub messages_deadlettered: i64,
    pub rows_in: i64,
    pub ticks: i64,
    pub applied: i64,
    pub duplicate: i64,
    pub late: i64,
    /// Rows of a channel that is not used, in messages that hold other rows too.
    pub rows_ignored: i64,
    pub rows_deadlettered: i64,
    pub buffered: i64,
    pub predictions: i64,
    pub refused: i64,
    /// Quotes with bid = ask: legal, counted.
    pub locked: i64,
    /// Rows outside `--from` and `--to`: not part of the run, in none of the counts above.
    pub outside: i64,
    /// Rows that went on before older ones could come, because too many were waiting.
    pub hurried: i64,
    /// Control records, whatever became of them.
    pub control_records: i64,
    pub gaps: i64,
    pub samples: i64,
    /// Seconds that were told before a wrong clock was left, and are not told again.
    pub samples_repeated: i64,
    pub alerts: i64,
    /// Dead letters by [`Reason`] number, messages and rows, late ones included.
    pub deadletter: [i64; Reason::ALL.len()],
}

impl Counts {
    /// Adds another account to this one.
    pub fn add(&mut self, other: &Counts) {
        self.add_times(other, 1);
    }

    /// What has come to this account since it was `before`.
    pub fn since(&self, before: &Counts) -> Counts {
        let mut difference = self.clone();
        difference.add_times(before, -1);
        difference
    }

    fn add_times(&mut self, other: &Counts, times: i64) {
        let Counts {
            messages_in,
            messages_rows,
            messages_control,
            messages_ignored,
            messages_deadlettered,
            rows_in,
            ticks,
            applied,
            duplicate,
            late,
            rows_ignored,
            rows_deadlettered,
            buffered,
            predictions,
            refused,
            locked,
            outside,
            hurried,
            control_records,
            gaps,
            samples,
            samples_repeated,
            alerts,
            deadletter,
        } = other;
        self.messages_in += times * messages_in;
        self.messages_rows += times * messages_rows;
        self.messages_control += times * messages_control;
        self.messages_ignored += times * messages_ignored;
        self.messages_deadlettered += times * messages_deadlettered;
        self.rows_in += times * rows_in;
        self.ticks += times * ticks;
        self.applied += times * applied;
        self.duplicate += times * duplicate;
        self.late += times * late;
        self.rows_ignored += times * rows_ignored;
        self.rows_deadlettered += times * rows_deadlettered;
        self.buffered += times * buffered;
        self.predictions += times * predictions;
        self.refused += times * refused;
        self.locked += times * locked;
        self.outside += times * outside;
        self.hurried += times * hurried;
        self.control_records += times * control_records;
        self.gaps += times * gaps;
        self.samples += times * samples;
        self.samples_repeated += times * samples_repeated;
        self.alerts += times * alerts;
        for (sum, n) in self.deadletter.iter_mut().zip(deadletter) {
            *sum += times * n;
        }
    }

    /// Rows that reached an instrument's operators and have left them.
    pub fn rows_processed(&self) -> i64 {
        let ahead = self.deadletter[Reason::TimeAhead as usize];
        self.ticks + self.applied + self.duplicate + self.late + self.rows_ignored + ahead
    }

    /// What does not add up, if anything: `messages_in` against its fates, `rows_in` against its fates.
    pub fn imbalance(&self) -> Option<String> {
        let messages =
            self.messages_rows + self.messages_control + self.messages_ignored + self.messages_deadlettered;
        let rows = self.ticks
            + self.applied
            + self.duplicate
            + self.late
            + self.rows_ignored
            + self.rows_deadlettered
            + self.buffered;
        let letters: i64 = self.deadletter.iter().sum();
        if messages != self.messages_in {
            return Some(format!("{} messages in, but {messages} have a fate", self.messages_in));
        }
        if rows != self.rows_in {
            return Some(format!("{} rows in, but {rows} have a fate", self.rows_in));
        }
        let refused = self.messages_deadlettered + self.rows_deadlettered + self.late;
        (letters != refused).then(|| format!("{refused} refused or late, but {letters} dead letters"))
    }
}

/// Something that is worth a warning, and is no fate of a single row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Of which instrument; `None`: of the log.
    pub instrument: Option<InstrumentId>,
    pub text: String,
}

/// The account of one batch, carried along with it to the sink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    pub counts: Counts,
    pub dead: Vec<DeadLetter>,
    /// What is to be said once.
    pub notices: Vec<Notice>,
    /// Why the log can't be used at all, where a message says so.
    pub unusable: Option<String>,
}

impl Ledger {
    /// Files a dead letter and counts it by its reason; the caller counts the fate.
    pub fn refuse(&mut self, letter: DeadLetter) {
        self.counts.deadletter[letter.reason as usize] += 1;
        self.dead.push(letter);
    }
}
