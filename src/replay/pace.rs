//! When each message is due.

use std::time::{Duration, Instant};

use foreshock_operators::time::{Nanos, Time};

/// The longest that a message waits: longer than any process lives.
const WAIT_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How fast recorded time passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many times as fast as it was recorded.
    Times(f64),
    /// As fast as the brokers take it.
    Max,
}

impl Pace {
    /// Reads a positive number, or `max`.
    pub fn parse(text: &str) -> Option<Pace> {
        if text == "max" {
            return Some(Pace::Max);
        }
        let times: f64 = text.parse().ok()?;
        (times.is_finite() && times > 0.0).then_some(Pace::Times(times))
    }
}

/// Gives each message the moment at which it is due, counted from the first one's: a late message makes none of those
/// behind it later.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    /// When the first message with a time was due, and its time.
    began: Option<(Instant, Time)>,
    /// Largest time so far.
    latest: Time,
}

impl Schedule {
    pub fn new(pace: Pace) -> Schedule {
        Schedule { pace, began: None, latest: Time(i64::MIN) }
    }

    /// When a message of this recorded time is due; `None`: at once, as with one whose time lies before another's.
    /// `now` is the moment at which the first message is due.
    pub fn due(&mut self, time: Time, now: Instant) -> Option<Instant> {
        let (started, first) = *self.began.get_or_insert((now, time));
        if time <= self.latest {
            return None;
        }
        self.latest = time;
        let Pace::Times(times) = self.pace else { return None };
        let recorded = Duration::from_nanos(time.since(first).max(0) as u64);
        let wait = Duration::try_from_secs_f64(recorded.as_secs_f64() / times).unwrap_or(WAIT_MAX);
        started.checked_add(wait.min(WAIT_MAX))
    }

    /// How far a time lies behind that of the first message.
    pub fn recorded_at(&self, time: Time) -> Nanos {
        self.began.map_or(0, |(_, first)| time.since(first))
    }

    /// How much recorded time has passed.
    pub fn recorded(&self) -> Nanos {
        self.recorded_at(self.latest).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foreshock_operators::time::SECOND;

    #[test]
    fn a_positive_number_or_max() {
        assert_eq!(Pace::parse("max"), Some(Pace::Max));
        assert_eq!(Pace::parse("0.5"), Some(Pace::Times(0.5)));
        assert_eq!(Pace::parse("1000"), Some(Pace::Times(1000.0)));
        for text in ["", "0", "-1", "nan", "inf", "MAX", "2x", "1e999"] {
            assert_eq!(Pace::parse(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_counted_from_the_first_message() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Pace::Times(2.0));
        assert_eq!(schedule.due(Time(50 * SECOND), now), Some(now));
        let later = now + Duration::from_secs(77);
        assert_eq!(schedule.due(Time(54 * SECOND), later), Some(now + Duration::from_secs(2)));
        assert_eq!(schedule.recorded(), 4 * SECOND);
    }

    #[test]
    fn a_jump_backwards_does_not_stall() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Pace::Times(1.0));
        schedule.due(Time(50 * SECOND), now);
        assert_eq!(schedule.due(Time(10 * SECOND), now), None);
        assert_eq!(schedule.due(Time(51 * SECOND), now), Some(now + Duration::from_secs(1)));
        assert_eq!(schedule.due(Time(51 * SECOND), now), None);
    }

    #[test]
    fn the_slowest_pace_has_a_bound() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Pace::Times(f64::MIN_POSITIVE));
        schedule.due(Time(0), now);
        assert_eq!(schedule.due(Time(i64::MAX), now), Some(now + WAIT_MAX));
    }

    #[test]
    fn flat_out_nothing_waits() {
        let mut schedule = Schedule::new(Pace::Max);
        assert_eq!(schedule.due(Time(0), Instant::now()), None);
        assert_eq!(schedule.due(Time(SECOND), Instant::now()), None);
        assert_eq!(schedule.recorded(), SECOND);
    }
}
