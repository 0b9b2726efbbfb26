//! A log that is played again and again: times and ids go on where the pass before ended.
//!
//! The first pass is verbatim, and measured. In every later one all times lie the log's length and a second or two
//! further, and all ids further than any instrument's ids of a kind reach, so that no row is late or a duplicate.
//! What messages of a pass say of each other, like Binance's `pu` of the last `u`, stays as it was.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use foreshock_operators::time::{Nanos, SECOND, Time};
use foreshock_operators::venues::{Format, Shift, ids, shift};

/// The pause between two passes, at the least; less than two seconds with what whole seconds add.
const PAUSE: Nanos = SECOND;

/// A row at or behind it is refused (2100-01-01).
const TIME_END: Time = Time(4_102_444_800 * SECOND);

/// Ids are kept below, far from where they would run over.
const ID_END: u64 = 1 << 62;

/// More instruments than this share one range of ids: it may then be wider than it has to be.
const SUBJECTS_MAX: usize = 100_000;

/// The passes over a log.
#[derive(Debug, Default)]
pub struct Passes {
    /// How many have ended.
    ended: u64,
    event_times: Option<(Time, Time)>,
    received: Option<(Time, Time)>,
    /// Smallest and largest id, by what it counts and whose it is.
    ids: BTreeMap<(&'static str, String), (u64, u64)>,
    /// From one pass to the next.
    step: Shift,
    /// Of this pass.
    shift: Shift,
    moved: Vec<u8>,
}

impl Passes {
    /// Whether this is the first pass, of which each message is to be [`Passes::measure`]d.
    pub fn is_first(&self) -> bool {
        self.ended == 0
    }

    /// How many passes have begun.
    pub fn begun(&self) -> u64 {
        self.ended + 1
    }

    /// Takes in what a message of the first pass has.
    pub fn measure(
        &mut self,
        format: Format,
        message: &[u8],
        subject: &str,
        event_time: Option<Time>,
        received: Option<Time>,
    ) {
        widen(&mut self.event_times, event_time);
        widen(&mut self.received, received);
        ids(format, message, |id, number| {
            let is_shared = id.of_connection || self.ids.len() >= SUBJECTS_MAX;
            let whose = if is_shared { String::new() } else { subject.to_owned() };
            let (least, most) = self.ids.entry((id.name, whose)).or_insert((number, number));
            *least = number.min(*least);
            *most = number.max(*most);
        });
    }

    /// Goes on to the next pass.
    ///
    /// # Errors
    /// When its times or ids would leave what a message may have.
    pub fn advance(&mut self) -> Result<()> {
        if self.is_first() {
            let length = |range: Option<(Time, Time)>| range.map_or(0, |(first, last)| last.since(first));
            let length = length(self.event_times).max(length(self.received));
            let seconds = length.saturating_add(PAUSE).saturating_add(SECOND - 1) / SECOND;
            let width = self.ids.values().map(|(least, most)| most - least + 1).max();
            self.step = Shift { seconds, ids: width.unwrap_or(0) };
        }
        self.ended += 1;
        self.shift.seconds = self.shift.seconds.saturating_add(self.step.seconds);
        self.shift.ids = self.shift.ids.saturating_add(self.step.ids);
        let last = self.event_times.into_iter().chain(self.received).map(|(_, last)| last).max();
        if last.is_some_and(|last| self.moved_time(last) >= TIME_END) {
            bail!("pass {} would reach the year 2100, beyond which rows are refused", self.begun());
        }
        let largest = self.ids.values().map(|(_, most)| *most).max().unwrap_or(0);
        if largest.saturating_add(self.shift.ids) >= ID_END {
            bail!("the ids of pass {} would be too large", self.begun());
        }
        Ok(())
    }

    /// A time as this pass has it.
    pub fn moved_time(&self, time: Time) -> Time {
        time.plus(self.shift.seconds.saturating_mul(SECOND))
    }

    /// A message as this pass has it.
    pub fn moved<'m>(&'m mut self, format: Format, message: &'m [u8]) -> &'m [u8] {
        if self.is_first() {
            return message;
        }
        self.moved.clear();
        shift(format, message, self.shift, &mut self.moved);
        &self.moved
    }
}

fn widen(range: &mut Option<(Time, Time)>, time: Option<Time>) {
    let Some(time) = time else { return };
    let (first, last) = range.get_or_insert((time, time));
    *first = time.min(*first);
    *last = time.max(*last);
}
