//! Input that is gone: what a job does is what `kafka.lost_offsets` says.

use std::time::Duration;

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::{Kept, admin, assert_ends, block_on, caught_up, create, go_on, metric, stopped, values};

use crate::kafka::job::{Job, over_shards, send_quotes, sources, stats, summary};
use crate::support::kafka::{brokers, committed, consumer};
use crate::support::process::{PATIENCE, await_that};
use crate::support::{finish, http};

const PARTITIONS: i32 = 2;

fn send_all(job: &Job, numbers: std::ops::Range<u64>) {
    (0..PARTITIONS).for_each(|partition| send_quotes(job, partition, numbers.clone()));
}

/// Removes the records before an offset from each partition.
#[track_caller]
fn delete_before(job: &Job, offset: i64) {
    let mut before = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        before.add_partition_offset(&job.raw, partition, Offset::Offset(offset)).unwrap();
    }
    block_on(admin(&job.brokers).delete_records(&before, &AdminOptions::new())).unwrap();
}

/// The instrument and reason of each gap.
fn gaps(job: &Job) -> Vec<Vec<(Value, Value)>> {
    let told = |gap: &Value| (gap["instrument"].clone(), gap["reason"].clone());
    values(job, "gaps").iter().map(|gaps| gaps.iter().map(told).collect()).collect()
}

