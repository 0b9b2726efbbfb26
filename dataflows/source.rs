//! Brings chunks from a reader's queue into the graph.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::{Scope, StreamVec};
use timely::scheduling::SyncActivator;

use crate::batch::Chunk;

/// What a queue has to give at the moment.
pub enum Next {
    Chunk(Chunk),
    /// Nothing now: whoever fills the queue wakes the worker through its [`SyncActivator`].
    Nothing,
    /// Nothing ever again.
    Ended,
}

/// A stream of chunks. Each worker takes the next chunk of one queue when it has room, so chunks of one log are
/// decoded wherever there is time for it. `on_wake` gets what wakes this worker.
pub fn chunks<'scope>(
    scope: Scope<'scope, u64>,
    mut next: impl FnMut() -> Next + 'static,
    on_wake: impl FnOnce(SyncActivator),
) -> StreamVec<'scope, u64, Chunk> {
    source::<_, CapacityContainerBuilder<Vec<Chunk>>, _, _>(scope, "chunks", move |capability, info| {
        let activator = scope.activator_for(info.address.clone());
        on_wake(scope.worker().sync_activator_for(info.address.to_vec()));
        let mut capability = Some(capability);
        move |output| {
            let Some(held) = capability.as_mut() else { return };
            match next() {
                Next::Chunk(chunk) => {
                    held.downgrade(&chunk.epoch);
                    output.session(held).give(chunk);
                    activator.activate();
                }
                Next::Nothing => {}
                Next::Ended => capability = None,
            }
        }
    })
}
