//! How long a worker's operators work, and on how much: what metrics and `GET /graph` tell, nothing that changes a result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foreshock_operators::links::Stopwatch;

/// One batch in so many is looked into: which operator of a chain takes which part of the time.
const SAMPLED_EACH: u64 = 64;

/// The work of one worker's operators. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Vec<OperatorWork>>>);

/// What one operator has worked so far. Clones share it.
#[derive(Clone, Debug)]
pub struct OperatorWork {
    pub name: &'static str,
    nanoseconds: Arc<AtomicU64>,
    rows: Arc<AtomicU64>,
}

impl Meter {
    /// The work of the operator of this name, from 0.
    pub fn operator(&self, name: &'static str) -> OperatorWork {
        let work = OperatorWork { name, nanoseconds: Arc::default(), rows: Arc::default() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(work.clone());
        work
    }

    /// The work of a chain of these operators, from 0.
    pub fn chain(&self, names: &[&'static str]) -> ChainWork {
        let operators: Vec<_> = names.iter().map(|name| self.operator(name)).collect();
        let (sampled, owed) = (vec![SampledWork::default(); operators.len()], vec![0.0; operators.len()]);
        ChainWork { operators, sampled, owed, batches: 0 }
    }

    /// All operators' work, in the order of the graph.
    pub fn operators(&self) -> Vec<OperatorWork> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl OperatorWork {
    /// Does the work on so many rows, and adds the time it took.
    pub fn measure<T>(&self, rows: usize, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        self.add(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX), rows as u64);
        done
    }

    /// Nanoseconds so far.
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }

    /// Rows taken so far: messages where they are decoded, outcomes where they are encoded.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn add(&self, nanoseconds: u64, rows: u64) {
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

/// The work of operators that push into each other: all of it is measured together, and dealt out by what samples say.
#[derive(Debug)]
pub struct ChainWork {
    operators: Vec<OperatorWork>,
    /// Of each operator in the samples so far; each sample counts half as much as the next.
    sampled: Vec<SampledWork>,
    /// Parts of rows that were not dealt out yet, by operator.
    owed: Vec<f64>,
    batches: u64,
}

/// What one operator did in samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct SampledWork {
    nanoseconds: u64,
    /// How often something was pushed into it.
    rows: f64,
}

impl ChainWork {
    /// Counts a batch; gives a watch where it is to be looked into. The first ones are, until one has rows.
    pub fn sample(&mut self) -> Option<ChainWatch> {
        let has_learnt = self.sampled.first().is_some_and(|first| first.rows > 0.0);
        let is_due = !has_learnt || self.batches.is_multiple_of(SAMPLED_EACH);
        self.batches += 1;
        is_due.then(|| ChainWatch::of(self.operators.len()))
    }

    /// Takes what a watch has seen.
    pub fn learn(&mut self, watch: &ChainWatch) {
        // Where nothing came in, nothing is to be learnt of who gets how much of it.
        if watch.sampled.first().is_none_or(|first| first.rows == 0.0) {
            return;
        }
        for (sum, more) in self.sampled.iter_mut().zip(&watch.sampled) {
            sum.nanoseconds = sum.nanoseconds / 2 + more.nanoseconds;
            sum.rows = sum.rows / 2.0 + more.rows;
        }
    }

    /// Deals out the time that the chain has worked on so many rows.
    pub fn add(&mut self, worked: Duration, rows: usize) {
        let total: u64 = self.sampled.iter().map(|sampled| sampled.nanoseconds).sum();
        let into_first = self.sampled.first().map_or(0.0, |first| first.rows);
        if into_first == 0.0 {
            return;
        }
        let (worked, rows) = (worked.as_nanos() as f64, rows as f64);
        for ((operator, sampled), owed) in self.operators.iter().zip(&self.sampled).zip(&mut self.owed) {
            let nanoseconds = worked * sampled.nanoseconds as f64 / total.max(1) as f64;
            *owed += rows * (sampled.rows / into_first);
            let whole = owed.floor();
            *owed -= whole;
            operator.add(nanoseconds as u64, whole as u64);
        }
    }
}

/// Watches the operators of a chain while one batch goes through.
#[derive(Debug)]
pub struct ChainWatch {
    /// By operator, in their order.
    sampled: Vec<SampledWork>,
    /// Those that have begun and not ended: each has pushed into the next.
    working: Vec<usize>,
    since: Instant,
}

impl ChainWatch {
    fn of(operators: usize) -> ChainWatch {
        ChainWatch {
            sampled: vec![SampledWork::default(); operators],
            working: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Enters the time since the last look for the one that works.
    fn look(&mut self) {
        let now = Instant::now();
        if let Some(at) = self.working.last() {
            let took = now.duration_since(self.since).as_nanos();
            self.sampled[*at].nanoseconds += u64::try_from(took).unwrap_or(u64::MAX);
        }
        self.since = now;
    }
}

impl Stopwatch for ChainWatch {
    fn enter(&mut self, behind: usize) {
        self.look();
        let at = self.sampled.len() - 1 - behind;
        self.sampled[at].rows += 1.0;
        self.working.push(at);
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
    fn work_is_dealt_out_by_what_the_last_samples_say_and_none_is_lost() {
        let meter = Meter::default();
        let mut chain = meter.chain(&["a", "b"]);
        let sampled = |nanoseconds, rows| SampledWork { nanoseconds, rows };
        chain.learn(&ChainWatch { sampled: vec![sampled(30, 8.0), sampled(10, 6.0)], ..ChainWatch::of(2) });
        chain.add(Duration::from_nanos(400), 100);
        let work: Vec<_> = meter.operators().iter().map(|work| (work.nanoseconds(), work.rows())).collect();
        assert_eq!(work, [(300, 100), (100, 75)]);
        // Batches of one row, some without any.
        for _ in 0..40 {
            chain.learn(&ChainWatch { sampled: vec![sampled(3, 0.0), sampled(0, 0.0)], ..ChainWatch::of(2) });
            chain.add(Duration::ZERO, 0);
            chain.add(Duration::ZERO, 1);
        }
        let rows: Vec<_> = meter.operators().iter().map(OperatorWork::rows).collect();
        assert_eq!(rows, [140, 105]);
        assert!(chain.sample().is_some() && chain.sample().is_none());
    }
}
