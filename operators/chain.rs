//! All operators of one key as one state: each pushes what it gives right into the next.
//!
//! ```text
//! input ─► gate ─(changes that are due)─► operator ─► operator ─► ... ─► Out
//!           └► waits for older ones
//! ```
//! No buffer lies between two operators: a row has been through all of them before the next one comes. The chain knows
//! which changes hold and which wait for their moment, and is saved and taken up as a whole.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::{Change, ChangeAt, ChangeKind, Effect, InForce, Since};
use crate::links::{Links, Out, Stopwatch};
use crate::operator::{Ahead, Collector, Context, Instrument, Operator, RestoreError, load, save};
use crate::parameters::Parameters;
use crate::prefetch::fetch;
use crate::row::Row;
use crate::time::Time;

/// Under this name the state of a chain is saved.
pub const SECTION: &str = "chain";

/// An input of a chain: it has times, and remembers which changes stand before it in the log.
pub trait GateInput {
    /// Its own time, before it has passed the gate.
    fn event_time(&self) -> Time;
    /// The clock of its key when it passes the gate.
    fn clock(&self) -> Time;
    /// Fraction digits with which its times are printed.
    fn digits(&self) -> u8;
    /// The number of the newest change that stands before it in the log.
    fn behind(&self) -> u32;
    fn set_behind(&mut self, number: u32);
}

impl GateInput for Row {
    fn event_time(&self) -> Time {
        self.event_time
    }

    fn clock(&self) -> Time {
        self.clock
    }

    fn digits(&self) -> u8 {
        self.digits
    }

    fn behind(&self) -> u32 {
        self.behind
    }

    fn set_behind(&mut self, number: u32) {
        self.behind = number;
    }
}

/// The first operator of a chain: it decides which inputs go on, when, and in which order.
pub trait Gate<S = Instrument>:
    Operator<S, Input = <Self as Gate<S>>::Item, Output = <Self as Gate<S>>::Item>
{
    type Item: GateInput;

    /// A part of the log is gone: nothing that follows has to do with what came before.
    fn on_lost_log(&mut self, out: &mut impl Collector<Self::Item>);

    /// How many inputs wait inside for others; each is counted as buffered meanwhile.
    fn waiting(&self) -> usize;

    /// Where in its log the oldest input stands that was taken and is still waiting; `None`: none waits.
    fn oldest_waiting(&self) -> Option<u64>;
}

/// The state of one key: a gate, the operators behind it, and what is in force for them.
#[derive(Clone, Debug)]
pub struct Chain<G, L, S = Instrument> {
    gate: G,
    behind: Behind<L>,
    subject: PhantomData<S>,
}

/// All that lies behind the gate.
#[derive(Clone, Debug)]
struct Behind<L> {
    in_force: InForce,
    /// The number of the newest change that came in.
    newest_change: u32,
    /// Changes that no input has let take effect yet, in the order of their numbers.
    pending: Vec<Arc<Change>>,
    links: L,
}

/// What is saved of a chain. Changes are named by number, so that states need not hold whole models.
#[derive(Serialize, Deserialize)]
struct Saved<G, L> {
    since: Since,
    newest_change: u32,
    pending: Vec<u32>,
    gate: G,
    links: L,
}

