//! Chains: what they give is what their operators give, whatever the key; and levels of books reach operators unharmed.

use std::sync::Arc;

use foreshock_operators::account::Ledger;
use foreshock_operators::alone::Alone;
use foreshock_operators::chain::{Chain, Gate, GateInput};
use foreshock_operators::change::{Change, ChangeKind, Effect, Parameters};
use foreshock_operators::features::FeatureWindows;
use foreshock_operators::gaps::Gaps;
use foreshock_operators::links;
use foreshock_operators::links::{Out, Tagged};
use foreshock_operators::market::MarketChain;
use foreshock_operators::operator::{
    Collector, Context, Instrument, Mismatch, Operator, RestoreError, same_settings,
};
use foreshock_operators::order::{Order, OrderSettings, WAITING_LEVELS_MAX};
use foreshock_operators::row::{Body, Channel, Extent, Level, Row, Source};
use foreshock_operators::rules::{Direction, Rule, Rules};
use foreshock_operators::score::Score;
use foreshock_operators::seconds::{SecondSettings, Seconds};
use foreshock_operators::stages::{Metric, Priority, Signal};
use foreshock_operators::time::{MILLISECOND, Nanos, SECOND, Time};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use foreshock_testkit::random::Random;
use foreshock_testkit::rows::{
    account_of, busy_log, feed_rows, instrument, instrument_with_gaps, mid, output_with, parameters,
    reordering, row, values,
};

// ------------------------------------------------------------------------------------------ levels of books

/// Gives the levels of each book, with the line of its row.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Books;

#[derive(Clone, Debug, PartialEq)]
struct SeenBook {
    line: u64,
    levels: Vec<Level>,
}

impl Operator for Books {
    const NAME: &'static str = "books";
    type Input = Row;
    type Output = SeenBook;

    fn new(_: &Parameters, _: &Instrument) -> Self {
        Books
    }

    fn on_input(&mut self, row: Row, out: &mut impl Collector<SeenBook>) {
        if let Body::Book(extent) = row.body {
            let levels = extent.of(&out.context().levels).to_vec();
            assert_eq!(levels.len(), extent.length as usize, "levels are where the row says");
            out.push(SeenBook { line: row.source.line, levels });
        }
    }

    fn resume(&mut self, _: &Parameters, _: &Instrument) -> Result<(), Mismatch> {
        Ok(())
    }
}

type BookChain = Chain<Order, links![Books]>;

/// A row with the levels of its book.
#[derive(Clone, Debug)]
struct Book {
    time: Nanos,
    line: u64,
    levels: Vec<Level>,
}

/// Levels that no other line has.
fn levels_of(line: u64, count: usize) -> Vec<Level> {
    (0..count).map(|k| Level { price: line as f64, size: k as f64 }).collect()
}

fn book(time: Nanos, line: u64, count: usize) -> Book {
    Book { time, line, levels: levels_of(line, count) }
}

/// A chain of books that is fed batch by batch, each of which owns the levels of its rows.
struct Feed {
    parameters: Arc<Parameters>,
    chain: BookChain,
    ledger: Ledger,
}

impl Feed {
    fn new(reorder: Nanos) -> Feed {
        let parameters = Arc::new(reordering(reorder));
        let chain = BookChain::new(&parameters, &instrument());
        Feed { parameters, chain, ledger: Ledger::default() }
    }

    /// Feeds one batch and gives the books that came through meanwhile.
    fn batch(&mut self, books: &[Book]) -> Vec<SeenBook> {
        // Something else stands before them.
        let mut levels = levels_of(0, 3);
        let rows: Vec<Row> = books
            .iter()
            .map(|book| {
                let extent = Extent { start: levels.len() as u32, length: book.levels.len() as u32 };
                levels.extend_from_slice(&book.levels);
                let source = Source { file: 0, line: book.line };
                Row { source, ..row(Channel::Book, book.time, Body::Book(extent)) }
            })
            .collect();
        self.with_levels(levels, |chain, out| feed_rows(chain, &rows, out))
    }

