//! Operators behind each other: each pushes what it gives right into the next.
//!
//! ```text
//! Link(operator, Link(operator, ... ChainEnd)) ─► Out
//! ```

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::change::{ChangeAt, Effect, InForce};
use crate::operator::{Ahead, Collector, Context, Operator, RestoreError};
use crate::parameters::Parameters;
use crate::row::InstrumentId;
use crate::time::Time;

/// The operators behind a gate, in their order: `links![Gaps, FeatureWindows]`; of another subject than instruments:
/// `links![Pair: Basis]`.
#[macro_export]
macro_rules! links {
    ($last:ty $(,)?) => { $crate::links::Link<$last, $crate::links::ChainEnd<<$last as $crate::operator::Operator>::Output>> };
    ($first:ty, $($rest:ty),+ $(,)?) => { $crate::links::Link<$first, $crate::links![$($rest),+]> };
    ($subject:ty: $last:ty $(,)?) => {
        $crate::links::Link<$last, $crate::links::ChainEnd<<$last as $crate::operator::Operator<$subject>>::Output>>
    };
    ($subject:ty: $first:ty, $($rest:ty),+ $(,)?) => { $crate::links::Link<$first, $crate::links![$subject: $($rest),+]> };
}

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
    pub(crate) key: K,
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
