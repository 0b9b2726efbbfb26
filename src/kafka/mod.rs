//! All that talks to Kafka: only this folder knows the client library.
//!
//! ```text
//! source ─► deliveries        records ─► out/ (exactly once, at least once)        admin/: topics, offsets, lag
//! ```

pub mod admin;
pub mod client;
pub mod closing;
pub mod embedded;
mod message;
pub mod out;
pub mod partitioner;
pub mod progress;
pub mod sender;
pub mod source;
