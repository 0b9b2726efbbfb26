//! Processes of one job find each other, refuse strangers, and end together: from outside, without a Kafka.
//!
//! They join before they look for brokers, and wait for those as long as it takes.

mod join;
mod launch;
mod processes;
