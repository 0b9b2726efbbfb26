//! All that talks to Kafka: only this folder knows the client library.

pub mod client;
