//! Patterns over names: `*` stands for any run of characters, also for none.

/// Whether `pattern` covers the whole of `text`.
///
/// Takes time linear in both: the earliest place for each piece between two stars leaves the most for the
/// pieces behind it, so no other place is ever tried.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(text) = text.strip_prefix(head) else { return false };
    let Some(mut text) = text.strip_suffix(tail) else { return false };
    middle.split('*').all(|piece| match text.find(piece) {
        Some(at) => {
            text = &text[at + piece.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(pattern: &str, covered: &[&str], not: &[&str]) {
        for text in covered {
            assert!(matches(pattern, text), "{pattern:?} should cover {text:?}");
        }
        for text in not {
            assert!(!matches(pattern, text), "{pattern:?} should not cover {text:?}");
        }
    }

    #[test]
    fn without_a_star_it_is_the_name() {
        check("okx:BTC-USDT", &["okx:BTC-USDT"], &["okx:BTC-USDT-PERP", "xokx:BTC-USDT", "OKX:BTC-USDT", ""]);
    }

    #[test]
    fn a_star_alone_covers_everything() {
        check("*", &["", "x", "okx:BTC-USDT"], &[]);
        check("***", &["", "x", "okx:BTC-USDT"], &[]);
    }

    #[test]
    fn a_star_covers_either_side_of_the_colon() {
        check("okx:*", &["okx:", "okx:BTC-USDT"], &["okx", "binance:BTC-USDT"]);
        check("*:BTC-USD", &["okx:BTC-USD", ":BTC-USD"], &["okx:BTC-USDT", "BTC-USD"]);
        check("binance*:*-PERP", &["binance-usdm:BTC-USDT-PERP", "binance:-PERP"], &["binance:BTC-USDT"]);
    }

    #[test]
    fn pieces_do_not_overlap() {
        check("aba*ba", &["ababa", "abaxba"], &["aba", "abba"]);
        check("*ab*ab*", &["abab", "xabxabx"], &["ab", "aba", "bab"]);
    }

    #[test]
    fn a_piece_that_comes_too_early_is_looked_for_again() {
        check("a*bc", &["abcbc", "abc"], &["abcb"]);
        check("*aab*", &["aaab"], &["aaa"]);
    }

    #[test]
    fn characters_may_be_longer_than_a_byte() {
        check("é*ü", &["éü", "éßü"], &["é", "ü"]);
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = "*a".repeat(20_000) + "*b*";
        assert!(!matches(&pattern, &"a".repeat(100_000)));
    }

    fn matches_by_trying_all(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| matches_by_trying_all(rest, &text[skip..])),
            Some((first, rest)) => {
                text.split_first().is_some_and(|(c, text)| c == first && matches_by_trying_all(rest, text))
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_trying_all(pattern in "[ab*]{0,7}", text in "[ab]{0,9}") {
            prop_assert_eq!(matches(&pattern, &text), matches_by_trying_all(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
