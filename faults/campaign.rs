//! One campaign: the job through all rounds of the plan, then the undisturbed run, then the judge.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use signal_hook::consts::SIGKILL;

use crate::broker::Broker;
use crate::feed::Feed;
use crate::feeder::{Feeder, PORTION};
use crate::job::{Job, LOOK_EVERY, Life, Limits, Set, TRANSACTION_TIMEOUT, milliseconds_now, summary};
use crate::judge::{Topic, compare, compare_accounts};
use crate::marks::Marks;
use crate::options::Options;
use crate::plan::{Fault, Moment, Planner, Round};
use crate::report::Report;
use crate::state;
use crate::topics::{create, output_topics, outputs, sent};
use crate::watch::Watch;
use foreshock_testkit::random::Random;

/// How long a job may take until its first committed output.
const UP_WITHIN: Duration = Duration::from_secs(180);

/// How long it may take to read its input to the end.
const END_WITHIN: Duration = Duration::from_secs(240);

/// How long a clean stop may take, and how long peers and zombies may live on.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// How long a failpoint is waited for when the job has its first committed output.
const POINT_WITHIN: Duration = Duration::from_secs(6);

/// How often a job that ended by itself is started again.
const STARTS_MAX: usize = 6;

/// How often failpoints that were not come to are tried again.
const TRIES_MAX: usize = 3;

/// How long one round's part of the input takes: longer than most rounds, so that the job seldom has nothing to do.
const FED_FOR: Duration = Duration::from_secs(3);

/// How long a job without snapshots is looked at.
const WITHOUT_STATE: Duration = Duration::from_millis(1_600);

/// How long an open transaction is waited for.
const OPEN_WITHIN: Duration = Duration::from_secs(3);

/// A comparison of fewer outputs says little.
const OUTPUTS_MIN: usize = 10_000;

/// Exit status of `foreshock run` that says that another start is no use: wrong configuration, or given up.
const STAYS_DOWN: [i32; 2] = [2, 4];

/// A campaign that runs.
pub struct Campaign {
    options: Options,
    broker: Broker,
    job: Job,
    planner: Planner,
    marks: Marks,
    watch: Watch,
    /// `None` when all is fed.
    feeder: Option<Feeder>,
    /// How much of the input a round gets.
    slice: usize,
    /// Moments and places that are no part of the plan.
    random: Random,
    /// How often the job was started.
    starts: usize,
    report: Report,
    /// Rounds of failpoints that were not come to.
    missed: Vec<Fault>,
}

/// Runs a campaign.
pub fn run(options: &Options, seed: u64) -> Result<Report> {
    fs::create_dir_all(options.work.join("logs"))?;
    let broker = Broker::start(&options.work)?;
    let mut campaign = Campaign::new(options.clone(), seed, broker)?;
    match options.sabotage {
        None => campaign.rounds()?,
        Some(_) => campaign.sabotaged()?,
    }
    campaign.judge()
}

impl Campaign {
    fn new(options: Options, seed: u64, broker: Broker) -> Result<Campaign> {
        let reorder_ms = options.reorder.unwrap_or(if seed.is_multiple_of(3) { 0 } else { 400 });
        let job = Job {
            binary: options.binary.clone(),
            work: options.work.clone(),
            name: "disturbed".to_owned(),
            input: "raw".to_owned(),
            brokers: broker.proxy.address(),
            partitions: options.partitions,
            reorder_ms,
            delivery: options.delivery.clone(),
            state: options.work.join("state"),
        };
        let mut processes = options.processes.clone();
        if !job.knows("--hostfile")? {
            eprintln!("this program knows no --hostfile: one process only");
            processes = vec![1];
        }
        let planner = Planner::new(seed, &options.workers, &processes);
        let messages = options.messages.unwrap_or((options.kills * 200).max(8_000));
        let feed = Feed {
            seed,
            messages,
            partitions: options.partitions as usize,
            control_records: !options.no_control_records,
        };
        let (address, partitions) = (broker.address(), options.partitions);
        let disturbed = output_topics(&job.name);
        create(&address, std::slice::from_ref(&job.input), partitions)?;
        create(&address, &disturbed, partitions)?;
        // Some are left for what is not planned, such as a second try at a failpoint.
        let slice = messages / (options.kills + options.kills / 4 + 10);
        let pause = FED_FOR / (slice / PORTION).max(1) as u32;
        let feeder = Feeder::start(&address, &job.input, feed.records(), pause)?;
        Ok(Campaign {
            marks: Marks::new(options.work.join("marks"), options.partitions as u32),
            watch: Watch::start(&address, &disturbed, partitions)?,
            feeder: Some(feeder),
            slice,
            random: Random::new(seed ^ 0xca),
            starts: 0,
            report: Report::default(),
            missed: Vec::new(),
            broker,
            job,
            planner,
            options,
        })
    }

