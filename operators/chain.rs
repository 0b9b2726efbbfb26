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
use crate::operator::{Ahead, Collector, Context, Instrument, Operator, RestoreError, load, save};
use crate::parameters::Parameters;
use crate::prefetch::fetch;
use crate::row::{InstrumentId, Row};
use crate::time::Time;

/// The operators behind a gate, in their order: `links![Gaps, FeatureWindows]`; of another subject than instruments:
/// `links![Pair: Basis]`.
#[macro_export]
macro_rules! links {
    ($last:ty $(,)?) => { $crate::chain::Link<$last, $crate::chain::ChainEnd<<$last as $crate::operator::Operator>::Output>> };
    ($first:ty, $($rest:ty),+ $(,)?) => { $crate::chain::Link<$first, $crate::links![$($rest),+]> };
    ($subject:ty: $last:ty $(,)?) => {
        $crate::chain::Link<$last, $crate::chain::ChainEnd<<$last as $crate::operator::Operator<$subject>>::Output>>
    };
    ($subject:ty: $first:ty, $($rest:ty),+ $(,)?) => { $crate::chain::Link<$first, $crate::links![$subject: $($rest),+]> };
}

/// Under this name the state of a chain is saved.
pub const SECTION: &str = "chain";

/// A value and the input that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tagged<T, K = InstrumentId> {
    pub key: K,
    /// Position in the batch of the causing row: outputs are written in this order.
    pub order: u32,
    pub value: T,
}

/// What comes out of chains: values tagged with their cause, the changes that took effect, the account.
#[derive(Debug)]
pub struct Out<T, K = InstrumentId> {
    key: K,
    pub values: Vec<Tagged<T, K>>,
    /// Changes that took effect, each before the value that it names, in the order of their places.
    pub changes: Vec<ChangeAt<K>>,
    pub context: Context,
}

impl<T, K: Copy + Default> Out<T, K> {
    /// Nothing yet, in this context, with room for `capacity` values.
    pub fn new(context: Context, capacity: usize) -> Self {
        Out { key: K::default(), values: Vec::with_capacity(capacity), changes: Vec::new(), context }
    }

    /// Names the input that causes what follows.
    pub fn tag(&mut self, key: K, order: u32) {
        self.key = key;
        self.context.order = order;
    }

    pub(crate) fn give(&mut self, value: T) {
        self.values.push(Tagged { key: self.key, order: self.context.order, value });
    }
}

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

    /// Whether inputs may wait inside for others under these parameters.
    fn may_wait(parameters: &Parameters) -> bool;

    /// Where in its log the oldest input stands that was taken and is still waiting; `None`: none waits.
    fn oldest_waiting(&self) -> Option<u64>;
}

/// Says where time goes in a chain, if anybody wants to know: this crate reads no clock.
pub trait Stopwatch {
    /// The operator with so many behind it begins to work.
    fn enter(&mut self, behind: usize);
    /// It has ended, and the one that pushed into it goes on.
    fn leave(&mut self);
}

/// Nobody wants to know.
impl Stopwatch for () {
    #[inline(always)]
    fn enter(&mut self, _: usize) {}

    #[inline(always)]
    fn leave(&mut self) {}
}

/// Operators behind each other.
pub trait Links<S>: Serialize + for<'de> Deserialize<'de> {
    type Input;
    type Output;
    /// How many operators there are.
    const COUNT: usize;

    fn new(parameters: &Parameters, subject: &S) -> Self;

    fn push<K: Copy + Default, W: Stopwatch>(
        &mut self,
        input: Self::Input,
        in_force: &InForce,
        out: &mut Out<Self::Output, K>,
        watch: &mut W,
    );

    /// A change takes effect, operator by operator; `in_force` is what held before.
    fn change<K: Copy + Default, W: Stopwatch>(
        &mut self,
        effect: &Effect,
        in_force: &InForce,
        out: &mut Out<Self::Output, K>,
        watch: &mut W,
    );

    fn end<K: Copy + Default, W: Stopwatch>(
        &mut self,
        in_force: &InForce,
        out: &mut Out<Self::Output, K>,
        watch: &mut W,
    );

    /// # Errors
    /// As [`Operator::resume`].
    fn resume(&mut self, parameters: &Parameters, subject: &S) -> Result<(), RestoreError>;

    fn fetch(&self, time: Time, ahead: Ahead);

    /// Appends the operators' names in their order.
    fn names(names: &mut Vec<&'static str>);
}

/// An operator and those behind it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Link<O, R> {
    operator: O,
    rest: R,
}

/// Behind the last operator: what it gave is given.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct ChainEnd<T>(PhantomData<T>);

impl<T> Clone for ChainEnd<T> {
    fn clone(&self) -> Self {
        ChainEnd(PhantomData)
    }
}

