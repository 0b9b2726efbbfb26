//! When each message is due.

use std::time::{Duration, Instant};

use foreshock_operators::time::{Nanos, Time};

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
/// behind it later. A silence longer than the longest pause is cut to it, and counting begins anew behind it. So it does
/// where times go back by more than that, as they do behind one that was far ahead: what follows has its own pace.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    max_pause: Duration,
    /// The first time.
    first: Option<Time>,
    /// Where counting began last: when the message was due, and its time.
    base: Option<(Instant, Time)>,
    /// When the newest message was due, and its time.
    latest: Option<(Instant, Time)>,
    /// Largest time so far: what lies before it was waited for already.
    highest: Time,
    /// The pause that was cut last, until it is asked for: by how much.
    cut: Option<Duration>,
    pauses_cut: u64,
    all_cut: Duration,
}

impl Schedule {
    pub fn new(pace: Pace, max_pause: Duration) -> Schedule {
        Schedule {
            pace,
            max_pause,
            first: None,
            base: None,
            latest: None,
            highest: Time(i64::MIN),
            cut: None,
            pauses_cut: 0,
            all_cut: Duration::ZERO,
        }
    }

    /// When a message of this recorded time is due; `None`: at once, as with one whose time lies before another's.
    /// `now` is the moment at which the first message is due.
    pub fn due(&mut self, time: Time, now: Instant) -> Option<Instant> {
        self.first.get_or_insert(time);
        let (base, latest) = (*self.base.get_or_insert((now, time)), *self.latest.get_or_insert((now, time)));
        let highest = self.highest;
        self.highest = highest.max(time);
        if time <= latest.1 {
            if highest == Time(i64::MIN) {
                return self.is_paced().then_some(now);
            }
            if self.lasts(latest.1.since(time)) > self.max_pause {
                self.go_on_from(latest.0, time);
            }
            return None;
        }
        if !self.is_paced() {
            self.latest = Some((now, time));
            return None;
        }
        if self.lasts(time.since(latest.1)) <= self.max_pause {
            let due = base.0.checked_add(self.lasts(time.since(base.1)))?;
            self.latest = Some((due, time));
            return Some(due);
        }
        // What lies before the largest time so far was waited for, or cut, when that came.
        let silent = self.lasts(time.since(highest).max(0));
        let due = latest.0.checked_add(silent.min(self.max_pause))?;
        if let Some(cut) = silent.checked_sub(self.max_pause).filter(|cut| !cut.is_zero()) {
            self.cut = Some(cut);
            self.pauses_cut += 1;
            self.all_cut = self.all_cut.saturating_add(cut);
        }
        self.go_on_from(due, time);
        Some(due)
    }

    fn go_on_from(&mut self, due: Instant, time: Time) {
        self.base = Some((due, time));
        self.latest = self.base;
    }

    fn is_paced(&self) -> bool {
        self.pace != Pace::Max
    }

    /// How long so much recorded time lasts.
    fn lasts(&self, recorded: Nanos) -> Duration {
        let Pace::Times(times) = self.pace else { return Duration::ZERO };
        let recorded = Duration::from_nanos(recorded.max(0).unsigned_abs());
        Duration::try_from_secs_f64(recorded.as_secs_f64() / times).unwrap_or(Duration::MAX)
    }

    /// The longest wait.
    pub fn max_pause(&self) -> Duration {
        self.max_pause
    }

    /// By how much the last pause was cut, once.
    pub fn take_cut(&mut self) -> Option<Duration> {
        self.cut.take()
    }

    /// How many pauses were cut.
    pub fn pauses_cut(&self) -> u64 {
        self.pauses_cut
    }

    /// By how much, altogether.
    pub fn seconds_cut(&self) -> f64 {
        self.all_cut.as_secs_f64()
    }

    /// How far a time lies behind that of the first message.
    pub fn recorded_at(&self, time: Time) -> Nanos {
        self.first.map_or(0, |first| time.since(first))
    }

    /// How much recorded time has passed.
    pub fn recorded(&self) -> Nanos {
        self.latest.map_or(0, |(_, time)| self.recorded_at(time).max(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foreshock_operators::time::SECOND;

    const MINUTE_LONG: Duration = Duration::from_secs(60);

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
        let mut schedule = Schedule::new(Pace::Times(2.0), MINUTE_LONG);
        assert_eq!(schedule.due(Time(50 * SECOND), now), Some(now));
        let later = now + Duration::from_secs(77);
        assert_eq!(schedule.due(Time(54 * SECOND), later), Some(now + Duration::from_secs(2)));
        assert_eq!(schedule.recorded(), 4 * SECOND);
    }

    #[test]
    fn a_step_back_is_due_at_once_and_stalls_nothing() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Pace::Times(1.0), MINUTE_LONG);
        schedule.due(Time(50 * SECOND), now);
        assert_eq!(schedule.due(Time(10 * SECOND), now), None);
        assert_eq!(schedule.due(Time(51 * SECOND), now), Some(now + Duration::from_secs(1)));
        assert_eq!(schedule.due(Time(51 * SECOND), now), None);
    }

    /// Due seconds behind the first message, `None` at once, for recorded seconds.
    #[track_caller]
    fn check(speed: f64, recorded: &[i64], expected: &[Option<u64>], cut: u64) {
        let now = Instant::now();
        let mut schedule = Schedule::new(Pace::Times(speed), MINUTE_LONG);
        let due: Vec<Option<u64>> = recorded
            .iter()
            .map(|time| schedule.due(Time(time * SECOND), now).map(|due| (due - now).as_secs()))
            .collect();
        assert_eq!(due, expected, "{recorded:?}");
        assert_eq!(schedule.pauses_cut(), cut);
    }

    #[test]
    fn a_long_silence_is_cut() {
        check(1.0, &[0, 60, 1_000, 1_001], &[Some(0), Some(60), Some(120), Some(121)], 1);
        check(10.0, &[0, 600, 1_201, 1_211], &[Some(0), Some(60), Some(120), Some(121)], 1);
        check(f64::MIN_POSITIVE, &[0, 1, 2], &[Some(0), Some(60), Some(120)], 2);
    }

    #[test]
    fn a_time_far_ahead_is_waited_for_once_and_the_rest_keeps_its_pace() {
        let month = 2_505_600;
        check(1.0, &[0, 1, month, 2, 3, 4], &[Some(0), Some(1), Some(61), None, Some(62), Some(63)], 1);
        // A second clock that is far ahead all the time.
        check(
            1.0,
            &[0, month, 1, month + 1, 2, month + 2, 3],
            &[Some(0), Some(60), None, Some(61), None, Some(62), None],
            1,
        );
    }

    #[test]
    fn flat_out_nothing_waits() {
        let mut schedule = Schedule::new(Pace::Max, MINUTE_LONG);
        assert_eq!(schedule.due(Time(0), Instant::now()), None);
        assert_eq!(schedule.due(Time(SECOND), Instant::now()), None);
        assert_eq!(schedule.recorded(), SECOND);
    }
}
