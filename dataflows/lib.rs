//! In which order foreshock computes: timely graphs that take streams and return streams.
//!
//! This crate knows no Kafka and no file: sources and sinks are handed in. Clocks are read for how long work takes, never for a
//! result.

pub mod batch;
pub mod changes;
pub mod control;
pub mod decode;
pub mod encode_lines;
pub mod encode_records;
pub mod instruments;
pub mod keyed;
pub mod live;
pub mod market;
pub mod messages;
pub mod meter;
pub mod ownership;
pub mod saving;
pub mod settings;
pub mod source;
pub mod stage;
pub mod subjects;
