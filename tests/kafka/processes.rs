//! A job of several processes tells what it tells as one, and goes on when one of them is killed.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::kafka::alike::{assert_same_lines, by_instrument, lines};
use crate::kafka::job::{
    Job, Message, account, assert_each_once, quote, send, send_quotes, sources, summary,
};
use crate::kafka::refusals::create;
use crate::support::feed::{Recipe, file};
use crate::support::kafka::{brokers, committed};
use crate::support::process::{Running, await_that};
use crate::support::{Backtest, Files, finish};

const PARTITIONS: i32 = 3;

#[test]
fn any_number_of_processes_gives_what_the_backtest_gives() {
    let Some(brokers) = brokers("any_number_of_processes_gives_what_the_backtest_gives") else { return };
    let files = Files::new();
    let feed = files.add("feed.ndjson", file(&Recipe::lively(11, 7).messages(12_000)));
    let backtest = Backtest::of([&feed]).run();
    let expected = lines(&backtest);
    let fed = Job::new(&brokers, "processes");
    fed.feed([&feed], 5);
    for [processes, workers] in [["1", "2"], ["2", "1"], ["2", "2"], ["3", "1"]] {
        let what = format!("{processes} processes with {workers} workers");
        let job = fed.another("processes");
        let args = ["-n", processes, "-w", workers, "--from-beginning", "--until-end"];
        let summary = summary(&Running::start(job.launch(args)).end());
        assert_eq!(account(&summary), backtest.account(), "{what}");
        let per_worker = summary["rows_per_worker"].as_array().unwrap().len();
        assert_eq!(
            per_worker.to_string(),
            (processes.parse::<usize>().unwrap() * workers.parse::<usize>().unwrap()).to_string()
        );
        assert_same_lines(&expected, &by_instrument(&job.all_outputs()), &what);
    }
}

#[test]
fn every_process_reads_its_own_from_the_same_origin() {
    let Some(brokers) = brokers("every_process_reads_its_own_from_the_same_origin") else { return };
    // What was there before the job's first start is not read, by any process.
    let job = Job::new(&brokers, "origin").with("KAFKA__PARTITIONS", &PARTITIONS.to_string());
    finish(job.another("topics").with("KAFKA__START", "latest").run(["--until-end"]), None);
    (0..PARTITIONS).for_each(|partition| send_quotes(&job, partition, 0..10));
    let mut launch = started(&job, &["-n", "2", "-w", "1"]);
    launch.until_logged("all processes run");
    (0..PARTITIONS).for_each(|partition| send_quotes(&job, partition, 10..30));
    await_that("all commits", || {
        committed(&brokers, &job.name, &job.raw) == vec![Some(30); PARTITIONS as usize]
    });
    launch.signal("TERM");
    assert_eq!(launch.end().status, Some(0));
    for counts in sources(&job, "predictions") {
        assert_eq!(counts, (10..30).map(|offset| (offset, 1)).collect::<BTreeMap<_, _>>());
    }
}

#[test]
fn an_instrument_in_partitions_of_two_processes_is_named() {
    let Some(brokers) = brokers("an_instrument_in_partitions_of_two_processes_is_named") else { return };
    let job = Job::new(&brokers, "strayed").with("KAFKA__START", "earliest");
    create(&brokers, &job.raw, 2);
    send_quotes(&job, 1, 0..10);
    let strayed = quote(1, 10);
    send(&job, [Message { partition: 0, value: Some(strayed.as_bytes()), ..Message::default() }]);
    let mut launch = started(&job, &["-n", "2", "-w", "1"]);
    launch.until_logged("x:P1 was met in");
    launch.signal("TERM");
    let log = launch.end().stderr;
    assert!(log.contains(&format!("{}/0", job.raw)) && log.contains(&format!("{}/1", job.raw)), "{log}");
}

#[test]
fn a_clean_stop_leaves_nothing_to_read_again() {
    let Some(brokers) = brokers("a_clean_stop_leaves_nothing_to_read_again") else { return };
    let job = created(&brokers, "clean");
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let feeder = scope.spawn(|| feed_until(&job, &stop));
        // Of the whole by the supervisor, and of one process by its own signal.
        for round in 0..2 {
            let mut launch = started(&job, &["-n", "2", "-w", "1"]);
            launch.until_logged("all processes run");
            let at = committed(&brokers, &job.name, &job.raw);
            await_that("some progress", || {
                let now = committed(&brokers, &job.name, &job.raw);
                now.iter().zip(&at).all(|(now, at)| now > at)
            });
            match round {
                0 => launch.signal("TERM"),
                _ => kill("-TERM", pids(&launch.log())[1]),
            }
            let ended = launch.end();
            assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        }
        stop.store(true, Ordering::Relaxed);
        feeder.join().unwrap()
    });
    job_to_end(&job);
    assert_each_once(&sources(&job, "predictions"), &sent);
}

#[test]
fn a_killed_process_takes_all_along_and_all_come_back() {
    let Some(brokers) = brokers("a_killed_process_takes_all_along_and_all_come_back") else { return };
    let job = created(&brokers, "killed");
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let feeder = scope.spawn(|| feed_until(&job, &stop));
        let mut launch = started(&job, &["-n", "2", "-w", "1"]);
        for round in 0..3 {
            launch.until("a set that runs", |launch| {
                launch.log().matches("all processes run").count() == round + 1
            });
            let at = committed(&brokers, &job.name, &job.raw);
            launch.until("some progress", |_| {
                let now = committed(&brokers, &job.name, &job.raw);
                now.iter().zip(&at).all(|(now, at)| now > at)
            });
            if round < 2 {
                let pids = pids(&launch.log());
                kill("-KILL", pids[2 * round + round]);
            }
        }
        stop.store(true, Ordering::Relaxed);
        let sent = feeder.join().unwrap();
        launch.signal("TERM");
        let ended = launch.end();
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("lost a process of this job"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        sent
    });
    job_to_end(&job);
    // Nothing is lost; what at-least-once may repeat is for the tests of deliveries.
    for (counts, sent) in sources(&job, "predictions").iter().zip(sent) {
        let missing: Vec<u64> = (0..sent).filter(|offset| !counts.contains_key(offset)).take(3).collect();
        assert!(missing.is_empty(), "of {sent}: {missing:?}");
    }
}

/// A job whose topics are there, with nothing in them.
fn created(brokers: &str, test: &str) -> Job {
    let job = Job::new(brokers, test)
        .with("KAFKA__START", "earliest")
        .with("KAFKA__PARTITIONS", &PARTITIONS.to_string());
    assert_eq!(job.run_through(&[])["messages_in"], 0);
    job
}

fn started(job: &Job, args: &[&str]) -> Running {
    Running::start(job.launch(args))
}

/// Reads what is left.
fn job_to_end(job: &Job) {
    summary(&started(job, &["-n", "2", "-w", "1", "--until-end"]).end());
}

/// Feeds numbered quotes to all partitions until it is told to stop; gives how many each partition got.
fn feed_until(job: &Job, stop: &AtomicBool) -> Vec<u64> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        (0..PARTITIONS).for_each(|partition| send_quotes(job, partition, number..number + 20));
        number += 20;
    }
    vec![number; PARTITIONS as usize]
}

/// The numbers that the system has for the processes that were started, in their order.
fn pids(log: &str) -> Vec<u32> {
    let started = log.lines().filter(|line| line.contains("started a process"));
    started.map(|line| line.split("pid=").nth(1).unwrap().trim().parse().unwrap()).collect()
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}
