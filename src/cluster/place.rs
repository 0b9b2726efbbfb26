//! Which part of a job a process is.

/// One process among those of its job. Workers are numbered through all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessPlace {
    /// Its number, from 0.
    pub process: usize,
    pub processes: usize,
    /// Workers of each process.
    pub workers: usize,
}

impl ProcessPlace {
    /// The only process of a job.
    pub fn alone(workers: usize) -> ProcessPlace {
        ProcessPlace { process: 0, processes: 1, workers }
    }

    /// Workers of all processes.
    pub fn total(&self) -> usize {
        self.processes * self.workers
    }

    /// The number of this process's first worker.
    pub fn first(&self) -> usize {
        self.process * self.workers
    }

    /// The worker that reads a shard.
    pub fn worker_of(&self, shard: usize) -> usize {
        shard % self.total()
    }

    /// Whether a shard is this process's.
    pub fn has(&self, shard: usize) -> bool {
        self.worker_of(shard) / self.workers == self.process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_one_process_and_its_worker_is_there() {
        for (processes, workers) in [(1, 1), (1, 4), (2, 1), (2, 3), (5, 2)] {
            for shard in 0..40 {
                let homes: Vec<ProcessPlace> = (0..processes)
                    .map(|process| ProcessPlace { process, processes, workers })
                    .filter(|place| place.has(shard))
                    .collect();
                let [home] = homes[..] else { panic!("shard {shard} has {homes:?}") };
                let worker = home.worker_of(shard);
                assert!((home.first()..home.first() + workers).contains(&worker));
            }
        }
    }
}
