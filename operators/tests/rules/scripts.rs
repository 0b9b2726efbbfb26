//! One sentence, one line: every arrow of an alert's life, at its exact boundary.

use std::collections::BTreeSet;
use std::sync::Arc;

use foreshock_operators::alone::Alone;
use foreshock_operators::row::InstrumentId;
use foreshock_operators::rules::{Critical, Rule, Rules};
use foreshock_operators::stages::{Alert, Metric, Outcome, Priority};
use foreshock_operators::time::{SECOND, Time};

use crate::rules::job::*;

#[track_caller]
fn check(rule: Rule, script: &str, expected: &str) {
    let job = Job::new(&[rule]).run(script);
    let changes: Vec<String> = job.alerts().into_iter().map(in_words).collect();
    assert_eq!(changes.join(", "), expected, "{script}");
}

// Raising.

#[test]
fn raised_at_once_without_a_hold() {
    check(rule(), "0=9 1=12", "1 raised");
}

#[test]
fn the_raise_level_itself_raises() {
    check(rule(), "0=9.999999 1=10", "1 raised");
}

#[test]
fn raised_once_while_it_lasts() {
    check(rule(), "0=12 1=13 2=7 3=12", "0 raised");
}

#[test]
fn raised_when_held_to_the_nanosecond() {
    check(held(3), "0=12 1=12 2.999999999=12 3=12", "3 raised");
}

#[test]
fn a_nanosecond_less_than_the_hold_is_too_short() {
    check(held(3), "0.000000001=12 3=12", "");
}

#[test]
fn the_first_sample_behind_the_hold_raises() {
    check(held(3), "0=12 60=12", "60 raised");
}

#[test]
fn a_false_sample_ends_pending_silently() {
    check(held(3), "0=12 2=9.9 3=12 5=12", "");
}

#[test]
fn after_a_false_sample_the_hold_starts_anew() {
    check(held(3), "0=12 2=9 3=12 5=12 6=12", "6 raised");
}

#[test]
fn nothing_comes_of_samples_below_the_raise_level() {
    check(escalating(0), "0=9 1=5 2=null 3=gap 4=9", "");
}

#[test]
fn below_mirrors_above() {
    check(below(), "0=-9.9 1=-10 2=-5.1 3=-5", "1 raised, 3 cleared");
}

#[test]
fn below_does_not_raise_above() {
    check(below(), "0=10 1=0 2=-9", "");
}

// The z-score.

#[test]
fn the_zscore_must_hold_too() {
    check(scored(3.0), "0=12/2.999 1=9/4 2=10/3", "2 raised");
}

#[test]
fn below_the_zscore_is_negative() {
    check(Rule { zscore: Some(3.0), ..below() }, "0=-12/3 1=-12/-2.9 2=-12/-3", "2 raised");
}

#[test]
fn a_zscore_that_falls_does_not_clear() {
    check(scored(3.0), "0=12/4 1=12/0 2=5/4", "0 raised, 2 cleared");
}

#[test]
fn a_zscore_that_falls_ends_pending() {
    check(Rule { zscore: Some(3.0), ..held(2) }, "0=12/4 1=12/2 2=12/4 3=12/4", "");
}

#[test]
fn without_a_zscore_a_rule_that_needs_it_is_warming_up() {
    check(scored(3.0), "0=12 1=12/3 2=12/null 3=12/3", "1 raised, 2 warming_up, 3 resumed");
}

#[test]
fn no_zscore_is_no_matter_where_none_is_needed() {
    check(rule(), "0=12/null 1=5/null", "0 raised, 1 cleared");
}

// Resolving.

#[test]
fn resolved_at_once_without_patience() {
    check(rule(), "0=12 1=5", "0 raised, 1 cleared");
}

#[test]
fn the_clear_level_itself_is_clear() {
    check(rule(), "0=12 1=5.000001 2=5", "0 raised, 2 cleared");
}

#[test]
fn resolved_when_clear_to_the_nanosecond() {
    check(patient(3), "0=12 1=4 3.999999999=4 4=4", "0 raised, 4 cleared");
}

