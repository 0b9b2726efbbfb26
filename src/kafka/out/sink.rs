//! Where a worker's publications go, whatever is promised of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use foreshock_dataflows::batch::Cut;
use foreshock_dataflows::encode_records::Publication;
use timely::scheduling::SyncActivator;

/// Takes publications and has them delivered, without waiting.
pub trait Sink {
    /// Takes a publication; [`Sink::poll`] sends it.
    fn push(&mut self, publication: Publication);

    /// Sends what the client takes and looks at what has come of it, without waiting. Tells of each publication that
    /// the client has taken whole.
    ///
    /// # Errors
    /// When something can't be delivered: the job must begin anew from what is committed.
    fn poll(&mut self, accepted: &mut dyn FnMut(Accepted)) -> Result<()>;

    /// Sends all that was taken and waits until it is delivered.
    ///
    /// # Errors
    /// When it is not by then, or can't be.
    fn drain(&mut self, at_most: Duration, accepted: &mut dyn FnMut(Accepted)) -> Result<()>;

    /// Has the worker woken when there may be something to pump.
    fn wake(&mut self, activator: Arc<SyncActivator>);

    /// What waits to be delivered, of all shards.
    fn backlog(&self) -> Backlog;

    /// Bytes of one shard that were taken and are not delivered.
    fn backlog_bytes_of(&self, shard: u32) -> usize;

    /// Replaces a client that has delivered nothing for so long; says whether it did.
    ///
    /// # Errors
    /// When a new client can't be made.
    fn recreate_stalled_client(&mut self, after: Duration) -> Result<bool>;

    /// Forgives the time so far without arrivals: there is a reason for it.
    fn reset_stall_timer(&mut self);
}

/// What was taken and is not delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub publications: usize,
    pub bytes: usize,
    /// Records that clients hold.
    pub queued_records: usize,
}

/// What was taken whole by the client.
pub struct Accepted {
    pub cut: Cut,
    /// Predictions among the records.
    pub predictions: usize,
}