    fn rounds(&mut self) -> Result<()> {
        let rounds = match &self.options.only {
            Some(name) => self.planner.only(name, self.options.kills),
            None => self.planner.rounds(self.options.kills),
        };
        ensure!(self.options.kills == 0 || !rounds.is_empty(), "there is no fault of this name");
        for round in rounds {
            self.round(&round)?;
        }
        for _ in 0..TRIES_MAX {
            for fault in std::mem::take(&mut self.missed) {
                let round = self.planner.alone(fault);
                self.round(&round)?;
            }
        }
        // Where the job was faster to end by itself than to be killed.
        let missing = if self.options.only.is_none() { self.options.kills } else { 0 };
        for _ in self.report.killed()..missing {
            let round = self.planner.kill();
            self.round(&round)?;
        }
        Ok(())
    }

    /// Half of the input for a job that does wrong and is killed, the rest for one that goes on.
    fn sabotaged(&mut self) -> Result<()> {
        self.feed(8);
        let life = self.life(1);
        let mut set = self.up(&life)?;
        thread::sleep(FED_FOR);
        self.kill(&mut set, "sabotage")?;
        Ok(())
    }

    fn round(&mut self, round: &Round) -> Result<()> {
        let begun = Instant::now();
        let (kills, stops, outputs) = (self.report.killed(), self.report.stops, self.watch.outputs());
        let (transactions, snapshots) = (self.report.in_transaction, self.report.in_snapshot);
        *self.report.rounds.entry(round.fault.kind()).or_default() += 1;
        self.feed(1);
        let note = self.live(round).with_context(|| format!("in the round {round}"))?;
        eprintln!(
            "{:>4} {round}: {} kills{}{}, {} stops by itself, {} outputs, {:.1} s{note}",
            self.report.rounds.values().sum::<usize>(),
            self.report.killed() - kills,
            if self.report.in_transaction > transactions { " in a transaction" } else { "" },
            if self.report.in_snapshot > snapshots { " in a snapshot" } else { "" },
            self.report.stops - stops,
            self.watch.outputs() - outputs,
            begun.elapsed().as_secs_f64(),
        );
        Ok(())
    }

