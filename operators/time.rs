//! Event time: UTC nanoseconds inside, RFC 3339 outside.
//!
//! Text is read and written by hand: it is done for every tick, and a date library would cost more than the
//! features do. The tests hold it against one.

use std::cell::Cell;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A span of time in nanoseconds.
pub type Nanos = i64;

/// One millisecond in nanoseconds.
pub const MILLISECOND: Nanos = 1_000_000;
/// One second in nanoseconds.
pub const SECOND: Nanos = 1_000_000_000;
/// One minute in nanoseconds.
pub const MINUTE: Nanos = 60 * SECOND;

/// A moment in event time: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub i64);

/// A time as a message shows it.
#[derive(Clone, Copy, Debug)]
pub struct Shown(pub Time);

impl fmt::Display for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        write_rfc3339(self.0, 9, &mut text);
        out.write_str(&String::from_utf8_lossy(&text))
    }
}

impl Time {
    /// The moment `span` after this one.
    pub fn plus(self, span: Nanos) -> Time {
        Time(self.0.saturating_add(span))
    }

    /// The moment `span` before this one.
    pub fn minus(self, span: Nanos) -> Time {
        Time(self.0.saturating_sub(span))
    }

    /// Nanoseconds from `earlier` to this moment.
    pub fn since(self, earlier: Time) -> Nanos {
        self.0.saturating_sub(earlier.0)
    }
}

/// Reads `YYYY-MM-DDTHH:MM:SS[.fraction](Z|+hh:mm|-hh:mm)` and gives the moment and how many fraction digits
/// it was written with, at most 9: further ones must be digits and are dropped.
///
/// As RFC 3339 has it, letters may be small, a space may stand for the `T`, and a leap second is taken where there can be one:
/// it is the moment after it. Nothing else is taken, no day that its month does not have. A moment beyond what 64 bits hold (the years before 1678 and after 2261) becomes the nearest that they do.
pub fn parse_rfc3339(text: impl AsRef<[u8]>) -> Option<(Time, u8)> {
    let text = text.as_ref();
    let (date_time, rest) = text.split_at_checked(19)?;
    let date_time: &[u8; 19] = date_time.try_into().ok()?;
    let (minute, _) = date_time.split_first_chunk()?;
    let minute = match KNOWN_MINUTE.get() {
        (known, seconds) if known == *minute => seconds,
        _ => {
            let seconds = parse_minute(minute)?;
            KNOWN_MINUTE.set((*minute, seconds));
            seconds
        }
    };
    let second = two_digits(date_time, 17)?;
    let (nanos, digits, zone) = parse_fraction(rest)?;
    let seconds = minute + second - parse_zone(zone)?;
    let is_leap_second = second == 60 && seconds.rem_euclid(86_400) == 0;
    if second > 59 && !is_leap_second {
        return None;
    }
    Some((Time(seconds.saturating_mul(SECOND).saturating_add(nanos)), digits))
}

thread_local! {
    /// The last `YYYY-MM-DDTHH:MM:` that was read, and its seconds since 1970: ticks that follow each other share it. What
    /// comes out doesn't hang on it.
    static KNOWN_MINUTE: Cell<([u8; 17], i64)> = const { Cell::new((*b"1970-01-01T00:00:", 0)) };
}

/// Seconds since 1970 of `YYYY-MM-DDTHH:MM:`.
fn parse_minute(text: &[u8; 17]) -> Option<i64> {
    if [text[4], text[7], text[13], text[16]] != *b"--::" || !matches!(text[10], b'T' | b't' | b' ') {
        return None;
    }
    let year = 100 * two_digits(text, 0)? + two_digits(text, 2)?;
    let (month, day) = (two_digits(text, 5)?, two_digits(text, 8)?);
    let (hour, minute) = (two_digits(text, 11)?, two_digits(text, 14)?);
    if day == 0 || day > days_of_month(year, month)? || hour > 23 || minute > 59 {
        return None;
    }
    Some(86_400 * days_from_civil(year, month, day) + 3_600 * hour + 60 * minute)
}

/// 2000-01-01: no feed that we read is older.
pub const EARLIEST: Time = Time(946_684_800 * SECOND);
/// 2100-01-01: from here on a time is an error of its sender.
pub const TOO_LATE: Time = Time(4_102_444_800 * SECOND);

/// Units of time since 1970 in nanoseconds, and their fraction digits. Between [`EARLIEST`] and [`TOO_LATE`] a number is of one
/// of them at most: 10 digits are seconds, 13 milliseconds, 16 microseconds, 19 nanoseconds.
const UNITS: [(Nanos, u8); 4] = [(MILLISECOND, 3), (1, 9), (1_000, 6), (SECOND, 0)];

