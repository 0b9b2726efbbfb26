//! Order, duplicates, lateness and channels (docs/definitions.md, "Order"), as scripts.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::account::Reason;
use foreshock_operators::alone::Alone;
use foreshock_operators::links::Out;
use foreshock_operators::operator::Instrument;
use foreshock_operators::order::{IDS_REMEMBERED, Order, WAITING_MAX};
use foreshock_operators::row::{Body, Channel, InstrumentId, Quote, Row, Source};
use foreshock_operators::time::{Nanos, Time};
use proptest::prelude::*;

use foreshock_testkit::rows::{
    START, ScoredChain, account_of, busy_log, feed_inputs, heartbeat, instrument, log, mid, on, output_with,
    quote, reordering, ticker, trade, values, with_id,
};

/// What became of a row, given before the row itself leaves where it waits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Let through: the line it had, and the clock it got.
    Row(u64, Nanos),
    Duplicate,
    Late,
    Ignored,
    Waits,
    /// Behind this, what the end of the log released.
    End,
}
use Fate::{Duplicate, End, Ignored, Late, Waits};

/// Runs rows through the operator: what happened to each, in order, and what came out.
fn fates(reorder: Nanos, instrument: &Instrument, rows: &[Row]) -> (Vec<Fate>, Out<Row>) {
    let parameters = Arc::new(reordering(reorder));
    let mut order = Alone::<Order>::new(&parameters, instrument).with_ledger(account_of(rows));
    let mut fates = Vec::new();
    let mut given = 0;
    let mut take_released = |out: &Out<Row>, fates: &mut Vec<Fate>| {
        let released = &out.values[given..];
        let let_through = |row: &Row| Fate::Row(row.source.line, row.clock.0 - START);
        fates.extend(released.iter().map(|tagged| let_through(&tagged.value)));
        given = out.values.len();
        released.len()
    };
    for (k, row) in (0..).zip(rows) {
        let before = order.out.context.ledger.counts.clone();
        order.feed(InstrumentId(3), k, *row);
        let after = &order.out.context.ledger.counts;
        if after.duplicate > before.duplicate {
            fates.push(Duplicate);
        } else if after.late > before.late {
            fates.push(Late);
        } else if after.rows_in < before.rows_in || after.rows_ignored > before.rows_ignored {
            fates.push(Ignored);
        } else if take_released(&order.out, &mut fates) == 0 {
            fates.push(Waits);
        }
    }
    order.end();
    fates.push(End);
    take_released(&order.out, &mut fates);
    let mut out = order.out;
    let through = out.values.len() as i64;
    let counts = &mut out.context.ledger.counts;
    assert_eq!(counts.buffered, 0, "rows are left behind");
    // Rows let through have their fate further on.
    counts.applied += through;
    assert_eq!(counts.imbalance(), None);
    (fates, out)
}

#[track_caller]
fn check_with(reorder: Nanos, instrument: &Instrument, rows: Vec<Row>, expected: &[Fate]) {
    let (mut fates, _) = fates(reorder, instrument, &log(rows));
    if reorder == 0 {
        assert_eq!(fates.pop(), Some(End), "nothing waits without a reorder buffer");
    }
    assert_eq!(fates, expected);
}

#[track_caller]
fn check(rows: Vec<Row>, expected: &[Fate]) {
    check_with(0, &instrument(), rows, expected);
}

#[track_caller]
fn check_reorder(reorder: Nanos, rows: Vec<Row>, expected: &[Fate]) {
    check_with(reorder, &instrument(), rows, expected);
}

/// The row of line `line`, let through at `clock`.
fn at(line: u64, clock: Nanos) -> Fate {
    Fate::Row(line, clock)
}

// ------------------------------------------------------------------------------------------- duplicates

#[test]
fn a_row_that_comes_twice_is_a_duplicate() {
    check(vec![with_id(7, mid(1, 1.0)), with_id(7, mid(1, 1.0))], &[at(1, 1), Duplicate]);
}