#[test]
fn a_value_between_the_levels_starts_the_patience_anew() {
    check(patient(3), "0=12 1=4 3=7 4=4 6.999999999=4 7=4", "0 raised, 7 cleared");
}

#[test]
fn a_value_at_the_raise_level_starts_the_patience_anew() {
    check(patient(3), "0=12 1=4 3=12 4=4 6=4 7=4", "0 raised, 7 cleared");
}

#[test]
fn a_value_between_the_levels_keeps_the_alert() {
    check(patient(1), "0=12 1=7 60=7 120=9.9", "0 raised");
}

#[test]
fn with_one_level_for_both_the_level_keeps_the_alert() {
    check(Rule { clear: 10.0, ..rule() }, "0=10 1=10 2=9.9 3=10", "0 raised, 2 cleared, 3 raised");
}

#[test]
fn a_value_may_raise_again_after_it_was_resolved() {
    check(rule(), "0=12 1=5 2=12", "0 raised, 1 cleared, 2 raised");
}

// The cooldown.

#[test]
fn the_cooldown_counts_from_the_resolution() {
    check(cooling(5), "0=12 2=5 3=12 6.999999999=12 7=12", "0 raised, 2 cleared, 7 raised");
}

#[test]
fn the_cooldown_blocks_pending_too() {
    let rule = Rule { hold: 2 * SECOND, ..cooling(5) };
    check(rule, "0=12 2=12 3=5 7=12 8=12 9=12 10=12", "2 raised, 3 cleared, 10 raised");
}

#[test]
fn the_cooldown_goes_on_across_gaps_and_restarts() {
    check(cooling(5), "0=12 1=5 2=gap 3=12 restart 4=12 6=12", "0 raised, 1 cleared, 6 raised");
}

// Escalating.

#[test]
fn escalated_after_the_raise_of_the_same_sample() {
    check(escalating(0), "0=20", "0 raised, 0 critical P1");
}

#[test]
fn escalated_when_critical_for_long_enough_to_the_nanosecond() {
    check(escalating(2), "0=12 1=20 2.999999999=25 3=20", "0 raised, 3 critical P1");
}

#[test]
fn a_value_below_the_critical_level_starts_its_clock_anew() {
    check(escalating(2), "0=20 1=19.9 2=20 3=20 4=20", "0 raised, 4 critical P1");
}

#[test]
fn the_critical_clock_runs_while_pending() {
    let rule = Rule { hold: 2 * SECOND, ..escalating(2) };
    check(rule, "0=20 1=20 2=20", "2 raised, 2 critical P1");
}

#[test]
fn a_pending_alert_does_not_escalate() {
    let rule = Rule { hold: 3 * SECOND, ..escalating(0) };
    check(rule, "0=20 1=20 2=9 3=20", "");
}

#[test]
fn the_critical_clock_starts_anew_with_each_alert() {
    let rule = Rule { hold: 2 * SECOND, ..escalating(3) };
    check(rule, "0=20 1=9 2=20 3=20 4=20 5=20", "4 raised, 5 critical P1");
}

#[test]
fn escalated_once_and_never_back() {
    check(
        Rule { resolve_for: SECOND, ..escalating(0) },
        "0=20 1=12 2=25 3=gap 4=12 5=null 6=5 7=5",
        "0 raised, 0 critical P1, 3 gap P1, 4 resumed P1, 5 warming_up P1, 6 resumed P1, 7 cleared P1",
    );
}

#[test]
fn the_next_alert_begins_as_a_warning_again() {
    check(escalating(0), "0=20 1=5 2=12", "0 raised, 0 critical P1, 1 cleared P1, 2 raised");
}

#[test]
fn only_warnings_escalate() {
    let with = |priority| Rule { priority, ..escalating(0) };
    check(with(Priority::P3), "0=20 1=20", "0 raised P3");
    check(with(Priority::P1), "0=20 1=20", "0 raised P1");
}

