//! All that talks to Kafka: only this folder knows the client library.

pub mod client;
pub mod partitioner;
pub mod sender;
pub mod topics;