#[test]
fn the_id_decides_not_the_content() {
    check(vec![with_id(7, mid(1, 1.0)), with_id(7, mid(9, 2.0))], &[at(1, 1), Duplicate]);
    check(vec![with_id(7, mid(1, 1.0)), with_id(8, mid(1, 1.0))], &[at(1, 1), at(2, 1)]);
}

#[test]
fn a_row_without_an_id_is_no_duplicate() {
    check(vec![mid(1, 1.0), mid(1, 1.0), mid(1, 1.0)], &[at(1, 1), at(2, 1), at(3, 1)]);
}

#[test]
fn each_channel_has_its_own_ids() {
    let rows = vec![with_id(7, mid(1, 1.0)), with_id(7, trade(1, 1.0)), with_id(7, trade(1, 1.0))];
    check(rows, &[at(1, 1), at(2, 1), Duplicate]);
}

#[test]
fn a_duplicate_that_is_older_too_counts_as_duplicate() {
    let rows = vec![with_id(7, mid(1, 1.0)), with_id(8, mid(2, 1.0)), with_id(7, mid(1, 1.0))];
    check(rows, &[at(1, 1), at(2, 2), Duplicate]);
}

#[test]
fn a_late_row_that_comes_again_is_a_duplicate() {
    let rows = vec![with_id(8, mid(2, 1.0)), with_id(7, mid(1, 1.0)), with_id(7, mid(1, 1.0))];
    check(rows, &[at(1, 2), Late, Duplicate]);
}

#[test]
fn a_lower_id_is_new_until_it_was_seen() {
    let rows = [9, 3, 5, 3, 9, 4].map(|id| with_id(id, mid(1, 1.0))).to_vec();
    check(rows, &[at(1, 1), at(2, 1), at(3, 1), Duplicate, Duplicate, at(6, 1)]);
}

/// The fate of the first id when it comes again behind `between` others.
fn fate_after(between: usize, ids: impl Fn(u64) -> u64) -> Fate {
    let numbers = (0..=between as u64).chain([0]);
    let rows = log(numbers.map(|k| with_id(ids(k), mid(1, 1.0))));
    let (fates, _) = fates(0, &instrument(), &rows);
    fates[between + 1]
}

#[test]
fn exactly_1024_ids_are_remembered() {
    assert_eq!(IDS_REMEMBERED, 1_024);
    for ids in [|k| k, |k| 1_000_000 - k, |k| k ^ 0x155] {
        assert_eq!(fate_after(1_023, ids), Duplicate, "the 1,024th oldest is still known");
        assert_eq!(fate_after(1_024, ids), at(1_026, 1), "the 1,025th oldest is not");
    }
}

#[test]
fn a_duplicate_does_not_push_others_out_of_memory() {
    let ids = (0..1_024).chain([5; 50]).chain([0]);
    let rows = log(ids.map(|id| with_id(id, mid(1, 1.0))));
    assert_eq!(fates(0, &instrument(), &rows).0[1_074], Duplicate);
}

// --------------------------------------------------------------------------------------------- lateness

#[test]
fn a_row_older_than_the_newest_of_its_channel_is_late() {
    check(vec![mid(5, 1.0), mid(4, 1.0), mid(5, 1.0)], &[at(1, 5), Late, at(3, 5)]);
}

#[test]
fn a_late_row_does_not_become_the_newest() {
    check(vec![mid(5, 1.0), mid(3, 1.0), mid(4, 1.0)], &[at(1, 5), Late, Late]);
}

#[test]
fn rows_of_one_time_are_in_log_order() {
    check(vec![mid(5, 2.0), mid(5, 1.0), mid(5, 3.0)], &[at(1, 5), at(2, 5), at(3, 5)]);
}

#[test]
fn lateness_goes_by_channel_and_the_clock_by_instrument() {
    let rows = vec![mid(5, 1.0), trade(3, 1.0), heartbeat(4), trade(2, 1.0), trade(6, 1.0), mid(5, 1.0)];
    check(rows, &[at(1, 5), at(2, 5), at(3, 5), Late, at(5, 6), at(6, 6)]);
}

#[test]
fn heartbeats_move_the_clock() {
    check(vec![heartbeat(9), mid(5, 1.0), heartbeat(8)], &[at(1, 9), at(2, 9), Late]);
}