    /// Gives something to say of it.
    fn live(&mut self, round: &Round) -> Result<String> {
        let kind = round.fault.kind();
        let life = Life { workers: round.workers, processes: round.processes, ..self.life(1) };
        let mut note = String::new();
        match &round.fault {
            Fault::Kill(at) => {
                let mut set = self.until(&life, *at)?;
                self.kill(&mut set, kind)?;
            }
            Fault::Failpoint { name, hit } => note = self.failpoint(life, name, *hit)?,
            Fault::KillTwice { first, again_ms } => {
                let mut set = self.until(&life, *first)?;
                self.kill(&mut set, kind)?;
                let next = self.any_life(round.processes);
                let mut set = self.until(&next, Moment::AfterStart(*again_ms))?;
                self.kill(&mut set, kind)?;
            }
            Fault::Zombie { successor_workers, shares_state } => {
                note = self.zombie(&life, *successor_workers, *shares_state)?;
            }
            Fault::BrokerKilled { at } => {
                let mut set = self.until(&life, *at)?;
                let open = self.open_transactions(&set)?;
                self.broker.kill()?;
                self.report.broker_in_transaction += usize::from(open > 0);
                note = format!(", broker killed with {open} transactions open");
                self.broker.start_again()?;
                self.go_on(&mut set, &life, kind)?;
            }
            Fault::Unreachable { for_ms } => {
                let mut set = self.until(&life, Moment::AfterOutput(100))?;
                self.broker.proxy.cut();
                thread::sleep(Duration::from_millis(*for_ms));
                self.broker.proxy.heal();
                self.go_on(&mut set, &life, kind)?;
            }
            Fault::Deaf { for_ms } => {
                let mut set = self.until(&life, Moment::AfterOutput(100))?;
                self.broker.proxy.deafen();
                thread::sleep(Duration::from_millis(*for_ms));
                // Replies that were lost leave the connections unusable.
                self.broker.proxy.cut();
                self.broker.proxy.heal();
                self.go_on(&mut set, &life, kind)?;
            }
            Fault::Delayed { by_ms, for_ms } => {
                let mut set = self.until(&life, Moment::AfterOutput(100))?;
                self.broker.proxy.delay(*by_ms);
                thread::sleep(Duration::from_millis(*for_ms));
                self.kill(&mut set, kind)?;
                self.broker.proxy.heal();
            }
            Fault::DiskFull => {
                let life = Life { limits: Limits::FullDisk, ..life };
                note = self.without_state(&life, kind, &["too large", "os error 27"])?;
            }
            Fault::ReadOnlyState => {
                state::set_writable(&self.job.state, false)?;
                let life = Life { limits: Limits::Permissions, ..life };
                let lived = self.without_state(&life, kind, &["ermission denied"]);
                state::set_writable(&self.job.state, true)?;
                note = lived?;
            }
            Fault::Damage(damage) => {
                let name = state::spoil(&self.job.state, *damage, &mut self.random)?;
                let mut set = self.until(&life, Moment::AfterOutput(100))?;
                let noticed = if set.has_logged("can't be used") { "noticed" } else { "not noticed" };
                note = match name.as_deref().and_then(Path::file_name) {
                    Some(name) => format!(", spoilt {}, {noticed}", name.display()),
                    None => ", no snapshot to spoil".to_owned(),
                };
                self.kill(&mut set, kind)?;
            }
            Fault::Stop(at) => {
                let mut set = self.until(&life, *at)?;
                self.stop(&mut set)?;
            }
        }
        Ok(note)
    }

    fn failpoint(&mut self, mut life: Life, name: &'static str, hit: u32) -> Result<String> {
        self.feed(1);
        life.variables.push(("FORESHOCK_FAILPOINT", format!("{name}:{hit}")));
        let mut set = self.start(&life)?;
        let started = set.started;
        let has_passed = |campaign: &Campaign| match campaign.watch.first() {
            Some(first) => first.elapsed() >= POINT_WITHIN,
            None => started.elapsed() >= UP_WITHIN,
        };
        while set.first_end()?.is_none() && !has_passed(self) {
            thread::sleep(LOOK_EVERY);
        }
        let mut victim = None;
        for process in &mut set.processes {
            // Nobody else has sent it one.
            if process.status()?.is_some_and(|status| status.signal() == Some(SIGKILL)) {
                victim = Some(process.id());
            }
        }
        let Some(victim) = victim else {
            self.missed.push(Fault::Failpoint { name, hit: 1 });
            self.kill(&mut set, "failpoint_missed")?;
            return Ok(", not come to".to_owned());
        };
        *self.report.failpoints.entry(name).or_default() += 1;
        let open = self.marks.open(&[victim])?;
        self.report.kill("failpoint", open);
        self.peers_end(&mut set)?;
        self.note_recovery(&set);
        Ok(String::new())
    }

