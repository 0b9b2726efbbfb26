//! Mean and variance over a sliding window, without ever subtracting.
//!
//! Taking a value out of running sums leaves a residue: after one bad print the variance of a calm window is
//! wrong for good. Here every answer is a sum of the values that are in the window, and of nothing else, so what
//! has left is forgotten to the last bit. The values lie in blocks; a "two-stacks" queue keeps sums over them:
//!
//! ```text
//!  oldest                                                             newest
//!  [ front block  ][ block ][ block ] … [ block ][ block ] … [ unfinished block ]
//!    suffix sums     suffix sums of      their sum            its sum
//!    value by value  whole blocks
//! ```
//!
//! Pushing and evicting cost a constant amortised; at worst one block's and one window's-worth-of-blocks' merges.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::packed::{self, Packed};
use crate::prefetch::fetch;

/// Values in a block. Small enough that the front's suffix sums stay in cache.
const BLOCK: usize = 64;

/// A spread below this share of the mean is rounding: a few units in the last place of the values.
const ROUNDING: f64 = 16.0 * f64::EPSILON;

/// Count, mean and sum of squared deviations of some values.
///
/// Merged pairwise: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
/// Variances", 1979. Unlike sums of squares this does not cancel when the mean is large against the spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    pub count: u32,
    pub mean: f64,
    /// Sum of squared deviations from the mean.
    pub squares: f64,
}

impl Packed for Moments {
    const BYTES: usize = 4 + 2 * f64::BYTES;

    fn put(&self, bytes: &mut [u8]) {
        let (count, rest) = bytes.split_at_mut(4);
        let (mean, squares) = rest.split_at_mut(f64::BYTES);
        count.copy_from_slice(&self.count.to_le_bytes());
        self.mean.put(mean);
        self.squares.put(squares);
    }

    fn get(bytes: &[u8]) -> Moments {
        let (count, rest) = bytes.split_at(4);
        let (mean, squares) = rest.split_at(f64::BYTES);
        let count = u32::from_le_bytes(count.try_into().expect("4 bytes were split off"));
        Moments { count, mean: f64::get(mean), squares: f64::get(squares) }
    }
}

impl Moments {
    /// The moments of one value.
    pub fn of(value: f64) -> Moments {
        Moments { count: 1, mean: value, squares: 0.0 }
    }

    /// Adds one value (Welford 1962).
    pub fn push(&mut self, value: f64) {
        self.count += 1;
        let off = value - self.mean;
        self.mean += off / f64::from(self.count);
        self.squares += off * (value - self.mean);
    }

    /// The moments of these values and `newer` ones together.
    #[must_use]
    pub fn merge(self, newer: Moments) -> Moments {
        if self.count == 0 {
            return newer;
        }
        if newer.count == 0 {
            return self;
        }
        let count = self.count + newer.count;
        let share = f64::from(newer.count) / f64::from(count);
        let off = newer.mean - self.mean;
        Moments {
            count,
            mean: self.mean + off * share,
            squares: self.squares + newer.squares + off * off * (f64::from(self.count) * share),
        }
    }

    /// Sample standard deviation (ddof 1); NaN with fewer than 2 values.
    pub fn sample_std(&self) -> f64 {
        if self.count < 2 {
            return f64::NAN;
        }
        (self.squares / f64::from(self.count - 1)).sqrt()
    }

    /// z-score of `value` against these values: NaN below `min` of them, 0 when all of them are equal.
    ///
    /// Values that differ by less than the rounding of their computation count as equal: otherwise a constant,
    /// computed in windows that are cut into blocks differently each second, would score its own last bits.
    pub fn zscore(&self, value: f64, min: u32) -> f64 {
        if self.count < min.max(2) {
            return f64::NAN;
        }
        let std = self.sample_std();
        if std <= ROUNDING * self.mean.abs() { 0.0 } else { (value - self.mean) / std }
    }
}

/// A queue of values with the moments of all that it holds. About 8.6 bytes a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlidingMoments {
    /// All values, oldest first.
    #[serde(with = "packed")]
    values: VecDeque<f64>,
    /// Moments of the last 1, 2, … values of the front block.
    #[serde(with = "packed")]
    front: Vec<Moments>,
    /// Moments of the newest 1, 2, … of the whole blocks that were there when the front block ran out.
    #[serde(with = "packed")]
    older_blocks: Vec<Moments>,
    /// Whole blocks finished since then, oldest first.
    #[serde(with = "packed")]
    newer_blocks: Vec<Moments>,
    /// Moments of `newer_blocks`.
    newer: Moments,
    /// Moments of all whole blocks behind the front.
    middle: Moments,
    /// Moments of the block being filled.
    back: Moments,
}

impl SlidingMoments {
    /// Asks for what the next value needs beside the window itself.
    pub(crate) fn fetch(&self) {
        self.values.back().map(fetch);
        self.front.last().map(fetch);
    }

    /// How many values the window holds.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the window holds nothing.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Moments of all values in the window.
    pub fn moments(&self) -> Moments {
        let front = self.front.last().copied().unwrap_or_default();
        front.merge(self.middle).merge(self.back)
    }

    /// Adds the newest value.
    pub fn push(&mut self, value: f64) {
        push_tight(&mut self.values, value);
        self.back.push(value);
        if self.back.count as usize == BLOCK {
            self.newer_blocks.push(self.back);
            self.newer = self.newer.merge(self.back);
            self.back = Moments::default();
            self.sum_middle();
        }
    }

