//! `foreshock demo`: all of it in one process, with a market that nobody had to record.

pub mod market;
pub mod show;