#[test]
fn the_critical_level_needs_no_zscore() {
    let rule = Rule { zscore: Some(3.0), ..escalating(1) };
    check(rule, "0=20/3 1=20/1", "0 raised, 1 critical P1");
}

#[test]
fn below_the_critical_level_is_mirrored() {
    let rule = Rule { critical: Some(Critical { level: -20.0, hold: 0 }), ..below() };
    check(rule, "0=-19 1=20 2=-20", "0 raised, 1 cleared, 2 raised, 2 critical P1");
}

// Gaps and warm-up.

#[test]
fn a_gap_ends_pending_silently() {
    check(held(3), "0=12 1=12 2=gap 3=12 5=12 6=12", "6 raised");
}

#[test]
fn a_null_ends_pending_silently() {
    check(held(3), "0=12 1=null 3=12 6=12", "6 raised");
}

#[test]
fn a_gap_suppresses_and_the_next_sample_resumes() {
    check(rule(), "0=12 10=gap 10.5=12 11=5", "0 raised, 10 gap, 10.5 resumed, 11 cleared");
}

#[test]
fn a_null_suppresses_and_the_next_sample_resumes() {
    check(rule(), "0=12 1=null 2=7 3=5", "0 raised, 1 warming_up, 2 resumed, 3 cleared");
}

#[test]
fn while_suppressed_nothing_is_said() {
    check(rule(), "0=12 1=gap 2=null 3=gap 4=null 5=12", "0 raised, 1 gap, 5 resumed");
    check(rule(), "0=12 1=null 2=gap 3=null 4=12", "0 raised, 1 warming_up, 4 resumed");
}

#[test]
fn clear_after_a_gap_resolves_at_once_without_patience() {
    check(rule(), "0=12 1=gap 2=5", "0 raised, 1 gap, 2 resumed, 2 cleared");
}

#[test]
fn clear_after_a_gap_starts_the_patience_there() {
    check(patient(3), "0=12 1=gap 2=5 4=5 5=5", "0 raised, 1 gap, 2 resumed, 5 cleared");
}

#[test]
fn a_gap_just_before_the_resolution_forgets_the_patience() {
    check(patient(3), "0=12 1=5 4=gap 4=5 6=5 7=5", "0 raised, 4 gap, 4 resumed, 7 cleared");
}

#[test]
fn a_null_just_before_the_resolution_forgets_the_patience() {
    check(patient(3), "0=12 1=5 3=null 4=5 6=5 7=5", "0 raised, 3 warming_up, 4 resumed, 7 cleared");
}

#[test]
fn a_gap_forgets_the_critical_clock() {
    check(escalating(3), "0=20 2=gap 3=20 5=20 6=20", "0 raised, 2 gap, 3 resumed, 6 critical P1");
}

#[test]
fn escalated_after_the_resumption_of_the_same_sample() {
    check(escalating(0), "0=12 1=gap 2=20", "0 raised, 1 gap, 2 resumed, 2 critical P1");
}

#[test]
fn missing_data_never_resolves() {
    check(rule(), "0=12 1=gap 1000=null 2000=gap 3000=null", "0 raised, 1 gap");
}

#[test]
fn a_gap_without_an_alert_is_nothing() {
    check(rule(), "0=gap 1=5 2=gap 3=12", "3 raised");
}

// Switched off and on.

#[test]
fn switched_off_it_resolves_at_its_next_sample() {
    check(rule(), "0=12 off 1=12 2=12", "0 raised, 1 disabled");
}

#[test]
fn switched_off_it_resolves_at_a_null_too() {
    check(rule(), "0=12 off 1=null", "0 raised, 1 disabled");
}

#[test]
fn switched_off_it_still_waits_for_its_sample_in_a_gap() {
    check(rule(), "0=12 off 1=gap 2=12", "0 raised, 1 gap, 2 disabled");
}

#[test]
fn switched_off_while_suppressed_it_resolves() {
    check(rule(), "0=12 1=gap off 2=12 3=12", "0 raised, 1 gap, 2 disabled");
}