#[test]
fn a_late_row_is_a_dead_letter_that_says_how_late() {
    let rows = log([mid(5, 1.0), Row { index: 2, ..mid(2, 1.0) }]);
    let (_, out) = fates(0, &instrument(), &rows);
    let [letter] = &out.context.ledger.dead[..] else { panic!("{:?}", out.context.ledger.dead) };
    assert_eq!((letter.reason, letter.order, letter.index), (Reason::Late, 1, 2));
    assert_eq!((letter.source, letter.extent), (Source { file: 0, line: 2 }, rows[1].extent));
    assert_eq!(letter.detail, "3 ns older than the newest row of its channel bookTicker");
    assert_eq!(out.context.ledger.counts.deadletter[Reason::Late as usize], 1);
    assert_eq!(out.context.ledger.counts.rows_deadlettered, 0, "late rows count as late only");
}

// --------------------------------------------------------------------------------------------- channels

#[test]
fn the_best_trade_channel_takes_over_for_good() {
    let summed = |time| on(Channel::AggTrade, trade(time, 1.0));
    check(vec![summed(1), trade(2, 1.0), summed(3), trade(4, 1.0)], &[at(1, 1), at(2, 2), Ignored, at(4, 4)]);
    check(vec![trade(1, 1.0), summed(2)], &[at(1, 1), Ignored]);
}

#[test]
fn the_best_quote_channel_takes_over_for_good() {
    let book = |time| on(Channel::Book, mid(time, 1.0));
    check(vec![book(1), mid(2, 1.0), book(3), mid(4, 1.0)], &[at(1, 1), at(2, 2), Ignored, at(4, 4)]);
    check(vec![mid(1, 1.0), book(2)], &[at(1, 1), Ignored]);
}

#[test]
fn a_configured_channel_is_not_taken_over() {
    let instrument = Instrument {
        quote_channel: Some(Channel::Book),
        trade_channel: Some(Channel::AggTrade),
        ..instrument()
    };
    let rows = vec![
        mid(1, 1.0),
        trade(2, 1.0),
        on(Channel::Book, mid(3, 1.0)),
        on(Channel::AggTrade, trade(4, 1.0)),
    ];
    check_with(0, &instrument, rows, &[Ignored, Ignored, at(3, 3), at(4, 4)]);
}

#[test]
fn configured_channels_win_over_the_first() {
    let instrument = Instrument {
        quote_channel: Some(Channel::BookTicker),
        trade_channel: Some(Channel::Trade),
        ..instrument()
    };
    let rows = vec![
        on(Channel::Book, mid(1, 1.0)),
        on(Channel::AggTrade, trade(2, 1.0)),
        ticker(3, 1.0, 1.0, 1.0),
        mid(4, 1.0),
        trade(5, 1.0),
    ];
    check_with(0, &instrument, rows, &[Ignored, Ignored, Ignored, at(4, 4), at(5, 5)]);
}

#[test]
fn a_row_without_use_moves_no_clock_and_is_not_remembered() {
    let book = |id, time| with_id(id, on(Channel::Book, mid(time, 1.0)));
    let rows = vec![mid(1, 1.0), book(1, 9), book(1, 9), book(2, 3), mid(2, 1.0)];
    check(rows, &[at(1, 1), Ignored, Ignored, Ignored, at(5, 2)]);
}

#[test]
fn a_message_whose_only_row_has_no_use_is_ignored() {
    let (_, out) = fates(0, &instrument(), &log([mid(1, 1.0), on(Channel::Book, mid(2, 1.0))]));
    let counts = &out.context.ledger.counts;
    assert_eq!((counts.messages_in, counts.messages_rows, counts.messages_ignored), (2, 1, 1));
    assert_eq!((counts.rows_in, counts.rows_ignored), (1, 0));
}

