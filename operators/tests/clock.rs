//! Which stamps are believed (docs/definitions.md, "Clock"): what one bad stamp does to the others, and the rule once more,
//! written down from its text.

use std::sync::Arc;

use foreshock_operators::account::Reason;
use foreshock_operators::operator::Instrument;
use foreshock_operators::parameters::Parameters;
use foreshock_operators::row::{InstrumentId, Row};
use foreshock_operators::stages::{GapReason, Scored};
use foreshock_operators::time::{MINUTE, Nanos, SECOND, Time};
use foreshock_testkit::random::Random;
use foreshock_testkit::rows::{
    START, ScoredChain, account_of, feed_rows, heartbeat, instrument, log, mid, output_with, parameters,
    trade, with_id,
};

const HOUR: Nanos = 60 * MINUTE;
const DAY: Nanos = 24 * HOUR;
const MILLISECOND: Nanos = SECOND / 1_000;

/// What became of a log.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    ticks: i64,
    refused: Vec<u64>,
    late: Vec<u64>,
    clock_gaps: Vec<(Nanos, Nanos)>,
    other_gaps: usize,
    /// The most returns in a window.
    most: u32,
    samples: i64,
    repeated: i64,
}

fn jumping(max_jump: Option<Nanos>) -> Instrument {
    Instrument { max_jump, gap_after: Some(30 * SECOND), ..instrument() }
}

fn run(rows: &[Row], max_jump: Option<Nanos>) -> Outcome {
    run_with(&parameters(), rows, max_jump)
}

fn run_with(parameters: &Parameters, rows: &[Row], max_jump: Option<Nanos>) -> Outcome {
    let parameters = Arc::new(parameters.clone());
    let mut chain = ScoredChain::new(&parameters, &jumping(max_jump));
    let mut out = output_with(account_of(rows));
    feed_rows(&mut chain, rows, &mut out);
    chain.on_end(&mut out, &mut ());
    let ledger = &out.context.ledger;
    assert_eq!(ledger.counts.imbalance(), None);
    assert_eq!(ledger.counts.buffered, 0, "nothing waits behind the end");
    let lines = |reason| {
        let of_reason = ledger.dead.iter().filter(|letter| letter.reason == reason);
        of_reason.map(|letter| letter.source.line).collect::<Vec<u64>>()
    };
    let counts = &ledger.counts;
    let mut outcome = Outcome {
        ticks: counts.ticks,
        refused: lines(Reason::TimeAhead),
        late: lines(Reason::Late),
        samples: counts.samples,
        repeated: counts.samples_repeated,
        ..Outcome::default()
    };
    let mut sampled = None;
    for tagged in &out.values {
        match tagged.value {
            Scored::Gap(gap) if gap.reason == GapReason::Clock => {
                outcome.clock_gaps.push((gap.start.0 - START, gap.end.0 - START));
            }
            Scored::Gap(gap) => {
                assert!(gap.start <= gap.end, "{gap:?}");
                outcome.other_gaps += 1;
            }
            Scored::Sample(sample) => {
                assert!(sampled < Some(sample.time), "samples ascend for ever");
                sampled = Some(sample.time);
            }
            Scored::Tick(features, _) => outcome.most = outcome.most.max(features.n),
        }
    }
    outcome
}

/// Quotes at this pace, received 40 to 60 ms later by a receiver whose clock is behind by `behind`.
fn feed(rows: u64, every: Nanos, receipts: bool, behind: Nanos) -> Vec<Row> {
    let quote = |n: u64| {
        let time = n as Nanos * every;
        let delay = (40 + n as Nanos * 7 % 21) * MILLISECOND;
        Row {
            received: receipts.then_some(Time(START + time + delay - behind)),
            ..mid(time, 100.0 + (n % 7) as f64)
        }
    };
    log((0..rows).map(quote))
}

/// The same with some stamps ahead.
fn with_ahead(mut rows: Vec<Row>, at: std::ops::Range<usize>, ahead: Nanos) -> Vec<Row> {
    for row in &mut rows[at] {
        row.event_time = row.event_time.plus(ahead);
        row.clock = row.event_time;
    }
    rows
}

