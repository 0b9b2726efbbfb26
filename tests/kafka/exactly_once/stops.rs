//! Kills, clean stops, and two processes that are one job.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Kept, assert_ends, caught_up, create, go_on, metric, outputs, send_feed, stopped};

use crate::kafka::alike::{assert_same_lines, by_instrument, lines};
use crate::kafka::job::{Job, assert_each_once, over_shards, send_quotes, sources, stats};
use crate::support::feed::{Message, Recipe, file};
use crate::support::kafka::brokers;
use crate::support::process::Running;
use crate::support::random::Random;
use crate::support::{Backtest, Files};

const PARTITIONS: usize = 3;

/// Messages that come while one process lives.
const PART: usize = 2_500;

#[test]
fn three_kills_in_full_flow_leave_what_the_backtest_gives() {
    let Some(brokers) = brokers("three_kills_in_full_flow_leave_what_the_backtest_gives") else { return };
    let files = Files::new();
    let messages = Recipe::lively(23, 7).messages(4 * PART);
    let backtest = Backtest::of([files.add("feed.ndjson", file(&messages))]).run();
    let kept = Kept::new(&brokers, "kills");
    let last = killed_thrice(&kept.job, &messages);
    let job = &kept.job;
    assert_eq!(last["account"], backtest.account());
    let outputs = job.all_outputs();
    assert_same_lines(&lines(&backtest), &by_instrument(&outputs), "after three kills");
    for kind in ["features", "predictions"] {
        let twice = |counts: &std::collections::BTreeMap<u64, usize>| {
            counts.iter().find(|(_, count)| **count > 1).map(|(offset, _)| *offset)
        };
        let twice: Vec<Option<u64>> = sources(job, kind).iter().map(twice).collect();
        assert_eq!(twice, [None; PARTITIONS], "{kind}");
    }
}

#[test]
fn kills_with_rows_that_wait_for_older_ones_leave_what_an_undisturbed_job_gives() {
    let Some(brokers) =
        brokers("kills_with_rows_that_wait_for_older_ones_leave_what_an_undisturbed_job_gives")
    else {
        return;
    };
    let messages = disordered(Recipe::lively(29, 5).messages(4 * PART));
    let kept = Kept::of(
        Job::new(&brokers, "reordered").with("KAFKA__START", "earliest").with("ORDER__REORDER", "200ms"),
    );
    let killed = killed_thrice(&kept.job, &messages);
    let undisturbed = kept.another("undisturbed");
    let account = undisturbed.job.run_through(&["-w", "1"]);
    assert!(account["rows"]["late"].as_i64().unwrap() > 0, "some came too late");
    assert_eq!(killed["account"], account["account"]);
    let (killed, undisturbed) = (outputs(&kept.job), outputs(&undisturbed.job));
    for (kind, partitions) in &undisturbed {
        for (partition, records) in partitions.iter().enumerate() {
            let found = &killed[kind][partition];
            let same = records.iter().zip(found).take_while(|(one, other)| one == other).count();
            let counts = (found.len(), same);
            assert_eq!(counts, (records.len(), records.len()), "{kind} of {partition}: length and same");
        }
    }
}

/// Each instrument's messages in slight disorder: most within the time that rows wait, a few beyond.
fn disordered(mut messages: Vec<Message>) -> Vec<Message> {
    let mut random = Random::new(5);
    messages.sort_by_cached_key(|message| {
        let most = if random.once_in(50) { 2_000_000 } else { 250_000 };
        message.time + random.below(most) as i64
    });
    messages
}

/// Runs a job that is killed three times while messages come, each time started with another number of workers, and
/// then goes on to the end; gives that one's account.
#[track_caller]
fn killed_thrice(job: &Job, messages: &[Message]) -> Value {
    create(&job.brokers, &job.raw, PARTITIONS as i32, &[]);
    let job = job.clone().with("STATE__INTERVAL", "100ms").with_http();
    let mut parts = messages.chunks(PART);
    for workers in ["1", "2", "3"] {
        let part = parts.next().unwrap();
        thread::scope(|scope| {
            let mut running = Running::start(job.run(["-w", workers]));
            let address = running.http();
            running.until("it runs", |_| stats(address)["phase"] == "running");
            let before = over_shards(&stats(address), "committed");
            scope.spawn(|| flow(&job, part));
            running.until("a good part is committed", |_| {
                over_shards(&stats(address), "committed") - before > PART as i64 / 2
            });
            running.signal("KILL");
            assert_eq!(running.end().status, None, "it was killed");
        });
    }
    parts.for_each(|part| flow(&job, part));
    go_on(&job, &["-w", "2"])
}