    fn end(&mut self) -> Vec<SeenBook> {
        self.with_levels(levels_of(0, 5), |chain, out| chain.on_end(out, &mut ()))
    }

    fn with_levels(
        &mut self,
        levels: Vec<Level>,
        act: impl FnOnce(&mut BookChain, &mut Out<SeenBook>),
    ) -> Vec<SeenBook> {
        let ledger = std::mem::take(&mut self.ledger);
        let mut out = Out::new(Context { ledger, levels, ..Context::default() }, 0);
        act(&mut self.chain, &mut out);
        self.ledger = std::mem::take(&mut out.context.ledger);
        values(out)
    }

    fn restart(&mut self) {
        let mut bytes = Vec::new();
        self.chain.save(&mut bytes);
        let restored = BookChain::restore(&self.parameters, &[], &instrument(), &bytes);
        self.chain = restored.expect("its own state");
        let mut again = Vec::new();
        self.chain.save(&mut again);
        assert_eq!(again, bytes, "a state that was read is written the same");
    }

    /// How many rows wait, and how many went on before their time.
    fn waiting_and_hurried(&self) -> (i64, i64) {
        (self.ledger.counts.buffered, self.ledger.counts.hurried)
    }
}

/// The books of these lines with so many levels.
fn seen(books: &[(u64, usize)]) -> Vec<SeenBook> {
    books.iter().map(|(line, count)| SeenBook { line: *line, levels: levels_of(*line, *count) }).collect()
}

#[test]
fn books_that_do_not_wait_come_with_their_levels() {
    let mut feed = Feed::new(0);
    let books = [book(1, 1, 2), book(2, 2, 0), book(2, 3, 4)];
    assert_eq!(feed.batch(&books), seen(&[(1, 2), (2, 0), (3, 4)]));
    assert_eq!(feed.batch(&[book(3, 4, 1)]), seen(&[(4, 1)]));
}

#[test]
fn books_that_wait_over_several_batches_come_with_their_own_levels() {
    for restarts in [false, true] {
        let mut feed = Feed::new(10);
        let restart = |feed: &mut Feed| {
            if restarts {
                feed.restart();
            }
        };
        assert_eq!(feed.batch(&[book(10, 1, 2), book(12, 2, 3)]), []);
        restart(&mut feed);
        assert_eq!(feed.batch(&[book(11, 3, 1), book(15, 4, 0)]), []);
        restart(&mut feed);
        assert_eq!(feed.batch(&[]), []);
        // 21 lets 10 and 11 go, 22 lets 12 go; within one batch levels of both kinds stand side by side.
        assert_eq!(feed.batch(&[book(21, 5, 4), book(22, 6, 5)]), seen(&[(1, 2), (3, 1), (2, 3)]));
        restart(&mut feed);
        assert_eq!(feed.batch(&[book(31, 7, 6)]), seen(&[(4, 0), (5, 4)]));
        restart(&mut feed);
        assert_eq!(feed.end(), seen(&[(6, 5), (7, 6)]));
        assert_eq!(feed.waiting_and_hurried(), (0, 0));
    }
}

#[test]
fn a_book_comes_whatever_channel_ticks_come_from() {
    let mut chain = BookChain::new(&Arc::new(parameters()), &instrument());
    let mut out = Out::new(Context { levels: levels_of(1, 2), ..Context::default() }, 0);
    let extent = Extent { start: 0, length: 2 };
    let levels = row(Channel::Book, 2, Body::Book(extent));
    feed_rows(&mut chain, &[levels, mid(1, 1.0), levels], &mut out);
    assert_eq!(out.values.len(), 2, "quotes of another channel don't take its place");
    assert_eq!(out.context.ledger.counts.messages_ignored, 0);
}

