//! Any rules, any script: the same as looking everything up in the whole history.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use foreshock_operators::rules::{Critical, Direction, Rule};
use foreshock_operators::stages::{Alert, AlertState, Metric, Outcome, Priority, Scored, Signal};
use foreshock_operators::time::{Nanos, SECOND, Time};

use crate::rules::job::*;

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

/// What a rule says of its history, as (time, reason, started at, nth, escalated).
type Message = (Time, &'static str, Time, u32, bool);

/// Found by looking up, for each question, all the steps that it depends on; it keeps no state.
fn expected(rule: &Rule, history: &[(Time, Seen)]) -> Vec<Message> {
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
    let mut messages = Vec::new();
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
            let mut say = |reason| {
                let is_escalated = escalated.is_some_and(|at| at < i) || reason == "critical";
                messages.push((time(i), reason, time(start), *nth, is_escalated));
            };
            match seen(i) {
                _ if i == raised => say("raised"),
                Seen::Missing(reason) if !missing(i - 1) => say(reason),
                Seen::Warm { .. } if missing(i - 1) => say("resumed"),
                _ => {}
            }
            if escalated == Some(i) {
                say("critical");
            }
            if resolved == i {
                say("cleared");
            }
        }
        if resolved == end {
            break;
        }
        next = resolved + 1;
        allowed_from = time(resolved).plus(rule.cooldown);
    }
    messages
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
        job.feed(*input);
    }
    job
}

fn outcomes(job: &Job) -> Vec<String> {
    job.alone.out.values.iter().map(|tagged| format!("{:?}", tagged.value)).collect()
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
                alerts.iter().map(|alert| in_words(alert)).collect::<Vec<_>>(),
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
        for tagged in &job.alone.out.values {
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
        let whole = outcomes(&run_script(&rules, &script, |_, _| {}));
        let always = run_script(&rules, &script, |job, _| job.restart());
        prop_assert_eq!(&outcomes(&always), &whole);
        let once = run_script(&rules, &script, |job, index| if index == cut { job.restart() });
        prop_assert_eq!(&outcomes(&once), &whole);
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
