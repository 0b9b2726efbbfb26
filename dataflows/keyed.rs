//! Lifts a chain for one key into a dataflow over all of a worker's keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foreshock_operators::chain::{Chain, Gate, SECTION};
use foreshock_operators::change::{Change, ChangeAt, Parameters};
use foreshock_operators::links::{Links, Out, Stopwatch, Tagged};
use foreshock_operators::operator::{Ahead, Context, RestoreError};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator as _;

use crate::batch::{Batch, BatchOrigin, SnapshotCut};
use crate::instruments::Instruments;
use crate::meter::{ChainWork, Meter};
use crate::saving::{SWEEP, Saver};
use crate::subjects::Subjects;

/// The states of so many keys stay in the processor's caches by themselves.
const FEW: usize = 64;

/// So many inputs before its own, memory of a state is asked for. Each step has the time that these inputs take.
const AHEAD: [(Ahead, usize); 3] = [(Ahead::Far, 24), (Ahead::Near, 16), (Ahead::Next, 8)];

/// The states of one worker's keys: a chain each. Knows nothing of timely.
#[derive(Debug)]
pub struct Keyed<G, L, U: Subjects = Instruments> {
    parameters: Arc<Parameters>,
    /// By shard: the parameters that its first row was met under, where they differ.
    parameters_of_shards: BTreeMap<u32, Arc<Parameters>>,
    subjects: U,
    /// By the key's index; `None` for keys of other workers.
    states: States<G, L, U>,
    /// By shard: how many inputs its states hold back. Where it is none, which is nearly always, no state is asked.
    waiting: BTreeMap<u32, i64>,
    /// Whether anybody wants to know of inputs held back.
    tracks_waiting: bool,
    saver: Option<Saver>,
    saving: Option<Saving<U::Key>>,
}

type States<G, L, U> = Vec<Option<Box<Chain<G, L, <U as Subjects>::Subject>>>>;

/// A snapshot of one shard that is not complete.
#[derive(Debug)]
struct Saving<K> {
    shard: u32,
    number: u64,
    /// Those that had a state at the cut.
    keys: Vec<K>,
    /// How many of them were looked at in their order.
    swept: usize,
    /// By the key's index: its state is still the one at the cut.
    due: Vec<bool>,
    /// Bytes that the last state took: the next ones are likely to need as much.
    room: usize,
}