#[test]
fn where_too_many_levels_wait_the_oldest_book_goes_on() {
    let quarter = WAITING_LEVELS_MAX / 4;
    let mut feed = Feed::new(SECOND);
    let four: Vec<Book> = (1..=4).map(|line| book(20 - line as i64, line, quarter)).collect();
    assert_eq!(feed.batch(&four), []);
    assert_eq!(feed.waiting_and_hurried(), (4, 0), "exactly as many as may wait");
    feed.restart();
    assert_eq!(feed.batch(&[book(21, 5, 0)]), [], "a row without levels takes no place");
    let given = feed.batch(&[book(22, 6, 1)]);
    assert!(given == seen(&[(4, quarter)]), "the oldest by its time goes on");
    assert_eq!(feed.waiting_and_hurried(), (5, 1));
    // A quarter is free again, but for one.
    assert_eq!(feed.batch(&[book(23, 7, quarter - 1)]), []);
    assert_eq!(feed.waiting_and_hurried(), (6, 1));
    feed.restart();
    // As many oldest ones go on as it takes.
    let given = feed.batch(&[book(24, 8, quarter + 1)]);
    assert!(given == seen(&[(3, quarter), (2, quarter)]));
    assert_eq!(feed.waiting_and_hurried(), (5, 3));
    let rest = feed.end();
    assert!(rest == seen(&[(1, quarter), (5, 0), (6, 1), (7, quarter - 1), (8, quarter + 1)]));
    assert_eq!(feed.waiting_and_hurried(), (0, 3));
}

#[test]
fn a_book_with_more_levels_than_may_wait_goes_on_at_once() {
    let mut feed = Feed::new(SECOND);
    let given = feed.batch(&[book(1, 1, WAITING_LEVELS_MAX + 1), book(2, 2, 1)]);
    assert!(given == seen(&[(1, WAITING_LEVELS_MAX + 1)]));
    assert_eq!(feed.waiting_and_hurried(), (1, 1));
}

proptest! {
    /// However the log is cut into batches, and wherever it stops, each book comes with its levels, in order.
    #[test]
    fn every_book_comes_with_its_levels(seed in any::<u64>(), count in 1u64..60, reorder in 0i64..30) {
        let mut random = Random::new(seed);
        // None is late: each comes at its time and a delay of at most `reorder`.
        let mut arrivals: Vec<(i64, Book)> = Vec::new();
        let mut time = 0;
        for line in 1..=count {
            time += random.below_u64(8) as i64;
            let delay = random.below_u64(reorder as u64 + 1) as i64;
            arrivals.push((time + delay, book(time, line, random.below_u64(5) as usize)));
        }
        let sorted: Vec<_> = arrivals.iter().map(|(_, book)| (book.line, book.levels.len())).collect();
        arrivals.sort_by_key(|(arrival, _)| *arrival);
        let arrived: Vec<Book> = arrivals.into_iter().map(|(_, book)| book).collect();
        let mut feed = Feed::new(reorder);
        let (mut given, mut rest) = (Vec::new(), &arrived[..]);
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at((random.below_u64(6) as usize).min(rest.len()));
            given.extend(feed.batch(batch));
            if random.below_u64(3) == 0 {
                feed.restart();
            }
            rest = behind;
        }
        given.extend(feed.end());
        prop_assert_eq!(given, seen(&sorted));
        prop_assert_eq!(feed.waiting_and_hurried(), (0, 0));
    }
}

// --------------------------------------------------------------------------- another key than an instrument

/// Two markets for one good.
#[derive(Clone, Debug, PartialEq)]
struct Pair {
    /// How much of the right one is as much as one of the left.
    ratio: f64,
}

/// The prices of both at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Prices {
    time: Time,
    left: f64,
    right: f64,
    behind: u32,
}

impl GateInput for Prices {
    fn event_time(&self) -> Time {
        self.time
    }

    fn clock(&self) -> Time {
        self.time
    }