    /// Stops the job for longer than its transaction may take; a successor works meanwhile.
    fn zombie(&mut self, life: &Life, successor_workers: usize, shares_state: bool) -> Result<String> {
        let mut zombie = self.until(life, Moment::AfterOutput(300))?;
        self.open_transactions(&zombie)?;
        zombie.signal("STOP")?;
        let stopped = Instant::now();
        let open = self.marks.open(&zombie.pids())?;
        self.note_recovery(&zombie);
        if !shares_state {
            let elsewhere = self.job.work.join(format!("state-{}", self.starts));
            state::copy(&self.job.state, &elsewhere)?;
            self.job.state = elsewhere;
        }
        self.feed(1);
        let successor = Life { workers: successor_workers, ..self.life(1) };
        let mut set = self.up(&successor)?;
        thread::sleep((TRANSACTION_TIMEOUT + Duration::from_millis(500)).saturating_sub(stopped.elapsed()));
        zombie.signal("CONT")?;
        let continued = Instant::now();
        if zombie.ends_within(STOP_WITHIN)? {
            self.judge_end(&mut zombie)?;
        } else {
            self.wrong("a zombie lived on".to_owned());
        }
        let lived = continued.elapsed();
        drop(zombie);
        self.kill(&mut set, "zombie")?;
        Ok(format!(
            ", stopped with {} transactions open, ended {:.1} s after it went on",
            open.transactions,
            lived.as_secs_f64()
        ))
    }

