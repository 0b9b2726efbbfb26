//! Alert rules, told as scripts: `0=12 1=7/2.5 2=gap` reads "a sample of 12 at 0 s, one of 7 with a z-score of
//! 2.5 at 1 s, a gap that ends at 2 s". Their levels are raise 10, clear 5 and critical 20.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use foreshock_operators::operator::{Instrument, Operator, Out, RestoreError};
use foreshock_operators::row::InstrumentId;
use foreshock_operators::rules::{Critical, Direction, Rule, Rules};
use foreshock_operators::stages::{
    Alert, AlertState, Features, Gap, GapReason, MAX_HORIZONS, Metric, Outcome, Prediction, Priority,
    Reading, Sample, Scored, Signal,
};
use foreshock_operators::time::{Nanos, SECOND, Time};

const SPREAD: Signal = Signal::Metric(Metric::SpreadBps);

/// Raises at once at 10, resolves at once at 5.
fn rule() -> Rule {
    Rule {
        name: "wide_spread".into(),
        signal: SPREAD,
        instruments: vec!["*".into()],
        priority: Priority::P2,
        direction: Direction::Above,
        raise: 10.0,
        clear: 5.0,
        zscore: None,
        critical: None,
        hold: 0,
        resolve_for: 0,
        cooldown: 0,
        enabled: true,
    }
}

fn held(seconds: i64) -> Rule {
    Rule { hold: seconds * SECOND, ..rule() }
}

fn patient(seconds: i64) -> Rule {
    Rule { resolve_for: seconds * SECOND, ..rule() }
}

fn cooling(seconds: i64) -> Rule {
    Rule { cooldown: seconds * SECOND, ..rule() }
}

fn scored(zscore: f64) -> Rule {
    Rule { zscore: Some(zscore), ..rule() }
}

fn escalating(seconds: i64) -> Rule {
    Rule { critical: Some(Critical { level: 20.0, hold: seconds * SECOND }), ..rule() }
}

/// Mirrors [`rule`]: raises at -10, clear at -5.
fn below() -> Rule {
    Rule { direction: Direction::Below, raise: -10.0, clear: -5.0, ..rule() }
}

fn on_probability() -> Rule {
    Rule { signal: Signal::Probability, ..rule() }
}

fn instrument(exchange: &str, name: &str) -> Instrument {
    Instrument {
        id: InstrumentId(7),
        exchange: exchange.into(),
        symbol: name.into(),
        name: name.into(),
        quote_channel: None,
        trade_channel: None,
        gap_after: None,
    }
}

fn bitcoin() -> Instrument {
    instrument("coinbase", "BTC-USD")
}

fn gap(end: Time) -> Scored {
    Scored::Gap(Gap { start: end.minus(9 * SECOND), end, reason: GapReason::Silence, digits: 3 })
}

/// A sample in which only the named metrics are known.
fn sample(time: Time, known: &[(Metric, f64, f64)]) -> Scored {
    let mut readings = [Reading { value: f64::NAN, zscore: f64::NAN, seen: 0 }; Metric::COUNT];
    for &(metric, value, zscore) in known {
        readings[metric as usize] = Reading { value, zscore, seen: 0 };
    }
    Scored::Sample(Sample { time, digits: 6, readings })
}

/// A tick whose own time lies behind its instrument's clock.
fn tick(clock: Time, probability: f64) -> Scored {
    let features = Features {
        event_time: clock.minus(1),
        clock,
        digits: 9,
        n: 2,
        price: 1.0,
        midprice: 1.0,
        spread_abs: 1.0,
        spread_rel: 1.0,
        spread_bps: 100.0,
        order_book_imbalance: 1.0,
        returns: [1.0; MAX_HORIZONS],
        ret_mean: 1.0,
        ret_std: 1.0,
        trade_intensity: 1.0,
        volatility_z: 1.0,
        spread_z: 1.0,
    };
    Scored::Tick(features, Prediction { probability, spike: Some(true) })
}

/// A job with one instrument, which may be stopped and started again.
struct Job {
    rules: Arc<[Rule]>,
    operator: Rules,
    out: Out<Outcome>,
}

impl Job {
    fn new(rules: &[Rule]) -> Self {
        let rules: Arc<[Rule]> = rules.into();
        Job { operator: Rules::new(&rules, &bitcoin()), rules, out: Out::default() }
    }

