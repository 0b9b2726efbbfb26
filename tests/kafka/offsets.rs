//! What a job has committed is what it has read and delivered, however it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::kafka::job::{Job, assert_each_once, over_shards, quote, sources, stats, summary};
use crate::support::kafka::{brokers, committed, records};
use crate::support::process::{PATIENCE, Running};

use rdkafka::producer::{BaseRecord, Producer};

const PARTITIONS: i32 = 3;

/// Creates the topics of a job.
fn created(brokers: &str, test: &str) -> Job {
    let job = Job::new(brokers, test)
        .with_http()
        .with("KAFKA__START", "earliest")
        .with("KAFKA__PARTITIONS", &PARTITIONS.to_string());
    let account = job.run_through(&[]);
    assert_eq!(account["messages_in"], 0);
    job
}

/// Feeds numbered quotes to all partitions until it is told to stop; gives how many each partition got.
fn feed_until(job: &Job, stop: &AtomicBool) -> Vec<u64> {
    let producer = job.producer();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for partition in 0..PARTITIONS {
            let (key, value) = (format!("x:P{partition}"), quote(partition, number));
            let record = BaseRecord::to(&job.raw).partition(partition).key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        number += 1;
        producer.poll(Duration::ZERO);
        // Some thousands a second.
        thread::sleep(Duration::from_micros(500));
    }
    producer.flush(PATIENCE).unwrap();
    vec![number; PARTITIONS as usize]
}

/// Starts a job, feeds it, and ends it with a signal while more is being fed. Gives how many messages each
/// partition has in the end.
fn interrupted(job: &Job, signal: &str) -> (crate::support::Ended, Vec<u64>) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Stops the feeder where an assertion fails too.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let fed = scope.spawn(|| feed_until(job, &stop));
        let stopping = Stop(&stop);
        let mut running = Running::start(job.run(["-w", "2"]));
        let address = running.http();
        running.until("some thousands are computed", |_| {
            stats(address)["counts"]["rows"]["ticks"].as_i64().unwrap() > 3_000
        });
        running.signal(signal);
        let ended = running.end();
        drop(stopping);
        (ended, fed.join().unwrap())
    })
}

#[test]
fn a_clean_stop_in_full_flow_repeats_nothing_and_loses_nothing() {
    let Some(brokers) = brokers("a_clean_stop_in_full_flow_repeats_nothing_and_loses_nothing") else {
        return;
    };
    let job = created(&brokers, "sigterm");
    let (ended, fed) = interrupted(&job, "TERM");
    let first = summary(&ended);
    let at_stop: Vec<u64> =
        committed(&brokers, &job.name, &job.raw).into_iter().map(|offset| offset.unwrap() as u64).collect();
    assert_eq!(first["messages_in"], at_stop.iter().sum::<u64>());
    assert_eq!(first["rows"]["ticks"], first["messages_in"], "each message is a tick");
    // Delivered, committed and counted is the same stretch of each partition.
    assert_each_once(&sources(&job, "features"), &at_stop);
    assert_each_once(&sources(&job, "predictions"), &at_stop);
    assert!(fed.iter().sum::<u64>() > at_stop.iter().sum::<u64>(), "there is more to read");

    let mut running = Running::start(job.run(["-w", "1"]));
    let address = running.http();
    let all = fed.iter().sum::<u64>() as i64;
    running.until("all is committed", |_| over_shards(&stats(address), "committed") == all);
    running.signal("TERM");
    let second = summary(&running.end());
    let sum = |name: &str| first[name].as_i64().unwrap() + second[name].as_i64().unwrap();
    assert_eq!((sum("messages_in"), sum("rows_in"), sum("predictions")), (all, all, all));
    assert_each_once(&sources(&job, "features"), &fed);
    assert_each_once(&sources(&job, "predictions"), &fed);
}

#[test]
fn after_a_kill_nothing_is_missing() {
    let Some(brokers) = brokers("after_a_kill_nothing_is_missing") else { return };
    let job = created(&brokers, "sigkill").with("JOB__DELIVERY", "at_least_once");
    let (ended, fed) = interrupted(&job, "KILL");
    assert_eq!(ended.status, None, "it was killed");
    let before = sources(&job, "features");
    let at_kill = committed(&brokers, &job.name, &job.raw);
    for (counts, committed) in before.iter().zip(&at_kill) {
        let committed = committed.unwrap() as u64;
        let missing = (0..committed).find(|offset| !counts.contains_key(offset));
        assert_eq!(missing, None, "an offset is committed behind its outputs only");
        assert!(counts.values().all(|count| *count == 1));
    }

    let mut running = Running::start(job.run(["-w", "2"]));
    let address = running.http();
    let all = fed.iter().sum::<u64>() as i64;
    running.until("all is committed", |_| over_shards(&stats(address), "committed") == all);
    running.signal("TERM");
    let second = summary(&running.end());
    let resumed: i64 = at_kill.iter().map(|offset| offset.unwrap()).sum();
    assert_eq!(second["messages_in"], all - resumed, "it went on at what was committed");
    for kind in ["features", "predictions"] {
        let after = sources(&job, kind);
        for (partition, counts) in after.iter().enumerate() {
            let committed = at_kill[partition].unwrap() as u64;
            let offsets: Vec<u64> = counts.keys().copied().collect();
            assert_eq!(offsets, (0..fed[partition]).collect::<Vec<_>>(), "{kind} of partition {partition}");
            // What was committed is not repeated, and nothing is repeated twice.
            for (offset, count) in counts {
                let most = if *offset < committed { 1 } else { 2 };
                assert!(*count <= most, "{kind} of {partition}/{offset}: {count}");
            }
        }
    }
    let raw: u64 = records(&brokers, &job.raw).iter().map(|records| records.len() as u64).sum();
    assert_eq!(raw, all as u64);
}
