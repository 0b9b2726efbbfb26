//! Changes of model, rules and settings: where they take effect, and what becomes of the states.

use std::sync::Arc;

use foreshock_operators::chain::{Chain, SECTION};
use foreshock_operators::change::{Change, ChangeKind, Effect, Parameters};
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::links;
use foreshock_operators::links::{Links, Out};
use foreshock_operators::model::Model;
use foreshock_operators::operator::{Collector, Context, Instrument, Mismatch, Operator, RestoreError};
use foreshock_operators::order::{Order, OrderSettings};
use foreshock_operators::row::Row;
use foreshock_operators::seconds::SecondSettings;
use foreshock_operators::stages::{GapReason, Scored};
use foreshock_operators::time::{MILLISECOND, Nanos, SECOND, Time};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use foreshock_testkit::random::Random;
use foreshock_testkit::rows::{
    START, ScoredChain, account_of, busy_log, instrument, instrument_with_gaps, log, mid, model, output_with,
    parameters, reordering, ticker, values, with_id,
};

/// A row, or a change that stands before the next one in the log.
#[derive(Clone, Debug)]
enum Step {
    Row(Row),
    Change(Arc<Change>),
}

fn change(number: u32, effective_at: Option<Nanos>, kind: ChangeKind) -> Arc<Change> {
    let effective_at = effective_at.map(|at| Time(START + at));
    Arc::new(Change { number, id: format!("c{number}").into(), offset: 0, effective_at, kind })
}

fn named(version: &str) -> Arc<Model> {
    Arc::new(Model { version: version.into(), sha256: version.into(), ..Model::clone(&model()) })
}

fn to_model(number: u32, effective_at: Option<Nanos>) -> Arc<Change> {
    change(number, effective_at, ChangeKind::Model(named(&number.to_string())))
}

fn to_parameters(number: u32, parameters: Parameters) -> Arc<Change> {
    change(number, None, ChangeKind::Parameters(Arc::new(parameters)))
}

fn feed<L>(chain: &mut Chain<Order, L>, steps: &[Step], out: &mut Out<L::Output>)
where
    L: Links<Instrument, Input = Row>,
{
    for step in steps {
        match step {
            Step::Row(row) => chain.on_input(*row, out, &mut ()),
            Step::Change(change) => chain.on_change(change, out, &mut ()),
        }
    }
}

/// What an operator behind order is given.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Row(Row),
    Change { number: u32, at: Time, digits: u8 },
}

/// Passes rows on, and writes down the changes that take effect between them.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Recorder;

impl Operator for Recorder {
    const NAME: &'static str = "recorder";
    type Input = Row;
    type Output = Seen;

    fn new(_: &Parameters, _: &Instrument) -> Self {
        Recorder
    }

    fn on_input(&mut self, row: Row, out: &mut impl Collector<Seen>) {
        out.push(Seen::Row(row));
    }

    fn on_change(&mut self, effect: &Effect, out: &mut impl Collector<Seen>) {
        let &Effect { change, at, digits, .. } = effect;
        out.push(Seen::Change { number: change.number, at, digits });
    }

    fn resume(&mut self, _: &Parameters, _: &Instrument) -> Result<(), Mismatch> {
        Ok(())
    }
}

/// What order lets through: rows by their time, changes by `#` and their number, with the clock they are given.
fn ordered(reorder: Nanos, steps: &[Step]) -> Vec<String> {
    let mut chain = Chain::<Order, links![Recorder]>::new(&Arc::new(reordering(reorder)), &instrument());
    let mut out = Out::new(Context::default(), 0);
    feed(&mut chain, steps, &mut out);
    chain.on_end(&mut out, &mut ());
    let seen: Vec<&Seen> = out.values.iter().map(|tagged| &tagged.value).collect();
    let mut recorded = Vec::new();
    for (at, value) in seen.iter().enumerate() {
        if let Seen::Change { number, at: clock, digits } = value {
            let row = seen[at..].iter().find_map(|next| match next {
                Seen::Row(row) => Some(row),
                Seen::Change { .. } => None,
            });
            let row = row.expect("a change stands before a row");
            assert_eq!((*clock, *digits), (row.clock, row.digits), "a change is placed at its row's clock");
            recorded.push((*number, at as u32 + 1));
        }
    }
    // What the chain itself says of them: what a change has caused stands before its place.
    let placed = out.changes.iter().map(|placed| (placed.change.number, placed.before));
    assert_eq!(placed.collect::<Vec<_>>(), recorded);
    let in_words = |value: &&Seen| match value {
        Seen::Row(row) => (row.event_time.0 - START).to_string(),
        Seen::Change { number, .. } => format!("#{number}"),
    };
    seen.iter().map(in_words).collect()
}