    fn state(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.operator.snapshot(&mut bytes);
        bytes
    }

    fn restart(&mut self) {
        let state = self.state();
        self.operator = Rules::restore(&self.rules, &bitcoin(), &state).expect("its own state");
        assert_eq!(self.state(), state, "a state that was read is written the same");
    }

    fn restart_with(&mut self, change: impl Fn(&mut Rule)) {
        let mut rules = self.rules.to_vec();
        rules.iter_mut().for_each(change);
        self.rules = rules.into();
        self.operator =
            Rules::restore(&self.rules, &bitcoin(), &self.state()).expect("a state to go on from");
    }

    fn run(mut self, script: &str) -> Self {
        let signal = self.rules.first().map_or(SPREAD, |rule| rule.signal);
        for step in script.split_whitespace() {
            match step {
                "restart" => self.restart(),
                "off" => self.restart_with(|rule| rule.enabled = false),
                "on" => self.restart_with(|rule| rule.enabled = true),
                _ => self.operator.on_input(read_step(step, signal), &mut self.out),
            }
        }
        self
    }

    fn alerts(&self) -> Vec<&Alert> {
        let alerts: Vec<&Alert> = self.out.values.iter().filter_map(|tagged| alert(&tagged.value)).collect();
        assert_eq!(self.out.ledger.counts.alerts, alerts.len() as i64, "every alert is counted");
        alerts
    }
}

fn alert(outcome: &Outcome) -> Option<&Alert> {
    match outcome {
        Outcome::Alert(alert) => Some(alert),
        _ => None,
    }
}

fn read_number(text: &str) -> f64 {
    if text == "null" { f64::NAN } else { text.parse().expect("a number or null") }
}

/// `1.5` is a second and a half; all nine digits count.
fn read_time(text: &str) -> Time {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos: Nanos = format!("{fraction:0<9}").parse().expect("at most nine digits");
    Time(seconds.parse::<i64>().expect("seconds") * SECOND + nanos)
}

fn read_step(step: &str, signal: Signal) -> Scored {
    let (time, what) = step.split_once('=').expect("time=value");
    let time = read_time(time);
    let (value, zscore) = what.split_once('/').unwrap_or((what, "null"));
    match signal {
        _ if what == "gap" => gap(time),
        Signal::Metric(metric) => sample(time, &[(metric, read_number(value), read_number(zscore))]),
        Signal::Probability => tick(time, read_number(value)),
    }
}

/// `1.5 raised`, or `1.5 critical P1`: the priority where it isn't P2.
fn tell(alert: &Alert) -> String {
    let state = match alert.reason {
        "raised" | "resumed" => AlertState::Active,
        "critical" => AlertState::Escalated,
        "gap" | "warming_up" => AlertState::Suppressed,
        "cleared" | "disabled" => AlertState::Resolved,
        other => panic!("unknown reason {other}"),
    };
    assert_eq!(alert.state, state, "{}", alert.reason);
    let seconds = alert.time.0 as f64 / SECOND as f64;
    let priority = if alert.priority == Priority::P2 { "" } else { alert.priority.name() };
    format!("{seconds} {} {priority}", alert.reason).trim_end().to_string()
}

