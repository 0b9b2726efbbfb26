//! What is in flight to the brokers, shard by shard, and how far each has arrived.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::kafka::progress::ShardProgress;
use crate::kafka::source::BACKOFF_MAX;

/// The publications of a worker's shards that have not arrived.
pub struct InFlight {
    /// By shard.
    shards: Vec<ShardInFlight>,
    bytes: usize,
    /// Which client's reports count.
    pub generation: u32,
    /// Why a record can't be delivered.
    pub failed: Option<String>,
}

/// The publications of one shard, the oldest first.
struct ShardInFlight {
    publications: VecDeque<Publishing>,
    /// The number of the oldest.
    first: u64,
    bytes: usize,
    progress: Arc<ShardProgress>,
    /// When something arrived last, or began to be on its way.
    moved_at: Instant,
    /// Clients made anew since a publication arrived whole.
    renewals: u32,
}

struct Publishing {
    next_offset: i64,
    bytes: usize,
    records: usize,
    /// Records that have not arrived.
    missing: usize,
}

impl InFlight {
    /// Nothing in flight; progress is noted here, by shard.
    pub fn new(progress: &[Arc<ShardProgress>]) -> InFlight {
        let outputs = |progress: &Arc<ShardProgress>| ShardInFlight {
            publications: VecDeque::new(),
            first: 0,
            bytes: 0,
            progress: progress.clone(),
            moved_at: Instant::now(),
            renewals: 0,
        };
        let shards = progress.iter().map(outputs).collect();
        InFlight { shards, bytes: 0, generation: 0, failed: None }
    }

    /// Sets a publication on its way; gives its number within the shard.
    pub fn enter(&mut self, shard: u32, next_offset: i64, bytes: usize, records: usize) -> u64 {
        let outputs = &mut self.shards[shard as usize];
        if outputs.publications.is_empty() {
            outputs.moved_at = Instant::now();
        }
        outputs.publications.push_back(Publishing { next_offset, bytes, records, missing: records });
        outputs.bytes += bytes;
        self.bytes += bytes;
        let number = outputs.first + outputs.publications.len() as u64 - 1;
        self.advance_progress(shard);
        number
    }

    /// Notes that a record of a publication has arrived.
    pub fn arrived(&mut self, generation: u32, shard: u32, number: u64) {
        if generation != self.generation {
            return;
        }
        let outputs = &mut self.shards[shard as usize];
        let at = number.wrapping_sub(outputs.first);
        let publishing = usize::try_from(at).ok().and_then(|at| outputs.publications.get_mut(at));
        if let Some(publishing) = publishing {
            publishing.missing = publishing.missing.saturating_sub(1);
        }
        outputs.moved_at = Instant::now();
        self.advance_progress(shard);
    }

    /// Whether a publication has arrived, and all of its shard before it.
    pub fn has_arrived(&self, shard: u32, number: u64) -> bool {
        number < self.shards[shard as usize].first
    }

    /// Another client sends all that has not arrived, from the first record of each publication.
    pub fn recreate_client(&mut self, generation: u32) {
        self.generation = generation;
        for outputs in &mut self.shards {
            outputs.moved_at = Instant::now();
            outputs.renewals += 1;
            for publishing in &mut outputs.publications {
                publishing.missing = publishing.records;
            }
        }
    }

    /// Bytes on their way.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of one shard on their way.
    pub fn bytes_of(&self, shard: u32) -> usize {
        self.shards[shard as usize].bytes
    }

    /// Whether all has arrived.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|outputs| outputs.publications.is_empty())
    }

    /// Whether outputs of some shard have been on their way for so long without anything arriving; longer each time
    /// that a new client has not helped it.
    pub fn is_stalled(&self, after: Duration) -> bool {
        let is_stalled = |outputs: &ShardInFlight| {
            outputs.moved_at.elapsed() >= after * (1 << outputs.renewals.min(BACKOFF_MAX))
        };
        self.shards.iter().any(|outputs| !outputs.publications.is_empty() && is_stalled(outputs))
    }

    /// Counts the time without arrivals from now on.
    pub fn reset_stall_timer(&mut self) {
        self.shards.iter_mut().for_each(|outputs| outputs.moved_at = Instant::now());
    }

    /// Moves a shard's progress over all that has arrived with nothing missing before it.
    fn advance_progress(&mut self, shard: u32) {
        let outputs = &mut self.shards[shard as usize];
        while outputs.publications.front().is_some_and(|publishing| publishing.missing == 0) {
            let Some(Publishing { next_offset, bytes, .. }) = outputs.publications.pop_front() else { break };
            outputs.first += 1;
            outputs.renewals = 0;
            outputs.bytes -= bytes;
            self.bytes -= bytes;
            outputs.progress.deliver(next_offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards() -> (InFlight, impl Fn() -> [i64; 2]) {
        let progress: Vec<Arc<ShardProgress>> =
            (0..2).map(|_| Arc::new(ShardProgress::between(5, 5))).collect();
        let shards = InFlight::new(&progress);
        (shards, move || [progress[0].delivered(), progress[1].delivered()])
    }

    #[test]
    fn progress_moves_only_over_what_has_arrived_with_nothing_missing_before_it() {
        let (mut shards, delivered) = shards();
        let first = shards.enter(0, 7, 20, 2);
        let other = shards.enter(1, 9, 10, 1);
        let empty = shards.enter(0, 8, 0, 0);
        assert_eq!((first, other, empty, shards.bytes(), shards.bytes_of(0)), (0, 0, 1, 30, 20));
        shards.arrived(0, 0, first);
        assert_eq!((delivered(), shards.bytes()), ([5, 5], 30));
        // A shard waits for no other.
        shards.arrived(0, 1, other);
        assert_eq!((delivered(), shards.bytes()), ([5, 9], 20));
        shards.arrived(0, 0, first);
        assert_eq!((delivered(), shards.bytes()), ([8, 9], 0));
        assert!(shards.is_empty() && shards.has_arrived(0, empty));
        let third = shards.enter(0, 12, 0, 0);
        assert_eq!((third, delivered()), (2, [12, 9]));
    }

    #[test]
    fn a_new_client_sends_all_again_and_the_old_ones_reports_do_not_count() {
        let (mut shards, delivered) = shards();
        let number = shards.enter(0, 7, 20, 2);
        shards.arrived(0, 0, number);
        shards.recreate_client(1);
        shards.arrived(0, 0, number);
        shards.arrived(1, 0, number);
        assert_eq!(delivered(), [5, 5]);
        shards.arrived(1, 0, number);
        assert_eq!(delivered(), [7, 5]);
    }
}