    fn digits(&self) -> u8 {
        3
    }

    fn behind(&self) -> u32 {
        self.behind
    }

    fn set_behind(&mut self, number: u32) {
        self.behind = number;
    }
}

/// Holds the newest prices back until the next come, and drops what is older.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OneBack {
    held: Option<Prices>,
}

impl Operator<Pair> for OneBack {
    const NAME: &'static str = "one_back";
    type Input = Prices;
    type Output = Prices;

    fn new(_: &Parameters, _: &Pair) -> Self {
        OneBack { held: None }
    }

    fn on_input(&mut self, prices: Prices, out: &mut impl Collector<Prices>) {
        if self.held.is_some_and(|held| prices.time < held.time) {
            out.counts().late += 1;
            return;
        }
        if let Some(before) = self.held.replace(prices) {
            out.push(before);
        }
    }

    fn on_end(&mut self, out: &mut impl Collector<Prices>) {
        if let Some(held) = self.held.take() {
            out.push(held);
        }
    }

    fn resume(&mut self, _: &Parameters, _: &Pair) -> Result<(), Mismatch> {
        Ok(())
    }
}

impl Gate<Pair> for OneBack {
    type Item = Prices;

    fn on_lost_log(&mut self, out: &mut impl Collector<Prices>) {
        self.on_end(out);
    }

    fn waiting(&self) -> usize {
        usize::from(self.held.is_some())
    }

    fn oldest_waiting(&self) -> Option<u64> {
        self.held.map(|held| held.time.0 as u64)
    }
}

/// By how much the left price is above the right one, and how many changes came before.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Basis {
    ratio: f64,
    changes: u32,
}

impl Operator<Pair> for Basis {
    const NAME: &'static str = "basis";
    type Input = Prices;
    type Output = (u32, f64);

    fn new(_: &Parameters, pair: &Pair) -> Self {
        Basis { ratio: pair.ratio, changes: 0 }
    }

    fn on_input(&mut self, prices: Prices, out: &mut impl Collector<(u32, f64)>) {
        out.counts().applied += 1;
        out.push((self.changes, prices.left - self.ratio * prices.right));
    }

    fn on_change(&mut self, _: &Effect, _: &mut impl Collector<(u32, f64)>) {
        self.changes += 1;
    }

    fn resume(&mut self, _: &Parameters, pair: &Pair) -> Result<(), Mismatch> {
        same_settings(&self.ratio, &pair.ratio)
    }
}

/// The largest so far, and at the end once more.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Largest {
    largest: f64,
}

impl Operator<Pair> for Largest {
    const NAME: &'static str = "largest";
    type Input = (u32, f64);
    type Output = f64;

    fn new(_: &Parameters, _: &Pair) -> Self {
        Largest { largest: 0.0 }
    }

    fn on_input(&mut self, (_, value): (u32, f64), out: &mut impl Collector<f64>) {
        self.largest = self.largest.max(value);
        out.push(self.largest);
    }

    fn on_end(&mut self, out: &mut impl Collector<f64>) {
        out.push(self.largest);
    }

    fn resume(&mut self, _: &Parameters, _: &Pair) -> Result<(), Mismatch> {
        Ok(())
    }
}

/// Two instruments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct PairKey(u32, u32);

type PairChain = Chain<OneBack, links![Pair: Basis], Pair>;

fn prices(time: i64, left: f64, right: f64) -> Prices {
    Prices { time: Time(time), left, right, behind: 0 }
}

fn new_rules(number: u32, effective_at: i64) -> Arc<Change> {
    let (effective_at, kind) = (Some(Time(effective_at)), ChangeKind::Rules([].into()));
    Arc::new(Change { number, id: format!("c{number}").into(), offset: 0, effective_at, kind })
}