/// Reads a whole number since 1970 in the unit that its size tells, and says how many fraction digits of a second that has.
/// `None`: it is no time from 2000 to 2100 in any.
pub fn parse_epoch(number: u64) -> Option<(Time, u8)> {
    UNITS.into_iter().find_map(|(unit, digits)| {
        let time = Time(i64::try_from(number).ok()?.checked_mul(unit)?);
        (EARLIEST..TOO_LATE).contains(&time).then_some((time, digits))
    })
}

/// Reads a number since 1970 as text in plain decimals, like `1633998512.0633569`, exactly: a float would lose the last digits.
/// What stands before the point tells the unit, as in [`parse_epoch`]. Digits beyond nanoseconds must be digits and are
/// dropped.
pub fn parse_epoch_text(text: impl AsRef<[u8]>) -> Option<(Time, u8)> {
    let text = text.as_ref();
    let whole = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let number =
        std::str::from_utf8(&text[..whole]).ok().filter(|whole| whole.bytes().all(|b| b.is_ascii_digit()))?;
    let (time, unit_digits) = parse_epoch(number.parse().ok()?)?;
    let (nanos, digits, rest) = parse_fraction(&text[whole..])?;
    let fraction = nanos / POWERS[usize::from(unit_digits)];
    rest.is_empty().then_some((time.plus(fraction), (unit_digits + digits).min(9)))
}

/// Appends `time` as RFC 3339 text in UTC with exactly `digits` fraction digits (0 to 9, cut off, not rounded).
pub fn write_rfc3339(time: Time, digits: u8, out: &mut Vec<u8>) {
    TimeText::default().write(time, digits, out);
}

/// Writes times as [`write_rfc3339`] does, and remembers the minute of the last one: ticks that follow each
/// other share it, so most calls only write seconds.
#[derive(Clone, Debug)]
pub struct TimeText {
    /// Minutes since 1970 of the last time written; `i64::MIN` (no real minute) before the first.
    minute: i64,
    /// Its `YYYY-MM-DDTHH:MM:`.
    prefix: [u8; 17],
}

impl Default for TimeText {
    fn default() -> Self {
        TimeText { minute: i64::MIN, prefix: *b"0000-00-00T00:00:" }
    }
}

impl TimeText {
    /// Appends `time` with exactly `digits` fraction digits.
    pub fn write(&mut self, time: Time, digits: u8, out: &mut Vec<u8>) {
        assert!(digits <= 9, "a time has 0 to 9 fraction digits");
        let minute = time.0.div_euclid(MINUTE);
        if minute != self.minute {
            self.remember(minute);
        }
        let within = time.0.rem_euclid(MINUTE);
        let mut text = *b"0000-00-00T00:00:00.000000000";
        text[..17].copy_from_slice(&self.prefix);
        write_two(&mut text, 17, within / SECOND);
        let mut nanos = within % SECOND;
        for place in text[20..].iter_mut().rev() {
            *place = b'0' + (nanos % 10) as u8;
            nanos /= 10;
        }
        let length = if digits == 0 { 19 } else { 20 + usize::from(digits) };
        out.extend_from_slice(&text[..length]);
        out.push(b'Z');
    }