    /// Drops the oldest value.
    ///
    /// # Panics
    /// When the window is empty.
    pub fn evict(&mut self) {
        if self.front.is_empty() {
            self.refill_front();
        }
        self.front.pop().expect("evicting needs a value");
        self.values.pop_front();
    }

    /// Forgets everything; memory is kept.
    pub fn clear(&mut self) {
        self.values.clear();
        self.front.clear();
        self.older_blocks.clear();
        self.newer_blocks.clear();
        self.newer = Moments::default();
        self.middle = Moments::default();
        self.back = Moments::default();
    }

    /// Makes the oldest block the front, with suffix sums value by value.
    fn refill_front(&mut self) {
        if self.older_blocks.is_empty() {
            let mut suffix = Moments::default();
            for block in self.newer_blocks.drain(..).rev() {
                suffix = block.merge(suffix);
                self.older_blocks.push(suffix);
            }
            self.newer = Moments::default();
        }
        let length = if self.older_blocks.pop().is_some() {
            self.sum_middle();
            BLOCK
        } else {
            std::mem::take(&mut self.back).count as usize
        };
        let mut suffix = Moments::default();
        for value in self.values.range(..length).rev() {
            suffix = Moments::of(*value).merge(suffix);
            self.front.push(suffix);
        }
    }

    fn sum_middle(&mut self) {
        self.middle = self.older_blocks.last().copied().unwrap_or_default().merge(self.newer);
    }

    /// Whether the parts fit each other: checked on what was read from outside.
    pub fn is_consistent(&self) -> bool {
        let blocks = self.older_blocks.len() + self.newer_blocks.len();
        let back = self.back.count as usize;
        back < BLOCK && self.front.len() + blocks * BLOCK + back == self.values.len()
    }
}

/// Pushes onto a queue that grows by a quarter instead of doubling: window memory is what bounds how many
/// instruments a machine can watch.
pub(crate) fn push_tight<T>(queue: &mut VecDeque<T>, value: T) {
    if queue.len() == queue.capacity() {
        queue.reserve_exact((queue.len() / 4).max(16));
    }
    queue.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two passes over the window, the textbook way.
    fn slow(values: &[f64]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
        (mean, (squares / (n - 1.0)).sqrt())
    }

    #[track_caller]
    fn assert_close(got: f64, expected: f64, scale: f64) {
        assert!((got - expected).abs() <= 1e-12 * scale, "{got} is not {expected}");
    }

    proptest! {
        #[test]
        fn any_pushes_and_evictions_give_the_moments_of_what_is_left(
            steps in prop::collection::vec((prop::num::f64::NORMAL.prop_map(|x| x % 1e3), 0usize..3), 1..600)
        ) {
            let mut window = SlidingMoments::default();
            let mut plain: Vec<f64> = Vec::new();
            for (value, evictions) in steps {
                window.push(value);
                plain.push(value);
                for _ in 0..evictions.min(plain.len()) {
                    window.evict();
                    plain.remove(0);
                }
                prop_assert!(window.is_consistent());
                prop_assert_eq!(window.len(), plain.len());
                if plain.len() >= 2 {
                    let (mean, std) = slow(&plain);
                    assert_close(window.moments().mean, mean, 1e3);
                    assert_close(window.moments().sample_std(), std, 1e3);
                }
            }
        }
    }

    #[test]
    fn a_bad_print_leaves_no_residue() {
        let mut shocked = SlidingMoments::default();
        let mut calm = SlidingMoments::default();
        for i in 0..5_000u32 {
            let value = 1e-8 * f64::from(i * 7 % 13);
            shocked.push(if i == 1_000 { 0.9 } else { value });
            calm.push(value);
            if i >= 500 {
                shocked.evict();
                calm.evict();
            }
        }
        assert_eq!(shocked.moments(), calm.moments());
    }

    #[test]
    fn equal_values_have_a_spread_of_exactly_zero() {
        let mut window = SlidingMoments::default();
        for i in 0..1_000 {
            window.push(0.1);
            if i >= 300 {
                window.evict();
            }
            let moments = window.moments();
            assert_eq!((moments.mean, moments.squares), (0.1, 0.0));
        }
        assert_eq!(window.moments().zscore(5.0, 30), 0.0);
    }

    #[test]
    fn a_spread_of_a_few_last_bits_is_no_spread() {
        let mut window = SlidingMoments::default();
        (0..100u32).for_each(|i| window.push(1e-4 * (1.0 + f64::from(i % 3) * f64::EPSILON)));
        assert_eq!(window.moments().zscore(1e-4 * (1.0 + 8.0 * f64::EPSILON), 30), 0.0);
        let mut window = SlidingMoments::default();
        (0..100u32).for_each(|i| window.push(1e-4 * (1.0 + f64::from(i % 3) * 1e-12)));
        assert!(window.moments().zscore(1e-4 * (1.0 + 8e-12), 30) > 3.0);
    }

    #[test]
    fn a_level_far_above_its_spread_keeps_its_digits() {
        let mut window = SlidingMoments::default();
        let values: Vec<f64> = (0..3_000u32).map(|i| 1e5 + 1e-3 * f64::from(i % 17)).collect();
        values.iter().for_each(|v| window.push(*v));
        let exact: Vec<f64> = values.iter().map(|v| v - 1e5).collect();
        let (_, std) = slow(&exact);
        assert!((window.moments().sample_std() / std - 1.0).abs() < 1e-9);
    }
}