#[test]
fn switched_off_while_pending_it_is_forgotten() {
    check(held(3), "0=12 off 1=12 on 3=12 5=12 6=12", "6 raised");
}

#[test]
fn switched_off_it_raises_nothing() {
    check(Rule { enabled: false, ..escalating(0) }, "0=20 1=gap 2=20", "");
}

#[test]
fn switched_off_and_on_before_a_sample_it_goes_on() {
    check(rule(), "0=12 off on 1=12 2=5", "0 raised, 2 cleared");
}

#[test]
fn switched_on_again_it_cools_down_first() {
    check(cooling(5), "0=12 off 1=12 on 5=12 6=12", "0 raised, 1 disabled, 6 raised");
}

#[test]
fn switched_off_an_escalated_alert_ends_as_critical() {
    check(escalating(0), "0=20 off 1=20", "0 raised, 0 critical P1, 1 disabled P1");
}

#[test]
fn a_restart_is_not_noticed() {
    let rule = Rule { hold: SECOND, resolve_for: SECOND, ..escalating(2) };
    check(
        rule,
        "restart 0=20 restart 1=20 restart 2=20 restart 3=gap restart 4=5 restart 5=5 restart",
        "1 raised, 2 critical P1, 3 gap P1, 4 resumed P1, 5 cleared P1",
    );
}

// Probabilities.

#[test]
fn probabilities_are_judged_at_ticks_by_the_instruments_clock() {
    check(Rule { hold: SECOND, ..on_probability() }, "0=12 0.999999999=12 1=12 1=5", "1 raised, 1 cleared");
}

#[test]
fn a_tick_that_the_model_refused_suppresses() {
    check(on_probability(), "0=12 1=null 1=null 1=12", "0 raised, 1 warming_up, 1 resumed");
}

#[test]
fn each_rule_sees_its_own_signal_only() {
    let mut job = Job::new(&[on_probability()]);
    job.feed(sample(Time(0), &[(Metric::SpreadBps, 12.0, 9.0)]));
    assert!(job.alerts().is_empty(), "a sample is no probability");
    let mut job = Job::new(&[rule()]);
    job.feed(tick(Time(0), 12.0));
    job.feed(sample(Time(0), &[(Metric::Mid, 12.0, 9.0)]));
    assert!(job.alerts().is_empty(), "neither a tick nor another metric is a spread");
    job.feed(sample(Time(1), &[(Metric::SpreadBps, 12.0, 9.0)]));
    job.feed(tick(Time(2), f64::NAN));
    assert_eq!(job.alerts().len(), 1, "a refused tick is no warm-up of a metric");
}

// Several rules, several instruments.

#[test]
fn rules_on_one_instrument_do_not_disturb_each_other() {
    let quick = Rule { name: "quick".into(), raise: 8.0, ..rule() };
    let slow = Rule { name: "slow".into(), ..held(2) };
    let probable = Rule { name: "probable".into(), ..on_probability() };
    let mut job = Job::new(&[probable, slow, quick]);
    for at in 0..4 {
        let time = Time(at * SECOND);
        let spread = if at < 3 { 12.0 } else { 5.0 };
        job.feed(sample(time, &[(Metric::SpreadBps, spread, f64::NAN)]));
        job.feed(tick(time, 12.0));
        if at == 2 {
            job.feed(gap(time));
        }
    }
    let changes: Vec<String> =
        job.alerts().iter().map(|alert| format!("{} {}", alert.rule, in_words(alert))).collect();
    assert_eq!(
        changes,
        [
            "quick 0 raised",
            "probable 0 raised",
            "slow 2 raised",
            "slow 2 gap",
            "quick 2 gap",
            "probable 2 gap",
            "slow 3 resumed",
            "slow 3 cleared",
            "quick 3 resumed",
            "quick 3 cleared",
            "probable 3 resumed",
        ]
    );
}

