//! What is on its way to the brokers, shard by shard, and how far each has arrived.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::progress::Progress;
use super::source::FUTILE_MAX;

/// The publications of a worker's shards that have not arrived.
pub struct Ways {
    /// By shard.
    ways: Vec<Way>,
    bytes: usize,
    /// Which client's reports count.
    pub generation: u32,
    /// Why a record can't be delivered.
    pub failed: Option<String>,
}

/// The publications of one shard, the oldest first.
struct Way {
    publications: VecDeque<Publishing>,
    /// The number of the oldest.
    first: u64,
    bytes: usize,
    progress: Arc<Progress>,
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

impl Ways {
    /// Nothing on its way; progress is told here, by shard.
    pub fn new(progress: &[Arc<Progress>]) -> Ways {
        let way = |progress: &Arc<Progress>| Way {
            publications: VecDeque::new(),
            first: 0,
            bytes: 0,
            progress: progress.clone(),
            moved_at: Instant::now(),
            renewals: 0,
        };
        let ways = progress.iter().map(way).collect();
        Ways { ways, bytes: 0, generation: 0, failed: None }
    }

    /// Sets a publication on its way; gives its number within the shard.
    pub fn enter(&mut self, shard: u32, next_offset: i64, bytes: usize, records: usize) -> u64 {
        let way = &mut self.ways[shard as usize];
        if way.publications.is_empty() {
            way.moved_at = Instant::now();
        }
        way.publications.push_back(Publishing { next_offset, bytes, records, missing: records });
        way.bytes += bytes;
        self.bytes += bytes;
        let number = way.first + way.publications.len() as u64 - 1;
        self.settle(shard);
        number
    }

    /// Notes that a record of a publication has arrived.
    pub fn arrived(&mut self, generation: u32, shard: u32, number: u64) {
        if generation != self.generation {
            return;
        }
        let way = &mut self.ways[shard as usize];
        let at = number.wrapping_sub(way.first);
        let publishing = usize::try_from(at).ok().and_then(|at| way.publications.get_mut(at));
        if let Some(publishing) = publishing {
            publishing.missing = publishing.missing.saturating_sub(1);
        }
        way.moved_at = Instant::now();
        self.settle(shard);
    }

    /// Whether a publication has arrived, and all of its shard before it.
    pub fn has_arrived(&self, shard: u32, number: u64) -> bool {
        number < self.ways[shard as usize].first
    }

    /// Another client sends all that has not arrived, from the first record of each publication.
    pub fn renew(&mut self, generation: u32) {
        self.generation = generation;
        for way in &mut self.ways {
            way.moved_at = Instant::now();
            way.renewals += 1;
            for publishing in &mut way.publications {
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
        self.ways[shard as usize].bytes
    }

    /// Whether all has arrived.
    pub fn is_empty(&self) -> bool {
        self.ways.iter().all(|way| way.publications.is_empty())
    }

    /// Whether outputs of some shard have been on their way for so long without anything arriving; longer each time
    /// that a new client has not helped it.
    pub fn is_stalled(&self, after: Duration) -> bool {
        let is_stalled = |way: &Way| way.moved_at.elapsed() >= after * (1 << way.renewals.min(FUTILE_MAX));
        self.ways.iter().any(|way| !way.publications.is_empty() && is_stalled(way))
    }

    /// Counts the time without arrivals from now on.
    pub fn forgive(&mut self) {
        self.ways.iter_mut().for_each(|way| way.moved_at = Instant::now());
    }

    /// Moves a shard's progress over all that has arrived with nothing missing before it.
    fn settle(&mut self, shard: u32) {
        let way = &mut self.ways[shard as usize];
        while way.publications.front().is_some_and(|publishing| publishing.missing == 0) {
            let Some(Publishing { next_offset, bytes, .. }) = way.publications.pop_front() else { break };
            way.first += 1;
            way.renewals = 0;
            way.bytes -= bytes;
            self.bytes -= bytes;
            way.progress.deliver(next_offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways() -> (Ways, impl Fn() -> [i64; 2]) {
        let progress: Vec<Arc<Progress>> = (0..2).map(|_| Arc::new(Progress::between(5, 5))).collect();
        let ways = Ways::new(&progress);
        (ways, move || [progress[0].delivered(), progress[1].delivered()])
    }

    #[test]
    fn progress_moves_only_over_what_has_arrived_with_nothing_missing_before_it() {
        let (mut ways, delivered) = ways();
        let first = ways.enter(0, 7, 20, 2);
        let other = ways.enter(1, 9, 10, 1);
        let empty = ways.enter(0, 8, 0, 0);
        assert_eq!((first, other, empty, ways.bytes(), ways.bytes_of(0)), (0, 0, 1, 30, 20));
        ways.arrived(0, 0, first);
        assert_eq!((delivered(), ways.bytes()), ([5, 5], 30));
        // A shard waits for no other.
        ways.arrived(0, 1, other);
        assert_eq!((delivered(), ways.bytes()), ([5, 9], 20));
        ways.arrived(0, 0, first);
        assert_eq!((delivered(), ways.bytes()), ([8, 9], 0));
        assert!(ways.is_empty() && ways.has_arrived(0, empty));
        let third = ways.enter(0, 12, 0, 0);
        assert_eq!((third, delivered()), (2, [12, 9]));
    }

    #[test]
    fn a_new_client_sends_all_again_and_the_old_ones_reports_do_not_count() {
        let (mut ways, delivered) = ways();
        let number = ways.enter(0, 7, 20, 2);
        ways.arrived(0, 0, number);
        ways.renew(1);
        ways.arrived(0, 0, number);
        ways.arrived(1, 0, number);
        assert_eq!(delivered(), [5, 5]);
        ways.arrived(1, 0, number);
        assert_eq!(delivered(), [7, 5]);
    }
}
