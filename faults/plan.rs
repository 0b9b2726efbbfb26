//! What is done to the job, one fault after the other: all from the seed.

use std::fmt;

use foreshock_testkit::random::Random;

/// Where the job may be told to die.
pub const FAILPOINTS: [&str; 8] = [
    "before_produce",
    "after_produce",
    "before_commit",
    "after_commit",
    "during_snapshot",
    "before_rename",
    "after_rename",
    "while_restoring",
];

/// How long the first life goes on behind its first output: some snapshots.
const FIRST_LIFE_MS: u64 = 1_500;

/// One life of the job and what ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    pub workers: usize,
    pub processes: usize,
    pub fault: Fault,
}

/// When something happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So many milliseconds after its process was started.
    AfterStart(u64),
    /// So many milliseconds after its first committed output.
    AfterOutput(u64),
}

/// Unless said otherwise a job that runs on is killed at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill(Moment),
    /// It kills itself at a point, when it comes there for this time.
    Failpoint {
        name: &'static str,
        hit: u32,
    },
    /// The second kill hits the restart, so long after its begin.
    KillTwice {
        first: Moment,
        again_ms: u64,
    },
    /// It is stopped for longer than its transaction may take, while a successor works, and then goes on.
    Zombie {
        successor_workers: usize,
        shares_state: bool,
    },
    /// The broker is killed and comes back.
    BrokerKilled {
        at: Moment,
    },
    /// No connection to the broker for so long.
    Unreachable {
        for_ms: u64,
    },
    /// The broker hears and is not heard for so long, then the connections break.
    Deaf {
        for_ms: u64,
    },
    /// Each of the broker's replies comes so much later.
    Delayed {
        by_ms: u64,
        for_ms: u64,
    },
    /// No file can grow beyond a few bytes.
    DiskFull,
    ReadOnlyState,
    /// The newest snapshot is spoilt before the start.
    Damage(Damage),
    /// SIGTERM; no kill.
    Stop(Moment),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Truncate,
    Flip,
}

impl Fault {
    /// A word for counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Kill(_) => "random",
            Fault::Failpoint { .. } => "failpoint",
            Fault::KillTwice { .. } => "twice",
            Fault::Zombie { .. } => "zombie",
            Fault::BrokerKilled { .. } => "broker_killed",
            Fault::Unreachable { .. } => "unreachable",
            Fault::Deaf { .. } => "replies_lost",
            Fault::Delayed { .. } => "delayed",
            Fault::DiskFull => "disk_full",
            Fault::ReadOnlyState => "read_only_state",
            Fault::Damage(_) => "damaged_snapshot",
            Fault::Stop(_) => "clean_stop",
        }
    }

    fn kills(&self) -> usize {
        match self {
            Fault::Stop(_) => 0,
            Fault::KillTwice { .. } => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} workers: {:?}", self.processes, self.workers, self.fault)
    }
}

/// Makes rounds.
pub struct Planner {
    random: Random,
    workers: Vec<usize>,
    processes: Vec<usize>,
}

impl Planner {
    pub fn new(seed: u64, workers: &[usize], processes: &[usize]) -> Planner {
        Planner {
            random: Random::new(seed ^ 0x91a7),
            workers: workers.to_vec(),
            processes: processes.to_vec(),
        }
    }

    /// Rounds with so many kills, every failpoint among them where there are kills enough.
    pub fn rounds(&mut self, kills: usize) -> Vec<Round> {
        if kills == 0 {
            return Vec::new();
        }
        let mut faults = self.faults(kills);
        self.random.shuffle(&mut faults);
        // First of all there shall be something to restore and to damage.
        faults.insert(0, Fault::Kill(Moment::AfterOutput(FIRST_LIFE_MS)));
        let mut left = kills;
        let mut rounds = Vec::new();
        for fault in faults {
            if fault.kills() <= left {
                left -= fault.kills();
                rounds.push(self.round(fault));
            }
        }
        for _ in 0..left {
            rounds.push(self.kill());
        }
        rounds
    }

    /// As many rounds with faults of this kind, or kills at this failpoint; none where there is no such thing.
    pub fn only(&mut self, name: &str, count: usize) -> Vec<Round> {
        let mut rounds = vec![self.round(Fault::Kill(Moment::AfterOutput(FIRST_LIFE_MS)))];
        while rounds.len() <= count {
            let mut faults = self.faults(FAILPOINTS.len());
            let at = self.moment();
            faults.push(Fault::Kill(at));
            let is_meant = |fault: &Fault| match fault {
                Fault::Failpoint { name: point, .. } if *point == name => true,
                fault => fault.kind() == name,
            };
            faults.retain(is_meant);
            if faults.is_empty() {
                return Vec::new();
            }
            rounds.extend(faults.into_iter().map(|fault| self.round(fault)));
        }
        rounds
    }

    /// A round with nothing but a kill.
    pub fn kill(&mut self) -> Round {
        let at = self.moment();
        self.round(Fault::Kill(at))
    }