impl<G, L, S> Chain<G, L, S>
where
    G: Gate<S>,
    L: Links<S, Input = G::Output>,
{
    /// The state before the first input.
    pub fn new(parameters: &Arc<Parameters>, subject: &S) -> Self {
        let behind = Behind {
            in_force: InForce::configured(parameters.clone()),
            newest_change: 0,
            pending: Vec::new(),
            links: L::new(parameters, subject),
        };
        Chain { gate: G::new(parameters, subject), behind, subject: PhantomData }
    }

    /// Takes one input through all operators that it reaches.
    #[inline]
    pub fn on_input<K: Copy + Default, W: Stopwatch>(
        &mut self,
        mut input: G::Input,
        out: &mut Out<L::Output, K>,
        watch: &mut W,
    ) {
        input.set_behind(self.behind.newest_change);
        watch.enter(L::COUNT);
        let mut gated = Gated { behind: &mut self.behind, out, watch, subject: PhantomData };
        self.gate.on_input(input, &mut gated);
        watch.leave();
    }

    /// Keeps a change until an input behind it in the log passes the gate at a time at which it is due.
    pub fn on_change<K: Copy + Default, W: Stopwatch>(
        &mut self,
        change: &Arc<Change>,
        out: &mut Out<L::Output, K>,
        watch: &mut W,
    ) {
        if matches!(change.kind, ChangeKind::StateLost) {
            watch.enter(L::COUNT);
            let mut gated = Gated { behind: &mut self.behind, out, watch, subject: PhantomData };
            self.gate.on_lost_log(&mut gated);
            watch.leave();
        }
        self.behind.newest_change = change.number;
        self.behind.pending.push(change.clone());
    }

    /// The log has ended: what waits goes on.
    pub fn on_end<K: Copy + Default, W: Stopwatch>(&mut self, out: &mut Out<L::Output, K>, watch: &mut W) {
        watch.enter(L::COUNT);
        let mut gated = Gated { behind: &mut self.behind, out, watch, subject: PhantomData };
        self.gate.on_end(&mut gated);
        watch.leave();
        let Behind { in_force, links, .. } = &mut self.behind;
        links.end(in_force, out, watch);
    }

    /// Asks for the memory that an input is going to need which comes some inputs after the one at hand: called once for
    /// each [`Ahead`], the farthest first.
    #[inline]
    pub fn fetch(&self, coming: &G::Input, ahead: Ahead) {
        if ahead == Ahead::Far {
            fetch(&self.behind.in_force);
            fetch(&self.behind.pending);
        }
        self.gate.fetch(coming.event_time(), ahead);
        self.behind.links.fetch(coming.event_time(), ahead);
    }

    /// How many inputs wait for others.
    pub fn waiting(&self) -> usize {
        self.gate.waiting()
    }

    /// Where in its log the oldest input stands that waits for others; `None`: none waits.
    pub fn oldest_waiting(&self) -> Option<u64> {
        self.gate.oldest_waiting()
    }

    /// Appends the state to `bytes`, bit for bit.
    pub fn save(&self, bytes: &mut Vec<u8>) {
        let Chain { gate, behind: Behind { in_force, newest_change, pending, links }, .. } = self;
        let pending = pending.iter().map(|change| change.number).collect();
        save(&Saved { since: in_force.since, newest_change: *newest_change, pending, gate, links }, bytes);
    }

    /// Reads a state that [`Chain::save`] wrote. `parameters` are those of the configuration; where the state's own came
    /// from changes, they are found among `changes`.
    ///
    /// # Errors
    /// When the bytes are no state of this chain, or of other settings, or name a change that is not there.
    pub fn restore(
        parameters: &Arc<Parameters>,
        changes: &[Arc<Change>],
        subject: &S,
        bytes: &[u8],
    ) -> Result<Self, RestoreError> {
        let Saved { since, newest_change, pending, mut gate, mut links }: Saved<G, L> = load(SECTION, bytes)?;
        let mut in_force = InForce::configured(parameters.clone());
        // All parameters first: a model or rules from elsewhere took effect behind them, even where their change is older.
        let parts: [fn(&Since) -> u32; 3] =
            [|since| since.settings, |since| since.model, |since| since.rules];
        for number_of in parts {
            if number_of(&in_force.since) != number_of(&since) {
                let change = find(changes, number_of(&since))?;
                in_force = in_force.after(&change);
            }
        }
        if in_force.since != since {
            let why = "it names changes that do not say what it needs".to_owned();
            return Err(RestoreError::Unreadable { operator: SECTION, why });
        }
        let pending = pending.into_iter().map(|number| find(changes, number)).collect::<Result<_, _>>()?;
        gate.resume(&in_force.parameters, subject).map_err(|mismatch| mismatch.of(G::NAME))?;
        links.resume(&in_force.parameters, subject)?;
        let behind = Behind { in_force, newest_change, pending, links };
        Ok(Chain { gate, behind, subject: PhantomData })
    }

    /// The operators' names, in their order.
    pub fn names() -> Vec<&'static str> {
        let mut names = vec![G::NAME];
        L::names(&mut names);
        names
    }
}

fn find(changes: &[Arc<Change>], number: u32) -> Result<Arc<Change>, RestoreError> {
    changes.iter().find(|change| change.number == number).cloned().ok_or_else(|| {
        let why = format!("it names change {number}, which is not there");
        RestoreError::Unreadable { operator: SECTION, why }
    })
}

/// What the gate pushes into.
struct Gated<'a, S, L: Links<S>, K, W> {
    behind: &'a mut Behind<L>,
    out: &'a mut Out<L::Output, K>,
    watch: &'a mut W,
    subject: PhantomData<S>,
}

impl<S, L: Links<S>, K: Copy + Default, W: Stopwatch> Collector<L::Input> for Gated<'_, S, L, K, W>
where
    L::Input: GateInput,
{
    #[inline]
    fn push(&mut self, input: L::Input) {
        if !self.behind.pending.is_empty() {
            self.take_effect(&input);
        }
        let Behind { in_force, links, .. } = &mut *self.behind;
        links.push(input, in_force, self.out, self.watch);
    }

    fn context(&mut self) -> &mut Context {
        &mut self.out.context
    }

    fn in_force(&self) -> &InForce {
        &self.behind.in_force
    }
}

impl<S, L: Links<S>, K: Copy + Default, W: Stopwatch> Gated<'_, S, L, K, W>
where
    L::Input: GateInput,
{
    /// Puts in force what takes effect at an input, in the order of the moments that changes waited for: a key that comes
    /// late to several ends up with the same one in force as the others.
    #[cold]
    fn take_effect(&mut self, input: &L::Input) {
        let Behind { in_force, pending, links, .. } = &mut *self.behind;
        let (at, digits) = (input.clock(), input.digits());
        let reached = |change: &Arc<Change>| change.number <= input.behind();
        let replacing: Vec<_> = pending.iter().filter(|change| reached(change)).cloned().collect();
        pending.retain(|change| !replacing.iter().any(|newer| newer.replaces(change)));
        let mut due: Vec<_> = pending.extract_if(.., |change| reached(change) && change.is_due(at)).collect();
        due.sort_by_key(|change| (change.effective_at, change.number));
        for change in due {
            let next = in_force.after(&change);
            let effect =
                Effect { change: &change, before: &in_force.parameters, now: &next.parameters, at, digits };
            links.change(&effect, in_force, self.out, self.watch);
            *in_force = next;
            let (before, order) = (self.out.values.len() as u32, self.out.context.order);
            self.out.changes.push(ChangeAt { key: self.out.key, before, order, at, digits, change });
        }
    }
}