impl<S, O, R> Links<S> for Link<O, R>
where
    O: Operator<S>,
    R: Links<S, Input = O::Output>,
{
    type Input = O::Input;
    type Output = R::Output;
    const COUNT: usize = 1 + R::COUNT;

    fn new(parameters: &Parameters, subject: &S) -> Self {
        Link { operator: O::new(parameters, subject), rest: R::new(parameters, subject) }
    }

    #[inline]
    fn push<K: Copy + Default, W: Stopwatch>(
        &mut self,
        input: O::Input,
        in_force: &InForce,
        out: &mut Out<R::Output, K>,
        watch: &mut W,
    ) {
        watch.enter(R::COUNT);
        let mut next = Next { links: &mut self.rest, in_force, out, watch, subject: PhantomData };
        self.operator.on_input(input, &mut next);
        watch.leave();
    }

    fn change<K: Copy + Default, W: Stopwatch>(
        &mut self,
        effect: &Effect,
        in_force: &InForce,
        out: &mut Out<R::Output, K>,
        watch: &mut W,
    ) {
        watch.enter(R::COUNT);
        let mut next = Next { links: &mut self.rest, in_force, out, watch, subject: PhantomData };
        self.operator.on_change(effect, &mut next);
        watch.leave();
        self.rest.change(effect, in_force, out, watch);
    }

    fn end<K: Copy + Default, W: Stopwatch>(
        &mut self,
        in_force: &InForce,
        out: &mut Out<R::Output, K>,
        watch: &mut W,
    ) {
        watch.enter(R::COUNT);
        let mut next = Next { links: &mut self.rest, in_force, out, watch, subject: PhantomData };
        self.operator.on_end(&mut next);
        watch.leave();
        self.rest.end(in_force, out, watch);
    }

    fn resume(&mut self, parameters: &Parameters, subject: &S) -> Result<(), RestoreError> {
        self.operator.resume(parameters, subject).map_err(|mismatch| mismatch.of(O::NAME))?;
        self.rest.resume(parameters, subject)
    }

    #[inline]
    fn fetch(&self, time: Time, ahead: Ahead) {
        self.operator.fetch(time, ahead);
        self.rest.fetch(time, ahead);
    }

    fn names(names: &mut Vec<&'static str>) {
        names.push(O::NAME);
        R::names(names);
    }
}

impl<S, T> Links<S> for ChainEnd<T> {
    type Input = T;
    type Output = T;
    const COUNT: usize = 0;

    fn new(_: &Parameters, _: &S) -> Self {
        ChainEnd(PhantomData)
    }

    #[inline]
    fn push<K: Copy + Default, W: Stopwatch>(
        &mut self,
        value: T,
        _: &InForce,
        out: &mut Out<T, K>,
        _: &mut W,
    ) {
        out.give(value);
    }

    fn change<K: Copy + Default, W: Stopwatch>(
        &mut self,
        _: &Effect,
        _: &InForce,
        _: &mut Out<T, K>,
        _: &mut W,
    ) {
    }

    fn end<K: Copy + Default, W: Stopwatch>(&mut self, _: &InForce, _: &mut Out<T, K>, _: &mut W) {}

    fn resume(&mut self, _: &Parameters, _: &S) -> Result<(), RestoreError> {
        Ok(())
    }

    fn fetch(&self, _: Time, _: Ahead) {}

    fn names(_: &mut Vec<&'static str>) {}
}

/// The operators behind one, as it sees them.
struct Next<'a, S, R: Links<S>, K, W> {
    links: &'a mut R,
    in_force: &'a InForce,
    out: &'a mut Out<R::Output, K>,
    watch: &'a mut W,
    subject: PhantomData<S>,
}

impl<S, R: Links<S>, K: Copy + Default, W: Stopwatch> Collector<R::Input> for Next<'_, S, R, K, W> {
    #[inline]
    fn push(&mut self, value: R::Input) {
        self.links.push(value, self.in_force, self.out, self.watch);
    }

    fn context(&mut self) -> &mut Context {
        &mut self.out.context
    }

    fn in_force(&self) -> &InForce {
        self.in_force
    }
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
            let mut gated = Gated { behind: &mut self.behind, out, watch, subject: PhantomData };
            self.gate.on_lost_log(&mut gated);
        }
        self.behind.newest_change = change.number;
        self.behind.pending.push(change.clone());
    }

    /// The log has ended: what waits goes on.
    pub fn on_end<K: Copy + Default, W: Stopwatch>(&mut self, out: &mut Out<L::Output, K>, watch: &mut W) {
        let mut gated = Gated { behind: &mut self.behind, out, watch, subject: PhantomData };
        self.gate.on_end(&mut gated);
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

    /// Whether inputs may wait for others under these parameters.
    pub fn may_wait(parameters: &Parameters) -> bool {
        G::may_wait(parameters)
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
