//! In which order foreshock computes: timely graphs that take streams and return streams.
//!
//! This crate knows no Kafka, no file and no clock: sources and sinks are handed in.

pub mod batch;
pub mod changes;
pub mod control;
pub mod decode;
pub mod emit;
pub mod homes;
pub mod instruments;
pub mod keyed;
pub mod live;
pub mod market;
pub mod messages;
pub mod meter;
pub mod publish;
pub mod saving;
pub mod settings;
pub mod source;