const J: Option<Nanos> = Some(5 * SECOND);

#[test]
fn one_stamp_ahead_harms_nobody_but_itself() {
    for ahead in [3 * SECOND, 6 * SECOND, 300 * SECOND, HOUR, 29 * DAY] {
        for (every, rows) in [(100 * MILLISECOND, 3_000), (SECOND, 600)] {
            for (receipts, behind) in [(true, 0), (true, 3 * SECOND), (true, 100 * SECOND), (false, 0)] {
                // What lies ahead by less than a jump can't be told without a receipt.
                if !receipts && ahead <= 5 * SECOND {
                    continue;
                }
                for at in [0, 1, 7, 9, 200] {
                    let name = format!(
                        "{ahead} ns ahead at {at}, every {every}, receipts {receipts} behind by {behind}"
                    );
                    let rows = with_ahead(feed(rows, every, receipts, behind), at..at + 1, ahead);
                    let found = run(&rows, J);
                    let line = at as u64 + 1;
                    if at > 0 || receipts {
                        assert_eq!((&found.refused, &found.late), (&vec![line], &vec![]), "{name}");
                        assert_eq!(found.ticks, rows.len() as i64 - 1, "{name}");
                        assert_eq!((found.clock_gaps.len(), found.other_gaps), (0, 0), "{name}");
                    } else {
                        // Nothing tells that the very first one is wrong but those behind it, from J behind it on.
                        let unseen = if ahead < 10 * SECOND { (5 * SECOND / every) as usize } else { 0 };
                        assert!(
                            found.late.len() <= 3 + unseen && found.refused.is_empty(),
                            "{name}: {found:?}"
                        );
                        assert!(found.clock_gaps.len() <= 1, "{name}: {found:?}");
                    }
                    assert!(
                        i64::from(found.most) <= 61 * SECOND / every,
                        "{name}: {} returns in a window",
                        found.most
                    );
                }
            }
        }
    }
}

#[test]
fn a_run_of_stamps_ahead_is_refused_by_receipts_and_left_without() {
    for ahead in [10 * SECOND, HOUR, 29 * DAY] {
        for length in [3, 20, 120] {
            let rows = |receipts| with_ahead(feed(1_000, SECOND / 2, receipts, 0), 300..300 + length, ahead);
            let name = format!("{length} rows {ahead} ns ahead");
            let found = run(&rows(true), J);
            assert_eq!((found.refused.len(), found.late.len()), (length, 0), "{name}");
            assert_eq!(found.clock_gaps, [], "{name}");
            let found = run(&rows(false), J);
            assert_eq!(found.refused.len(), 0, "{name}");
            assert!(found.late.len() <= 3 || ahead < HOUR, "{name}: {found:?}");
            let [(start, end)] = found.clock_gaps[..] else { panic!("{name}: {found:?}") };
            // From before the jump to the third row behind it.
            assert_eq!(start, 299 * SECOND / 2, "{name}");
            assert_eq!(end, (302 + length as Nanos) * SECOND / 2, "{name}");
            assert!(found.repeated + found.samples >= 499 - length as i64 / 2 - 3, "{name}: {found:?}");
        }
    }
}

#[test]
fn the_receivers_clock_may_be_wrong_too() {
    for set in [-HOUR, -10 * SECOND, 10 * SECOND, HOUR] {
        let mut rows = feed(1_500, SECOND, true, 0);
        for row in &mut rows[500..] {
            row.received = row.received.map(|received| received.plus(set));
        }
        let found = run(&rows, J);
        // Set back, it is seen at once; where that looks like stamps from the future, nothing is lost.
        assert_eq!(
            (found.refused.len(), found.late.len(), found.clock_gaps.len()),
            (0, 0, 0),
            "set by {set}: {found:?}"
        );
    }
    // Far behind from the first row on.
    let found = run(&feed(600, SECOND, true, 2 * HOUR), J);
    assert_eq!((found.refused.len(), found.ticks), (0, 600));
}

