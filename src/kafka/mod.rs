//! All that talks to Kafka: only this folder knows the client library.

pub mod answers;
pub mod append;
pub mod at_least_once;
pub mod client;
pub mod commits;
pub mod embedded;
pub mod exactly_once;
pub mod lag;
mod message;
pub mod offsets;
pub mod outlet;
pub mod parting;
pub mod partitioner;
pub mod peek;
pub mod progress;
mod records;
mod reports;
pub mod sender;
pub mod source;
pub mod topics;
pub mod transactions;
mod ways;
