//! Brings chunks of a recorded log into the graph, and deliveries from a live one.

use std::time::{Duration, Instant};

use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::{Scope, StreamVec};
use timely::scheduling::SyncActivator;

use crate::batch::{Chunk, Delivery};

/// What a log has to give at the moment.
pub enum Next {
    Chunk(Chunk),
    /// Nothing now: whoever makes room for more wakes the worker through its [`SyncActivator`].
    Nothing,
    /// Nothing now, and nobody tells when there is more: to be asked again after this time.
    Wait(Duration),
    /// Nothing ever again.
    Ended,
}

/// A stream of chunks. Each worker takes the next chunk of one log when it has room, so they are decoded wherever there is
/// time for it. `on_wake` gets what wakes this worker.
pub fn chunks<'scope>(
    scope: Scope<'scope, u64>,
    mut next: impl FnMut() -> Next + 'static,
    on_wake: impl FnOnce(SyncActivator),
) -> StreamVec<'scope, u64, Chunk> {
    source::<_, CapacityContainerBuilder<Vec<Chunk>>, _, _>(scope, "chunks", move |capability, info| {
        let activator = scope.activator_for(info.address.clone());
        on_wake(scope.worker().sync_activator_for(info.address.to_vec()));
        let mut capability = Some(capability);
        // As below: a timer can't be taken back.
        let mut timer: Option<Instant> = None;
        move |output| {
            let Some(held) = capability.as_mut() else { return };
            match next() {
                Next::Chunk(chunk) => {
                    held.downgrade(&chunk.epoch);
                    output.session(held).give(chunk);
                    activator.activate();
                }
                Next::Nothing => {}
                Next::Wait(at_least) => {
                    let now = Instant::now();
                    if timer.is_none_or(|at| at <= now) {
                        activator.activate_after(at_least);
                        timer = Some(now + at_least);
                    }
                }
                Next::Ended => capability = None,
            }
        }
    })
}

/// What a live source wants next.
pub enum NextPoll {
    /// To be called again at once: there is likely more.
    Again,
    /// To be called when it is woken, or after this time at the latest.
    Wait(Duration),
    /// Nothing ever again.
    Ended,
}

/// A stream of deliveries, read on this worker. `poll` puts what has arrived into the list, without waiting.
/// `milliseconds` since the job's start are the epochs, so that one is never smaller than the one before.
/// `on_wake` gets what wakes this worker.
pub fn deliveries<'scope>(
    scope: Scope<'scope, u64>,
    mut poll: impl FnMut(&mut Vec<Delivery>) -> NextPoll + 'static,
    milliseconds: impl Fn() -> u64 + 'static,
    on_wake: impl FnOnce(SyncActivator),
) -> StreamVec<'scope, u64, Delivery> {
    source::<_, CapacityContainerBuilder<Vec<Delivery>>, _, _>(scope, "poll", move |capability, info| {
        let activator = scope.activator_for(info.address.clone());
        on_wake(scope.worker().sync_activator_for(info.address.to_vec()));
        let mut capability = Some(capability);
        let mut arrived = Vec::new();
        // A timer can't be taken back, so none is set while one runs that is early enough.
        let mut timer: Option<Instant> = None;
        move |output| {
            let Some(held) = capability.as_mut() else { return };
            let turn = poll(&mut arrived);
            let epoch = milliseconds().max(held.time() + 1);
            held.downgrade(&epoch);
            if !arrived.is_empty() {
                output.session(held).give_iterator(arrived.drain(..));
            }
            match turn {
                NextPoll::Again => activator.activate(),
                NextPoll::Wait(at_most) => {
                    let (now, due) = (Instant::now(), Instant::now() + at_most);
                    if timer.is_none_or(|at| at <= now || at > due) {
                        activator.activate_after(at_most);
                        timer = Some(due);
                    }
                }
                NextPoll::Ended => capability = None,
            }
        }
    })
}
