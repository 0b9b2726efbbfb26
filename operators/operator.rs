//! The shape of an operator: a state machine for the rows of one instrument.
//!
//! An author writes what the operator does with an input, at the end of the log and when a setting changes, and what makes
//! a saved state a good one. All else is the business of the [chain](crate::chain): which change holds, saving and taking
//! up, memory asked for ahead, rows that wait.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

use crate::account::{Counts, DeadLetter, Ledger, Original, Reason};
use crate::change::{Effect, InForce};
use crate::parameters::Parameters;
use crate::prefetch::fetch_all;
use crate::row::{Channel, InstrumentId, Level, Row};
use crate::time::{Nanos, Time};

/// What is known of an instrument before its first row: resolved once from configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Instrument {
    pub id: InstrumentId,
    pub exchange: Arc<str>,
    /// The venue's own name for it.
    pub symbol: Arc<str>,
    /// The canonical name, as printed.
    pub name: Arc<str>,
    /// The channel whose rows are ticks; `None`: the best quote channel that the log has carried so far.
    pub quote_channel: Option<Channel>,
    /// The channel that trades are counted from; `None`: the best that the log has carried so far.
    pub trade_channel: Option<Channel>,
    /// The longest silence that is no gap; `None`: silences are never gaps.
    pub gap_after: Option<Nanos>,
    /// How far a row may lie ahead of the others until the next one says that it is right; `None`: any stamp is believed.
    pub max_jump: Option<Nanos>,
}

/// A state machine for one key, which is an instrument unless `S` says otherwise. It sees the key's inputs in the order of
/// the log, and nothing else. Its state is saved and taken up by serde, bit for bit.
pub trait Operator<S = Instrument>: Serialize + DeserializeOwned {
    /// Under this name it is measured and named in errors.
    const NAME: &'static str;
    type Input;
    type Output;

    /// The state before the first input.
    fn new(parameters: &Parameters, subject: &S) -> Self;

    /// Takes one input and gives any number of outputs.
    fn on_input(&mut self, input: Self::Input, out: &mut impl Collector<Self::Output>);

    /// Other parameters hold from the next input on. What is given here still comes under those of before.
    fn on_change(&mut self, _effect: &Effect, _out: &mut impl Collector<Self::Output>) {}

    /// The log has ended: gives what was only waiting for more of it.
    fn on_end(&mut self, _out: &mut impl Collector<Self::Output>) {}

    /// Completes a state that was read from a snapshot with what the parameters in force hold, and checks it.
    ///
    /// # Errors
    /// When the state was made under other settings, or its parts do not fit each other: nothing that comes from
    /// outside may make a later input panic.
    fn resume(&mut self, parameters: &Parameters, subject: &S) -> Result<(), Mismatch>;

    /// Asks for memory that an input at `time` is going to need which comes some inputs after the one at hand: see
    /// [`crate::prefetch`]. Only speed depends on it, so few operators say more than this: the lines of the state itself.
    fn fetch(&self, _time: Time, ahead: Ahead) {
        if ahead == Ahead::Far {
            fetch_all(self);
        }
    }
}

/// Whoever takes what an operator gives: the next operator of the chain.
pub trait Collector<T> {
    /// Hands one value on; it is worked on at once.
    fn push(&mut self, value: T);

    /// The account and the levels of the batch.
    fn context(&mut self) -> &mut Context;

    /// The parameters in force for the input being processed.
    fn in_force(&self) -> &InForce;

    /// The counts of the batch.
    fn counts(&mut self) -> &mut Counts {
        &mut self.context().ledger.counts
    }
}

/// What a chain works on beside its own state: it belongs to the batch.
#[derive(Debug, Default)]
pub struct Context {
    pub ledger: Ledger,
    /// Levels of the books of the batch's rows, which hold extents of it. Rows that are let go append theirs.
    pub levels: Vec<Level>,
    /// The bytes that the extents of rows and dead letters stand in.
    pub bytes: Arc<Vec<u8>>,
    /// The row about to be pushed leaves a wrong clock: when what it said began. The gap operator takes it.
    pub clock_left: Option<Time>,
    /// Position in the batch of the row being processed.
    pub order: u32,
}

impl Context {
    /// Files a dead letter for a row; the caller counts its fate.
    /// `message` is its message where that is of an earlier batch.
    pub fn refuse(&mut self, row: &Row, reason: Reason, detail: String, message: Option<Arc<[u8]>>) {
        let (source, index, extent) = (row.source, row.index, row.extent);
        let original = message.map(|message| Original { instrument: row.instrument, message });
        self.ledger.refuse(DeadLetter { order: self.order, reason, detail, source, index, extent, original });
    }
}

/// How far away an input is that memory is asked for. What has to be read for asking must have been asked for before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// Nothing is here yet: only the state itself can be asked for.
    Far,
    /// What was asked for from afar is here.
    Near,
    /// And what was asked for then.
    Next,
}

/// Why a state that was read does not go with what is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    OtherSettings,
    /// Its parts do not fit each other.
    Inconsistent(String),
}

/// Why a saved state was not taken.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum RestoreError {
    #[error("could not read the saved state of {operator}: {why}")]
    Unreadable { operator: &'static str, why: String },
    #[error("the saved state of {operator} was made with other settings")]
    OtherSettings { operator: &'static str },
}

impl Mismatch {
    /// For an operator of this name.
    pub fn of(self, operator: &'static str) -> RestoreError {
        match self {
            Mismatch::OtherSettings => RestoreError::OtherSettings { operator },
            Mismatch::Inconsistent(why) => RestoreError::Unreadable { operator, why },
        }
    }
}

/// `Ok` where the two are the same.
///
/// # Errors
/// Otherwise the state was made under other settings.
pub fn same_settings<T: PartialEq>(saved: &T, now: &T) -> Result<(), Mismatch> {
    if saved == now { Ok(()) } else { Err(Mismatch::OtherSettings) }
}

/// `Ok` where a state's parts fit each other.
///
/// # Errors
/// Otherwise with this reason.
pub fn consistent(is_consistent: bool, why: &str) -> Result<(), Mismatch> {
    if is_consistent { Ok(()) } else { Err(Mismatch::Inconsistent(why.to_owned())) }
}

/// Appends `state` to `bytes` in the format of snapshots (postcard: every f64 keeps its bits).
pub fn save<S: Serialize>(state: &S, bytes: &mut Vec<u8>) {
    *bytes = postcard::to_extend(state, std::mem::take(bytes)).expect("a state is plain data");
}

/// Reads a state that [`save`] wrote; the bytes must hold it and nothing more.
///
/// # Errors
/// When the bytes are cut off, of another shape, or longer than the state.
pub fn load<S: DeserializeOwned>(operator: &'static str, bytes: &[u8]) -> Result<S, RestoreError> {
    match postcard::take_from_bytes(bytes) {
        Ok((state, [])) => Ok(state),
        Ok((_, rest)) => {
            Err(RestoreError::Unreadable { operator, why: format!("{} bytes are left over", rest.len()) })
        }
        Err(error) => Err(RestoreError::Unreadable { operator, why: error.to_string() }),
    }
}
