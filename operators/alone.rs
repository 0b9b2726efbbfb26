//! An operator run by itself, without a chain: how it is tried, measured and shown.

use std::sync::Arc;

use crate::account::Ledger;
use crate::change::{Change, Effect, InForce};
use crate::links::Out;
use crate::operator::{Collector, Context, Instrument, Operator, RestoreError, load, save};
use crate::parameters::Parameters;
use crate::row::InstrumentId;
use crate::time::Time;

/// An operator of one instrument, and what it has given so far.
#[derive(Debug)]
pub struct Alone<O: Operator> {
    pub operator: O,
    pub out: Out<O::Output>,
    in_force: InForce,
}

impl<O: Operator> Alone<O> {
    /// The operator before its first input.
    pub fn new(parameters: &Arc<Parameters>, instrument: &Instrument) -> Alone<O> {
        Alone::of(O::new(parameters, instrument), parameters)
    }

    fn of(operator: O, parameters: &Arc<Parameters>) -> Alone<O> {
        let in_force = InForce::configured(parameters.clone());
        Alone { operator, out: Out::new(Context::default(), 0), in_force }
    }

    /// Goes on with an account already begun.
    pub fn with_ledger(mut self, ledger: Ledger) -> Alone<O> {
        self.out.context.ledger = ledger;
        self
    }

    /// Feeds one input, which stands at this position of its batch.
    pub fn feed(&mut self, key: InstrumentId, order: u32, input: O::Input) {
        self.out.tag(key, order);
        let mut given = Given { out: &mut self.out, in_force: &self.in_force };
        self.operator.on_input(input, &mut given);
    }

    /// Ends the log.
    pub fn end(&mut self) {
        let mut given = Given { out: &mut self.out, in_force: &self.in_force };
        self.operator.on_end(&mut given);
    }

    /// Has a change take effect at this moment.
    pub fn change(&mut self, change: &Arc<Change>, at: Time, digits: u8) {
        let next = self.in_force.after(change);
        let effect = Effect { change, before: &self.in_force.parameters, now: &next.parameters, at, digits };
        let mut given = Given { out: &mut self.out, in_force: &self.in_force };
        self.operator.on_change(&effect, &mut given);
        self.in_force = next;
    }

    /// The operator's state, as a chain saves it.
    pub fn saved(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        save(&self.operator, &mut bytes);
        bytes
    }

    /// Takes up a state that [`Alone::saved`] has given.
    ///
    /// # Errors
    /// When the bytes are no state of this operator, or of other settings.
    pub fn restore(
        parameters: &Arc<Parameters>,
        instrument: &Instrument,
        bytes: &[u8],
    ) -> Result<Alone<O>, RestoreError> {
        let mut operator: O = load(O::NAME, bytes)?;
        operator.resume(parameters, instrument).map_err(|mismatch| mismatch.of(O::NAME))?;
        Ok(Alone::of(operator, parameters))
    }
}

/// Takes what an operator gives.
struct Given<'a, T> {
    out: &'a mut Out<T>,
    in_force: &'a InForce,
}

impl<T> Collector<T> for Given<'_, T> {
    fn push(&mut self, value: T) {
        self.out.give(value);
    }

    fn context(&mut self) -> &mut Context {
        &mut self.out.context
    }

    fn in_force(&self) -> &InForce {
        self.in_force
    }
}