#[test]
fn a_rule_watches_only_what_its_patterns_cover() {
    let rules = [Rule { instruments: vec!["okx:*".into(), "coinbase:*-USD".into()], ..rule() }];
    let raises = |exchange, name| {
        let mut alone = Alone::<Rules>::new(&ruled_by(&rules), &instrument(exchange, name));
        alone.feed(InstrumentId(7), 0, read_step("0=12", SPREAD));
        alone.out.values.len() == 2
    };
    assert!(raises("okx", "BTC-USDT"));
    assert!(raises("coinbase", "BTC-USD"));
    assert!(!raises("coinbase", "BTC-USDC"));
    assert!(!raises("binance", "BTC-USD"));
}

#[test]
fn a_rule_without_patterns_watches_nothing() {
    check(Rule { instruments: vec![], ..rule() }, "0=12", "");
}

// Messages.

#[test]
fn alerts_follow_directly_what_caused_them() {
    let job = Job::new(&[escalating(0)]).run("0=20 1=gap 2=5");
    let kinds: Vec<&str> = job
        .alone
        .out
        .values
        .iter()
        .map(|tagged| match &tagged.value {
            Outcome::Gap(_) => "gap",
            Outcome::Sample(_) => "sample",
            Outcome::Tick(..) => "tick",
            Outcome::Alert(alert) => alert.state.name(),
        })
        .collect();
    assert_eq!(kinds, ["sample", "active", "escalated", "gap", "suppressed", "sample", "active", "resolved"]);
}

#[test]
fn a_message_says_it_all() {
    let rule = Rule { hold: SECOND, resolve_for: SECOND, ..escalating(1) };
    let job = Job::new(&[rule]).run("3=11/1 4=12/2 5=20/3 6=21/4 7=gap 8=4/5 9=3/6");
    let changes: Vec<String> = job
        .alerts()
        .iter()
        .map(|alert| {
            let Alert { value, threshold, zscore, digits, .. } = alert;
            let resolved = alert.resolved_at.map(|time| time.0 / SECOND);
            format!("{} {value} {threshold} {zscore} {digits} {resolved:?}", in_words(alert))
        })
        .collect();
    assert_eq!(
        changes,
        [
            "4 raised 12 10 2 6 None",
            "6 critical P1 21 20 4 6 None",
            "7 gap P1 NaN 10 NaN 3 None",
            "8 resumed P1 4 10 5 6 None",
            "9 cleared P1 3 5 6 6 Some(9)",
        ]
    );
    for alert in job.alerts() {
        assert_eq!(alert.rule, "wide_spread".into());
        assert_eq!(alert.signal, SPREAD);
        assert_eq!(alert.started_at, Time(3 * SECOND));
        assert_eq!(alert.triggered_at, Some(Time(4 * SECOND)));
        assert_eq!(*alert.id, *job.alerts()[0].id);
    }
}

#[test]
fn warming_up_tells_what_is_known() {
    let job = Job::new(&[scored(3.0)]).run("0=12/3 1=11/null");
    let warming = job.alerts()[1];
    assert_eq!((warming.value, warming.zscore.is_nan()), (11.0, true));
}

#[test]
fn alerts_that_start_in_one_instant_differ_in_their_ids() {
    let job = Job::new(&[on_probability()]).run("5=12 5=5 restart 5=12 5=5 5=12 6=5 6=12");
    let ids: Vec<&str> =
        job.alerts().iter().filter(|alert| alert.reason == "raised").map(|alert| &*alert.id).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 4, "{ids:?}");
}

#[test]
fn ids_differ_between_instruments_and_rules() {
    let ids: BTreeSet<Arc<str>> = [("okx", "BTC-USD"), ("coinbase", "BTC-USD"), ("okx", "ETH-USD")]
        .iter()
        .flat_map(|(exchange, name)| {
            let rules = [rule(), Rule { name: "other".into(), ..rule() }];
            let mut alone = Alone::<Rules>::new(&ruled_by(&rules), &instrument(exchange, name));
            alone.feed(InstrumentId(7), 0, read_step("0=12", SPREAD));
            let ids: Vec<_> = alone.out.values.iter().filter_map(|tagged| alert(&tagged.value)).collect();
            ids.into_iter().map(|alert| alert.id.clone()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(ids.len(), 6);
}