#[track_caller]
fn check_order(reorder: Nanos, script: &[Result<Nanos, Arc<Change>>], expected: &str) {
    let mut line = 0;
    let steps: Vec<Step> = script
        .iter()
        .map(|step| match step {
            Ok(time) => {
                line += 1;
                let mut row = mid(*time, 1.0);
                row.source.line = line;
                Step::Row(row)
            }
            Err(change) => Step::Change(change.clone()),
        })
        .collect();
    assert_eq!(ordered(reorder, &steps).join(" "), expected);
}

#[test]
fn a_change_holds_from_the_next_row_on() {
    check_order(0, &[Ok(1), Err(to_model(1, None)), Ok(2), Ok(3)], "1 #1 2 3");
}

#[test]
fn a_change_waits_for_its_moment() {
    check_order(0, &[Err(to_model(1, Some(3))), Ok(1), Ok(2), Ok(3), Ok(4)], "1 2 #1 3 4");
    check_order(0, &[Err(to_model(1, Some(3))), Ok(1), Ok(9)], "1 #1 9");
}

#[test]
fn a_moment_that_has_passed_is_no_moment_in_the_past() {
    check_order(0, &[Ok(5), Err(to_model(1, Some(3))), Ok(6)], "5 #1 6");
}

#[test]
fn a_late_row_lets_no_change_take_effect() {
    check_order(0, &[Ok(5), Err(to_model(1, None)), Ok(4), Ok(6)], "5 #1 6");
}

#[test]
fn rows_that_wait_stand_before_a_change_that_comes_behind_them() {
    check_order(10, &[Ok(5), Ok(8), Err(to_model(1, None)), Ok(20), Ok(30)], "5 8 #1 20 30");
}

#[test]
fn a_row_that_was_overtaken_comes_after_the_change() {
    // 7 stands behind the change in the log and before 8 in time; 8 follows, although it stands before the change.
    check_order(10, &[Ok(5), Ok(8), Err(to_model(1, None)), Ok(7), Ok(30)], "5 #1 7 8 30");
}

#[test]
fn a_newer_change_that_holds_at_once_replaces_one_that_waits() {
    check_order(0, &[Err(to_model(1, Some(3))), Ok(1), Err(to_model(2, None)), Ok(2), Ok(3)], "1 #2 2 3");
    let rules = change(2, None, ChangeKind::Rules([].into()));
    check_order(0, &[Err(to_model(1, Some(3))), Ok(1), Err(rules), Ok(2), Ok(3)], "1 #2 2 #1 3");
}

#[test]
fn a_row_between_two_changes_takes_the_first_even_where_it_waited() {
    let script = [Ok(1), Err(to_model(1, None)), Ok(2), Err(to_model(2, None)), Ok(3), Ok(40)];
    check_order(10, &script, "1 #1 2 #2 3 40");
}

#[test]
fn changes_that_come_due_at_one_row_go_in_the_order_of_their_moments() {
    check_order(0, &[Err(to_model(1, Some(4))), Err(to_model(2, Some(3))), Ok(9)], "#2 #1 9");
    check_order(0, &[Err(to_model(1, Some(4))), Err(to_model(2, Some(3))), Ok(3), Ok(5)], "#2 3 #1 5");
}

#[test]
fn rows_no_longer_wait_once_they_need_not() {
    let at_once = to_parameters(1, parameters());
    // 30 lets 5 go, which stands before the change; 30 still waits, and then 41 lets the change take effect.
    check_order(10, &[Ok(5), Err(at_once), Ok(30), Ok(41), Ok(42)], "5 #1 30 41 42");
    check_order(
        0,
        &[Ok(5), Err(to_parameters(1, reordering(10))), Ok(30), Ok(41), Ok(40), Ok(60)],
        "5 #1 30 40 41 60",
    );
}

