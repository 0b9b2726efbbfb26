//! Who has states in a graph.

use std::sync::Arc;

/// Who has states: the instruments of a job, or whatever else is a key. Clones share one table.
pub trait Subjects {
    type Key: Copy + Default + std::fmt::Debug + 'static;
    type Subject: std::fmt::Debug;

    /// A small number, from 0, by which states are found.
    fn index(key: Self::Key) -> usize;

    /// What is known of a key.
    fn subject(&self, key: Self::Key) -> Arc<Self::Subject>;

    /// The shard that has the key, once that is known.
    fn shard_of(&self, key: Self::Key) -> Option<u32>;

    /// The keys of a shard.
    fn of_shard(&self, shard: u32) -> Vec<Self::Key>;

    /// All keys met so far, in an order that is the same in every run.
    fn in_order(&self) -> Vec<Self::Key>;
}