    fn remember(&mut self, minute: i64) {
        let (year, month, day) = civil_from_days(minute.div_euclid(1_440));
        let of_day = minute.rem_euclid(1_440);
        write_two(&mut self.prefix, 0, year / 100);
        write_two(&mut self.prefix, 2, year % 100);
        write_two(&mut self.prefix, 5, month);
        write_two(&mut self.prefix, 8, day);
        write_two(&mut self.prefix, 11, of_day / 60);
        write_two(&mut self.prefix, 14, of_day % 60);
        self.minute = minute;
    }
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

fn two_digits<const N: usize>(text: &[u8; N], at: usize) -> Option<i64> {
    Some(10 * digit(text[at])? + digit(text[at + 1])?)
}

fn write_two(text: &mut [u8], at: usize, number: i64) {
    text[at] = b'0' + (number / 10) as u8;
    text[at + 1] = b'0' + (number % 10) as u8;
}

/// Reads `.123…`, or nothing: nanoseconds, digits (at most 9), and what follows.
fn parse_fraction(text: &[u8]) -> Option<(Nanos, u8, &[u8])> {
    let [b'.', fraction @ ..] = text else { return Some((0, 0, text)) };
    let (mut number, mut length) = (0, 0);
    for digit in fraction.iter().map_while(|byte| digit(*byte)) {
        if length < 9 {
            number = 10 * number + digit;
        }
        length += 1;
    }
    let kept = length.min(9);
    (length > 0).then(|| (number * POWERS[9 - kept], kept as u8, &fraction[length..]))
}

/// Powers of ten.
const POWERS: [i64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Reads `Z` or `+hh:mm` or `-hh:mm` as seconds ahead of UTC.
fn parse_zone(text: &[u8]) -> Option<i64> {
    if matches!(text, b"Z" | b"z") {
        return Some(0);
    }
    let text: &[u8; 6] = text.try_into().ok()?;
    let (hours, minutes) = (two_digits(text, 1)?, two_digits(text, 4)?);
    if text[3] != b':' || hours > 23 || minutes > 59 {
        return None;
    }
    let offset = 3_600 * hours + 60 * minutes;
    match text[0] {
        b'+' => Some(offset),
        b'-' => Some(-offset),
        _ => None,
    }
}

/// `None` where there is no such month.
fn days_of_month(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => Some(29),
        2 => Some(28),
        4 | 6 | 9 | 11 => Some(30),
        1..=12 => Some(31),
        _ => None,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the leap day is the
/// last of its year and the months' lengths follow one line; 400 of them are one era of 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + 365 * of_era + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// The inverse: year, month and day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(i64, u8)>) {
        assert_eq!(parse_rfc3339(text).map(|(time, digits)| (time.0, digits)), expected, "{text}");
    }

    #[test]
    fn what_is_a_time() {
        check("1970-01-01T00:00:00Z", Some((0, 0)));
        check("1970-01-01T00:00:00.5Z", Some((500_000_000, 1)));
        check("1970-01-01T00:00:00.000001Z", Some((1_000, 6)));
        check("1969-12-31T23:59:59.999999999Z", Some((-1, 9)));
        check("2021-04-17T16:43:30.244075Z", Some((1_618_677_810_244_075_000, 6)));
        check("2024-10-04T07:13:08.600625889Z", Some((1_728_025_988_600_625_889, 9)));
        check("2023-06-09T20:19:35.39625135Z", Some((1_686_341_975_396_251_350, 8)));
        check("2024-10-04T07:13:08.600625889999Z", Some((1_728_025_988_600_625_889, 9)));
        check("2024-02-29T00:00:00Z", Some((1_709_164_800_000_000_000, 0)));
        check("2000-02-29T00:00:00Z", Some((951_782_400_000_000_000, 0)));
        check("1970-01-01T01:30:00+01:30", Some((0, 0)));
        check("1969-12-31T22:00:00.25-02:00", Some((250_000_000, 2)));
        check("1970-01-01t00:00:00z", Some((0, 0)));
        check("1970-01-01 00:00:00.5Z", Some((500_000_000, 1)));
        check("2016-12-31T23:59:60Z", Some((1_483_228_800_000_000_000, 0)));
        check("2017-01-01T00:59:60.25+01:00", Some((1_483_228_800_250_000_000, 2)));
    }

    #[test]
    fn nothing_is_a_time_because_nothing_was_read_before() {
        let first = |text: String| std::thread::spawn(move || parse_rfc3339(text)).join().unwrap();
        assert_eq!(first("\0".repeat(17) + "08Z"), None);
        assert_eq!(first("1970-01-01T00:00:08Z".to_owned()), Some((Time(8 * SECOND), 0)));
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "2024-10-04",
            "2024-10-04T07:13:08",
            "2024-10-04T07:13:08.Z",
            "2024-10-04T07:13:08.1",
            "2024-10-04T07:13:08,1Z",
            "2024-10-04T07:13:08.1234567891xZ",
            "2024-10-04_07:13:08Z",
            "2024-10-04  07:13:08Z",
            "2016-12-31T23:59:61Z",
            "2016-12-31T22:59:60Z",
            "2016-12-31T23:59:60+01:00",
            "2024-10-04T07:13:08ZZ",
            "2024-10-04T07:13:08Z ",
            " 2024-10-04T07:13:08Z",
            "2024-10-04T07:13:60Z",
            "2024-10-04T07:60:08Z",
            "2024-10-04T24:00:00Z",
            "2024-13-04T07:13:08Z",
            "2024-00-04T07:13:08Z",
            "2024-04-31T07:13:08Z",
            "2024-04-00T07:13:08Z",
            "2023-02-29T07:13:08Z",
            "1900-02-29T07:13:08Z",
            "2024-1-004T07:13:08Z",
            "+024-10-04T07:13:08Z",
            "2024-10-04T07:13:-8Z",
            "2024-10-04T07:13:08+24:00",
            "2024-10-04T07:13:08+01:60",
            "2024-10-04T07:13:08+0100",
            "2024-10-04T07:13:08+01.00",
            "2024-10-04T07:13:08*01:00",
            "2024-10-04T07:13:08+01",
            "2024-10-04T07:13:08.\u{664}Z",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn beyond_64_bits_the_nearest_is_taken() {
        check("2262-04-11T23:47:16.854775807Z", Some((i64::MAX, 9)));
        check("2262-04-11T23:47:16.854775808Z", Some((i64::MAX, 9)));
        check("9999-12-31T23:59:59Z", Some((i64::MAX, 0)));
        check("0000-01-01T00:00:00Z", Some((i64::MIN, 0)));
    }

    #[test]
    fn numbers_are_exact_in_their_unit() {
        #[track_caller]
        fn check(text: &str, expected: Option<(i64, u8)>) {
            assert_eq!(parse_epoch_text(text).map(|(time, digits)| (time.0, digits)), expected, "{text}");
        }
        check("1633998512.0633569", Some((1_633_998_512_063_356_900, 7)));
        check("1633998512.063356912345", Some((1_633_998_512_063_356_912, 9)));
        check("1633998512", Some((1_633_998_512_000_000_000, 0)));
        check("1633998512063.3569", Some((1_633_998_512_063_356_900, 7)));
        check("1633998512063356.9", Some((1_633_998_512_063_356_900, 7)));
        check("1723161253937085768", Some((1_723_161_253_937_085_768, 9)));
        check("1723161253937085768.5", Some((1_723_161_253_937_085_768, 9)));
        check("0001633998512", Some((1_633_998_512_000_000_000, 0)));
        check("946684800", Some((EARLIEST.0, 0)));
        check("4102444799999999999", Some((TOO_LATE.0 - 1, 9)));
        for text in [
            "",
            "0",
            "7",
            ".5",
            "1633998512.",
            "1633998512.5x",
            "-1633998512",
            "+1633998512",
            "1e9",
            "1633998512.5.5",
            "946684799",
            "4102444800",
            "99999999999",
            "4102444800000000000",
            "18446744073709551616",
            " 1633998512",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn as_many_digits_are_written_as_asked_for() {
        #[track_caller]
        fn check(digits: u8, expected: &str) {
            let mut out = Vec::new();
            write_rfc3339(Time(1_618_677_810_240_000_009), digits, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        check(0, "2021-04-17T16:43:30Z");
        check(1, "2021-04-17T16:43:30.2Z");
        check(3, "2021-04-17T16:43:30.240Z");
        check(6, "2021-04-17T16:43:30.240000Z");
        check(9, "2021-04-17T16:43:30.240000009Z");
    }

    #[test]
    fn a_formatter_forgets_its_minute_when_it_changes() {
        let mut text = TimeText::default();
        let mut out = Vec::new();
        for time in [0, 59_999_999_999, MINUTE, -1, MINUTE, i64::MAX, i64::MIN, 0] {
            text.write(Time(time), 9, &mut out);
            out.push(b' ');
        }
        let expected = "1970-01-01T00:00:00.000000000Z 1970-01-01T00:00:59.999999999Z \
            1970-01-01T00:01:00.000000000Z 1969-12-31T23:59:59.999999999Z 1970-01-01T00:01:00.000000000Z \
            2262-04-11T23:47:16.854775807Z 1677-09-21T00:12:43.145224192Z 1970-01-01T00:00:00.000000000Z ";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    const YEAR_2200: i64 = 7_258_118_400 * SECOND;

    proptest! {
        #[test]
        fn what_was_written_reads_back(nanos: i64, digits in 0u8..=9) {
            let mut out = Vec::new();
            write_rfc3339(Time(nanos), digits, &mut out);
            let unit = 10i64.pow(u32::from(9 - digits));
            // The very first moments cannot be cut off to a whole unit: that would lie outside of 64 bits.
            let cut = nanos.div_euclid(unit).saturating_mul(unit);
            prop_assert_eq!(parse_rfc3339(&out), Some((Time(cut), digits)));
        }

        #[test]
        fn a_date_library_agrees(nanos in 0..YEAR_2200, offset in -86_399i32 / 60..=86_399 / 60) {
            let moment = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
            let mut out = Vec::new();
            write_rfc3339(Time(nanos), 9, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{moment:.9}"));
            let zone = jiff::tz::Offset::from_seconds(offset * 60).unwrap();
            let text = moment.display_with_offset(zone).to_string();
            prop_assert_eq!(parse_rfc3339(&text).map(|parsed| parsed.0), Some(Time(nanos)), "{}", text);
        }

        #[test]
        fn a_date_library_accepts_what_we_accept(
            year in 1700i64..2250, month in 0i64..14, day in 0i64..33, hour in 0i64..25, minute in 0i64..61,
            second in 0i64..60,
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
            let theirs = text.parse::<jiff::Timestamp>().ok().map(|moment| moment.as_nanosecond());
            prop_assert_eq!(parse_rfc3339(&text).map(|parsed| i128::from(parsed.0.0)), theirs, "{}", text);
        }

        #[test]
        fn any_text_is_a_time_or_none(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_rfc3339(&text);
            let _ = parse_epoch_text(&text);
        }
    }
}
