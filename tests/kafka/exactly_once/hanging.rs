//! Transactions that brokers have taken for ended without writing so to their partitions: a single Kafka 4.3.1 that is
//! stopped in the wrong millisecond leaves such ones behind.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Kept, assert_ends, create, go_on};

use crate::kafka::job::{send_quotes, sources};
use crate::kafka::own::Broker;
use crate::support::finish;
use crate::support::kafka::committed;

/// A job whose last transaction, of the rows 40 to 50, has lost so many of its last batches in partitions of a topic.
fn hanging(broker: &mut Broker, lost: impl Fn(&Kept, &str) -> usize) -> Kept {
    let kept = Kept::new(&broker.address(), "unended");
    let job = &kept.job;
    create(&job.brokers, &job.raw, 1, &[]);
    send_quotes(job, 0, 0..40);
    go_on(job, &[]);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    send_quotes(job, 0, 40..50);
    // One transaction: all of the rows are there, and it ends where they do.
    go_on(&kept.with("KAFKA__COMMIT_INTERVAL", "3s"), &[]);
    broker.kill();
    let cut = broker.cut_ends(since, |topic| lost(&kept, topic));
    assert!(cut.len() >= 2, "{cut:?}");
    broker.start_again();
    kept
}

/// It is undone, and all is as ever: `lost` as for [`hanging`].
#[track_caller]
fn is_undone(test: &str, lost: impl Fn(&Kept, &str) -> usize) {
    let Some(mut broker) = Broker::start(test) else { return };
    let kept = hanging(&mut broker, lost);
    let job = &kept.job;
    let seen = |kind| sources(job, kind)[0].keys().copied().collect::<Vec<_>>();
    assert_eq!(seen("features"), (0..40).collect::<Vec<_>>(), "what has no end is hidden");

    send_quotes(job, 0, 50..60);
    let ended = finish(job.run(["--until-end"]), None);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("undid a transaction"), "{}", ended.stderr);
    for kind in ["features", "predictions"] {
        assert_eq!(seen(kind), (0..60).collect::<Vec<_>>());
        assert!(sources(job, kind)[0].values().all(|count| *count == 1));
    }
    send_quotes(job, 0, 60..70);
    let ended = finish(job.run(["--until-end"]), None);
    assert!(!ended.stderr.contains("undid"), "{}", ended.stderr);
    assert_eq!(seen("features"), (0..70).collect::<Vec<_>>());
    assert_eq!(committed(&job.brokers, &job.name, &job.raw), [Some(70)]);
}

#[test]
fn a_committed_transaction_without_an_end_is_undone_and_told_of_again() {
    is_undone("a_committed_transaction_without_an_end_is_undone_and_told_of_again", |_, _| 1);
}

#[test]
fn rows_without_an_end_that_no_offset_counts_are_undone_and_told_of_again() {
    is_undone("rows_without_an_end_that_no_offset_counts_are_undone_and_told_of_again", |_, topic| {
        1 + usize::from(topic == "__consumer_offsets")
    });
}

#[test]
fn rows_that_count_as_told_are_shown_by_the_next_transaction() {
    let Some(mut broker) = Broker::start("rows_that_count_as_told_are_shown_by_the_next_transaction") else {
        return;
    };
    let kept = hanging(&mut broker, |_, topic| usize::from(topic != "__consumer_offsets"));
    let job = &kept.job;
    assert_eq!(sources(job, "features")[0].len(), 40);
    send_quotes(job, 0, 50..60);
    let ended = finish(job.run(["--until-end"]), None);
    assert!(ended.stderr.contains("rows that count as told are hidden"), "{}", ended.stderr);
    for kind in ["features", "predictions"] {
        let seen = &sources(job, kind)[0];
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
        assert!(seen.values().all(|count| *count == 1));
    }
}

#[test]
fn a_transaction_that_is_visible_in_part_stops_the_job() {
    let Some(mut broker) = Broker::start("a_transaction_that_is_visible_in_part_stops_the_job") else {
        return;
    };
    let kept = hanging(&mut broker, |kept, topic| usize::from(topic != kept.job.topic("features")));
    let ended = finish(kept.job.run(["--until-end"]), None);
    assert_ends(&ended, 2, &[&kept.job.topic("features"), "offset 40", "neither undone nor counted as done"]);
    // Nothing was done about it.
    assert_eq!(sources(&kept.job, "features")[0].len(), 50);
    assert_eq!(sources(&kept.job, "predictions")[0].len(), 40);
}
