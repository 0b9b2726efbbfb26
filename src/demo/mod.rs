//! What `foreshock demo` shows: a market that nobody had to record.

pub mod market;