#[test]
fn silences_are_believed() {
    for receipts in [true, false] {
        for silence in [4 * SECOND, 6 * SECOND, 20 * MINUTE, 3 * DAY] {
            let mut rows = feed(400, SECOND, receipts, 7 * SECOND);
            for row in &mut rows[200..] {
                row.event_time = row.event_time.plus(silence);
                row.clock = row.event_time;
                row.received = row.received.map(|received| received.plus(silence));
            }
            let found = run(&rows, J);
            assert_eq!(
                (found.ticks, found.refused.len(), found.late.len()),
                (400, 0, 0),
                "{silence} {receipts}"
            );
            assert_eq!(found.other_gaps, usize::from(silence > 30 * SECOND), "{silence} {receipts}");
        }
    }
    // Each row further from the next than a jump: told one row late, and all of them told.
    let found = run(&feed(50, 10 * SECOND, false, 0), J);
    assert_eq!((found.ticks, found.refused.len()), (50, 0));
}

#[test]
fn a_recording_with_ids_that_is_fed_twice_is_late_not_a_wrong_clock() {
    let once: Vec<Row> = (0..3_000).map(|n| with_id(n + 1, mid(n as Nanos * SECOND / 4, 100.0))).collect();
    let rows = log(once.iter().chain(&once).copied());
    let found = run(&rows, J);
    // The very last one is no older than the newest row, and its id is forgotten by then.
    assert_eq!((found.ticks, found.late.len(), found.clock_gaps.len()), (3_001, 2_999, 0));
}

#[test]
fn without_a_limit_any_stamp_is_believed() {
    let rows = with_ahead(feed(100, SECOND, false, 0), 50..51, HOUR);
    let found = run(&rows, None);
    assert_eq!((found.refused.len(), found.late.len()), (0, 49));
}

/// A log with all that can happen to stamps, on two channels.
fn wild(seed: u64) -> Vec<Row> {
    let mut random = Random::new(seed);
    let every = [100 * MILLISECOND, SECOND, 5 * SECOND][random.below(3)];
    let receipts = random.below(4);
    let (mut time, mut offset, mut behind, mut left): (Nanos, Nanos, Nanos, u32) = (0, 0, 0, 0);
    let row = |n: u64| {
        time += random.below_u64(2 * every as u64) as Nanos;
        if random.below(60) == 0 {
            time += [7 * SECOND, 90 * SECOND, 2 * HOUR][random.below(3)];
        }
        if random.below(80) == 0 {
            behind = [0, 20 * SECOND, HOUR, -10 * SECOND][random.below(4)];
        }
        if left == 0 {
            offset = 0;
            if random.below(25) == 0 {
                left = [1, 2, 3, 20][random.below(4)];
                offset = [2 * SECOND, 8 * SECOND, HOUR, 29 * DAY, -8 * SECOND, -HOUR][random.below(6)];
            }
        }
        left = left.saturating_sub(1);
        let stamp = time + offset + random.below_u64(300) as Nanos * MILLISECOND;
        let row = match random.below(8) {
            0 => heartbeat(stamp),
            1 | 2 => trade(stamp, 100.0),
            _ => mid(stamp, 100.0),
        };
        let brings = match receipts {
            0 => false,
            1 => true,
            _ => random.below(2) == 0,
        };
        let received = START + time - behind + random.below_u64(400) as Nanos * MILLISECOND;
        let row = Row { received: brings.then_some(Time(received)), ..row };
        if random.below(3) == 0 { with_id(n + 1 - random.below_u64(2) * n / 2, row) } else { row }
    };
    log((0..400).map(row))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Believed,
    Refused,
}

/// The rule from its text, with all rows at hand.
struct Naive {
    max_ahead: Nanos,
    max_jump: Nanos,
    /// C: the largest of these; begun anew where a clock is left.
    believed: Vec<Nanos>,
    receipts: Vec<Nanos>,
    /// Since the usual lead began anew: each lead with the half hour of its receipt and whether its row was believed.
    leads: Vec<(Nanos, i64, bool)>,
    /// Rows refused behind each other: receipt and lead.
    refused: Vec<(Nanos, Nanos)>,
    older: Vec<Nanos>,
    waiting: Option<usize>,
}

