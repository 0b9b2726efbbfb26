//! Saved states: under which settings they are taken, and that no bytes are dangerous.

use foreshock_operators::operator::RestoreError;
use foreshock_operators::rules::Rule;
use foreshock_operators::stages::{Metric, Priority, Signal};
use foreshock_operators::time::{SECOND, Time};

use crate::rules::job::*;

#[track_caller]
fn check_restore(saved: &[Rule], now: &[Rule], expected: Result<(), RestoreError>) {
    let restored = restore(now, &Job::new(saved).run("0=12").alone.saved());
    assert_eq!(restored.map(|_| ()), expected);
}

fn other_settings() -> Result<(), RestoreError> {
    Err(RestoreError::OtherSettings { operator: "rules" })
}

#[test]
fn a_state_is_taken_by_rules_in_another_order_and_beside_new_ones() {
    let [a, b, c] = ["a", "b", "c"].map(|name| Rule { name: name.into(), ..rule() });
    check_restore(&[a.clone(), b.clone()], &[b.clone(), c, a], Ok(()));
    check_restore(&[], &[b], Ok(()));
}

#[test]
fn a_state_stays_with_its_rule_when_the_order_changes() {
    let [a, b] = [("a", 10.0), ("b", 20.0)].map(|(name, raise)| Rule { name: name.into(), raise, ..rule() });
    let mut job = Job::new(&[a.clone(), b.clone()]).run("0=12");
    let state = job.alone.saved();
    job.rules = [b, a].into();
    job.go_on_from(&state).expect("the same rules");
    let job = job.run("1=20 2=5");
    let changes: Vec<String> =
        job.alerts().iter().map(|alert| format!("{} {}", alert.rule, in_words(alert))).collect();
    assert_eq!(changes, ["a 0 raised", "b 1 raised", "b 2 cleared", "a 2 cleared"]);
}

#[test]
fn a_state_of_a_rule_that_is_gone_is_refused() {
    check_restore(&[rule()], &[], other_settings());
    check_restore(&[rule()], &[Rule { name: "renamed".into(), ..rule() }], other_settings());
    check_restore(&[rule()], &[Rule { instruments: vec!["okx:*".into()], ..rule() }], other_settings());
}

#[test]
fn a_state_of_a_rule_that_changed_is_refused() {
    for changed in [
        on_probability(),
        below(),
        held(1),
        patient(1),
        cooling(1),
        scored(1.0),
        escalating(1),
        Rule { priority: Priority::P1, ..rule() },
        Rule { raise: 11.0, ..rule() },
        Rule { clear: 4.0, ..rule() },
        Rule { instruments: vec!["coinbase:*".into()], ..rule() },
    ] {
        check_restore(&[rule()], &[changed], other_settings());
    }
}

#[test]
fn a_state_of_a_rule_that_was_switched_is_taken() {
    check_restore(&[rule()], &[Rule { enabled: false, ..rule() }], Ok(()));
    check_restore(&[Rule { enabled: false, ..rule() }], &[rule()], Ok(()));
}

/// One rule in each phase.
fn busy() -> Job {
    Job::new(&[
        rule(),
        Rule { name: "pending".into(), ..held(100) },
        Rule { name: "escalated".into(), hold: SECOND, ..escalating(1) },
        Rule {
            name: "clear".into(),
            raise: 1.0,
            clear: 1.0,
            signal: Signal::Metric(Metric::Mid),
            ..patient(9)
        },
        Rule { name: "suppressed".into(), ..on_probability() },
        Rule { name: "idle".into(), raise: 99.0, ..rule() },
    ])
    .run("0=12 1=5 2=20 3=20 4=20")
    .with(|job| {
        for input in [
            sample(Time(5 * SECOND), &[(Metric::SpreadBps, 20.0, 1.0), (Metric::Mid, 1.0, 1.0)]),
            sample(Time(6 * SECOND), &[(Metric::SpreadBps, 20.0, 1.0), (Metric::Mid, 0.0, 1.0)]),
            tick(Time(6 * SECOND), 12.0),
            tick(Time(6 * SECOND), f64::NAN),
        ] {
            job.feed(input);
        }
    })
}

#[test]
fn a_state_cut_off_anywhere_is_unreadable() {
    let job = busy();
    let state = job.alone.saved();
    for length in 0..state.len() {
        let restored = restore(&job.rules, &state[..length]);
        assert!(
            matches!(restored, Err(RestoreError::Unreadable { .. })),
            "{length} bytes of {}",
            state.len()
        );
    }
}

#[test]
fn a_corrupt_state_is_refused_or_usable() {
    let rules = busy().rules;
    let state = busy().alone.saved();
    let mut taken = 0;
    for at in 0..state.len() {
        for mask in [0x01, 0x02, 0x40, 0x80, 0xff] {
            let mut corrupt = state.clone();
            corrupt[at] ^= mask;
            if let Ok(alone) = restore(&rules, &corrupt) {
                taken += 1;
                let job = Job { rules: rules.clone(), alone };
                job.run("6=20 6=5 restart 7=gap 8=5 9=null 10=20 11=5 20=5 off 200=12 restart");
            }
        }
    }
    assert!(taken > 100, "only {taken} corrupt states were readable: the test has lost its object");
}

#[test]
#[should_panic(expected = "a rule clears on the quiet side")]
fn a_rule_that_clears_beyond_its_raise_level_is_a_bug() {
    Job::new(&[Rule { clear: 10.1, ..rule() }]);
}

#[test]
#[should_panic(expected = "no two rules have the same name")]
fn two_rules_of_one_name_are_a_bug() {
    Job::new(&[rule(), rule()]);
}
