//! Transactions that brokers have taken for ended without writing so to their partitions: a single Kafka 4.3.1 that is
//! stopped in the wrong millisecond leaves such ones behind.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Kept, assert_ends, create, go_on};
use crate::job::{send_quotes, sources};
use crate::own::Broker;
use crate::support::finish;
use crate::support::kafka::committed;

/// A job whose last transaction, of the rows 40 to 50, has lost its end in the partitions of these topics.
fn unended(broker: &mut Broker, lost_in: impl Fn(&Kept, &str) -> bool) -> Kept {
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
    let cut = broker.cut_ends(since, |topic| lost_in(&kept, topic));
    assert!(cut.iter().any(|topic| topic == "__consumer_offsets"), "{cut:?}");
    broker.start_again();
    kept
}

#[test]
fn a_transaction_without_an_end_is_undone_and_told_of_again() {
    let Some(mut broker) = Broker::start("a_transaction_without_an_end_is_undone_and_told_of_again") else {
        return;
    };
    let kept = unended(&mut broker, |_, _| true);
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
    // And all is as ever.
    send_quotes(job, 0, 60..70);
    let ended = finish(job.run(["--until-end"]), None);
    assert!(!ended.stderr.contains("undid"), "{}", ended.stderr);
    assert_eq!(seen("features"), (0..70).collect::<Vec<_>>());
    assert_eq!(committed(&job.brokers, &job.name, &job.raw), [Some(70)]);
}

#[test]
fn a_transaction_that_is_visible_in_part_stops_the_job() {
    let Some(mut broker) = Broker::start("a_transaction_that_is_visible_in_part_stops_the_job") else {
        return;
    };
    let kept = unended(&mut broker, |kept, topic| topic != kept.job.topic("features"));
    let ended = finish(kept.job.run(["--until-end"]), None);
    assert_ends(&ended, 1, &[&kept.job.topic("features"), "offset 40", "neither undone nor counted as done"]);
    // Nothing was done about it.
    assert_eq!(sources(&kept.job, "features")[0].len(), 50);
    assert_eq!(sources(&kept.job, "predictions")[0].len(), 40);
}
