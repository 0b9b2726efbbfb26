//! In which order foreshock computes: timely graphs that take streams and return streams.
//!
//! This crate knows no Kafka, no file and no clock: sources and sinks are handed in.

pub mod settings;