    /// A round with a fault of one's own, of one process.
    pub fn alone(&mut self, fault: Fault) -> Round {
        Round { processes: 1, ..self.round(fault) }
    }

    fn round(&mut self, fault: Fault) -> Round {
        let workers = self.workers[self.random.below(self.workers.len())];
        // A stopped process would hold up its peers, not be their zombie.
        let processes = match fault {
            Fault::Zombie { .. } => 1,
            _ => self.processes[self.random.below(self.processes.len())],
        };
        Round { workers, processes, fault }
    }

    /// All but the first, fewer kills than wanted in all; the special ones are rarer than plain kills.
    fn faults(&mut self, kills: usize) -> Vec<Fault> {
        let share = |part: usize| (kills / part).max(1);
        let mut faults = Vec::new();
        for _ in 0..(kills * 3 / 10 / FAILPOINTS.len()).max(1) {
            faults.extend(FAILPOINTS.map(|name| self.failpoint(name)));
        }
        for _ in 0..share(15) {
            let (first, again_ms) = (self.moment(), 20 + self.random.below(500) as u64);
            faults.push(Fault::KillTwice { first, again_ms });
            faults.push(Fault::Stop(Moment::AfterOutput(self.random.below(600) as u64)));
        }
        for _ in 0..share(30) {
            let successor_workers = self.workers[self.random.below(self.workers.len())];
            faults.push(Fault::Zombie { successor_workers, shares_state: self.random.once_in(2) });
            faults.push(Fault::Unreachable { for_ms: 300 + self.random.below(2_500) as u64 });
            faults.push(Fault::Deaf { for_ms: 200 + self.random.below(2_000) as u64 });
            let by_ms = 50 + self.random.below(350) as u64;
            faults.push(Fault::Delayed { by_ms, for_ms: 1_000 + self.random.below(1_500) as u64 });
            faults.push(Fault::DiskFull);
            faults.push(Fault::ReadOnlyState);
            faults.push(Fault::Damage(Damage::Truncate));
            faults.push(Fault::Damage(Damage::Flip));
        }
        for _ in 0..share(60) {
            faults.push(Fault::BrokerKilled { at: Moment::AfterOutput(self.random.below(300) as u64) });
        }
        faults
    }

    fn failpoint(&mut self, name: &'static str) -> Fault {
        // Points of every record, of every commit, of every snapshot, of every start.
        let most = match name {
            "before_produce" | "after_produce" => 40,
            "before_commit" | "after_commit" => 10,
            "while_restoring" => 1,
            _ => 2,
        };
        Fault::Failpoint { name, hit: 1 + self.random.below(most) as u32 }
    }

    fn moment(&mut self) -> Moment {
        if self.random.once_in(3) {
            Moment::AfterStart(50 + self.random.below(750) as u64)
        } else {
            Moment::AfterOutput(self.random.below(800) as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(seed: u64, kills: usize) -> Vec<Round> {
        Planner::new(seed, &[1, 2, 4], &[1, 2]).rounds(kills)
    }

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        assert_eq!(rounds(7, 50), rounds(7, 50));
        assert_ne!(rounds(7, 50), rounds(8, 50));
    }

    #[test]
    fn a_plan_has_the_kills_that_were_asked_for() {
        for kills in [1, 2, 5, 20, 21, 300] {
            let planned: usize = rounds(1, kills).iter().map(|round| round.fault.kills()).sum();
            assert_eq!(planned, kills);
        }
    }

    #[test]
    fn twenty_kills_have_every_failpoint_and_every_kind() {
        for seed in 0..20 {
            let rounds = rounds(seed, 20);
            for name in FAILPOINTS {
                let is_there =
                    |round: &Round| matches!(round.fault, Fault::Failpoint { name: n, .. } if n == name);
                assert!(rounds.iter().any(is_there), "{name} with seed {seed}");
            }
            let mut kinds: Vec<_> = rounds.iter().map(|round| round.fault.kind()).collect();
            kinds.sort_unstable();
            kinds.dedup();
            assert_eq!(kinds.len(), 12, "{kinds:?} with seed {seed}");
        }
    }

    #[test]
    fn one_kind_can_be_looked_at_alone() {
        let only = |name: &str| Planner::new(1, &[1], &[1]).only(name, 3);
        let kinds: Vec<_> = only("zombie")[1..].iter().map(|round| round.fault.kind()).collect();
        assert_eq!(kinds, ["zombie"; 3]);
        let is_rename = |round: &Round| matches!(round.fault, Fault::Failpoint { name: "before_rename", .. });
        assert!(only("before_rename")[1..].iter().all(is_rename));
        assert!(only("random").len() > 3);
        assert!(only("lunch").is_empty());
    }

    #[test]
    fn a_zombie_has_no_peers() {
        let rounds = rounds(5, 300);
        let zombies = rounds.iter().filter(|round| matches!(round.fault, Fault::Zombie { .. }));
        assert!(zombies.clone().count() > 5);
        assert!(zombies.clone().all(|round| round.processes == 1));
    }
}
