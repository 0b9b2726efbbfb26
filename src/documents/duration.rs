//! Durations as people write them: `250ms`, `60s`, `5m`, `1h`; latencies in `us` too.

use foreshock_operators::time::{MILLISECOND, Nanos, SECOND};

/// The longest length of time that a setting takes.
pub const LONGEST: Nanos = 24 * HOUR;

/// The shortest length of time that a latency is told in.
pub const MICROSECOND: Nanos = MILLISECOND / 1000;

const MINUTE: Nanos = 60 * SECOND;
const HOUR: Nanos = 60 * MINUTE;

/// Units by their text, the shortest first.
const UNITS: [(&str, Nanos); 4] = [("ms", MILLISECOND), ("s", SECOND), ("m", MINUTE), ("h", HOUR)];

/// Reads a whole number and its unit; `None` for anything else, also where it is too long to count.
pub fn parse(text: &str) -> Option<Nanos> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<Nanos>().ok()?.checked_mul(*length)
}

/// Reads a latency: a duration, or a whole number of microseconds (`us`).
pub fn parse_latency(text: &str) -> Option<Nanos> {
    match text.strip_suffix("us").filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit())) {
        Some(digits) => digits.parse::<Nanos>().ok()?.checked_mul(MICROSECOND),
        None => parse(text),
    }
}

/// Writes a latency in the longest unit that leaves it whole.
pub fn show_latency(latency: Nanos) -> String {
    if latency % MILLISECOND == 0 { show(latency) } else { format!("{}us", latency / MICROSECOND) }
}

/// Writes a duration in the longest unit that leaves it whole.
pub fn show(duration: Nanos) -> String {
    let (name, length) = UNITS.iter().rev().find(|(_, length)| duration % length == 0).unwrap_or(&UNITS[0]);
    if duration == 0 { "0ms".to_owned() } else { format!("{}{name}", duration / length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_unit() {
        let cases =
            [("0ms", 0), ("250ms", 250 * MILLISECOND), ("1s", SECOND), ("5m", 5 * MINUTE), ("1h", HOUR)];
        for (text, nanos) in cases {
            assert_eq!(parse(text), Some(nanos), "{text}");
            assert_eq!(show(nanos), text);
        }
    }

    #[test]
    fn latencies_have_microseconds_too() {
        for (text, nanos) in
            [("10us", 10_000), ("2500us", 2_500_000), ("45ms", 45 * MILLISECOND), ("1s", SECOND)]
        {
            assert_eq!(parse_latency(text), Some(nanos), "{text}");
            assert_eq!(show_latency(nanos), text);
        }
        for text in ["us", "1.5us", "-1us", "+1us", "1 us", "1ns", "0.045", "99999999999999999999us"] {
            assert_eq!(parse_latency(text), None, "{text:?}");
        }
    }

    #[test]
    fn nothing_else() {
        let wrong = [
            "",
            "60",
            "s",
            "1 s",
            "1.5s",
            "-1s",
            "+1s",
            "1S",
            "1us",
            "1s ",
            "99999999999999999999s",
            "9999999999h",
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