impl<G, L, U> Keyed<G, L, U>
where
    U: Subjects,
    G: Gate<U::Subject>,
    L: Links<U::Subject, Input = G::Item>,
{
    /// No states yet: each key gets one with its first input.
    pub fn new(parameters: Arc<Parameters>, subjects: U) -> Self {
        Keyed {
            parameters,
            parameters_of_shards: BTreeMap::new(),
            subjects,
            states: Vec::new(),
            waiting: BTreeMap::new(),
            tracks_waiting: true,
            saver: None,
            saving: None,
        }
    }

    /// Has new keys of a shard begin with these parameters.
    pub fn assume_parameters(&mut self, shard: u32, parameters: Arc<Parameters>) {
        self.parameters_of_shards.insert(shard, parameters);
    }

    /// Whether batches are told of the oldest input that waits, which takes a look at every state.
    pub fn track_waiting(&mut self, track: bool) {
        self.tracks_waiting = track;
    }

    /// Lets go of all states of a shard.
    pub fn forget(&mut self, shard: u32) {
        self.parameters_of_shards.remove(&shard);
        self.waiting.remove(&shard);
        for key in self.subjects.of_shard(shard) {
            if let Some(state) = self.states.get_mut(U::index(key)) {
                *state = None;
            }
        }
    }

    /// Has snapshots go there.
    pub fn save_to(&mut self, saver: Saver) {
        self.saver = Some(saver);
    }

    /// Feeds a batch to the states of its keys.
    pub fn on_batch<O: BatchOrigin, W: Stopwatch>(
        &mut self,
        batch: Batch<G::Item, O, U::Key>,
        watch: &mut W,
    ) -> Batch<L::Output, O, U::Key> {
        let Batch { end, values, changes, ledger, bytes, levels, mut origin } = batch;
        if let (Some(_), Some(saver)) = (&self.saving, &self.saver) {
            saver.note_rows();
        }
        let (cut, buffered) = (origin.cut(), ledger.counts.buffered);
        let mut out =
            Out::new(Context { ledger, levels, bytes: bytes.clone(), ..Context::default() }, values.len());
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
            while let Some(change) = changes.next_if(|change| change.before <= at) {
                self.change(change, &mut out, watch);
            }
            out.tag(tagged.key, tagged.order);
            self.state(tagged.key).on_input(tagged.value, &mut out, watch);
        }
        changes.for_each(|change| self.change(change, &mut out, watch));
        if end {
            self.end(cut.map(|cut| cut.shard), &mut out, watch);
        }
        if let Some(cut) = cut {
            *self.waiting.entry(cut.shard).or_default() += out.context.ledger.counts.buffered - buffered;
        }
        origin.note_waiting(cut.and_then(|cut| self.oldest_waiting(cut.shard)));
        if let Some(cut) = cut
            && let Some(snapshot) = cut.snapshot
        {
            self.mark(cut.shard, snapshot);
        }
        let Out { values, changes, context: Context { ledger, levels, .. }, .. } = out;
        Batch { end, values, changes, ledger, bytes, levels, origin }
    }

    fn fetch(&self, coming: &Tagged<G::Item, U::Key>, ahead: Ahead) {
        if let Some(Some(state)) = self.states.get(U::index(coming.key)) {
            state.fetch(&coming.value, ahead);
        }
    }

    /// Appends the state of a key to `bytes`; nothing where it has none.
    pub fn save(&self, key: U::Key, bytes: &mut Vec<u8>) {
        if let Some(Some(state)) = self.states.get(U::index(key)) {
            state.save(bytes);
        }
    }

    /// Takes up the state of a key that [`Keyed::save`] wrote; `changes` are those that its shard keeps.
    ///
    /// # Errors
    /// As [`Chain::restore`].
    pub fn restore(
        &mut self,
        key: U::Key,
        changes: &[Arc<Change>],
        bytes: &[u8],
    ) -> Result<(), RestoreError> {
        let parameters = self.parameters_of(key);
        let state = Chain::restore(parameters, changes, &*self.subjects.subject(key), bytes)?;
        if let Some(shard) = self.subjects.shard_of(key) {
            *self.waiting.entry(shard).or_default() += state.waiting() as i64;
        }
        *self.slot(key) = Some(Box::new(state));
        Ok(())
    }

    /// The oldest message of a shard of which some state holds an input back.
    fn oldest_waiting(&self, shard: u32) -> Option<u64> {
        if !self.tracks_waiting || self.waiting.get(&shard).is_none_or(|waiting| *waiting == 0) {
            return None;
        }
        let keys = self.subjects.of_shard(shard);
        let states = keys.into_iter().filter_map(|key| self.states.get(U::index(key))?.as_ref());
        states.filter_map(|state| state.oldest_waiting()).min()
    }

    /// Saves a bit of what is still to be saved; says when to go on where there is more.
    pub fn sweep(&mut self) -> Option<Duration> {
        let (Some(saving), Some(saver)) = (&mut self.saving, &self.saver) else { return None };
        if !saver.may_sweep() {
            return Some(SWEEP);
        }
        let began = Instant::now();
        while saving.sweep_one::<G, L, U>(&self.states, saver) {
            if began.elapsed() >= SWEEP {
                saver.note_sweep();
                return Some(Duration::ZERO);
            }
        }
        self.finish_saving();
        None
    }

    /// Begins a snapshot of a shard's states as they are now.
    fn mark(&mut self, shard: u32, SnapshotCut { number, at_once }: SnapshotCut) {
        // One that is not complete by now is of an earlier cut.
        self.finish_saving();
        let Some(saver) = &self.saver else { return };
        let has_state = |key: &U::Key| self.states.get(U::index(*key)).is_some_and(Option::is_some);
        let keys: Vec<_> = self.subjects.of_shard(shard).into_iter().filter(has_state).collect();
        let mut due = vec![false; self.states.len()];
        keys.iter().for_each(|key| due[U::index(*key)] = true);
        saver.note_sweep();
        self.saving = Some(Saving { shard, number, keys, swept: 0, due, room: 0 });
        if at_once {
            self.finish_saving();
        }
    }

    fn finish_saving(&mut self) {
        let (Some(mut saving), Some(saver)) = (self.saving.take(), &self.saver) else { return };
        while saving.sweep_one::<G, L, U>(&self.states, saver) {}
        saver.end_section(saving.shard, saving.number, SECTION);
    }

    fn parameters_of(&self, key: U::Key) -> &Arc<Parameters> {
        // Most jobs never change theirs.
        if self.parameters_of_shards.is_empty() {
            return &self.parameters;
        }
        let shard = self.subjects.shard_of(key);
        shard.and_then(|shard| self.parameters_of_shards.get(&shard)).unwrap_or(&self.parameters)
    }

    fn change<W: Stopwatch>(
        &mut self,
        change: &ChangeAt<U::Key>,
        out: &mut Out<L::Output, U::Key>,
        watch: &mut W,
    ) {
        out.tag(change.key, change.order);
        self.state(change.key).on_change(&change.change, out, watch);
    }

    fn slot(&mut self, key: U::Key) -> &mut Option<Box<Chain<G, L, U::Subject>>> {
        let at = U::index(key);
        if self.states.len() <= at {
            self.states.resize_with(at + 1, || None);
        }
        &mut self.states[at]
    }

    /// The state of a key, made where there is none yet; saved first where a snapshot waits for it.
    #[inline]
    fn state(&mut self, key: U::Key) -> &mut Chain<G, L, U::Subject> {
        if let (Some(saving), Some(saver)) = (&mut self.saving, &self.saver) {
            saving.save::<G, L, U>(key, &self.states, saver);
        }
        if self.states.get(U::index(key)).is_none_or(Option::is_none) {
            let state = Chain::new(self.parameters_of(key), &*self.subjects.subject(key));
            *self.slot(key) = Some(Box::new(state));
        }
        self.states[U::index(key)].as_mut().expect("it was just made")
    }

    /// Keys end in an order that is the same in every run, whatever worker they are on; those of one shard where there
    /// are several.
    fn end<W: Stopwatch>(&mut self, shard: Option<u32>, out: &mut Out<L::Output, U::Key>, watch: &mut W) {
        for (order, key) in self.subjects.in_order().into_iter().enumerate() {
            if shard.is_some() && self.subjects.shard_of(key) != shard {
                continue;
            }
            if self.states.get(U::index(key)).is_some_and(Option::is_some) {
                out.tag(key, order as u32);
                self.state(key).on_end(out, watch);
            }
        }
    }
}