/// The offsets of the rows that have features, and the ticks in the window of each, of every partition alike.
#[track_caller]
fn windows(job: &Job) -> Vec<(u64, u64)> {
    let offsets = sources(job, "features");
    let rows = values(job, "features");
    let of_partition = |(offsets, rows): (&std::collections::BTreeMap<u64, usize>, &Vec<Value>)| {
        assert!(offsets.values().all(|count| *count == 1));
        offsets.keys().copied().zip(rows.iter().map(|row| row["n"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    let mut found: Vec<_> = offsets.iter().zip(&rows).map(of_partition).collect();
    assert_eq!(found[0], found[1]);
    found.remove(0)
}

#[test]
fn removed_rows_stop_the_job_or_make_a_gap_or_a_new_beginning() {
    let Some(brokers) = brokers("removed_rows_stop_the_job_or_make_a_gap_or_a_new_beginning") else { return };
    let gap = Kept::new(&brokers, "gap");
    create(&brokers, &gap.job.raw, PARTITIONS, &[]);
    let earliest = gap.another("earliest");
    send_all(&gap.job, 0..40);
    for kept in [&gap, &earliest] {
        go_on(&kept.job, &[]);
    }
    send_all(&gap.job, 40..60);
    delete_before(&gap.job, 50);

    let ended = finish(gap.job.run(["--until-end"]), None);
    let raw = &gap.job.raw;
    let told =
        [&format!("{raw}/0"), "offset 40", "only 50 to 60", "records were removed", "kafka.lost_offsets"];
    assert_ends(&ended, 1, &told);
    assert_eq!(committed(&brokers, &gap.job.name, raw), [Some(40); 2], "nothing is done about it unasked");

    let going_on = gap.with("KAFKA__LOST_OFFSETS", "gap");
    let account = go_on(&going_on, &["-w", "2"]);
    assert_eq!((&account["messages_in"], &account["gaps"]), (&20.into(), &2.into()));
    let expected = |partition: u64| vec![(Value::from(format!("P{partition}")), Value::from("state_lost"))];
    assert_eq!(gaps(&gap.job), [expected(0), expected(1)]);
    // Once that is done all is as ever, whatever the policy, and the gap is told of once.
    send_all(&gap.job, 60..70);
    go_on(&gap.job, &["-w", "1"]);
    assert_eq!(gaps(&gap.job), [expected(0), expected(1)]);
    let before = (0..40).map(|offset| (offset, offset));
    let from_cold: Vec<_> = before.chain((50..70).map(|offset| (offset, offset - 50))).collect();
    assert_eq!(windows(&gap.job), from_cold);

    go_on(&earliest.with("KAFKA__LOST_OFFSETS", "earliest"), &[]);
    go_on(&earliest.job, &[]);
    assert_eq!(windows(&earliest.job), from_cold);
    assert_eq!(gaps(&earliest.job), [[], []]);
}

#[test]
fn a_running_job_goes_on_behind_removed_rows_and_is_well_again() {
    let Some(brokers) = brokers("a_running_job_goes_on_behind_removed_rows_and_is_well_again") else {
        return;
    };
    let kept = Kept::new(&brokers, "gap_running");
    let job = &kept.with("KAFKA__LOST_OFFSETS", "gap");
    create(&brokers, &job.raw, PARTITIONS, &[]);
    send_all(job, 0..40);
    // A snapshot tells of which instruments there is a gap.
    go_on(job, &[]);
    let (mut running, address) = caught_up(job, &["-w", "1"]);
    // What it has asked for already it is answered with all the same: the first of these.
    running.signal("STOP");
    send_all(job, 40..41);
    send_all(job, 41..60);
    delete_before(job, 50);
    running.signal("CONT");
    running.until("all is read again", |_| {
        let stats = stats(address);
        over_shards(&stats, "committed") == i64::from(PARTITIONS) * 60
    });
    assert!(running.log().contains("beginning anew"), "{}", running.log());
    running.until("it is well", |_| http::get(address, "/health").0 == 200);
    assert_eq!(http::get(address, "/health").1["reason"], Value::Null);
    assert!(metric(address, "foreshock_restarts_total") >= 1.0);
    stopped(running);
    let reasons: Vec<_> = gaps(job).concat().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(reasons, ["state_lost", "state_lost"]);
}

#[test]
fn a_state_that_cannot_be_made_again_is_lost_input_too() {
    let Some(brokers) = brokers("a_state_that_cannot_be_made_again_is_lost_input_too") else { return };
    let kept = Kept::new(&brokers, "unmakable");
    let job = &kept.job;
    create(&brokers, &job.raw, PARTITIONS, &[]);
    send_all(job, 0..40);
    go_on(job, &[]);
    send_all(job, 40..60);
    // Rows that were read already, and the snapshots behind them.
    delete_before(job, 20);
    for path in kept.snapshots(0).into_iter().chain(kept.snapshots(1)) {
        std::fs::remove_file(path).unwrap();
    }
    let ended = finish(job.run(["--until-end"]), None);
    assert_ends(&ended, 1, &[&format!("{}/0", job.raw), "no snapshot", "kafka.lost_offsets"]);
    let ended = finish(kept.with("KAFKA__LOST_OFFSETS", "gap").run(["--until-end"]), None);
    assert_eq!(summary(&ended)["messages_in"], 40);
    assert!(ended.stderr.contains("no snapshot tells of which instruments"), "{}", ended.stderr);
    let before = (0..40).map(|offset| (offset, offset));
    assert_eq!(windows(job), before.chain((40..60).map(|offset| (offset, offset - 40))).collect::<Vec<_>>());
}

#[test]
fn a_topic_that_was_made_anew_is_noticed_by_its_records() {
    let Some(brokers) = brokers("a_topic_that_was_made_anew_is_noticed_by_its_records") else { return };
    let kept = Kept::new(&brokers, "anew");
    let job = &kept.job;
    create(&brokers, &job.raw, PARTITIONS, &[]);
    send_all(job, 0..40);
    go_on(job, &[]);
    let notes = notes(job);
    block_on(admin(&brokers).delete_topics(&[&job.raw], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
    await_that("the topic is gone", || {
        let metadata = consumer(&brokers, "reader").fetch_metadata(Some(&job.raw), PATIENCE).unwrap();
        metadata.topics()[0].partitions().is_empty()
    });
    create(&brokers, &job.raw, PARTITIONS, &[]);
    // As many as there were, and more: offsets alone tell nothing.
    send_all(job, 100..200);
    // Brokers forget the offsets with the topic, unless it comes back from elsewhere.
    assert_eq!(committed(&brokers, &job.name, &job.raw), [None; 2]);
    consumer(&brokers, &job.name).commit(&notes, CommitMode::Sync).unwrap();
    let ended = finish(job.run(["--until-end"]), None);
    assert_ends(&ended, 1, &[&format!("{}/0", job.raw), "another record", "made anew"]);
}

#[test]
fn offsets_that_brokers_have_forgotten_are_missed_and_the_way_out_works() {
    let Some(brokers) = brokers("offsets_that_brokers_have_forgotten_are_missed_and_the_way_out_works")
    else {
        return;
    };
    let kept = Kept::new(&brokers, "forgotten");
    let job = &kept.job;
    create(&brokers, &job.raw, PARTITIONS, &[]);
    send_all(job, 0..40);
    go_on(job, &[]);
    let removed = block_on(admin(&brokers).delete_groups(&[&job.name], &AdminOptions::new())).unwrap();
    assert!(removed.iter().all(Result::is_ok), "{removed:?}");
    let ended = finish(job.run(["--until-end"]), None);
    assert_ends(&ended, 1, &[&format!("{}/0", job.raw), "know no offset", "--from-beginning"]);
    let account = job.run_through(&[]);
    assert_eq!((&account["messages_in"], &account["account"]["messages_in"]), (&80.into(), &80.into()));
}

/// What the job has committed, with the notes beside the offsets.
fn notes(job: &Job) -> TopicPartitionList {
    let mut asked = TopicPartitionList::new();
    (0..PARTITIONS).for_each(|partition| {
        asked.add_partition(&job.raw, partition);
    });
    let found = consumer(&job.brokers, &job.name).committed_offsets(asked, Duration::from_secs(30)).unwrap();
    assert!(found.elements().iter().all(|place| place.offset() == Offset::Offset(40)));
    found
}
