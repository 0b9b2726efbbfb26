//! Quotes of made-up instruments, one after the other in turn, at a steady pace of event time.

use std::io::Write as _;

use foreshock_operators::time::{Time, write_rfc3339};

/// 2026-01-02T03:00:00Z, in microseconds.
const BEGIN: i64 = 1_767_322_800_000_000;

/// The exchange of all of them.
pub const EXCHANGE: &str = "bench";

/// An endless feed. Each mid moves a little with each of its quotes, the same in every run.
pub struct Quotes {
    mids: Vec<f64>,
    sequence: u64,
    /// Event time of the next quote, in microseconds since the feed began.
    now: f64,
    /// Microseconds from one quote to the next, whichever instrument's.
    pub step: f64,
    random: u64,
}

impl Quotes {
    pub fn new(instruments: usize, per_second: f64) -> Quotes {
        let mids = (0..instruments).map(|number| 100.0 + 10.0 * number as f64).collect();
        Quotes { mids, sequence: 0, now: 0.0, step: 1e6 / per_second, random: 1 }
    }

    /// Writes the next quote to `line`; says which instrument's it is.
    pub fn next(&mut self, line: &mut Vec<u8>) -> usize {
        let number = (self.sequence % self.mids.len() as u64) as usize;
        // Knuth's MMIX generator: its upper bits are random enough for prices.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let away = (self.random >> 40) as f64 / (1u64 << 24) as f64 - 0.5;
        self.mids[number] *= 1.0 + 4e-5 * away;
        let (mid, sequence) = (self.mids[number], self.sequence);
        let (bid, ask) = (mid - 0.01, mid + 0.01);
        line.clear();
        let written = write!(
            line,
            r#"{{"type":"quote","exchange":"{EXCHANGE}","instrument":"I{number}","sequence":{sequence},"bid":{bid:.4},"#
        )
        .and_then(|()| write!(line, r#""bid_size":1.5,"ask":{ask:.4},"ask_size":2.5,"event_time":""#));
        written.expect("there is always room");
        write_rfc3339(Time(1_000 * (BEGIN + self.now as i64)), 6, line);
        line.extend_from_slice(br#""}"#);
        self.sequence += 1;
        self.now += self.step;
        number
    }
}