#[track_caller]
fn check(rule: Rule, script: &str, expected: &str) {
    let job = Job::new(&[rule]).run(script);
    let told: Vec<String> = job.alerts().into_iter().map(tell).collect();
    assert_eq!(told.join(", "), expected, "{script}");
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
fn while_suppressed_nothing_is_told() {
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
    job.operator.on_input(sample(Time(0), &[(Metric::SpreadBps, 12.0, 9.0)]), &mut job.out);
    assert!(job.alerts().is_empty(), "a sample is no probability");
    let mut job = Job::new(&[rule()]);
    job.operator.on_input(tick(Time(0), 12.0), &mut job.out);
    job.operator.on_input(sample(Time(0), &[(Metric::Mid, 12.0, 9.0)]), &mut job.out);
    assert!(job.alerts().is_empty(), "neither a tick nor another metric is a spread");
    job.operator.on_input(sample(Time(1), &[(Metric::SpreadBps, 12.0, 9.0)]), &mut job.out);
    job.operator.on_input(tick(Time(2), f64::NAN), &mut job.out);
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
        job.operator.on_input(sample(time, &[(Metric::SpreadBps, spread, f64::NAN)]), &mut job.out);
        job.operator.on_input(tick(time, 12.0), &mut job.out);
        if at == 2 {
            job.operator.on_input(gap(time), &mut job.out);
        }
    }
    let told: Vec<String> =
        job.alerts().iter().map(|alert| format!("{} {}", alert.rule, tell(alert))).collect();
    assert_eq!(
        told,
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
    let rules: Arc<[Rule]> =
        [Rule { instruments: vec!["okx:*".into(), "coinbase:*-USD".into()], ..rule() }].into();
    let raises = |exchange, name| {
        let mut out = Out::default();
        Rules::new(&rules, &instrument(exchange, name)).on_input(read_step("0=12", SPREAD), &mut out);
        out.values.len() == 2
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
    let told: Vec<String> = job
        .alerts()
        .iter()
        .map(|alert| {
            let Alert { value, threshold, zscore, digits, .. } = alert;
            let resolved = alert.resolved_at.map(|time| time.0 / SECOND);
            format!("{} {value} {threshold} {zscore} {digits} {resolved:?}", tell(alert))
        })
        .collect();
    assert_eq!(
        told,
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
            let rules: Arc<[Rule]> = [rule(), Rule { name: "other".into(), ..rule() }].into();
            let mut out = Out::default();
            let mut operator = Rules::new(&rules, &instrument(exchange, name));
            operator.on_input(read_step("0=12", SPREAD), &mut out);
            let ids: Vec<_> = out.values.iter().filter_map(|tagged| alert(&tagged.value)).collect();
            ids.into_iter().map(|alert| alert.id.clone()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(ids.len(), 6);
}

// States.

#[track_caller]
fn check_restore(saved: &[Rule], now: &[Rule], expected: Result<(), RestoreError>) {
    let now: Arc<[Rule]> = now.into();
    let restored = Rules::restore(&now, &bitcoin(), &Job::new(saved).run("0=12").state());
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
    let state = job.state();
    job.rules = [b, a].into();
    job.operator = Rules::restore(&job.rules, &bitcoin(), &state).expect("the same rules");
    let job = job.run("1=20 2=5");
    let told: Vec<String> =
        job.alerts().iter().map(|alert| format!("{} {}", alert.rule, tell(alert))).collect();
    assert_eq!(told, ["a 0 raised", "b 1 raised", "b 2 cleared", "a 2 cleared"]);
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
            job.operator.on_input(input, &mut job.out);
        }
    })
}

impl Job {
    fn with(mut self, act: impl FnOnce(&mut Job)) -> Self {
        act(&mut self);
        self
    }
}

#[test]
fn a_state_cut_off_anywhere_is_unreadable() {
    let job = busy();
    let state = job.state();
    for length in 0..state.len() {
        let restored = Rules::restore(&job.rules, &bitcoin(), &state[..length]);
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
    let state = busy().state();
    let mut taken = 0;
    for at in 0..state.len() {
        for mask in [0x01, 0x02, 0x40, 0x80, 0xff] {
            let mut corrupt = state.clone();
            corrupt[at] ^= mask;
            if let Ok(operator) = Rules::restore(&rules, &bitcoin(), &corrupt) {
                taken += 1;
                let job = Job { rules: rules.clone(), operator, out: Out::default() };
                job.run("6=20 6=5 restart 7=gap 8=5 9=null 10=20 11=5 20=5 off 200=12 restart");
            }
        }
    }
    assert!(taken > 100, "only {taken} corrupt states were readable: the test has lost its object");
}

#[test]
#[should_panic(expected = "a rule clears on the quiet side")]
fn a_rule_that_clears_beyond_its_raise_level_is_a_bug() {
    check(Rule { clear: 10.1, ..rule() }, "", "");
}

#[test]
#[should_panic(expected = "no two rules have the same name")]
fn two_rules_of_one_name_are_a_bug() {
    Job::new(&[rule(), rule()]);
}

// Any rules, any script: the same as looking everything up in the whole history.

/// One step of a rule's history.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Missing(&'static str),
    Warm { holds: bool, clear: bool, critical: bool },
}

fn see(rule: &Rule, input: &Scored) -> Option<(Time, Seen)> {
    let (time, value, zscore) = match (input, rule.signal) {
        (Scored::Gap(gap), _) => return Some((gap.end, Seen::Missing("gap"))),
        (Scored::Sample(sample), Signal::Metric(metric)) => {
            (sample.time, sample.readings[metric as usize].value, sample.readings[metric as usize].zscore)
        }
        (Scored::Tick(features, prediction), Signal::Probability) => {
            (features.clock, prediction.probability, 0.0)
        }
        _ => return None,
    };
    let sign = if rule.direction == Direction::Above { 1.0 } else { -1.0 };
    let zscore_needed = rule.zscore.unwrap_or(f64::NEG_INFINITY);
    let seen = if value.is_nan() || rule.zscore.is_some() && zscore.is_nan() {
        Seen::Missing("warming_up")
    } else {
        let holds =
            sign * value >= sign * rule.raise && (rule.zscore.is_none() || sign * zscore >= zscore_needed);
        let clear = !holds && sign * value <= sign * rule.clear;
        Seen::Warm { holds, clear, critical: rule.critical.is_some_and(|c| sign * value >= sign * c.level) }
    };
    Some((time, seen))
}

/// What a rule tells of its history, as (time, reason, started at, nth, escalated).
type Told = (Time, &'static str, Time, u32, bool);

/// Tells by looking up, for each question, all the steps that it depends on; it keeps no state.
fn expected(rule: &Rule, history: &[(Time, Seen)]) -> Vec<Told> {
    let time = |i: usize| history[i].0;
    let seen = |i: usize| history[i].1;
    let missing = |i: usize| matches!(seen(i), Seen::Missing(_));
    let holds = |i: usize| matches!(seen(i), Seen::Warm { holds: true, .. });
    let clear = |i: usize| matches!(seen(i), Seen::Warm { clear: true, .. });
    let critical = |i: usize| matches!(seen(i), Seen::Warm { critical: true, .. });
    // Whether `condition` was true from some step on, not before `from`, for at least `span` up to `to`.
    let lasted = |condition: &dyn Fn(usize) -> bool, from: usize, to: usize, span: Nanos| {
        (from..=to).any(|first| (first..=to).all(condition) && time(to).since(time(first)) >= span)
    };
    let end = history.len();
    let mut told = Vec::new();
    let mut starts: BTreeMap<Time, u32> = BTreeMap::new();
    let (mut next, mut allowed_from) = (0, Time(i64::MIN));
    while let Some(start) = (next..end).find(|&i| holds(i) && time(i) >= allowed_from) {
        let nth = starts.entry(time(start)).and_modify(|n| *n += 1).or_insert(1);
        let broken = (start..end).find(|&i| !holds(i)).unwrap_or(end);
        let Some(raised) = (start..broken).find(|&i| time(i).since(time(start)) >= rule.hold) else {
            next = broken;
            continue;
        };
        let resolved = (raised..end).find(|&i| lasted(&clear, raised, i, rule.resolve_for)).unwrap_or(end);
        let escalated = rule
            .critical
            .filter(|_| rule.priority == Priority::P2)
            .and_then(|limit| (raised..resolved).find(|&i| lasted(&critical, start, i, limit.hold)));
        for i in raised..end.min(resolved + 1) {
            let mut tell = |reason| {
                let is_escalated = escalated.is_some_and(|at| at < i) || reason == "critical";
                told.push((time(i), reason, time(start), *nth, is_escalated));
            };
            match seen(i) {
                _ if i == raised => tell("raised"),
                Seen::Missing(reason) if !missing(i - 1) => tell(reason),
                Seen::Warm { .. } if missing(i - 1) => tell("resumed"),
                _ => {}
            }
            if escalated == Some(i) {
                tell("critical");
            }
            if resolved == i {
                tell("cleared");
            }
        }
        if resolved == end {
            break;
        }
        next = resolved + 1;
        allowed_from = time(resolved).plus(rule.cooldown);
    }
    told
}

fn any_span() -> impl Strategy<Value = Nanos> {
    (0..=3_i64).prop_map(|seconds| seconds * SECOND)
}

fn any_rule(name: &'static str, signal: Signal, direction: Direction) -> impl Strategy<Value = Rule> {
    let sign = if direction == Direction::Above { 1.0 } else { -1.0 };
    let zscore = if signal == Signal::Probability {
        Just(None).boxed()
    } else {
        prop_oneof![Just(None), Just(Some(2.0))].boxed()
    };
    let critical = prop_oneof![
        Just(None),
        (prop_oneof![Just(10.0), Just(20.0)], any_span())
            .prop_map(move |(level, hold)| Some(Critical { level: sign * level, hold })),
    ];
    let priority = prop_oneof![4 => Just(Priority::P2), 1 => Just(Priority::P1), 1 => Just(Priority::P3)];
    let clear = prop_oneof![3 => Just(5.0), 1 => Just(10.0)];
    (zscore, critical, priority, clear, any_span(), any_span(), any_span()).prop_map(
        move |(zscore, critical, priority, clear, hold, resolve_for, cooldown)| Rule {
            name: name.into(),
            signal,
            direction,
            raise: sign * 10.0,
            clear: sign * clear,
            priority,
            zscore,
            critical,
            hold,
            resolve_for,
            cooldown,
            ..rule()
        },
    )
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let mid = Signal::Metric(Metric::Mid);
    (
        any_rule("spread", SPREAD, Direction::Above),
        any_rule("spread too", SPREAD, Direction::Above),
        any_rule("mid", mid, Direction::Below),
        any_rule("probable", Signal::Probability, Direction::Above),
    )
        .prop_map(|(a, b, c, d)| vec![a, b, c, d])
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => prop_oneof![Just(20.0), Just(25.0)],
        4 => prop_oneof![Just(10.0), Just(12.0)],
        2 => Just(7.0),
        4 => prop_oneof![Just(5.0), Just(3.0)],
        1 => Just(f64::NAN),
    ]
}

fn any_zscore() -> impl Strategy<Value = f64> {
    prop_oneof![6 => Just(2.0), 2 => Just(3.0), 1 => Just(1.0), 1 => Just(f64::NAN)]
}

/// Samples, ticks and gaps; values stay for a while, and inputs share times.
fn any_script() -> impl Strategy<Value = Vec<Scored>> {
    let step = (0..12_u8, 0..=2_i64, any_value(), any_zscore(), 1..5_usize);
    prop::collection::vec(step, 0..25).prop_map(|steps| {
        let mut now = Time(1_000 * SECOND);
        let mut script = Vec::new();
        for (kind, seconds, value, zscore, times) in steps {
            for _ in 0..times {
                now = now.plus(seconds * SECOND);
                script.push(match kind {
                    0 => gap(now),
                    1..=4 => tick(now, value),
                    _ => sample(now, &[(Metric::SpreadBps, value, zscore), (Metric::Mid, -value, -zscore)]),
                });
            }
        }
        script
    })
}

fn run_script(rules: &[Rule], script: &[Scored], mut between: impl FnMut(&mut Job, usize)) -> Job {
    let mut job = Job::new(rules);
    for (index, input) in script.iter().enumerate() {
        between(&mut job, index);
        job.operator.on_input(*input, &mut job.out);
    }
    job
}

fn in_words(job: &Job) -> Vec<String> {
    job.out.values.iter().map(|tagged| format!("{:?}", tagged.value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn agrees_with_looking_everything_up(rules in any_rules(), script in any_script()) {
        let job = run_script(&rules, &script, |_, _| {});
        let mut starts_of_ids: BTreeMap<&str, (&str, Time, u32)> = BTreeMap::new();
        for rule in &rules {
            let history: Vec<_> = script.iter().filter_map(|input| see(rule, input)).collect();
            let expected = expected(rule, &history);
            let alerts: Vec<&Alert> = job.alerts().into_iter().filter(|alert| alert.rule == rule.name).collect();
            prop_assert_eq!(
                alerts.iter().map(|alert| tell(alert)).collect::<Vec<_>>(),
                expected.iter().map(|(time, reason, .., escalated)| {
                    let priority = if *escalated { Priority::P1 } else { rule.priority };
                    let priority = if priority == Priority::P2 { "" } else { priority.name() };
                    format!("{} {reason} {priority}", time.0 / SECOND).trim_end().to_string()
                }).collect::<Vec<_>>()
            );
            for (alert, (_, _, start, nth, _)) in alerts.iter().zip(expected) {
                prop_assert_eq!(alert.started_at, start);
                let start = (&*rule.name, start, nth);
                prop_assert_eq!(*starts_of_ids.entry(&alert.id).or_insert(start), start, "one id, two alerts");
            }
        }
        let distinct: BTreeSet<_> = starts_of_ids.values().collect();
        prop_assert_eq!(distinct.len(), starts_of_ids.len(), "one alert, two ids");
    }

    #[test]
    fn the_promises_hold(rules in any_rules(), script in any_script()) {
        let job = run_script(&rules, &script, |_, _| {});
        let mut ids = BTreeSet::new();
        let mut open: BTreeMap<&str, &Alert> = BTreeMap::new();
        let mut clear_since: BTreeMap<&str, Time> = BTreeMap::new();
        let mut inputs = script.iter().peekable();
        let mut cause: Option<&Scored> = None;
        let mut now = Time(0);
        for tagged in &job.out.values {
            let Outcome::Alert(alert) = &tagged.value else {
                let passed = inputs.next().expect("nothing is made up");
                prop_assert_eq!(in_outcome(passed), format!("{:?}", tagged.value));
                cause = Some(passed);
                for rule in &rules {
                    match see(rule, passed) {
                        Some((time, Seen::Warm { clear: true, .. })) => { clear_since.entry(&rule.name).or_insert(time); }
                        Some(_) => { clear_since.remove(&*rule.name); }
                        None => {}
                    }
                }
                continue;
            };
            prop_assert!(alert.time >= now, "messages are in the order of time");
            now = alert.time;
            let rule = rules.iter().find(|rule| rule.name == alert.rule).expect("a rule in force");
            let cause = see(rule, cause.expect("something came first")).expect("something that the rule looks at");
            prop_assert_eq!(alert.time, cause.0);
            let was_open = open.get(&*rule.name).copied();
            match alert.reason {
                "raised" => {
                    prop_assert!(was_open.is_none(), "raised twice");
                    prop_assert!(ids.insert(&alert.id), "an id was used twice");
                    open.insert(&rule.name, alert);
                }
                reason => {
                    let before = was_open.expect("only a raised alert changes");
                    prop_assert_eq!(&before.id, &alert.id);
                    prop_assert_eq!(before.started_at, alert.started_at);
                    prop_assert_eq!(before.triggered_at, alert.triggered_at);
                    prop_assert!(before.priority != Priority::P1 || alert.priority == Priority::P1, "back from P1");
                    let suppressed = before.state == AlertState::Suppressed;
                    prop_assert_eq!(suppressed, reason == "resumed", "suppressed, then resumed, and nothing else");
                    if let Seen::Missing(why) = cause.1 {
                        prop_assert_eq!(reason, why, "missing data only suppresses");
                    }
                    if alert.state == AlertState::Resolved { open.remove(&*rule.name) } else { open.insert(&rule.name, alert) };
                }
            }
        }
        prop_assert!(inputs.peek().is_none(), "everything passes through");
        for rule in &rules {
            let last = script.iter().rev().find_map(|input| see(rule, input));
            if let (Some(since), Some((time, _))) = (clear_since.get(&*rule.name), last)
                && time.since(*since) >= rule.resolve_for {
                prop_assert!(!open.contains_key(&*rule.name), "{} was clear for long enough", rule.name);
            }
        }
    }

    #[test]
    fn stopped_anywhere_it_goes_on_the_same(rules in any_rules(), script in any_script(), cut in 0..100_usize) {
        let whole = in_words(&run_script(&rules, &script, |_, _| {}));
        let always = run_script(&rules, &script, |job, _| job.restart());
        prop_assert_eq!(&in_words(&always), &whole);
        let once = run_script(&rules, &script, |job, index| if index == cut { job.restart() });
        prop_assert_eq!(&in_words(&once), &whole);
    }
}

/// An input in the words of the outcome that it becomes.
fn in_outcome(input: &Scored) -> String {
    let outcome = match *input {
        Scored::Gap(gap) => Outcome::Gap(gap),
        Scored::Sample(sample) => Outcome::Sample(sample),
        Scored::Tick(features, prediction) => Outcome::Tick(features, prediction),
    };
    format!("{outcome:?}")
}