#[test]
fn after_a_loss_nothing_is_late_or_a_duplicate_of_what_was_before() {
    let steps: Vec<Step> = log([mid(5, 1.0), mid(9, 1.0)]).into_iter().map(Step::Row).collect();
    let lost = Step::Change(change(1, None, ChangeKind::StateLost));
    let again = Step::Row(with_id(7, mid(6, 1.0)));
    let first = Step::Row(with_id(7, mid(5, 1.0)));
    let script = [vec![first], steps, vec![lost, again]].concat();
    assert_eq!(ordered(0, &script).join(" "), "5 5 9 #1 6");
}

// ------------------------------------------------------------------------------------------------ the chain

fn short() -> Parameters {
    let features = FeatureSettings {
        window: 3 * SECOND,
        horizons: vec![250 * MILLISECOND, 5 * SECOND],
        spread_window: 100,
        spread_min: 10,
    };
    Parameters {
        features: Arc::new(features),
        seconds: SecondSettings { zscore_window: 7, zscore_min_samples: 3 },
        ..parameters()
    }
}

fn scored(parameters: Parameters, steps: &[Step]) -> Vec<Scored> {
    let rows: Vec<Row> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Row(row) => Some(*row),
            Step::Change(_) => None,
        })
        .collect();
    let mut chain = ScoredChain::new(&Arc::new(parameters), &instrument_with_gaps(5 * SECOND));
    let mut out = output_with(account_of(&rows));
    feed(&mut chain, steps, &mut out);
    chain.on_end(&mut out, &mut ());
    assert_eq!(out.context.ledger.counts.imbalance(), None);
    values(out)
}

fn saved(chain: &ScoredChain) -> Vec<u8> {
    let mut bytes = Vec::new();
    chain.save(&mut bytes);
    bytes
}

/// What is the same however often settings were changed to the same ones before.
fn without_numbers(value: &Scored) -> String {
    match *value {
        Scored::Tick(mut features, mut prediction) => {
            (features.settings, prediction.model) = (0, 0);
            format!("{:?}", Scored::Tick(features, prediction))
        }
        other => format!("{other:?}"),
    }
}

