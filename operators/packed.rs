//! Saves a window's values as one run of bytes: most of a state, and written while rows wait. One by one they take
//! several times as long.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

use crate::time::Time;

/// A value of a fixed size.
pub trait Packed: Sized {
    /// How many bytes it takes.
    const BYTES: usize;

    /// Writes them into as many.
    fn put(&self, bytes: &mut [u8]);

    /// Takes the value from so many bytes.
    fn get(bytes: &[u8]) -> Self;
}

impl Packed for f64 {
    const BYTES: usize = 8;

    fn put(&self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.to_le_bytes());
    }

    fn get(bytes: &[u8]) -> f64 {
        f64::from_le_bytes(bytes.try_into().expect("8 bytes were given"))
    }
}

impl Packed for u64 {
    const BYTES: usize = 8;

    fn put(&self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.to_le_bytes());
    }

    fn get(bytes: &[u8]) -> u64 {
        u64::from_le_bytes(bytes.try_into().expect("8 bytes were given"))
    }
}

impl Packed for Time {
    const BYTES: usize = u64::BYTES;

    fn put(&self, bytes: &mut [u8]) {
        self.0.cast_unsigned().put(bytes);
    }

    fn get(bytes: &[u8]) -> Time {
        Time(u64::get(bytes).cast_signed())
    }
}

/// Memory of longer windows is given back.
const KEPT_MAX: usize = 1 << 20;

thread_local! {
    /// What is being packed: memory that is there already, as snapshots are made while rows wait.
    static PACKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// For `#[serde(with)]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<'a, C, T, S>(values: &'a C, serializer: S) -> Result<S::Ok, S::Error>
where
    T: Packed + 'a,
    &'a C: IntoIterator<Item = &'a T, IntoIter: ExactSizeIterator>,
    S: Serializer,
{
    let values = values.into_iter();
    PACKED.with_borrow_mut(|bytes| {
        bytes.resize(values.len() * T::BYTES, 0);
        let mut slots = bytes.chunks_exact_mut(T::BYTES);
        values.for_each(|value| value.put(slots.next().expect("there is one for each value")));
        let done = serializer.serialize_bytes(bytes);
        if bytes.len() > KEPT_MAX {
            bytes.truncate(KEPT_MAX);
            bytes.shrink_to_fit();
        }
        done
    })
}

/// For `#[serde(with)]`.
///
/// # Errors
/// When the bytes are no whole number of values.
pub fn deserialize<'de, C, T, D>(deserializer: D) -> Result<C, D::Error>
where
    T: Packed,
    C: FromIterator<T> + IntoIterator<Item = T>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_bytes(Values(PhantomData))
}

struct Values<C>(PhantomData<C>);

impl<T: Packed, C: FromIterator<T> + IntoIterator<Item = T>> Visitor<'_> for Values<C> {
    type Value = C;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "values of {} bytes each", T::BYTES)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<C, E> {
        if !bytes.len().is_multiple_of(T::BYTES) {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        Ok(bytes.chunks_exact(T::BYTES).map(T::get).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Window(#[serde(with = "super")] VecDeque<f64>);

    #[test]
    fn values_come_back_to_the_last_bit() {
        let window = Window([0.1, -0.0, f64::INFINITY, f64::MIN_POSITIVE / 3.0].into());
        let bytes = postcard::to_stdvec(&window).unwrap();
        assert_eq!(bytes.len(), 1 + 4 * 8);
        assert_eq!(postcard::from_bytes::<Window>(&bytes).unwrap(), window);
    }

    #[test]
    fn half_a_value_is_refused() {
        let bytes = postcard::to_stdvec(&vec![0_u8; 12]).unwrap();
        assert!(postcard::from_bytes::<Window>(&bytes).is_err());
    }
}
