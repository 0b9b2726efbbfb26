//! Silences (docs/definitions.md, "Gaps"), as scripts.

use std::sync::Arc;

use foreshock_operators::alone::Alone;
use foreshock_operators::gaps::Gaps;
use foreshock_operators::operator::Instrument;
use foreshock_operators::order::Order;
use foreshock_operators::row::{Channel, Row};
use foreshock_operators::stages::{GapReason, Live, Scored};
use foreshock_operators::time::{Nanos, SECOND};

use foreshock_testkit::rows::{
    START, ScoredChain, account_of, feed_inputs, feed_rows, heartbeat, instrument, instrument_with_gaps, log,
    mid, on, output_with, parameters, reordering, ticker, trade, with_id,
};

const AFTER: Nanos = 5 * SECOND;

/// The gaps that order and gaps find: the line before which each stands, its start and its end.
fn gaps(reorder: Nanos, instrument: &Instrument, rows: Vec<Row>) -> Vec<(u64, Nanos, Nanos)> {
    let rows = log(rows);
    let parameters = Arc::new(reordering(reorder));
    let mut order = Alone::<Order>::new(&parameters, instrument).with_ledger(account_of(&rows));
    feed_inputs(&mut order, rows);
    order.end();
    let ordered = order.out;
    let through = ordered.values.len();
    let mut operator = Alone::<Gaps>::new(&parameters, instrument).with_ledger(ordered.context.ledger);
    feed_inputs(&mut operator, ordered.values.into_iter().map(|row| row.value));
    let live = operator.out;
    let mut found = Vec::new();
    let mut passed = 0;
    for (k, value) in live.values.iter().enumerate() {
        match (value.value, live.values.get(k + 1).map(|next| next.value)) {
            (Live::Row(_), _) => passed += 1,
            (Live::Gap(gap), Some(Live::Row(row))) => {
                assert_eq!((gap.reason, gap.digits, gap.end), (GapReason::Silence, row.digits, row.clock));
                found.push((row.source.line, gap.start.0 - START, gap.end.0 - START));
            }
            (Live::Gap(_), next) => panic!("a gap stands before {next:?}"),
        }
    }
    assert_eq!(passed, through, "every row goes on");
    assert_eq!(live.context.ledger.counts.gaps, found.len() as i64);
    found
}

#[track_caller]
fn check(rows: Vec<Row>, expected: &[(u64, Nanos, Nanos)]) {
    assert_eq!(gaps(0, &instrument_with_gaps(AFTER), rows), expected);
}

#[test]
fn a_silence_of_exactly_gap_after_is_no_gap() {
    check(vec![mid(7, 1.0), mid(7 + AFTER, 1.0)], &[]);
}

#[test]
fn a_nanosecond_more_is_a_gap() {
    check(vec![mid(7, 1.0), mid(7 + AFTER + 1, 1.0)], &[(2, 7, 7 + AFTER + 1)]);
}

#[test]
fn there_is_no_gap_before_the_first_row() {
    check(vec![mid(1_000 * SECOND, 1.0)], &[]);
}

#[test]
fn heartbeats_and_trades_are_signs_of_life() {
    check(vec![mid(0, 1.0), heartbeat(AFTER), trade(2 * AFTER, 1.0), mid(3 * AFTER, 1.0)], &[]);
}

#[test]
fn heartbeats_and_trades_end_a_gap() {
    check(vec![mid(0, 1.0), heartbeat(AFTER + 1)], &[(2, 0, AFTER + 1)]);
    check(vec![mid(0, 1.0), trade(AFTER + 1, 1.0), mid(AFTER + 2, 1.0)], &[(2, 0, AFTER + 1)]);
}

#[test]
fn each_silence_is_a_gap_of_its_own() {
    let rows = vec![mid(0, 1.0), mid(10 * SECOND, 1.0), mid(11 * SECOND, 1.0), mid(30 * SECOND, 1.0)];
    check(rows, &[(2, 0, 10 * SECOND), (4, 11 * SECOND, 30 * SECOND)]);
}

#[test]
fn a_silence_still_open_at_the_end_has_no_record() {
    check(vec![mid(0, 1.0), mid(1, 1.0)], &[]);
}

#[test]
fn silences_are_no_gaps_where_they_are_off() {
    assert_eq!(gaps(0, &instrument(), vec![mid(0, 1.0), mid(1_000_000 * SECOND, 1.0)]), []);
}

#[test]
fn a_inherited_limit_0_makes_every_step_a_gap_but_no_tie() {
    let rows = vec![mid(0, 1.0), mid(0, 1.0), mid(1, 1.0)];
    assert_eq!(gaps(0, &instrument_with_gaps(0), rows), [(3, 0, 1)]);
}

#[test]
fn late_rows_are_no_sign_of_life() {
    // The trade at 4 s is late, so the quote at 6 s ends a silence that began at 0 s.
    let rows = vec![trade(5, 1.0), mid(0, 1.0), trade(4, 1.0), mid(AFTER + 6, 1.0)];
    check(rows, &[(4, 5, AFTER + 6)]);
    let rows = vec![mid(9, 1.0), heartbeat(9), heartbeat(8), mid(9 + AFTER + 1, 1.0)];
    check(rows, &[(4, 9, 9 + AFTER + 1)]);
}

#[test]
fn duplicate_rows_are_no_sign_of_life() {
    let rows = vec![with_id(1, mid(0, 1.0)), with_id(1, mid(AFTER, 1.0)), with_id(2, mid(AFTER + 1, 1.0))];
    check(rows, &[(3, 0, AFTER + 1)]);
}

#[test]
fn rows_of_a_channel_without_use_are_no_sign_of_life() {
    let rows = vec![mid(0, 1.0), on(Channel::Book, mid(AFTER, 1.0)), mid(AFTER + 1, 1.0)];
    check(rows, &[(3, 0, AFTER + 1)]);
}

#[test]
fn silence_is_measured_on_the_clock_not_on_the_rows_own_stamps() {
    // The trade is stamped 2 s, but runs at 4 s: life until 4 s.
    let rows = vec![mid(0, 1.0), mid(4 * SECOND, 1.0), trade(2 * SECOND, 1.0), trade(9 * SECOND, 1.0)];
    check(rows, &[]);
}

#[test]
fn rows_are_put_in_order_before_silences_are_measured() {
    let rows = || vec![mid(0, 1.0), mid(6 * SECOND, 1.0), mid(3 * SECOND, 1.0), mid(7 * SECOND, 1.0)];
    assert_eq!(gaps(3 * SECOND, &instrument_with_gaps(AFTER), rows()), []);
    check(rows(), &[(2, 0, 6 * SECOND)]);
}

#[test]
fn the_gap_comes_before_the_row_that_ended_it_and_after_the_second_before_it() {
    let rows = log([ticker(0, 1.0, 1.0, 1.0), ticker(AFTER + 1, 1.0, 1.0, 1.0)]);
    let mut chain = ScoredChain::new(&Arc::new(parameters()), &instrument_with_gaps(AFTER));
    let mut out = output_with(account_of(&rows));
    feed_rows(&mut chain, &rows, &mut out);
    let kinds: Vec<_> = out
        .values
        .iter()
        .map(|given| match given.value {
            Scored::Gap(_) => (given.order, "gap"),
            Scored::Sample(_) => (given.order, "sample"),
            Scored::Tick(..) => (given.order, "tick"),
        })
        .collect();
    assert_eq!(kinds, [(0, "tick"), (1, "sample"), (1, "gap"), (1, "tick")]);
}
