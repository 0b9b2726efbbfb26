//! Asks the processor for memory before it is needed.
//!
//! With many instruments each state has left the caches since its last input. Waiting for its memory then takes longer
//! than the work on it, and nothing else goes on meanwhile; asked for a few inputs ahead, it is there in time.

/// How many bytes the processor fetches at once.
const LINE: usize = 64;

/// Asks for the line that a value begins in.
#[inline]
pub fn fetch<T>(value: &T) {
    ask(std::ptr::from_ref(value).cast());
}

/// Asks for all lines of a value, but not for what it points to.
#[inline]
pub fn fetch_all<T>(value: &T) {
    let begin: *const u8 = std::ptr::from_ref(value).cast();
    for offset in (0..size_of::<T>()).step_by(LINE) {
        ask(begin.wrapping_add(offset));
    }
    // A value need not begin where a line does.
    ask(begin.wrapping_add(size_of::<T>().saturating_sub(1)));
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "the one place; why it may, stands inside")]
fn ask(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint. It reads nothing that the program could see and does not fault, whatever the address, and every
    // x86-64 processor knows it. Measured: docs/performance.md, "What made the difference".
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

/// Others are left to their own devices.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn ask(_: *const u8) {}