#[test]
fn a_row_without_use_beside_others_is_ignored_alone() {
    let row = |index, row| Row { index, alone: false, ..row };
    let rows =
        [row(0, on(Channel::Book, mid(2, 1.0))), row(1, mid(2, 1.0)), row(2, on(Channel::Book, mid(2, 1.0)))];
    let (_, out) = fates(0, &instrument(), &[&log([mid(1, 1.0)])[..], &log(rows)].concat());
    let counts = &out.context.ledger.counts;
    assert_eq!((counts.messages_in, counts.messages_rows, counts.messages_ignored), (2, 2, 0));
    assert_eq!((counts.rows_in, counts.rows_ignored), (4, 2));
}

/// The only row that comes out behind those of `before`.
fn comes_out(before: Vec<Row>, row: Row) -> Body {
    let count = before.len();
    let rows = log(before.into_iter().chain([row]));
    let (_, out) = fates(0, &instrument(), &rows);
    assert_eq!(out.values.len(), count + 1);
    out.values[count].value.body
}

#[test]
fn a_tickers_trade_counts_where_there_is_no_trade_channel() {
    let Body::Quote(quote) = comes_out(vec![], ticker(1, 1.0, 2.0, 1.5)) else {
        panic!("a ticker is a quote")
    };
    assert!(quote.trade && quote.price == 1.5);
}

#[test]
fn a_tickers_trade_is_cleared_where_trades_come_from_elsewhere() {
    let body = comes_out(vec![trade(0, 1.0)], ticker(1, 1.0, 2.0, 1.5));
    let Body::Quote(quote) = body else { panic!("a ticker is a quote") };
    assert!(!quote.trade);
}

#[test]
fn a_ticker_is_a_trade_where_quotes_come_from_elsewhere() {
    let body = comes_out(vec![mid(0, 1.0)], ticker(1, 1.0, 2.0, 1.5));
    let Body::Trade(trade) = body else { panic!("its quote has no use") };
    assert!(trade.price == 1.5 && trade.size.is_nan() && trade.side.is_none());
}

#[test]
fn a_ticker_gives_way_to_better_channels_of_both_kinds() {
    let rows = vec![ticker(1, 1.0, 2.0, 1.5), trade(2, 1.0), mid(3, 1.0), ticker(4, 1.0, 2.0, 1.5)];
    check(rows, &[at(1, 1), at(2, 2), at(3, 3), Ignored]);
}

/// A ticker that tells of no new trade.
fn snapshot(time: Nanos) -> Row {
    on(Channel::Ticker, mid(time, 1.0))
}

#[test]
fn a_ticker_snapshot_is_no_trade_and_fixes_no_trade_channel() {
    check(vec![snapshot(1), trade(2, 1.0), snapshot(3)], &[at(1, 1), at(2, 2), at(3, 3)]);
    check(vec![mid(1, 1.0), snapshot(2), trade(3, 1.0)], &[at(1, 1), Ignored, at(3, 3)]);
}

#[test]
fn a_ticker_without_a_price_is_no_trade() {
    let row = ticker(1, 1.0, 2.0, f64::NAN);
    let Body::Quote(Quote { trade: is_trade, .. }) = comes_out(vec![], row) else {
        panic!("a ticker is a quote")
    };
    assert!(!is_trade);
    check(vec![row, trade(2, 1.0)], &[at(1, 1), at(2, 2)]);
}

// ---------------------------------------------------------------------------------------- reorder buffer

#[test]
fn a_row_waits_until_the_clock_is_r_beyond_it() {
    let rows = || vec![mid(10, 1.0), mid(14, 1.0), mid(15, 1.0)];
    check_reorder(5, rows(), &[Waits, Waits, at(1, 10), End, at(2, 14), at(3, 15)]);
    check_reorder(6, rows(), &[Waits, Waits, Waits, End, at(1, 10), at(2, 14), at(3, 15)]);
}

#[test]
fn several_rows_are_released_in_the_order_of_their_times() {
    let rows = vec![mid(12, 1.0), mid(10, 1.0), mid(11, 1.0), mid(17, 1.0)];
    check_reorder(5, rows, &[Waits, Waits, Waits, at(2, 10), at(3, 11), at(1, 12), End, at(4, 17)]);
}

