//! Rules that change while a job runs: those that say the same go on, what others have raised ends.

use std::sync::Arc;

use foreshock_operators::change::{Change, ChangeKind};
use foreshock_operators::rules::Rule;

use crate::rules::job::*;

impl Job {
    /// Puts these rules in force at a time.
    fn change(mut self, at: &str, rules: &[Rule]) -> Self {
        let kind = ChangeKind::Rules(rules.into());
        let change = Arc::new(Change { number: 1, id: "c".into(), offset: 1, effective_at: None, kind });
        self.alone.change(&change, read_time(at), 3);
        self
    }
}

#[track_caller]
fn check(job: Job, expected: &[&str]) {
    let changes: Vec<String> =
        job.alerts().iter().map(|alert| format!("{} {}", alert.rule, in_words(alert))).collect();
    assert_eq!(changes, expected);
}

fn named(name: &str) -> Rule {
    Rule { name: name.into(), ..rule() }
}

#[test]
fn rules_that_say_the_same_keep_their_alerts() {
    let job = Job::new(&[rule()]).run("0=12").change("1", &[named("other"), rule()]).run("2=3");
    check(job, &["wide_spread 0 raised", "wide_spread 2 cleared"]);
    let job = Job::new(&[held(5)]).run("0=12").change("1", &[held(5)]).run("5=12");
    check(job, &["wide_spread 5 raised"]);
}

#[test]
fn what_a_rule_raised_ends_with_it() {
    let job = Job::new(&[rule()]).run("0=12").change("1", &[]).run("2=12");
    check(job, &["wide_spread 0 raised", "wide_spread 1 reconfigured"]);
}

#[test]
fn a_rule_that_differs_starts_idle() {
    let job = Job::new(&[rule()]).run("0=12").change("1", &[held(5)]).run("2=12 6=12 7=12");
    check(job, &["wide_spread 0 raised", "wide_spread 1 reconfigured", "wide_spread 7 raised"]);
}

#[test]
fn a_pending_alert_ends_silently() {
    check(Job::new(&[held(5)]).run("0=12").change("1", &[]).run("9=12"), &[]);
}

#[test]
fn a_rule_that_is_only_disabled_says_so() {
    let off = Rule { enabled: false, ..rule() };
    let job = Job::new(&[rule()]).run("0=12").change("1", &[off]).run("2=12");
    check(job, &["wide_spread 0 raised", "wide_spread 1 disabled"]);
}

#[test]
fn two_alerts_of_one_instant_have_two_ids() {
    let steeper = Rule { raise: 11.0, ..rule() };
    let job = Job::new(&[rule()]).run("1=12").change("1", &[]).change("1", &[steeper]).run("1=12");
    let ids: Vec<_> = job.alerts().iter().map(|alert| alert.id.clone()).collect();
    check(job, &["wide_spread 1 raised", "wide_spread 1 reconfigured", "wide_spread 1 raised"]);
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}
