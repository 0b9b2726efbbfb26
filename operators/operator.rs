//! The shape of an operator: a state machine for the rows of one instrument.

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::account::{DeadLetter, Ledger, Reason};
use crate::change::{Change, ChangeAt};
use crate::prefetch::fetch_all;
use crate::row::{Channel, InstrumentId, Row};
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
    /// The channel whose rows are ticks; `None`: the first quote channel that the log carries.
    pub quote_channel: Option<Channel>,
    /// The channel that trades are counted from; `None`: the first that the log carries.
    pub trade_channel: Option<Channel>,
    /// The longest silence that is no gap; `None`: silences are never gaps.
    pub gap_after: Option<Nanos>,
}

/// A value and the row that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tagged<T> {
    pub instrument: InstrumentId,
    /// Position in the batch of the causing row: outputs are written in this order.
    pub order: u32,
    pub value: T,
}

/// What an operator gives: values tagged with the row being processed, and entries in the account.
#[derive(Debug)]
pub struct Out<T> {
    instrument: InstrumentId,
    order: u32,
    pub values: Vec<Tagged<T>>,
    /// Changes that the next operator is to take, in the order of their places.
    pub changes: Vec<ChangeAt>,
    pub ledger: Ledger,
}

impl<T> Default for Out<T> {
    fn default() -> Self {
        Out::with_ledger(Ledger::default(), 0)
    }
}

impl<T> Out<T> {
    /// An output that adds to an account already begun, with room for `capacity` values.
    pub fn with_ledger(ledger: Ledger, capacity: usize) -> Self {
        let (values, changes) = (Vec::with_capacity(capacity), Vec::new());
        Out { instrument: InstrumentId(0), order: 0, values, changes, ledger }
    }

    /// Names the row that causes what follows.
    pub fn tag(&mut self, instrument: InstrumentId, order: u32) {
        self.instrument = instrument;
        self.order = order;
    }

    /// Gives one value.
    pub fn give(&mut self, value: T) {
        self.values.push(Tagged { instrument: self.instrument, order: self.order, value });
    }

    /// Passes a change on: it stands before the value that is given next.
    pub fn pass(&mut self, placed: &ChangeAt) {
        let before = self.values.len() as u32;
        self.changes.push(ChangeAt { before, order: self.order, ..placed.clone() });
    }

    /// Places a change before the value that is given next.
    pub fn place(&mut self, at: Time, digits: u8, change: Arc<Change>) {
        let (before, order) = (self.values.len() as u32, self.order);
        self.changes.push(ChangeAt { instrument: self.instrument, before, order, at, digits, change });
    }

    /// Files a dead letter for a row of the batch being processed; the caller counts its fate.
    pub fn refuse(&mut self, row: &Row, reason: Reason, detail: String) {
        let (source, index, extent) = (row.source, row.index, row.extent);
        self.ledger.refuse(DeadLetter { order: self.order, reason, detail, source, index, extent });
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

/// A state machine for one instrument. It sees the instrument's rows in the order of the log, and nothing else.
pub trait Operator: Sized {
    /// Under this name state is saved, logged and measured.
    const NAME: &'static str;
    type Settings;
    type Input;
    type Output;

    /// The state before the instrument's first row.
    fn new(settings: &Self::Settings, instrument: &Instrument) -> Self;

    /// Takes one input and gives any number of outputs.
    fn on_input(&mut self, input: Self::Input, out: &mut Out<Self::Output>);

    /// Takes a change that holds from the next input on, and passes it on.
    fn on_change(&mut self, placed: &ChangeAt, out: &mut Out<Self::Output>) {
        out.pass(placed);
    }

    /// Asks for the memory that an input is going to need which comes some inputs after the one at hand: see
    /// [`crate::prefetch`]. Called once for each [`Ahead`], the farthest first.
    fn fetch(&self, _coming: &Self::Input, ahead: Ahead) {
        if ahead == Ahead::Far {
            fetch_all(self);
        }
    }

    /// Whether inputs may wait inside for others under these settings.
    fn may_wait(_settings: &Self::Settings) -> bool {
        false
    }

    /// Where in its log the oldest input stands that was taken and is still waiting for others; `None`: none waits.
    fn oldest_waiting(&self) -> Option<u64> {
        None
    }

    /// The log has ended: gives what was only waiting for more of it.
    fn on_end(&mut self, _out: &mut Out<Self::Output>) {}

    /// Appends the state to `bytes`, bit for bit.
    fn snapshot(&self, bytes: &mut Vec<u8>);

    /// Reads a state that [`Operator::snapshot`] wrote. `settings` are those of the configuration; where the
    /// state's own came from a change, that is found among `changes`.
    ///
    /// # Errors
    /// When the bytes are no state of this operator, or of other settings, or name a change that is not there.
    fn restore(
        settings: &Self::Settings,
        changes: &[Arc<Change>],
        instrument: &Instrument,
        bytes: &[u8],
    ) -> Result<Self, RestoreError>;
}

/// Why a saved state was not taken.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum RestoreError {
    #[error("could not read the saved state of {operator}: {why}")]
    Unreadable { operator: &'static str, why: String },
    #[error("the saved state of {operator} was made with other settings")]
    OtherSettings { operator: &'static str },
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