#[test]
fn ties_are_released_in_the_order_of_the_log() {
    let message = |file, line, index| Row { source: Source { file, line }, index, ..mid(10, 1.0) };
    let rows = [message(1, 2, 0), message(0, 9, 1), message(0, 9, 0), message(1, 1, 0), message(0, 10, 0)];
    let (_, out) = fates(5, &instrument(), &rows);
    let place = |row: &Row| (row.source.file, row.source.line, row.index);
    let got: Vec<_> = out.values.iter().map(|tagged| place(&tagged.value)).collect();
    assert_eq!(got, [(0, 9, 0), (0, 9, 1), (0, 10, 0), (1, 1, 0), (1, 2, 0)]);
}

#[test]
fn rows_of_other_channels_are_put_in_order_too() {
    let rows = vec![mid(12, 1.0), trade(10, 1.0), heartbeat(11), heartbeat(17)];
    check_reorder(5, rows, &[Waits, Waits, Waits, at(2, 10), at(3, 11), at(1, 12), End, at(4, 17)]);
}

#[test]
fn a_row_older_than_what_was_released_of_its_channel_is_late() {
    let rows = vec![mid(10, 1.0), mid(15, 1.0), mid(9, 1.0), mid(10, 1.0), mid(11, 1.0)];
    check_reorder(5, rows, &[Waits, at(1, 10), Late, at(4, 10), Waits, End, at(5, 11), at(2, 15)]);
}

#[test]
fn a_row_too_old_to_wait_goes_on_at_once_where_its_channel_allows_it() {
    let rows = vec![mid(10, 1.0), mid(16, 1.0), trade(8, 1.0)];
    check_reorder(5, rows, &[Waits, at(1, 10), at(3, 10), End, at(2, 16)]);
}

#[test]
fn a_row_that_comes_twice_while_it_waits_is_a_duplicate() {
    let rows = vec![with_id(7, mid(10, 1.0)), with_id(7, mid(10, 1.0)), mid(15, 1.0)];
    check_reorder(5, rows, &[Waits, Duplicate, at(1, 10), End, at(3, 15)]);
}

#[test]
fn late_and_duplicate_rows_release_nothing() {
    let rows =
        vec![trade(3, 1.0), with_id(7, mid(10, 1.0)), trade(9, 1.0), trade(2, 1.0), with_id(7, mid(99, 1.0))];
    check_reorder(5, rows, &[Waits, at(1, 3), Waits, Late, Duplicate, End, at(3, 9), at(2, 10)]);
}

#[test]
fn the_reorder_buffer_has_a_bound() {
    let count = WAITING_MAX as i64 + 3;
    let rows = log((0..count).map(|k| mid(count - k, 1.0)));
    let (fates, out) = fates(count, &instrument(), &rows);
    // The first too many pushes out the oldest, which is itself; every later one is older still, and late.
    let through = fates.iter().position(|fate| *fate != Waits).unwrap();
    assert_eq!(through, WAITING_MAX);
    assert_eq!(fates[through..through + 4], [at(WAITING_MAX as u64 + 1, 3), Late, Late, End]);
    assert_eq!(out.values.len(), WAITING_MAX + 1);
}

// ---------------------------------------------------------------------------------------------- any log

/// Rows in no order at all.
fn any_rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
    let id = prop_oneof![1 => Just(None), 2 => (0u64..60).prop_map(Some)];
    let row = (0i64..50, 0u32..9, id, 0u32..3).prop_map(|(time, kind, id, index)| {
        let row = match kind {
            0 => heartbeat(time),
            1 => trade(time, 1.0),
            2 => on(Channel::AggTrade, trade(time, 1.0)),
            3 => ticker(time, 1.0, 2.0, 1.5),
            4 => on(Channel::Book, mid(time, 1.0)),
            _ => quote(time, 1.0, 2.0),
        };
        Row { id, index, ..row }
    });
    prop::collection::vec(row, 0..most).prop_map(log)
}

