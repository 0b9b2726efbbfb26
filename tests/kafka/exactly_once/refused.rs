//! Outputs that brokers will never take.

use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};

use super::{Kept, admin, assert_ends, block_on, create, go_on};

use crate::kafka::job::{Job, assert_each_once, send_quotes, sources};
use crate::support::finish;
use crate::support::kafka::brokers;

#[track_caller]
fn allow(job: &Job, bytes: &str) {
    let topic = job.topic("features");
    let wanted = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", bytes);
    let altered = block_on(admin(&job.brokers).alter_configs([&wanted], &AdminOptions::new())).unwrap();
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");
}

#[test]
fn a_job_that_fails_three_times_at_one_row_stays_down_until_it_is_told_to_try_again() {
    let Some(brokers) =
        brokers("a_job_that_fails_three_times_at_one_row_stays_down_until_it_is_told_to_try_again")
    else {
        return;
    };
    let kept = Kept::new(&brokers, "refused");
    let job = &kept.job;
    create(&brokers, &job.raw, 1, &[]);
    create(&brokers, &job.topic("features"), 1, &[]);
    send_quotes(job, 0, 0..10);
    go_on(job, &[]);
    allow(job, "100");
    send_quotes(job, 0, 10..30);
    let (row, topic) = (format!("{}/0/10/0", job.raw), job.topic("features"));
    let named = [row.as_str(), &format!("to {topic}/0"), "Message size too large"];
    for _ in 0..3 {
        assert_ends(&finish(job.run(["--until-end"]), None), 1, &named);
    }
    let stays = [row.as_str(), "failed 3 times at the same place", "stays down", "--retry"];
    assert_ends(&finish(job.run(["--until-end"]), None), 4, &stays);
    assert_ends(&finish(job.run(["--until-end", "--retry"]), None), 1, &named);
    assert_ends(&finish(job.run(["--until-end"]), None), 4, &stays);
    allow(job, "1000000");
    go_on(job, &["--retry"]);
    // What is over is forgotten.
    send_quotes(job, 0, 30..40);
    go_on(job, &[]);
    for kind in ["features", "predictions"] {
        assert_each_once(&sources(job, kind), &[40]);
    }
}