fn steps(rows: &[Row], changes: &[(usize, Arc<Change>)]) -> Vec<Step> {
    let mut steps = Vec::new();
    for at in 0..=rows.len() {
        steps
            .extend(changes.iter().filter(|(k, _)| *k == at).map(|(_, change)| Step::Change(change.clone())));
        steps.extend(rows.get(at).copied().map(Step::Row));
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A new model scores what the old one would have: nothing else differs.
    #[test]
    fn a_run_with_a_new_model_is_spliced_of_two(seed in any::<u64>(), count in 1usize..300, at in 0.0..1.0f64) {
        let rows = busy_log(seed, count);
        let at = (at * count as f64) as usize;
        let other = Arc::new(Model { decision_threshold: 0.0, ..Model::clone(&named("2")) });
        let changed = change(1, None, ChangeKind::Model(other.clone()));
        let got = scored(parameters(), &steps(&rows, &[(at, changed)]));
        let before = scored(parameters(), &steps(&rows, &[]));
        let after = scored(Parameters { model: other, ..parameters() }, &steps(&rows, &[]));
        prop_assert_eq!(got.len(), before.len());
        for (k, value) in got.iter().enumerate() {
            let is_after = matches!(value, Scored::Tick(features, _) if features.source.line > at as u64);
            let expected = if is_after { &after[k] } else { &before[k] };
            prop_assert_eq!(without_numbers(value), without_numbers(expected));
            if let Scored::Tick(_, prediction) = value {
                prop_assert_eq!(prediction.model, u32::from(is_after));
            }
        }
    }

    /// Behind new settings everything is as if the log began there, but for the gap and the last price.
    #[test]
    fn a_run_with_new_settings_is_spliced_of_two(seed in any::<u64>(), count in 1usize..200, at in 0.0..1.0f64) {
        let mut random = Random::new(seed);
        let mut time = 0;
        let rows = log((0..count).map(|_| {
            time += random.below_u64(900) as i64 * MILLISECOND;
            let price = 100.0 + random.signed();
            ticker(time, price, price + 0.01, price)
        }));
        let at = (at * count as f64) as usize;
        let got = scored(parameters(), &steps(&rows, &[(at, to_parameters(1, short()))]));
        let before = scored(parameters(), &steps(&rows[..at], &[]));
        let after = scored(short(), &steps(&rows[at..], &[]));
        let (head, rest) = got.split_at(before.len());
        let tail = &rest[rest.len() - after.len()..];
        prop_assert_eq!(head.iter().map(without_numbers).collect::<Vec<_>>(), before.iter().map(without_numbers).collect::<Vec<_>>());
        prop_assert_eq!(tail.iter().map(without_numbers).collect::<Vec<_>>(), after.iter().map(without_numbers).collect::<Vec<_>>());
        // Between them: the second that ended before, then the gap.
        let between = &rest[..rest.len() - after.len()];
        let gaps: Vec<_> = between.iter().filter_map(|value| match value {
            Scored::Gap(gap) => Some(*gap),
            _ => None,
        }).collect();
        if at == 0 {
            prop_assert!(between.is_empty());
        } else {
            prop_assert_eq!(gaps.len(), 1);
            prop_assert_eq!(gaps[0].reason, GapReason::Reconfigured);
            prop_assert_eq!((gaps[0].start, gaps[0].end), (rows[at - 1].clock, rows[at].clock));
            prop_assert!(matches!(between.last(), Some(Scored::Gap(_))));
        }
    }

    /// Stopping anywhere changes nothing: changes that wait are part of the state.
    #[test]
    fn a_run_with_changes_may_stop_anywhere(seed in any::<u64>(), count in 1usize..150) {
        let rows = busy_log(seed, count);
        let last = rows.iter().map(|row| row.event_time.0 - START).max().unwrap_or(0);
        let changes = [
            (count / 4, to_model(1, Some(last / 2))),
            (count / 3, to_parameters(2, Parameters { order: OrderSettings { reorder: 50 * MILLISECOND }, ..short() })),
            (count / 2, to_model(3, None)),
            (count / 2, to_model(4, Some(last * 3 / 4))),
            (2 * count / 3, change(5, None, ChangeKind::StateLost)),
            (3 * count / 4, to_parameters(6, parameters())),
        ];
        let base = Arc::new(reordering(200 * MILLISECOND));
        let all: Vec<Arc<Change>> = changes.iter().map(|(_, change)| change.clone()).collect();
        let steps = steps(&rows, &changes);
        let instrument = instrument_with_gaps(5 * SECOND);
        let run = |stops: bool| {
            let mut chain = ScoredChain::new(&base, &instrument);
            let mut out = Out::new(Context::default(), 0);
            for step in &steps {
                feed(&mut chain, std::slice::from_ref(step), &mut out);
                if stops {
                    let bytes = saved(&chain);
                    chain = ScoredChain::restore(&base, &all, &instrument, &bytes).expect("its own state");
                    assert_eq!(saved(&chain), bytes);
                }
            }
            chain.on_end(&mut out, &mut ());
            let ledger = out.context.ledger;
            (format!("{:?}", out.values), format!("{:?}", out.changes), format!("{ledger:?}"))
        };
        prop_assert_eq!(run(true), run(false));
    }
}

#[test]
fn a_change_of_the_model_alone_makes_no_gap() {
    let rows = log([mid(0, 1.0), mid(1, 1.0), mid(2, 1.0)]);
    let same = Parameters { model: named("9"), ..parameters() };
    let got = scored(parameters(), &steps(&rows, &[(1, to_parameters(1, same))]));
    assert!(got.iter().all(|value| matches!(value, Scored::Tick(..))), "{got:?}");
}

#[test]
fn a_silence_that_a_change_ends_is_a_silence() {
    let rows = log([mid(0, 1.0), mid(60 * SECOND, 1.0)]);
    let got = scored(parameters(), &steps(&rows, &[(1, to_parameters(1, short()))]));
    let gaps: Vec<_> = got.iter().filter(|value| matches!(value, Scored::Gap(_))).collect();
    let [Scored::Gap(gap)] = gaps[..] else { panic!("{got:?}") };
    assert_eq!(gap.reason, GapReason::Silence);
}

#[test]
fn a_lost_state_is_a_gap_even_before_the_first_row() {
    let lost = change(1, None, ChangeKind::StateLost);
    let rows = log([mid(0, 1.0), mid(SECOND, 1.0)]);
    for (at, start) in [(0, 0), (1, 0)] {
        let got = scored(parameters(), &steps(&rows, &[(at, lost.clone())]));
        let gap = got.iter().find_map(|value| match value {
            Scored::Gap(gap) => Some(*gap),
            _ => None,
        });
        let gap = gap.expect("a gap");
        assert_eq!(gap.reason, GapReason::StateLost);
        assert_eq!((gap.start.0 - START, gap.end.0 - START), (start, at as i64 * SECOND));
    }
}

/// The state of a chain after these steps, and whether it is taken up where these changes are known.
fn restored(steps: &[Step], changes: &[Arc<Change>]) -> Result<(), RestoreError> {
    let base = Arc::new(parameters());
    let mut chain = ScoredChain::new(&base, &instrument());
    feed(&mut chain, steps, &mut Out::new(Context::default(), 0));
    let bytes = saved(&chain);
    let restored = ScoredChain::restore(&base, changes, &instrument(), &bytes)?;
    assert_eq!(saved(&restored), bytes);
    Ok(())
}

#[test]
fn a_state_that_names_a_change_which_is_not_there_is_refused() {
    let changed = to_model(1, None);
    let other_kind = |kind| Arc::new(Change { kind, ..Change::clone(&changed) });
    let in_force = [Step::Change(changed.clone()), Step::Row(mid(0, 1.0))];
    let pending = [Step::Row(mid(0, 1.0)), Step::Change(changed.clone())];
    for steps in [&in_force, &pending] {
        let refused = restored(steps, &[]).expect_err("no such change");
        assert!(matches!(refused, RestoreError::Unreadable { operator: SECTION, .. }), "{refused}");
        assert!(restored(steps, &[to_model(2, None)]).is_err());
        assert_eq!(restored(steps, std::slice::from_ref(&changed)), Ok(()));
    }
    let another = other_kind(ChangeKind::Model(named("5")));
    assert_eq!(restored(&in_force, &[another]), Err(RestoreError::OtherSettings { operator: "score" }));
    let no_model = other_kind(ChangeKind::Rules([].into()));
    let refused = restored(&in_force, &[no_model]).expect_err("it puts no model in force");
    assert!(matches!(refused, RestoreError::Unreadable { operator: SECTION, .. }), "{refused}");
}

/// Newer settings may take effect first: what an older change then put in force beside them holds after a restart too.
#[test]
fn a_state_is_taken_up_whatever_the_order_in_which_changes_took_effect() {
    let at = |number, moment, kind| change(number, Some(moment), kind);
    let model = |number, moment| at(number, moment, ChangeKind::Model(named("m")));
    let rules = |number, moment| at(number, moment, ChangeKind::Rules([].into()));
    let all = |number, moment| at(number, moment, ChangeKind::Parameters(Arc::new(short())));
    for changes in [
        vec![model(1, 20), all(2, 10)],
        vec![rules(1, 20), all(2, 10)],
        vec![model(1, 20), rules(2, 20), all(3, 10)],
        vec![model(1, 10), all(2, 20)],
        vec![model(1, 30), rules(2, 10), all(3, 20)],
        vec![all(1, 20), all(2, 10), model(3, 15)],
        vec![model(1, 20), model(2, 10), all(3, 5), rules(4, 30)],
    ] {
        let mut steps: Vec<Step> = changes.iter().cloned().map(Step::Change).collect();
        for time in 0..8 {
            steps.push(Step::Row(mid(5 * time, 1.0)));
            assert_eq!(restored(&steps, &changes), Ok(()), "at {time} of {changes:?}");
        }
    }
}