proptest! {
    #[test]
    fn the_account_adds_up_whatever_comes(rows in any_rows(200), reorder in 0i64..20) {
        // A message's first row decides whether it is ignored: here every row is a message.
        let rows: Vec<Row> = rows.into_iter().map(|row| Row { index: 0, ..row }).collect();
        let mut chain = ScoredChain::new(&Arc::new(reordering(reorder)), &instrument());
        let mut out = output_with(account_of(&rows));
        out.context.ledger.counts.rows_in = 0;
        for row in &rows {
            out.context.ledger.counts.rows_in += 1;
            chain.on_input(*row, &mut out, &mut ());
            prop_assert_eq!(out.context.ledger.counts.imbalance(), None);
            prop_assert!(reorder > 0 || out.context.ledger.counts.buffered == 0);
        }
        chain.on_end(&mut out, &mut ());
        prop_assert_eq!(out.context.ledger.counts.imbalance(), None);
        prop_assert_eq!(out.context.ledger.counts.buffered, 0);
        let counts = &out.context.ledger.counts;
        prop_assert_eq!(counts.predictions + counts.refused, counts.ticks);
        prop_assert_eq!(counts.messages_rows, counts.rows_in);
    }

    #[test]
    fn no_channel_steps_back_and_the_clock_is_the_largest_time(rows in any_rows(200), reorder in 0i64..20) {
        let (_, out) = fates(reorder, &instrument(), &rows);
        let mut newest: BTreeMap<Channel, Time> = BTreeMap::new();
        let mut clock = Time(i64::MIN);
        for row in out.values.iter().map(|tagged| &tagged.value) {
            clock = clock.max(row.event_time);
            prop_assert_eq!(row.clock, clock);
            let before = newest.insert(row.channel, row.event_time);
            prop_assert!(before.is_none_or(|before| before <= row.event_time));
        }
    }

    #[test]
    fn no_id_comes_out_twice(rows in any_rows(300), reorder in 0i64..20) {
        let (_, out) = fates(reorder, &instrument(), &rows);
        let mut ids: Vec<_> = out.values.iter().filter_map(|o| Some((o.value.channel, o.value.id?))).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), count);
    }

    #[test]
    fn a_log_shuffled_within_r_gives_what_the_sorted_log_gives(
        steps in prop::collection::vec((0i64..8, 0i64..=20), 1..200),
        extra in 0i64..5,
    ) {
        // Each row comes at its time and a delay of at most R: when it comes, the clock is at most R beyond it.
        let reorder = 20 + extra;
        let mut time = 0;
        let delayed = |(step, delay)| {
            time += step;
            (time + delay, mid(time, 1.0))
        };
        let mut arrivals: Vec<(i64, Row)> = steps.into_iter().map(delayed).collect();
        let sorted = log(arrivals.iter().map(|(_, row)| *row));
        for (arrival, row) in arrivals.iter_mut().zip(&sorted) {
            arrival.1 = *row;
        }
        arrivals.sort_by_key(|(arrival, _)| *arrival);
        let shuffled: Vec<Row> = arrivals.into_iter().map(|(_, row)| row).collect();
        let in_words = |out: Out<Row>| values(out).iter().map(|row| format!("{row:?}")).collect::<Vec<_>>();
        let in_order = in_words(fates(0, &instrument(), &sorted).1);
        prop_assert_eq!(in_order.len(), sorted.len());
        prop_assert_eq!(in_words(fates(reorder, &instrument(), &sorted).1), in_order.clone());
        prop_assert_eq!(in_words(fates(reorder, &instrument(), &shuffled).1), in_order);
    }
}

#[test]
fn several_logs_in_one_account_add_up() {
    let rows = busy_log(2, 3_000);
    let mut ledger = account_of(&rows);
    ledger.counts.add(&account_of(&rows).counts);
    for _ in 0..2 {
        let parameters = Arc::new(reordering(1_000_000));
        let mut order = Alone::<Order>::new(&parameters, &instrument()).with_ledger(ledger);
        feed_inputs(&mut order, rows.iter().copied());
        let so_far = &order.out.context.ledger;
        assert_eq!(so_far.counts.late, so_far.dead.len() as i64);
        order.end();
        let mut out = order.out;
        out.context.ledger.counts.applied += out.values.len() as i64;
        ledger = out.context.ledger;
    }
    assert_eq!(ledger.counts.imbalance(), None);
    assert!(ledger.counts.late > 0 && ledger.counts.duplicate > 0 && ledger.counts.messages_ignored > 0);
}
