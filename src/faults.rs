//! Points at which a test of the recovery has the process die or do wrong. Without the feature `faults` nothing of it
//! is there.

/// A place where the process may be told to die.
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Whether this is to be done wrong now: `skip-commit`, `drop`, `duplicate`, `swap`.
#[inline(always)]
pub fn sabotage(_what: &'static str) -> bool {
    false
}

/// Notes outside the process that something of a shard has begun or ended: `transaction`, `snapshot`.
#[inline(always)]
pub fn mark(_what: &'static str, _shard: u32, _open: bool) {}
