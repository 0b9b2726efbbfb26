//! Moves a message's times and ids, for logs that are played more than once.
//!
//! The text is changed in place: only the digits of a time or an id differ, all else stays byte for byte. A message
//! is walked by its marks alone, so that one that is no JSON comes out as it went in or nearly so: it can't be used
//! either way.

use std::ops::Range;

use super::Format;
use crate::json::message::unescape;
use crate::time::{SECOND, parse_epoch, parse_rfc3339, write_rfc3339};

/// Ids from here on are left alone: whole numbers that JSON can't be trusted with are no venue's ids.
const ID_END: u64 = 1 << 53;

/// How far to move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// Whole seconds, so that a time keeps its fraction whatever its digits.
    pub seconds: i64,
    pub ids: u64,
}

/// An id that a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// What it counts, by the name of a field.
    pub name: &'static str,
    /// Whether it counts the connection's messages rather than the instrument's.
    pub of_connection: bool,
}

/// Calls `on_id` with every id that [`shift`] would move.
pub fn ids(format: Format, message: &[u8], mut on_id: impl FnMut(Id, u64)) {
    visit(format, message, |place, _, number| {
        if let MovablePlace::Id(id) = place {
            on_id(id, number);
        }
    });
}

/// Appends a message to `out` with its times and ids moved.
pub fn shift(format: Format, message: &[u8], by: Shift, out: &mut Vec<u8>) {
    let mut copied = 0;
    visit(format, message, |place, range, number| {
        out.extend_from_slice(&message[copied..range.start]);
        copied = range.end;
        let text = &message[range];
        match place {
            MovablePlace::Id(_) => write_number(number.saturating_add(by.ids), text.len(), out),
            MovablePlace::Time if number > 0 => {
                let digits = parse_epoch(number).map_or(0, |(_, digits)| digits);
                let units = by.seconds.saturating_mul(10_i64.pow(digits.into()));
                write_number(number.saturating_add_signed(units), text.len(), out);
            }
            MovablePlace::Time => {
                // The whole seconds are moved as if they were UTC: fraction and zone stay as they stand.
                let (seconds, rest) = text.split_at(SECONDS_LENGTH);
                match parse_rfc3339([seconds, b"Z"].concat()) {
                    Some((time, _)) => {
                        let moved = time.plus(by.seconds.saturating_mul(SECOND));
                        let start = out.len();
                        write_rfc3339(moved, 0, out);
                        out.pop();
                        // The mark between date and time stays too.
                        out[start + MARK] = seconds[MARK];
                    }
                    None => out.extend_from_slice(seconds),
                }
                out.extend_from_slice(rest);
            }
        }
    });
    out.extend_from_slice(&message[copied..]);
}

/// Length of `YYYY-MM-DDTHH:MM:SS`.
const SECONDS_LENGTH: usize = 19;

/// Where the `T` stands.
const MARK: usize = 10;

/// Keeps the zeros that a number in quotes may begin with.
fn write_number(number: u64, width: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{number:0width$}").as_bytes());
}

/// What stands in a place.
#[derive(Clone, Copy)]
pub(crate) enum MovablePlace {
    Id(Id),
    /// RFC 3339 text, or a number since 1970 in the unit that its size tells.
    Time,
}

/// Calls `on_place` with every time and id, where it stands, and its number (0 for RFC 3339).
fn visit(format: Format, message: &[u8], mut on_place: impl FnMut(MovablePlace, Range<usize>, u64)) {
    let movable = (format.0.movable)(message);
    walk(message, |parent, key, range| {
        let text = &message[range.clone()];
        let found = movable(parent, key);
        match found {
            Some(MovablePlace::Time) => match whole(text) {
                Some(number) if parse_epoch(number).is_some() => on_place(MovablePlace::Time, range, number),
                None if text.len() > SECONDS_LENGTH && parse_rfc3339(text).is_some() => {
                    on_place(MovablePlace::Time, range, 0);
                }
                _ => {}
            },
            Some(place) => {
                if let Some(number) = whole(text).filter(|number| (0..ID_END).contains(number)) {
                    on_place(place, range, number);
                }
            }
            None => {}
        }
    });
}