impl<K: Copy> Saving<K> {
    /// Saves a key's state, unless that is done or it had none at the cut.
    fn save<G, L, U>(&mut self, key: K, states: &States<G, L, U>, saver: &Saver)
    where
        U: Subjects<Key = K>,
        G: Gate<U::Subject>,
        L: Links<U::Subject, Input = G::Item>,
    {
        let at = U::index(key);
        let Some(due) = self.due.get_mut(at).filter(|due| **due) else { return };
        *due = false;
        if let Some(Some(state)) = states.get(at) {
            let mut bytes = saver.room();
            bytes.reserve(self.room + self.room / 8);
            state.save(&mut bytes);
            self.room = bytes.len();
            saver.key(self.shard, self.number, SECTION, at, bytes);
        }
    }

    /// Looks at the next key; `false` where there is none.
    fn sweep_one<G, L, U>(&mut self, states: &States<G, L, U>, saver: &Saver) -> bool
    where
        U: Subjects<Key = K>,
        G: Gate<U::Subject>,
        L: Links<U::Subject, Input = G::Item>,
    {
        let Some(key) = self.keys.get(self.swept).copied() else { return false };
        self.swept += 1;
        self.save::<G, L, U>(key, states, saver);
        true
    }
}

/// The states as a step of a dataflow, under this name.
pub fn keyed<'scope, G, L, U, O>(
    name: &'static str,
    batches: StreamVec<'scope, u64, Batch<G::Item, O, U::Key>>,
    mut keyed: Keyed<G, L, U>,
    meter: &Meter,
) -> StreamVec<'scope, u64, Batch<L::Output, O, U::Key>>
where
    U: Subjects<Subject: 'static> + 'static,
    G: Gate<U::Subject, Item: 'static> + 'static,
    L: Links<U::Subject, Input = G::Item, Output: Clone + 'static> + 'static,
    O: BatchOrigin + Clone + 'static,
{
    let mut work: ChainWork = meter.chain(&Chain::<G, L, U::Subject>::names());
    let scope = batches.scope();
    batches.unary(Pipeline, name, move |_capability, info| {
        let activator = scope.activator_for(info.address);
        move |input, output| {
            // In order of arrival: `for_each_stamp` would reorder.
            input.for_each(|capability, batches| {
                let mut session = output.session(&capability);
                for batch in batches.drain(..) {
                    let (started, rows) = (Instant::now(), batch.values.len());
                    let done = match work.sample() {
                        Some(mut watch) => {
                            let done = keyed.on_batch(batch, &mut watch);
                            work.learn(&watch);
                            done
                        }
                        None => keyed.on_batch(batch, &mut ()),
                    };
                    work.add(started.elapsed(), rows);
                    session.give(done);
                }
            });
            let started = Instant::now();
            let pause = keyed.sweep();
            work.add(started.elapsed(), 0);
            match pause {
                Some(Duration::ZERO) => activator.activate(),
                // Rows are on their way, or nobody takes what was found.
                Some(pause) => activator.activate_after(pause),
                None => {}
            }
        }
    })
}