    /// Waits a little for open transactions; gives how many there are.
    fn open_transactions(&self, set: &Set) -> Result<usize> {
        let deadline = Instant::now() + OPEN_WITHIN;
        loop {
            let open = self.marks.open(&set.pids())?.transactions;
            if open > 0 || Instant::now() >= deadline {
                return Ok(open);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A life in which no snapshot can be written: it may go on, or end and say why.
    fn without_state(&mut self, life: &Life, kind: &'static str, words: &[&str]) -> Result<String> {
        let mut set = self.start(life)?;
        let begun = Instant::now();
        // Long enough for some snapshots to fail.
        let until = |campaign: &Campaign| match campaign.watch.first() {
            Some(first) => first.elapsed() >= WITHOUT_STATE,
            None => begun.elapsed() >= UP_WITHIN,
        };
        while set.first_end()?.is_none() && !until(self) {
            thread::sleep(LOOK_EVERY);
        }
        let noticed = words.iter().any(|word| set.has_logged(word));
        self.kill(&mut set, kind)?;
        Ok(if noticed { ", noticed".to_owned() } else { ", not noticed".to_owned() })
    }

    /// After an outage: waits until outputs come again, of this job or of one that is started when it has ended, and
    /// kills it.
    fn go_on(&mut self, set: &mut Set, life: &Life, kind: &'static str) -> Result<()> {
        self.note_recovery(set);
        self.watch.expect_since(milliseconds_now());
        self.feed(1);
        let deadline = Instant::now() + UP_WITHIN;
        while self.watch.first().is_none() && set.first_end()?.is_none() {
            ensure!(
                Instant::now() < deadline,
                "no outputs within {UP_WITHIN:?} after an outage: {}",
                set.last_words()
            );
            thread::sleep(LOOK_EVERY);
        }
        if set.first_end()?.is_some() {
            self.ended_by_itself(set)?;
            *set = self.up(life)?;
        }
        self.kill(set, kind)
    }

    /// Starts the job and lets it run until this moment; started again where it ends by itself.
    fn until(&mut self, life: &Life, moment: Moment) -> Result<Set> {
        match moment {
            Moment::AfterStart(milliseconds) => {
                let set = self.start(life)?;
                thread::sleep(Duration::from_millis(milliseconds).saturating_sub(set.started.elapsed()));
                Ok(set)
            }
            Moment::AfterOutput(milliseconds) => {
                let set = self.up(life)?;
                thread::sleep(Duration::from_millis(milliseconds));
                Ok(set)
            }
        }
    }

    /// Starts the job and waits for its first committed output.
    fn up(&mut self, life: &Life) -> Result<Set> {
        for _ in 0..STARTS_MAX {
            let mut set = self.start(life)?;
            let deadline = set.started + UP_WITHIN;
            while self.watch.first().is_none() && set.first_end()?.is_none() {
                ensure!(
                    Instant::now() < deadline,
                    "the job has no outputs within {UP_WITHIN:?} of its start: {}",
                    set.last_words()
                );
                thread::sleep(LOOK_EVERY);
            }
            if set.first_end()?.is_none() {
                return Ok(set);
            }
            self.ended_by_itself(&mut set)?;
        }
        bail!("the job ended by itself {STARTS_MAX} times in a row")
    }

    fn start(&mut self, life: &Life) -> Result<Set> {
        self.marks.clear()?;
        self.watch.expect_since(milliseconds_now());
        self.report.restarts += usize::from(self.starts > 0);
        self.starts += 1;
        self.job.start(life, &format!("{:04}", self.starts))
    }

    /// Kills one of the job's processes; the others have to end by themselves.
    fn kill(&mut self, set: &mut Set, kind: &'static str) -> Result<()> {
        if set.first_end()?.is_some() {
            return self.ended_by_itself(set);
        }
        let victim = self.random.below(set.processes.len());
        set.processes[victim].kill()?;
        let open = self.marks.open(&[set.processes[victim].id()])?;
        self.report.kill(kind, open);
        self.peers_end(set)?;
        self.note_recovery(set);
        Ok(())
    }

    fn peers_end(&mut self, set: &mut Set) -> Result<()> {
        if !set.ends_within(STOP_WITHIN)? {
            self.wrong("a process lived on without its peer".to_owned());
            set.processes.iter_mut().try_for_each(|process| process.kill())?;
        }
        Ok(())
    }

    fn stop(&mut self, set: &mut Set) -> Result<()> {
        if set.first_end()?.is_some() {
            return self.ended_by_itself(set);
        }
        set.signal("TERM")?;
        self.note_recovery(set);
        if !set.ends_within(STOP_WITHIN)? {
            self.wrong(format!("a clean stop took longer than {STOP_WITHIN:?}"));
            return Ok(());
        }
        for process in &mut set.processes {
            let status = process.status()?.context("a process that has ended has a status")?;
            if status.success() {
                continue;
            }
            let words = process.last_words();
            // Then its broker was too busy to take what the job had begun.
            if words.starts_with("error: ") && words.contains("imed out") {
                return self.ended_by_itself(set);
            }
            self.wrong(format!("a clean stop ended with {status}: {words}"));
            return Ok(());
        }
        self.report.clean_stops += 1;
        Ok(())
    }

    /// Takes note of a job that has ended, or whose first process has.
    fn ended_by_itself(&mut self, set: &mut Set) -> Result<()> {
        self.report.stops += 1;
        self.peers_end(set)?;
        self.note_recovery(set);
        eprintln!("     the job ended by itself: {}", set.last_words());
        self.judge_end(set)
    }

    fn judge_end(&mut self, set: &mut Set) -> Result<()> {
        for process in &mut set.processes {
            let code = process.status()?.and_then(|status| status.code());
            if code.is_some_and(|code| STAYS_DOWN.contains(&code)) {
                bail!("the job stays down: {}", process.last_words());
            }
        }
        // A peer that is gone may take the others with it in any way.
        if let [process] = &mut set.processes[..]
            && let Some(unclear) = process.unclear_end()?
        {
            self.wrong(unclear);
        }
        Ok(())
    }

    fn note_recovery(&mut self, set: &Set) {
        if let Some(first) = self.watch.first() {
            self.report.recoveries.push(first.saturating_duration_since(set.started));
            // Once for each start.
            self.watch.expect_since(i64::MAX);
        }
    }

    /// Lets the input go on by so many slices.
    fn feed(&self, slices: usize) {
        if let Some(feeder) = &self.feeder {
            feeder.allow(slices * self.slice);
        }
    }

    fn wrong(&mut self, what: String) {
        eprintln!("     WRONG: {what}");
        self.report.wrong.push(what);
    }

    /// A life of one process with that many workers.
    fn life(&self, workers: usize) -> Life {
        let mut variables = vec![("FORESHOCK_MARKS", self.marks.path().display().to_string())];
        if let Some(sabotage) = self.options.sabotage {
            variables.push(("FORESHOCK_SABOTAGE", sabotage.variable().to_owned()));
        }
        Life { workers, processes: 1, variables, ..Life::default() }
    }

    fn any_life(&mut self, processes: usize) -> Life {
        let workers = self.options.workers[self.random.below(self.options.workers.len())];
        Life { processes, ..self.life(workers) }
    }

    /// Lets a job read to the end of its input; gives its summary.
    fn read_to_end(&mut self, job: &Job, life: Life) -> Result<Value> {
        let life = Life { until_end: true, ..life };
        for attempt in 0..STARTS_MAX {
            let mut set = job.start(&life, &format!("{}-end-{attempt}", job.name))?;
            if !set.ends_within(END_WITHIN)? {
                bail!(
                    "the job {} did not come to the end within {END_WITHIN:?}: {}",
                    job.name,
                    set.last_words()
                );
            }
            let ended = set.first_end()?.context("a job that has ended has a status")?;
            if ended.success() {
                return summary(&mut set);
            }
            eprintln!("     the job {} ended by itself: {}", job.name, set.last_words());
            self.judge_end(&mut set)?;
        }
        bail!("the job {} ended by itself {STARTS_MAX} times in a row", job.name)
    }

    /// The end of the disturbed run, the undisturbed one, and what tells them apart.
    fn judge(mut self) -> Result<Report> {
        self.feeder.take().map_or(Ok(()), Feeder::finish)?;
        let workers = self.options.workers[self.random.below(self.options.workers.len())];
        let (job, life) = (self.job.clone(), self.life(workers));
        let disturbed = self.read_to_end(&job, life)?;
        let undisturbed_job = Job {
            name: "undisturbed".to_owned(),
            state: self.job.work.join("state-undisturbed"),
            ..self.job.clone()
        };
        let topics = output_topics(&undisturbed_job.name);
        create(&self.broker.address(), &topics, self.options.partitions)?;
        let life = Life { workers: 1, processes: 1, ..Life::default() };
        let undisturbed = self.read_to_end(&undisturbed_job, life)?;

        let read = |job: &Job| outputs(&self.broker.address(), &job.name, self.options.partitions);
        let (expected, found) = (read(&undisturbed_job)?, read(&job)?);
        say_what_there_is(&expected);
        self.report.verdict = compare(&expected, &found);
        let found_count: usize = found.iter().flat_map(|topic| &topic.partitions).map(Vec::len).sum();
        let sent = sent(&self.broker.address(), &job.name, self.options.partitions)?;
        self.report.hidden = sent.saturating_sub(found_count);
        match (undisturbed.get("account"), disturbed.get("account")) {
            (None, None) => eprintln!("the job tells no account of all its lives: not compared"),
            (expected, found) => {
                let none = Value::Null;
                let wrong = compare_accounts(expected.unwrap_or(&none), found.unwrap_or(&none));
                wrong.into_iter().for_each(|wrong| self.wrong(wrong));
            }
        }
        // What is wrong comes before what the campaign itself fell short of.
        if self.report.is_clean() {
            self.check_itself(&expected)?;
        }
        Ok(self.report)
    }

    /// Whether the campaign has tried what it was to try.
    fn check_itself(&self, expected: &[Topic]) -> Result<()> {
        let outputs = self.report.verdict.compared;
        ensure!(outputs >= OUTPUTS_MIN, "only {outputs} outputs, {OUTPUTS_MIN} are wanted");
        for topic in expected {
            let is_empty = topic.partitions.iter().all(Vec::is_empty);
            let may_be_empty = topic.kind == "control" && self.options.no_control_records;
            ensure!(!is_empty || may_be_empty, "the input led to no output of the kind {}", topic.kind);
        }
        ensure!(self.missed.is_empty(), "failpoints that were never come to: {:?}", self.missed);
        Ok(())
    }
}

/// What the input leads to, so that one can see that there is something to lose.
fn say_what_there_is(topics: &[Topic]) {
    let counts = topics.iter().map(|topic| {
        let count: usize = topic.partitions.iter().map(Vec::len).sum();
        format!("{} {count}", topic.kind)
    });
    let alerts = topics.iter().filter(|topic| topic.kind == "alerts").flat_map(|topic| &topic.partitions);
    let mut states = std::collections::BTreeMap::<String, usize>::new();
    for alert in alerts.flatten().filter_map(|output| output.value.as_deref()) {
        let alert: Value = serde_json::from_slice(alert).unwrap_or_default();
        *states.entry(alert["state"].as_str().unwrap_or("unknown").to_owned()).or_default() += 1;
    }
    eprintln!("outputs: {}; alerts: {states:?}", counts.collect::<Vec<_>>().join(", "));
}