fn whole(text: &[u8]) -> Option<u64> {
    let is_whole = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_whole.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// An id of the instrument.
pub(crate) fn id(name: &'static str) -> Option<MovablePlace> {
    Some(MovablePlace::Id(Id { name, of_connection: false }))
}

/// An id that counts the connection's messages.
pub(crate) fn id_of_connection(name: &'static str) -> Option<MovablePlace> {
    Some(MovablePlace::Id(Id { name, of_connection: true }))
}

/// Deeper objects are not looked into: no message has them.
const DEEPEST: usize = 16;

/// Calls `on_value` with every number and text that stands under a key, the key before it, and the key of the
/// object that has it (empty for the message itself).
fn walk(message: &[u8], mut on_value: impl FnMut(&[u8], &[u8], Range<usize>)) {
    // The key of each object or list that is open; entries of a list stand under the list's.
    let mut open: [Range<usize>; DEEPEST] = Default::default();
    let mut depth = 0;
    // The key whose value comes next.
    let mut key = 0..0;
    let mut at = 0;
    while let Some(byte) = message.get(at) {
        match byte {
            b'{' | b'[' => {
                if depth == DEEPEST {
                    return;
                }
                if key.is_empty() && depth > 0 {
                    key = open[depth - 1].clone();
                }
                open[depth] = std::mem::take(&mut key);
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = usize::saturating_sub(depth, 1);
                key = 0..0;
                at += 1;
            }
            b'"' => {
                let start = at + 1;
                let Some(end) = string_end(message, start) else { return };
                at = end + 1;
                let after = message[at..].iter().find(|byte| !byte.is_ascii_whitespace());
                if after == Some(&b':') && key.is_empty() {
                    key = start..end;
                } else {
                    give(message, &open[..depth], &mut key, start..end, &mut on_value);
                }
            }
            b'0'..=b'9' | b'-' => {
                let start = at;
                let is_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                at += message[at..].iter().take_while(|byte| is_number(byte)).count();
                give(message, &open[..depth], &mut key, start..at, &mut on_value);
            }
            b',' => {
                key = 0..0;
                at += 1;
            }
            _ => at += 1,
        }
    }
}

fn give(
    message: &[u8],
    open: &[Range<usize>],
    key: &mut Range<usize>,
    value: Range<usize>,
    on_value: &mut impl FnMut(&[u8], &[u8], Range<usize>),
) {
    let key = std::mem::take(key);
    if key.is_empty() {
        return;
    }
    let parent = open.last().map_or(&[][..], |parent| &message[parent.clone()]);
    let name = &message[key];
    // A key may be written with escapes; none that is looked for needs them.
    match std::str::from_utf8(name) {
        Ok(text) if name.contains(&b'\\') => on_value(parent, unescape(text).as_bytes(), value),
        _ => on_value(parent, name, value),
    }
}

/// Where the text that begins at `at` has its closing quote.
fn string_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match message.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venues::binance::BINANCE;
    use crate::venues::canonical::CANONICAL;
    use crate::venues::coinbase::COINBASE_ADVANCED_TRADE;
    use crate::venues::coinbase::COINBASE_EXCHANGE;
    use crate::venues::okx::OKX;

    const BY: Shift = Shift { seconds: 86_400, ids: 1_000 };

    #[track_caller]
    fn check(format: Format, message: &str, expected: &str) {
        let mut out = Vec::new();
        shift(format, message.as_bytes(), BY, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn coinbase_exchange() {
        check(
            COINBASE_EXCHANGE,
            r#"{"type":"match","trade_id":999,"price":"10","sequence": 5,"time":"2021-02-28T23:59:59.120Z"}"#,
            r#"{"type":"match","trade_id":1999,"price":"10","sequence": 1005,"time":"2021-03-01T23:59:59.120Z"}"#,
        );
    }

    #[test]
    fn coinbase_advanced_trade() {
        check(
            COINBASE_ADVANCED_TRADE,
            r#"{"timestamp":"2024-10-04T07:13:31.158696693Z","sequence_num":2,"events":[{"trades":[{"trade_id":"07","time":"2024-10-04T07:13:31+02:00"}]}]}"#,
            r#"{"timestamp":"2024-10-05T07:13:31.158696693Z","sequence_num":1002,"events":[{"trades":[{"trade_id":"1007","time":"2024-10-05T07:13:31+02:00"}]}]}"#,
        );
    }

    #[test]
    fn letters_of_binance_mean_what_the_event_says() {
        check(
            BINANCE,
            r#"{"stream":"x@bookTicker","data":{"e":"bookTicker","u":7,"s":"X","b":"1","B":"2","a":"3","A":"4","T":1723161414335,"E":1723161414336}}"#,
            r#"{"stream":"x@bookTicker","data":{"e":"bookTicker","u":1007,"s":"X","b":"1","B":"2","a":"3","A":"4","T":1723247814335,"E":1723247814336}}"#,
        );
        check(
            BINANCE,
            r#"{"u":7,"s":"X","b":"1","B":"2","a":"3","A":"4"}"#,
            r#"{"u":1007,"s":"X","b":"1","B":"2","a":"3","A":"4"}"#,
        );
        check(
            BINANCE,
            r#"{"e":"aggTrade","E":1723161414335,"a":5,"p":"6","q":"7","f":8,"l":9,"T":0}"#,
            r#"{"e":"aggTrade","E":1723247814335,"a":1005,"p":"6","q":"7","f":1008,"l":1009,"T":0}"#,
        );
        check(
            BINANCE,
            r#"{"e":"trade","t":5,"b":88,"a":50,"T":1723161414335}"#,
            r#"{"e":"trade","t":1005,"b":88,"a":50,"T":1723247814335}"#,
        );
        check(
            BINANCE,
            r#"{"e":"depthUpdate","U":1,"u":2,"pu":-1,"b":[["5","6"]],"a":[]}"#,
            r#"{"e":"depthUpdate","U":1001,"u":1002,"pu":-1,"b":[["5","6"]],"a":[]}"#,
        );
        check(
            BINANCE,
            r#"{"e":"kline","k":{"t":1723161414335,"f":5,"o":"6"}}"#,
            r#"{"e":"kline","k":{"t":1723247814335,"f":5,"o":"6"}}"#,
        );
    }

    #[test]
    fn okx_and_canonical() {
        check(
            OKX,
            r#"{"arg":{"instId":"A"},"data":[{"ts":"1652459226199","tradeId":"5","seqId":6,"prevSeqId":-1,"asks":[["5","6"]]}]}"#,
            r#"{"arg":{"instId":"A"},"data":[{"ts":"1652545626199","tradeId":"1005","seqId":1006,"prevSeqId":-1,"asks":[["5","6"]]}]}"#,
        );
        check(
            CANONICAL,
            r#"{"event_\u0074ime":"2026-01-02T03:04:05Z","sequence":"7","bid":5}"#,
            r#"{"event_\u0074ime":"2026-01-03T03:04:05Z","sequence":"1007","bid":5}"#,
        );
        // In the unit that its size tells.
        check(
            CANONICAL,
            r#"{"sequence":null,"event_time":1723161414335}"#,
            r#"{"sequence":null,"event_time":1723247814335}"#,
        );
    }

    #[test]
    fn what_can_not_be_moved_stays() {
        for message in [
            "",
            "{",
            "\"",
            r#"{"sequence""#,
            r#"{"sequence":"#,
            r#"{"sequence":1.5,"event_time":"yesterday"}"#,
            r#"{"sequence":null,"event_time":17231614}"#,
            r#"{"sequence":9007199254740993}"#,
            r#"{"sequence":{"a":[1,2,"3"]}}"#,
            r#"{"x\\":1,"event_time":"2026-13-02T03:04:05Z"}"#,
            "{\"sequence\":\"5\\",
            "[[[[[[[[[[[[[[[[[[[[[[",
            "]]}}",
        ] {
            check(CANONICAL, message, message);
        }
    }

    #[test]
    fn ids_are_told_by_what_they_count() {
        let mut found = Vec::new();
        let message = br#"{"sequence_num":3,"events":[{"trades":[{"trade_id":"7"},{"trade_id":"8"}]}]}"#;
        ids(COINBASE_ADVANCED_TRADE, message, |id, number| found.push((id.name, id.of_connection, number)));
        assert_eq!(found, [("sequence_num", true, 3), ("trade_id", false, 7), ("trade_id", false, 8)]);
    }
}