/// Sends messages at some thousands a second.
fn flow(job: &Job, messages: &[Message]) {
    let producer = job.producer();
    for some in messages.chunks(100) {
        send_feed(job, &producer, some, PARTITIONS);
        thread::sleep(Duration::from_millis(10));
    }
}

/// Active from the first second on that has a sample.
const ALWAYS: &str = "rules:\n  - name: always\n    metric: mid\n    instruments: [\"*:*\"]\n    priority: P2\n    raise: {above: 1}\n    clear: 0.5\n    for: 0s\n    resolve_for: 1s\n    cooldown: 0s\n    enabled: true\n";

#[test]
fn after_a_clean_stop_nothing_is_read_again_and_alerts_are_still_active() {
    let Some(brokers) = brokers("after_a_clean_stop_nothing_is_read_again_and_alerts_are_still_active")
    else {
        return;
    };
    let files = Files::new();
    let rules = files.add("alerts.yaml", ALWAYS);
    let kept = Kept::of(
        Job::new(&brokers, "clean")
            .with("KAFKA__START", "earliest")
            .with("ALERTS__FILE", rules.to_str().unwrap()),
    );
    let job = &kept.job;
    create(&brokers, &job.raw, PARTITIONS as i32, &[]);
    let send_all = |numbers: std::ops::Range<u64>| {
        (0..PARTITIONS as i32).for_each(|partition| send_quotes(job, partition, numbers.clone()));
    };
    send_all(0..1_500);
    let active = "foreshock_active_alerts{priority=\"P2\"}";
    let regime = "market_regime_state{exchange=\"x\",instrument=\"P1\"}";
    let (running, address) = caught_up(job, &["-w", "1"]);
    assert_eq!((metric(address, active), metric(address, regime)), (PARTITIONS as f64, 1.0));
    stopped(running);

    let (running, address) = caught_up(job, &["-w", "2"]);
    assert_eq!(metric(address, "foreshock_replayed_rows_total"), 0.0);
    assert!(metric(address, "foreshock_recovery_seconds") > 0.0);
    assert_eq!((metric(address, active), metric(address, regime)), (PARTITIONS as f64, 1.0));
    let account = stopped(running);
    assert_eq!((&account["messages_in"], &account["account"]["messages_in"]), (&0.into(), &4_500.into()));

    send_all(1_500..3_000);
    let account = go_on(job, &["-w", "3"]);
    assert_eq!((&account["messages_in"], &account["account"]["messages_in"]), (&4_500.into(), &9_000.into()));
    assert_each_once(&sources(job, "features"), &[3_000; PARTITIONS]);
    assert_eq!(job.outputs("alerts").concat().len(), PARTITIONS, "they were raised once");
}

#[test]
fn a_second_process_takes_over_and_the_first_one_ends() {
    let Some(brokers) = brokers("a_second_process_takes_over_and_the_first_one_ends") else { return };
    let files = Files::new();
    let messages = Recipe::lively(37, 6).messages(2 * PART);
    let backtest = Backtest::of([files.add("feed.ndjson", file(&messages))]).run();
    let kept = Kept::new(&brokers, "twins");
    let job = kept.with("STATE__INTERVAL", "100ms").with_http();
    create(&brokers, &job.raw, PARTITIONS as i32, &[]);
    let all = messages.len() as i64;
    let mut first = Running::start(job.run(["-w", "1"]));
    let address = first.http();
    first.until("it runs", |_| stats(address)["phase"] == "running");
    let (ended, account) = thread::scope(|scope| {
        let feeder = scope.spawn(|| flow(&job, &messages[..PART]));
        first.until("some is committed", |_| over_shards(&stats(address), "committed") > 500);
        let mut second = Running::start(job.run(["-w", "2"]));
        let address = second.http();
        second.until("it runs", |_| stats(address)["phase"] == "running");
        feeder.join().unwrap();
        scope.spawn(|| flow(&job, &messages[PART..]));
        let ended = first.end();
        second.until("all is committed", |_| over_shards(&stats(address), "committed") == all);
        (ended, stopped(second))
    });
    assert_ends(&ended, 1, &["another process has taken over"]);
    assert_eq!(account["account"], backtest.account());
    assert_same_lines(&lines(&backtest), &by_instrument(&job.all_outputs()), "of two processes");
}
