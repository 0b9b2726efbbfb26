//! Lifts an operator for one instrument into a dataflow over all of a worker's instruments.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foreshock_operators::change::{Change, ChangeAt};
use foreshock_operators::operator::{Ahead, Operator, Out, RestoreError, Tagged};
use foreshock_operators::row::InstrumentId;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator as _;

use crate::batch::{Batch, SnapshotCut};
use crate::instruments::Instruments;
use crate::meter::Meter;
use crate::saving::{SWEEP, Saver};

/// The states of so many instruments stay in the processor's caches by themselves.
const FEW: usize = 64;

/// So many inputs before its own, memory of a state is asked for. Each step has the time that these inputs take.
const AHEAD: [(Ahead, usize); 3] = [(Ahead::Far, 24), (Ahead::Near, 16), (Ahead::Next, 8)];

/// One operator's states, by instrument. Knows nothing of timely.
#[derive(Debug)]
pub struct Keyed<O: Operator> {
    settings: O::Settings,
    /// By shard: the settings that its first row was met under, where they differ.
    settings_of_shards: BTreeMap<u32, O::Settings>,
    instruments: Instruments,
    /// By instrument number; `None` for instruments of other workers.
    states: Vec<Option<Box<O>>>,
    /// Whether any state may hold rows back: most can't, and are never asked.
    may_wait: bool,
    /// Whether anybody wants to know of rows held back.
    tracks_low_watermark: bool,
    saver: Option<Saver>,
    saving: Option<Saving>,
}

/// A snapshot of one shard that is not complete.
#[derive(Debug)]
struct Saving {
    shard: u32,
    number: u64,
    /// Those that had a state at the cut.
    instruments: Vec<InstrumentId>,
    /// How many of them were looked at in their order.
    swept: usize,
    /// By instrument number: its state is still the one at the cut.
    due: Vec<bool>,
    /// Bytes that the last state took: the next ones are likely to need as much.
    room: usize,
}

impl<O: Operator> Keyed<O> {
    /// No states yet: each instrument gets one with its first row.
    pub fn new(settings: O::Settings, instruments: Instruments) -> Self {
        let may_wait = O::may_wait(&settings);
        Keyed {
            settings,
            settings_of_shards: BTreeMap::new(),
            instruments,
            states: Vec::new(),
            may_wait,
            tracks_low_watermark: true,
            saver: None,
            saving: None,
        }
    }

    /// Has new instruments of a shard begin with these settings.
    pub fn assume_settings(&mut self, shard: u32, settings: O::Settings) {
        self.may_wait |= O::may_wait(&settings);
        self.settings_of_shards.insert(shard, settings);
    }

    /// Is never asked for the oldest row that waits, which takes a look at every state.
    pub fn skip_low_watermark(&mut self) {
        self.tracks_low_watermark = false;
    }

    /// Lets go of all states of a shard.
    pub fn forget(&mut self, shard: u32) {
        self.settings_of_shards.remove(&shard);
        for id in self.instruments.of_shard(shard) {
            if let Some(state) = self.states.get_mut(id.0 as usize) {
                *state = None;
            }
        }
    }

    /// Has snapshots go there.
    pub fn save_to(&mut self, saver: Saver) {
        self.saver = Some(saver);
    }

    /// Feeds a batch to the states of its instruments.
    pub fn on_batch(&mut self, batch: Batch<O::Input>) -> Batch<O::Output> {
        let Batch { epoch, worker, end, values, changes, records, answers, ledger, bytes, waiting, segment } =
            batch;
        if let (Some(_), Some(saver)) = (&self.saving, &self.saver) {
            saver.note_rows();
        }
        let mut out = Out::with_ledger(ledger, values.len());
        let mut changes = changes.iter().peekable();
        let mut values = values.into_iter();
        let are_many = self.states.len() > FEW;
        if are_many {
            for (ahead, distance) in AHEAD {
                values.as_slice().iter().take(distance).for_each(|tagged| self.fetch(tagged, ahead));
            }
        }
        for at in 0_u32.. {
            if are_many {
                for (ahead, distance) in AHEAD {
                    values.as_slice().get(distance).into_iter().for_each(|tagged| self.fetch(tagged, ahead));
                }
            }
            let Some(tagged) = values.next() else { break };
            while let Some(placed) = changes.next_if(|placed| placed.before <= at) {
                self.change(placed, &mut out);
            }
            out.tag(tagged.instrument, tagged.order);
            self.state(tagged.instrument).on_input(tagged.value, &mut out);
        }
        changes.for_each(|placed| self.change(placed, &mut out));
        if end {
            self.end(segment.as_ref().map(|segment| segment.cut.shard), &mut out);
        }
        let shard = segment.as_ref().map(|segment| segment.cut.shard);
        let waiting =
            [waiting, shard.and_then(|shard| self.oldest_waiting(shard))].into_iter().flatten().min();
        if let Some(cut) = segment.as_ref().map(|segment| segment.cut)
            && let Some(snapshot) = cut.snapshot
        {
            self.mark(cut.shard, snapshot);
        }
        let Out { values, changes, ledger, .. } = out;
        Batch { epoch, worker, end, values, changes, records, answers, ledger, bytes, waiting, segment }
    }

