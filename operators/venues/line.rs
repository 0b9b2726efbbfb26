//! The lines of recorded files: what stands before the message.
//!
//! ```text
//! {json}                       a message as it came
//! 1723161253937085768 {json}   received then: s, ms, µs or ns since 1970 by the number's size
//! 1633998512.0633569: {json}   the same
//! wss://host/path <-> 16339…   the recorder's own: connected, sent
//! ```

use std::ops::Range;

use crate::time::{Time, parse_epoch_text};

/// What one line of a recorded file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// White space only: no message, counted nowhere.
    Blank,
    /// It begins with a URL: a control message of the recorder's.
    Control,
    /// A message.
    Message {
        /// Where its bytes stand in the line.
        body: Range<usize>,
        /// The time of receipt that stands before it.
        received: Option<Time>,
    },
    /// A message behind a number that is no time of receipt from 2000 to 2100.
    BadReceipt { receipt: Range<usize>, body: Range<usize> },
}

/// Takes a line apart; its line break may still be on it. What is no known prefix is left to the decoder,
/// which will say what is wrong with it.
pub fn split_line(line: &[u8]) -> Line {
    let line = line.trim_ascii_end();
    match line.first() {
        None => Line::Blank,
        Some(b'{') => Line::Message { body: 0..line.len(), received: None },
        Some(b'0'..=b'9') => split_stamped(line),
        Some(_) if is_url(line) => Line::Control,
        Some(_) => Line::Message { body: 0..line.len(), received: None },
    }
}

/// Whether a line begins with an address of the kind that feeds are read from.
fn is_url(line: &[u8]) -> bool {
    [b"wss://".as_slice(), b"ws://", b"https://", b"http://"]
        .into_iter()
        .any(|scheme| line.starts_with(scheme))
}

fn split_stamped(line: &[u8]) -> Line {
    let bare = Line::Message { body: 0..line.len(), received: None };
    let Some(end) = line.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'.')) else { return bare };
    let stamp = &line[..end];
    let body = match line[end..] {
        [b':', b' ', ..] => end + 2,
        [b' ', ..] => end + 1,
        _ => return bare,
    };
    match parse_epoch_text(stamp) {
        Some((received, _)) => Line::Message { body: body..line.len(), received: Some(received) },
        // No number at all.
        None if stamp.ends_with(b".") || stamp.iter().filter(|byte| **byte == b'.').count() > 1 => bare,
        None => Line::BadReceipt { receipt: 0..end, body: body..line.len() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Line) {
        assert_eq!(split_line(line.as_bytes()), expected, "{line:?}");
    }

    fn message(body: Range<usize>, received: Option<i64>) -> Line {
        Line::Message { body, received: received.map(Time) }
    }

    #[test]
    fn prefixes_are_taken_off() {
        check(r#"{"a":1}"#, message(0..7, None));
        check(r#"1723161253937085768 {"a":1}"#, message(20..27, Some(1_723_161_253_937_085_768)));
        check(r#"1633998512.0633569: {"a":1}"#, message(20..27, Some(1_633_998_512_063_356_900)));
        check(r#"1633998512: {"a":1}"#, message(12..19, Some(1_633_998_512_000_000_000)));
    }

    #[test]
    fn line_breaks_are_taken_off() {
        check("{}\r", message(0..2, None));
        check("{}\r\n", message(0..2, None));
        check("1723161253 {}\r", message(11..13, Some(1_723_161_253_000_000_000)));
    }

    #[test]
    fn urls_are_control_messages() {
        check("wss://ws-feed.pro.coinbase.com <-> 1618677816.8434298", Line::Control);
        check("ws://localhost:9000", Line::Control);
        check("https://api.exchange -> 1.5: {}", Line::Control);
        check("http://x", Line::Control);
        check("wss:/x", message(0..6, None));
        check("what", message(0..4, None));
    }

    #[test]
    fn blank_lines_are_nothing() {
        for line in ["", " ", "\r", "\n", " \t\r\n"] {
            check(line, Line::Blank);
        }
    }

    #[test]
    fn what_is_no_prefix_is_left_to_the_decoder() {
        check("123", message(0..3, None));
        check("1723161253.5.5 {}", message(0..17, None));
        check("1723161253.: {}", message(0..15, None));
        check("1:{}", message(0..4, None));
        check("1,2", message(0..3, None));
        check("-5 {}", message(0..5, None));
        check(" {}", message(0..3, None));
        check("1723161253 x", message(11..12, Some(1_723_161_253_000_000_000)));
    }
}
