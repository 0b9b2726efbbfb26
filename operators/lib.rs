//! What foreshock computes.
//!
//! Decoders turn a venue's bytes into [`row::Row`]s; each operator is a state machine over the rows of one
//! instrument. Nothing in this crate reads a clock, a file, a socket, the environment or a random source.

pub mod account;
mod alert_life;
pub mod alone;
pub mod chain;
pub mod change;
pub mod clock;
pub mod encode;
pub mod feature;
pub mod features;
pub mod gaps;
mod json;
pub mod links;
pub mod market;
pub mod model;
pub mod moments;
pub mod operator;
pub mod order;
pub mod outputs;
pub mod packed;
pub mod parameters;
mod pattern;
pub mod prefetch;
pub mod row;
pub mod rule;
pub mod rules;
pub mod score;
pub mod seconds;
pub mod stages;
pub mod time;
pub mod venues;