    fn fetch(&self, coming: &Tagged<O::Input>, ahead: Ahead) {
        if let Some(Some(state)) = self.states.get(coming.instrument.0 as usize) {
            state.fetch(&coming.value, ahead);
        }
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
    pub fn restore(
        &mut self,
        instrument: InstrumentId,
        changes: &[Arc<Change>],
        bytes: &[u8],
    ) -> Result<(), RestoreError> {
        let settings = self.settings_of(instrument);
        let state = O::restore(settings, changes, &self.instruments.get(instrument), bytes)?;
        *self.slot(instrument) = Some(Box::new(state));
        Ok(())
    }

    /// The oldest message of a shard of which some state holds a row back.
    fn oldest_waiting(&self, shard: u32) -> Option<u64> {
        if !self.may_wait || !self.tracks_low_watermark {
            return None;
        }
        let states = self.states.iter().zip(0..).filter_map(|(state, id)| Some((state.as_ref()?, id)));
        let of_shard = states.filter(|(_, id)| self.instruments.owner(InstrumentId(*id)) == Some(shard));
        of_shard.filter_map(|(state, _)| state.oldest_waiting()).min()
    }

    /// Saves a bit of what is still to be saved; says when to go on where there is more.
    pub fn sweep(&mut self) -> Option<Duration> {
        let (Some(saving), Some(saver)) = (&mut self.saving, &self.saver) else { return None };
        if saver.may_sweep(O::NAME) {
            let began = Instant::now();
            while saving.sweep_one(&self.states, saver) {
                if began.elapsed() >= SWEEP {
                    saver.note_sweep();
                    return Some(Duration::ZERO);
                }
            }
            self.finish_saving();
            return None;
        }
        Some(SWEEP)
    }

    /// Begins a snapshot of a shard's states as they are now.
    fn mark(&mut self, shard: u32, SnapshotCut { number, at_once }: SnapshotCut) {
        // One that is not complete by now is of an earlier cut.
        self.finish_saving();
        let Some(saver) = &self.saver else { return };
        let has_state = |id: &InstrumentId| self.states.get(id.0 as usize).is_some_and(Option::is_some);
        let instruments: Vec<_> = self.instruments.of_shard(shard).into_iter().filter(has_state).collect();
        let mut due = vec![false; self.states.len()];
        instruments.iter().for_each(|id| due[id.0 as usize] = true);
        saver.begin_section(O::NAME);
        self.saving = Some(Saving { shard, number, instruments, swept: 0, due, room: 0 });
        if at_once {
            self.finish_saving();
        }
    }

    fn finish_saving(&mut self) {
        let (Some(mut saving), Some(saver)) = (self.saving.take(), &self.saver) else { return };
        while saving.sweep_one(&self.states, saver) {}
        saver.end_section(saving.shard, saving.number, O::NAME);
    }

    fn settings_of(&self, id: InstrumentId) -> &O::Settings {
        // Most jobs never change theirs.
        if self.settings_of_shards.is_empty() {
            return &self.settings;
        }
        let owner = self.instruments.owner(id);
        owner.and_then(|shard| self.settings_of_shards.get(&shard)).unwrap_or(&self.settings)
    }

    fn change(&mut self, placed: &ChangeAt, out: &mut Out<O::Output>) {
        // A change may have rows wait that did not before.
        self.may_wait |= placed.change.parameters().is_some();
        out.tag(placed.instrument, placed.order);
        self.state(placed.instrument).on_change(placed, out);
    }

    fn state(&mut self, id: InstrumentId) -> &mut O {
        let at = id.0 as usize;
        if let (Some(saving), Some(saver)) = (&mut self.saving, &self.saver) {
            saving.save(id, &self.states, saver);
        }
        if self.states.get(at).is_none_or(Option::is_none) {
            let state = O::new(self.settings_of(id), &self.instruments.get(id));
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
            if shard.is_some() && self.instruments.owner(instrument.id) != shard {
                continue;
            }
            if self.states.get(instrument.id.0 as usize).is_some_and(Option::is_some) {
                out.tag(instrument.id, order as u32);
                self.state(instrument.id).on_end(out);
            }
        }
    }
}

impl Saving {
    /// Saves an instrument's state, unless that is done or it had none at the cut.
    fn save<O: Operator>(&mut self, id: InstrumentId, states: &[Option<Box<O>>], saver: &Saver) {
        let at = id.0 as usize;
        let Some(due) = self.due.get_mut(at).filter(|due| **due) else { return };
        *due = false;
        if let Some(Some(state)) = states.get(at) {
            let mut bytes = saver.room(O::NAME);
            bytes.reserve(self.room + self.room / 8);
            state.snapshot(&mut bytes);
            self.room = bytes.len();
            saver.instrument(self.shard, self.number, O::NAME, id, bytes);
        }
    }

    /// Looks at the next instrument; `false` where there is none.
    fn sweep_one<O: Operator>(&mut self, states: &[Option<Box<O>>], saver: &Saver) -> bool {
        let Some(id) = self.instruments.get(self.swept).copied() else { return false };
        self.swept += 1;
        self.save(id, states, saver);
        true
    }
}

/// An operator as a step of a dataflow: one state an instrument, under the operator's name.
pub fn keyed<'scope, O>(
    batches: StreamVec<'scope, u64, Batch<O::Input>>,
    mut keyed: Keyed<O>,
    meter: &Meter,
) -> StreamVec<'scope, u64, Batch<O::Output>>
where
    O: Operator + 'static,
    O::Settings: 'static,
    O::Input: 'static,
    O::Output: Clone + 'static,
{
    let time = meter.operator(O::NAME);
    let scope = batches.scope();
    batches.unary(Pipeline, O::NAME, move |_capability, info| {
        let activator = scope.activator_for(info.address);
        move |input, output| {
            // In order of arrival: `for_each_stamp` would reorder.
            input.for_each(|capability, batches| {
                let mut session = output.session(&capability);
                for batch in batches.drain(..) {
                    session.give(time.measure(|| keyed.on_batch(batch)));
                }
            });
            match time.measure(|| keyed.sweep()) {
                Some(Duration::ZERO) => activator.activate(),
                // Another operator's turn, or nobody takes what was found.
                Some(pause) => activator.activate_after(pause),
                None => {}
            }
        }
    })
}
