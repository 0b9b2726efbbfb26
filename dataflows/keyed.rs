//! Lifts an operator for one instrument into a dataflow over all of a worker's instruments.

use foreshock_operators::operator::{Operator, Out, RestoreError};
use foreshock_operators::row::InstrumentId;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator as _;

use crate::batch::Batch;
use crate::instruments::Instruments;
use crate::meter::Meter;

/// One operator's states, by instrument. Knows nothing of timely.
#[derive(Debug)]
pub struct Keyed<O: Operator> {
    settings: O::Settings,
    instruments: Instruments,
    /// By instrument number; `None` for instruments of other workers.
    states: Vec<Option<Box<O>>>,
    /// Whether any state may hold rows back: most can't, and are never asked.
    may_wait: bool,
}

impl<O: Operator> Keyed<O> {
    /// No states yet: each instrument gets one with its first row.
    pub fn new(settings: O::Settings, instruments: Instruments) -> Self {
        let may_wait = O::may_wait(&settings);
        Keyed { settings, instruments, states: Vec::new(), may_wait }
    }

    /// Feeds a batch to the states of its instruments.
    pub fn on_batch(&mut self, batch: Batch<O::Input>) -> Batch<O::Output> {
        let Batch { epoch, worker, end, values, ledger, bytes, waiting, stretch } = batch;
        let mut out = Out::with_ledger(ledger, values.len());
        for tagged in values {
            out.tag(tagged.instrument, tagged.order);
            self.state(tagged.instrument).on_input(tagged.value, &mut out);
        }
        if end {
            self.end(stretch.as_ref().map(|stretch| stretch.cut.shard), &mut out);
        }
        let shard = stretch.as_ref().map(|stretch| stretch.cut.shard);
        let waiting =
            [waiting, shard.and_then(|shard| self.oldest_waiting(shard))].into_iter().flatten().min();
        Batch { epoch, worker, end, values: out.values, ledger: out.ledger, bytes, waiting, stretch }
    }

    /// Appends the state of an instrument to `bytes`; nothing where it has none.
    pub fn snapshot(&self, instrument: InstrumentId, bytes: &mut Vec<u8>) {
        if let Some(Some(state)) = self.states.get(instrument.0 as usize) {
            state.snapshot(bytes);
        }
    }

    /// Takes up the state of an instrument that [`Keyed::snapshot`] wrote.
    ///
    /// # Errors
    /// As [`Operator::restore`].
    pub fn restore(&mut self, instrument: InstrumentId, bytes: &[u8]) -> Result<(), RestoreError> {
        let state = O::restore(&self.settings, &[], &self.instruments.get(instrument), bytes)?;
        *self.slot(instrument) = Some(Box::new(state));
        Ok(())
    }

    /// The oldest message of a shard of which some state holds a row back.
    fn oldest_waiting(&self, shard: u32) -> Option<u64> {
        if !self.may_wait {
            return None;
        }
        let states = self.states.iter().zip(0..).filter_map(|(state, id)| Some((state.as_ref()?, id)));
        let of_shard = states.filter(|(_, id)| self.instruments.home(InstrumentId(*id)) == Some(shard));
        of_shard.filter_map(|(state, _)| state.oldest_waiting()).min()
    }

    fn state(&mut self, id: InstrumentId) -> &mut O {
        let at = id.0 as usize;
        if self.states.get(at).is_none_or(Option::is_none) {
            let state = O::new(&self.settings, &self.instruments.get(id));
            *self.slot(id) = Some(Box::new(state));
        }
        self.states[at].as_mut().expect("the slot was just filled")
    }

    fn slot(&mut self, id: InstrumentId) -> &mut Option<Box<O>> {
        let at = id.0 as usize;
        if self.states.len() <= at {
            self.states.resize_with(at + 1, || None);
        }
        &mut self.states[at]
    }

    /// Instruments end in the order of their names, whatever worker they are on; those of one shard where there
    /// are several.
    fn end(&mut self, shard: Option<u32>, out: &mut Out<O::Output>) {
        for (order, instrument) in self.instruments.by_name().into_iter().enumerate() {
            if shard.is_some() && self.instruments.home(instrument.id) != shard {
                continue;
            }
            if let Some(Some(state)) = self.states.get_mut(instrument.id.0 as usize) {
                out.tag(instrument.id, order as u32);
                state.on_end(out);
            }
        }
    }
}

/// An operator as a step of a dataflow: one state an instrument, under the operator's name.
pub fn keyed<'scope, O>(
    batches: StreamVec<'scope, u64, Batch<O::Input>>,
    settings: O::Settings,
    instruments: Instruments,
    meter: &Meter,
) -> StreamVec<'scope, u64, Batch<O::Output>>
where
    O: Operator + 'static,
    O::Settings: 'static,
    O::Input: 'static,
    O::Output: Clone + 'static,
{
    let time = meter.operator(O::NAME);
    batches.unary(Pipeline, O::NAME, move |_capability, _info| {
        let mut keyed = Keyed::<O>::new(settings, instruments);
        move |input, output| {
            // In order of arrival: `for_each_stamp` would reorder.
            input.for_each(|capability, batches| {
                let mut session = output.session(&capability);
                for batch in batches.drain(..) {
                    session.give(time.measure(|| keyed.on_batch(batch)));
                }
            });
        }
    })
}