#[test]
fn a_chain_may_belong_to_a_pair() {
    let (parameters, pair) = (Arc::new(parameters()), Pair { ratio: 2.0 });
    let change = new_rules(1, 15);
    assert_eq!(PairChain::names(), ["one_back", "basis"]);
    for restarts in [false, true] {
        let mut chain = PairChain::new(&parameters, &pair);
        let mut out = Out::new(Context::default(), 0);
        chain.on_change(&change, &mut out, &mut ());
        let log = [prices(10, 7.0, 3.0), prices(20, 9.0, 4.0), prices(19, 0.0, 0.0), prices(30, 5.0, 3.0)];
        for (order, prices) in (0..).zip(log) {
            out.tag(PairKey(4, 5), order);
            chain.on_input(prices, &mut out, &mut ());
            if restarts {
                let mut bytes = Vec::new();
                chain.save(&mut bytes);
                let changes = [change.clone()];
                chain = PairChain::restore(&parameters, &changes, &pair, &bytes).expect("its own state");
                let other = PairChain::restore(&parameters, &changes, &Pair { ratio: 3.0 }, &bytes);
                assert_eq!(other.err(), Some(RestoreError::OtherSettings { operator: "basis" }));
            }
        }
        assert_eq!((chain.waiting(), chain.oldest_waiting()), (1, Some(30)));
        chain.on_end(&mut out, &mut ());
        assert_eq!((chain.waiting(), chain.oldest_waiting()), (0, None));
        let given = |order, value| Tagged { key: PairKey(4, 5), order, value };
        assert_eq!(out.values, [given(1, (0, 1.0)), given(3, (1, 1.0)), given(3, (1, -1.0))]);
        let [placed] = &out.changes[..] else { panic!("{:?}", out.changes) };
        assert_eq!((placed.key, placed.before, placed.at, placed.digits), (PairKey(4, 5), 1, Time(20), 3));
        assert_eq!((out.context.ledger.counts.applied, out.context.ledger.counts.late), (3, 1));
    }
}

#[test]
fn a_chain_of_a_pair_may_have_several_operators() {
    let mut chain = Chain::<OneBack, links![Pair: Basis, Largest], Pair>::new(
        &Arc::new(parameters()),
        &Pair { ratio: 1.0 },
    );
    let mut out = Out::<f64, PairKey>::new(Context::default(), 0);
    for prices in [prices(1, 3.0, 1.0), prices(2, 2.0, 1.0), prices(3, 5.0, 1.0)] {
        chain.on_input(prices, &mut out, &mut ());
    }
    chain.on_end(&mut out, &mut ());
    let largest: Vec<f64> = out.values.iter().map(|given| given.value).collect();
    assert_eq!(largest, [2.0, 2.0, 4.0, 4.0]);
}

#[test]
fn what_waits_goes_on_where_the_log_of_a_pair_is_lost() {
    let mut chain = PairChain::new(&Arc::new(parameters()), &Pair { ratio: 1.0 });
    let mut out = Out::<_, PairKey>::new(Context::default(), 0);
    chain.on_input(prices(10, 3.0, 1.0), &mut out, &mut ());
    let lost = Change { kind: ChangeKind::StateLost, effective_at: None, ..Change::clone(&new_rules(1, 0)) };
    chain.on_change(&Arc::new(lost), &mut out, &mut ());
    assert_eq!(out.values.len(), 1);
    chain.on_input(prices(5, 3.0, 2.0), &mut out, &mut ());
    chain.on_end(&mut out, &mut ());
    let given: Vec<_> = out.values.iter().map(|given| given.value).collect();
    assert_eq!(given, [(0, 2.0), (1, 1.0)], "what follows is not late, and the change came before it");
}

// ------------------------------------------------------------------------ a chain is its operators in a row

/// What the operator gives for what another has given, under the same causes and in the same account.
fn behind<O: Operator<Output: Clone>>(
    before: Out<O::Input>,
    parameters: &Arc<Parameters>,
    instrument: &Instrument,
) -> Out<O::Output> {
    let mut alone = Alone::<O>::new(parameters, instrument).with_ledger(before.context.ledger);
    for Tagged { key, order, value } in before.values {
        alone.feed(key, order, value);
    }
    alone.end();
    alone.out
}

