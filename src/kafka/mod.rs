//! All that talks to Kafka: only this folder knows the client library.

pub mod client;
pub mod commits;
pub mod embedded;
mod message;
pub mod offsets;
pub mod partitioner;
pub mod progress;
mod records;
mod reports;
pub mod sender;
pub mod sink;
pub mod source;
pub mod topics;
mod ways;
