//! How long a worker's operators work: what a metric tells, nothing that changes a result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foreshock_operators::links::Stopwatch;

/// One batch in so many is looked into: which operator of a chain takes which part of the time.
const SAMPLED_EACH: u64 = 64;

/// The times of one worker's operators. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Vec<OperatorTime>>>);

/// The time that one operator has worked so far. Clones share it.
#[derive(Clone, Debug)]
pub struct OperatorTime {
    pub name: &'static str,
    nanoseconds: Arc<AtomicU64>,
}

impl Meter {
    /// The time of the operator of this name, from 0.
    pub fn operator(&self, name: &'static str) -> OperatorTime {
        let time = OperatorTime { name, nanoseconds: Arc::default() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(time.clone());
        time
    }

    /// The times of a chain of these operators, from 0.
    pub fn chain(&self, names: &[&'static str]) -> ChainTime {
        let operators: Vec<_> = names.iter().map(|name| self.operator(name)).collect();
        let sampled = vec![0; operators.len()];
        ChainTime { operators, sampled, batches: 0 }
    }

    /// All operators' times, in the order of the graph.
    pub fn operators(&self) -> Vec<OperatorTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl OperatorTime {
    /// Does the work and adds the time it took.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        self.add(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        done
    }

    /// Nanoseconds so far.
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }

    fn add(&self, nanoseconds: u64) {
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// The times of operators that push into each other: all of it is measured together, and dealt out by what samples say.
#[derive(Debug)]
pub struct ChainTime {
    operators: Vec<OperatorTime>,
    /// Nanoseconds of each operator in the samples so far; each sample counts half as much as the next.
    sampled: Vec<u64>,
    batches: u64,
}

impl ChainTime {
    /// Counts a batch; gives a watch where it is to be looked into. The first one is.
    pub fn sample(&mut self) -> Option<ChainWatch> {
        let is_due = self.batches.is_multiple_of(SAMPLED_EACH);
        self.batches += 1;
        is_due.then(|| ChainWatch::of(self.operators.len()))
    }

    /// Takes what a watch has seen.
    pub fn learn(&mut self, watch: &ChainWatch) {
        self.sampled.iter_mut().zip(&watch.nanoseconds).for_each(|(sum, more)| *sum = *sum / 2 + more);
    }

    /// Deals out time that the chain has worked.
    pub fn add(&self, worked: Duration) {
        let total: u64 = self.sampled.iter().sum();
        if total == 0 {
            return;
        }
        let worked = worked.as_nanos() as f64;
        for (operator, sampled) in self.operators.iter().zip(&self.sampled) {
            operator.add((worked * *sampled as f64 / total as f64) as u64);
        }
    }
}

/// Watches the operators of a chain while one batch goes through.
#[derive(Debug)]
pub struct ChainWatch {
    /// By operator, in their order.
    nanoseconds: Vec<u64>,
    /// Those that have begun and not ended: each has pushed into the next.
    working: Vec<usize>,
    since: Instant,
}

impl ChainWatch {
    fn of(operators: usize) -> ChainWatch {
        ChainWatch { nanoseconds: vec![0; operators], working: Vec::new(), since: Instant::now() }
    }

    /// Enters the time since the last look for the one that works.
    fn look(&mut self) {
        let now = Instant::now();
        if let Some(at) = self.working.last() {
            let took = now.duration_since(self.since).as_nanos();
            self.nanoseconds[*at] += u64::try_from(took).unwrap_or(u64::MAX);
        }
        self.since = now;
    }
}

impl Stopwatch for ChainWatch {
    fn enter(&mut self, behind: usize) {
        self.look();
        self.working.push(self.nanoseconds.len() - 1 - behind);
    }

    fn leave(&mut self) {
        self.look();
        self.working.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_dealt_out_by_what_the_last_samples_say_and_none_is_lost() {
        let meter = Meter::default();
        let mut chain = meter.chain(&["a", "b"]);
        chain.learn(&ChainWatch { nanoseconds: vec![30, 10], ..ChainWatch::of(2) });
        chain.add(Duration::from_nanos(400));
        let times: Vec<_> = meter.operators().iter().map(OperatorTime::nanoseconds).collect();
        assert_eq!(times, [300, 100]);
        assert!(chain.sample().is_some() && chain.sample().is_none());
    }
}