/// Rules that the busy log raises and clears.
fn nervous_rules() -> Arc<[Rule]> {
    let rule = |name: &str, signal, raise, clear| Rule {
        name: name.into(),
        signal,
        instruments: vec!["*".into()],
        priority: Priority::P2,
        direction: Direction::Above,
        raise,
        clear,
        zscore: None,
        critical: None,
        hold: 0,
        resolve_for: 0,
        cooldown: 0,
        enabled: true,
    };
    let spread = Signal::Metric(Metric::SpreadBps);
    [rule("spread", spread, 3e-3, 2e-3), rule("probability", Signal::Probability, 0.12, 0.119)].into()
}

/// Runs the log through the chain of all operators, row by row, and through one of them after the other; gives the
/// account.
#[track_caller]
fn check_same(parameters: Parameters, rows: &[Row]) -> Ledger {
    let (parameters, instrument) = (Arc::new(parameters), instrument_with_gaps(5 * SECOND));
    let mut chain = MarketChain::new(&parameters, &instrument);
    let mut out = output_with(account_of(rows));
    feed_rows(&mut chain, rows, &mut out);
    chain.on_end(&mut out, &mut ());

    let mut order = Alone::<Order>::new(&parameters, &instrument).with_ledger(account_of(rows));
    for (position, row) in (0..).zip(rows) {
        order.feed(row.instrument, position, *row);
    }
    order.end();
    let live = behind::<Gaps>(order.out, &parameters, &instrument);
    let measured = behind::<FeatureWindows>(live, &parameters, &instrument);
    let sampled = behind::<Seconds>(measured, &parameters, &instrument);
    let scored = behind::<Score>(sampled, &parameters, &instrument);
    let expected = behind::<Rules>(scored, &parameters, &instrument);

    assert_eq!(out.values.len(), expected.values.len());
    for (given, expected) in out.values.iter().zip(&expected.values) {
        // The debug text of an f64 is the shortest that reads back to the same bits; NaN is NaN.
        assert_eq!(format!("{given:?}"), format!("{expected:?}"));
    }
    assert_eq!(out.context.ledger, expected.context.ledger);
    assert_eq!(out.context.ledger.counts.imbalance(), None);
    assert!(out.changes.is_empty());
    out.context.ledger
}

fn short_windows() -> Parameters {
    let mut parameters = Parameters { rules: nervous_rules(), ..reordering(20 * MILLISECOND) };
    parameters.seconds = SecondSettings { zscore_window: 7, zscore_min_samples: 3 };
    let features = Arc::make_mut(&mut parameters.features);
    (features.window, features.spread_window, features.spread_min) = (3 * SECOND, 100, 10);
    parameters
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_chain_gives_what_its_operators_give_one_behind_the_other(
        seed in any::<u64>(),
        count in 0usize..600,
        reorder in prop::sample::select(vec![0, 1, 20 * MILLISECOND, SECOND]),
    ) {
        let rows = busy_log(seed, count);
        check_same(Parameters { order: OrderSettings { reorder }, rules: nervous_rules(), ..parameters() }, &rows);
        check_same(Parameters { order: OrderSettings { reorder }, ..short_windows() }, &rows);
    }
}

#[test]
fn a_long_chain_gives_what_its_operators_give_one_behind_the_other() {
    let ledger = check_same(short_windows(), &busy_log(21, 20_000));
    let counts = &ledger.counts;
    let seen = [counts.ticks, counts.applied, counts.duplicate, counts.late, counts.gaps, counts.samples];
    assert!(seen.iter().all(|count| *count > 20) && counts.alerts > 20, "{counts:?}");
    assert!(!ledger.dead.is_empty());
}
