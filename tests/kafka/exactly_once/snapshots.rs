//! Snapshots that are damaged or gone, and a job that has kept none for a while.

use std::fs;

use super::{Kept, caught_up, create, go_on, metric, send_feed, stopped};

use crate::kafka::alike::{assert_same_lines, by_instrument, lines};
use crate::kafka::job::{assert_each_once, send_quotes, sources, summary};
use crate::support::feed::{Recipe, file};
use crate::support::kafka::brokers;
use crate::support::{Backtest, Files, finish};

const PARTITIONS: usize = 2;

#[test]
fn an_older_snapshot_or_the_input_itself_gives_the_same_state() {
    let Some(brokers) = brokers("an_older_snapshot_or_the_input_itself_gives_the_same_state") else { return };
    let files = Files::new();
    let messages = Recipe::lively(31, 4).messages(6_000);
    let backtest = Backtest::of([files.add("feed.ndjson", file(&messages))]).run();
    let kept = Kept::new(&brokers, "damaged");
    let job = &kept.job;
    create(&brokers, &job.raw, PARTITIONS as i32, &[]);
    let mut parts = messages.chunks(1_500);
    let producer = job.producer();
    let mut send_part = || send_feed(job, &producer, parts.next().unwrap(), PARTITIONS);
    for _ in 0..2 {
        send_part();
        go_on(job, &["-w", "1"]);
    }
    assert_eq!([kept.snapshots(0).len(), kept.snapshots(1).len()], [2, 2]);

    let newest = &kept.snapshots(0)[0];
    let mut bytes = fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(newest, bytes).unwrap();
    send_part();
    let (running, address) = caught_up(job, &["-w", "2"]);
    assert_eq!(metric(address, "foreshock_snapshots_total{result=\"unusable\"}"), 1.0);
    assert!(metric(address, "foreshock_replayed_rows_total") > 0.0);
    assert!(running.log().contains("a snapshot can't be used"), "{}", running.log());
    stopped(running);

    kept.snapshots(0).into_iter().chain(kept.snapshots(1)).for_each(|path| fs::remove_file(path).unwrap());
    send_part();
    let ended = finish(job.run(["--until-end", "-w", "1"]), None);
    assert!(ended.stderr.contains("made again from its origin"), "{}", ended.stderr);
    let account = summary(&ended);
    assert_eq!(account["messages_in"], 1_500, "what was told of before is not counted again");
    assert_eq!(account["account"], backtest.account());
    assert_same_lines(&lines(&backtest), &by_instrument(&job.all_outputs()), "after lost snapshots");
}

#[test]
fn snapshots_of_an_earlier_format_are_refused_and_the_state_is_made_again() {
    let Some(brokers) = brokers("snapshots_of_an_earlier_format_are_refused_and_the_state_is_made_again")
    else {
        return;
    };
    let files = Files::new();
    let messages = Recipe::lively(32, 4).messages(3_000);
    let backtest = Backtest::of([files.add("feed.ndjson", file(&messages))]).run();
    let kept = Kept::new(&brokers, "earlier");
    let job = &kept.job;
    create(&brokers, &job.raw, 1, &[]);
    let producer = job.producer();
    let (first, rest) = messages.split_at(1_500);
    send_feed(job, &producer, first, 1);
    go_on(job, &["-w", "1"]);
    for path in kept.snapshots(0) {
        let mut bytes = fs::read(&path).unwrap();
        // Behind the eight bytes that all snapshots begin with.
        bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
        fs::write(path, bytes).unwrap();
    }
    send_feed(job, &producer, rest, 1);
    let ended = finish(job.run(["--until-end", "-w", "2"]), None);
    assert!(ended.stderr.contains("its format is version 1, of an earlier foreshock"), "{}", ended.stderr);
    assert!(ended.stderr.contains("made again from its origin"), "{}", ended.stderr);
    assert_eq!(summary(&ended)["messages_in"], 1_500);
    assert_same_lines(&lines(&backtest), &by_instrument(&job.all_outputs()), "after an upgrade");
}

#[test]
fn back_from_at_least_once_windows_are_empty_and_the_log_says_so() {
    let Some(brokers) = brokers("back_from_at_least_once_windows_are_empty_and_the_log_says_so") else {
        return;
    };
    let kept = Kept::new(&brokers, "alternating");
    let job = &kept.job;
    create(&brokers, &job.raw, 1, &[]);
    let told = "no state belongs to the committed offset";
    let deliveries = ["exactly_once", "at_least_once", "exactly_once", "exactly_once"];
    for (round, delivery) in deliveries.into_iter().enumerate() {
        let numbers = 50 * round as u64..50 * (round as u64 + 1);
        send_quotes(job, 0, numbers);
        let ended = finish(kept.with("JOB__DELIVERY", delivery).run(["--until-end"]), None);
        assert_eq!(summary(&ended)["messages_in"], 50, "{delivery}");
        assert_eq!(ended.stderr.contains(told), round == 2, "{}", ended.stderr);
    }
    assert_each_once(&sources(job, "features"), &[200]);
    let returns: Vec<u64> =
        super::values(job, "features")[0].iter().map(|row| row["n"].as_u64().unwrap()).collect();
    // Where there is a state it is one of all ticks so far, or of those since it began anew.
    assert_eq!([returns[49], returns[50], returns[99], returns[100]], [49, 0, 49, 0]);
    assert_eq!([returns[149], returns[150], returns[199]], [49, 50, 99]);
}
