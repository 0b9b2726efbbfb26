//! Plain decimals like `29940.91`, which is how venues write nearly all numbers.

/// A decimal of at most [`DIGITS`] digits, without an exponent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    is_negative: bool,
    /// Its digits as one number, those of the fraction included.
    digits: u64,
    /// How many of them stand after the point; `None` where there is no point.
    fraction: Option<usize>,
}

/// So many digits always fit 64 bits.
const DIGITS: usize = 19;

/// Below this, an f64 holds every whole number.
const EXACT: u64 = 1 << 53;

/// Powers of ten, each exact: 10^22 would be the last one that is.
const POWERS: [f64; DIGITS] = {
    let mut powers = [1.0; DIGITS];
    let mut at = 1;
    while at < DIGITS {
        powers[at] = 10.0 * powers[at - 1];
        at += 1;
    }
    powers
};

impl Decimal {
    /// Reads the decimal that `text` begins with, by JSON's grammar, and gives its length too. What follows may
    /// still make another number of it: an exponent, or digits after a leading 0.
    #[inline]
    pub(crate) fn read(text: &[u8]) -> Option<(Decimal, usize)> {
        let is_negative = text.first() == Some(&b'-');
        let start = usize::from(is_negative);
        let (mut at, mut digits) = (start, 0u64);
        let mut read_digits = |at: &mut usize| {
            let first = *at;
            while let Some(digit) = text.get(*at).map(|byte| byte.wrapping_sub(b'0'))
                && digit < 10
            {
                digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit));
                *at += 1;
            }
            *at - first
        };
        let whole = read_digits(&mut at);
        let mut fraction = None;
        if text.get(at) == Some(&b'.') {
            at += 1;
            fraction = Some(read_digits(&mut at));
        }
        let is_sound = whole > 0 && (whole == 1 || text[start] != b'0') && fraction != Some(0);
        let fits = whole + fraction.unwrap_or(0) <= DIGITS;
        (is_sound && fits).then_some((Decimal { is_negative, digits, fraction }, at))
    }

    /// The number, if it is a whole one from 0 and written as one.
    #[inline]
    pub(crate) fn whole(self) -> Option<u64> {
        (!self.is_negative && self.fraction.is_none()).then_some(self.digits)
    }

    /// The nearest f64, as `parse` gives it; `None` where it takes more than a division to tell. Of two exact
    /// numbers the quotient is rounded once, so it is the nearest.
    #[inline]
    pub(crate) fn number(self) -> Option<f64> {
        let size = (self.digits <= EXACT).then(|| self.digits as f64 / POWERS[self.fraction.unwrap_or(0)])?;
        Some(if self.is_negative { -size } else { size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a text is read as, if it is a decimal as a whole.
    fn read(text: &str) -> Option<Decimal> {
        Decimal::read(text.as_bytes()).filter(|(_, length)| *length == text.len()).map(|(decimal, _)| decimal)
    }

    #[test]
    fn usual_prices_need_no_more_than_a_division() {
        for text in ["29940.91", "0.03416000", "61837.63000000", "1", "0", "-0", "0.00001305", "-1.50"] {
            let number = read(text).and_then(Decimal::number).map(f64::to_bits);
            assert_eq!(number, text.parse().ok().map(f64::to_bits), "{text}");
        }
        assert_eq!(read("9999999999999999999").and_then(Decimal::whole), Some(9_999_999_999_999_999_999));
    }

    #[test]
    fn what_is_left_to_others() {
        for text in
            ["", "-", ".5", "5.", "-.5", "01", "-01", "00", "+1", "1e5", "1 ", " 1", "12345678901234567890"]
        {
            assert!(read(text).is_none(), "{text}");
        }
        assert!(read("9007199254740993").and_then(Decimal::number).is_none());
        for text in ["-5", "5.0", "-0"] {
            assert!(read(text).and_then(Decimal::whole).is_none(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_read_is_what_std_and_serde_read(text in "-?[0-9]{1,12}(\\.[0-9]{1,12})?|[-.0-9e]{0,8}") {
            if let Some(decimal) = read(&text) {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(decimal.whole(), value.as_u64());
                if let Some(number) = decimal.number() {
                    prop_assert_eq!(number.to_bits(), text.parse::<f64>().unwrap().to_bits());
                    prop_assert_eq!(number.to_bits(), value.as_f64().unwrap().to_bits());
                }
            }
        }

        #[test]
        fn digits_up_to_the_last_exact_one(digits in 0..=EXACT, fraction in 0..DIGITS) {
            let decimal = Decimal { is_negative: false, digits, fraction: Some(fraction) };
            let expected: f64 = format!("{digits}e-{fraction}").parse().unwrap();
            prop_assert_eq!(decimal.number().map(f64::to_bits), Some(expected.to_bits()));
        }
    }
}