impl Naive {
    fn usual(&self) -> Nanos {
        if self.leads.len() <= 8 {
            return self.leads.iter().map(|(lead, ..)| *lead).min().unwrap_or(0).max(0);
        }
        let first = self.leads[..8].iter().map(|(lead, ..)| *lead).min().map(|lead| (lead, self.leads[7].1));
        let later =
            self.leads[8..].iter().filter(|(.., believed)| *believed).map(|(lead, half, _)| (*lead, *half));
        let taught: Vec<(Nanos, i64)> = first.into_iter().chain(later).collect();
        // The last two half hours in which there was one.
        let mut halves: Vec<i64> = taught.iter().map(|(_, half)| *half).collect();
        halves.dedup();
        let from = halves[halves.len().saturating_sub(2)];
        taught.iter().filter(|(_, half)| *half >= from).map(|(lead, _)| *lead).max().unwrap_or(0).max(0)
    }

    fn newest(&self) -> Option<Nanos> {
        self.believed.iter().copied().max()
    }

    /// 5. What waits hears of a row at `e`.
    fn tell_waiting(&mut self, rows: &[Row], fates: &mut [Option<Fate>], e: Nanos) {
        if let Some(waiting) = self.waiting
            && self.newest().is_none_or(|c| e > c - self.max_jump)
        {
            let doubted = rows[waiting].event_time.0;
            let is_right = e >= doubted - self.max_ahead;
            fates[waiting] = Some(if is_right { Fate::Believed } else { Fate::Refused });
            if is_right {
                self.believed.push(doubted);
                self.refused.clear();
            }
            self.waiting = None;
        }
    }

    fn take(&mut self, rows: &[Row], new: &[bool], fates: &mut [Option<Fate>], at: usize) {
        let (row, a, j) = (&rows[at], self.max_ahead, self.max_jump);
        let e = row.event_time.0;
        let r = row.received.map(|received| received.0);
        // 1. Which receipt counts.
        let mut lead = None;
        let mut note = None;
        if let Some(r) = r {
            let h = self.receipts.iter().copied().max().unwrap_or(r);
            if r < h - a {
                if self.newest().is_none_or(|c| e >= c - a) {
                    self.receipts = vec![r];
                    self.leads = vec![(e - r, r.div_euclid(30 * MINUTE), false)];
                }
            } else {
                self.receipts.push(r);
                if e - r >= -60 * SECOND {
                    lead = Some(e - r);
                    note = Some(self.leads.len());
                    let half = if self.leads.len() < 8 { r } else { r.max(h) };
                    self.leads.push((e - r, half.div_euclid(30 * MINUTE), false));
                }
            }
        }
        // A row is no witness of its own.
        let usual_before = |naive: &Naive| {
            let leads = naive.leads[..note.unwrap_or(naive.leads.len())].to_vec();
            Naive { leads, believed: vec![], receipts: vec![], refused: vec![], older: vec![], ..*naive }
                .usual()
        };
        if self.newest().is_none() {
            self.tell_waiting(rows, fates, e);
        }
        // 4. Held against its receipt.
        if let (Some(c), Some(length), Some(r)) = (self.newest(), lead, r)
            && e > c + a
            && length > usual_before(self) + a
        {
            let leads = self.refused.iter().map(|(_, lead)| *lead).chain([length]);
            let (low, high) = (leads.clone().min(), leads.max());
            let agree = high.zip(low).is_some_and(|(high, low)| high - low <= a);
            if !agree {
                self.refused.clear();
            }
            self.refused.push((r, length));
            if r - self.refused[0].0 < 10 * MINUTE {
                fates[at] = Some(Fate::Refused);
                return;
            }
            self.refused.clear();
            self.leads = vec![(length, r.div_euclid(30 * MINUTE), false)];
        }
        self.tell_waiting(rows, fates, e);
        if let Some(c) = self.newest() {
            // 6. A wrong clock.
            if e < c - j {
                let is_old = !new[at] || r.is_some_and(|r| c <= r + self.usual() + a);
                if !is_old {
                    if self.older.last().is_some_and(|last| !(0..=j).contains(&(e - last))) {
                        self.older.clear();
                    }
                    self.older.push(e);
                    if self.older.len() == 3 {
                        self.older.clear();
                        self.believed = vec![e];
                        self.refused.clear();
                        if let Some(n) = note.filter(|n| *n < self.leads.len()) {
                            self.leads[n].2 = true;
                        }
                    }
                }
                fates[at] = Some(Fate::Believed);
                return;
            }
            if lead.is_none() && e > c + j && e > c + a {
                self.waiting = Some(at);
                return;
            }
        }
        if self.newest().is_none() && lead.is_some_and(|length| length > usual_before(self) + a) {
            self.waiting = Some(at);
            return;
        }
        self.older.clear();
        self.believed.push(e);
        self.refused.clear();
        if let Some(n) = note.filter(|n| *n < self.leads.len()) {
            self.leads[n].2 = true;
        }
        fates[at] = Some(Fate::Believed);
    }
}

#[test]
fn the_rule_is_what_its_text_says() {
    let (mut refused, mut left) = (0, 0);
    for seed in 0..400 {
        let rows = wild(seed);
        let found = run(&rows, J);
        // Duplicates are no business of the clock's.
        let (mut seen, mut largest) = (std::collections::BTreeSet::new(), std::collections::BTreeMap::new());
        let mut kept = Vec::new();
        let mut new = Vec::new();
        for row in &rows {
            let Some(id) = row.id else {
                kept.push(*row);
                new.push(true);
                continue;
            };
            if !seen.insert((row.channel, id)) {
                continue;
            }
            let before = largest.entry(row.channel).or_insert(0);
            new.push(id > *before);
            *before = id.max(*before);
            kept.push(*row);
        }
        let mut naive = Naive {
            max_ahead: SECOND,
            max_jump: 5 * SECOND,
            believed: vec![],
            receipts: vec![],
            leads: vec![],
            refused: vec![],
            older: vec![],
            waiting: None,
        };
        let mut fates = vec![None; kept.len()];
        for at in 0..kept.len() {
            naive.take(&kept, &new, &mut fates, at);
        }
        let mut expected: Vec<u64> = kept
            .iter()
            .zip(&fates)
            .filter(|(_, fate)| **fate == Some(Fate::Refused))
            .map(|(row, _)| row.source.line)
            .collect();
        let mut refusals = found.refused.clone();
        expected.sort_unstable();
        refusals.sort_unstable();
        assert_eq!(refusals, expected, "seed {seed}");
        refused += refusals.len();
        left += found.clock_gaps.len();
    }
    assert!(refused > 1_000 && left > 100, "{refused} refused, {left} clocks left");
}

#[test]
fn a_row_in_doubt_is_saved_with_its_message() {
    let parameters = Arc::new(parameters());
    let instrument = jumping(J);
    let rows = with_ahead(feed(40, SECOND, false, 0), 20..21, HOUR);
    let whole = run(&rows, J);
    assert_eq!(whole.refused, [21]);
    let mut chain = ScoredChain::new(&parameters, &instrument);
    let mut out = output_with(account_of(&rows));
    for (order, row) in (0..).zip(&rows) {
        out.context.bytes = Arc::new(format!("{:<100}", row.source.line).into_bytes());
        out.tag(InstrumentId(3), order);
        chain.on_input(*row, &mut out, &mut ());
        assert_eq!(
            (chain.waiting(), out.context.ledger.counts.buffered),
            if order == 20 { (1, 1) } else { (0, 0) }
        );
        let mut bytes = Vec::new();
        chain.save(&mut bytes);
        chain = ScoredChain::restore(&parameters, &[], &instrument, &bytes).expect("its own state");
    }
    let [letter] = &out.context.ledger.dead[..] else { panic!("{:?}", out.context.ledger.dead) };
    assert_eq!(letter.message(b"of another batch"), format!("{:<100}", 21).as_bytes());
    assert_eq!((letter.order, letter.source.line), (21, 21), "it is told of where the next row is");
    assert!(letter.detail.contains("3601 s ahead of the instrument's other rows"), "{}", letter.detail);
    assert_eq!(out.context.ledger.counts.ticks, whole.ticks);
}
