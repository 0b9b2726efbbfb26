//! How outputs leave: a [`sink::Sink`] for each worker, exactly once or at least once.

pub mod at_least_once;
pub mod exactly_once;
mod in_flight;
mod records;
mod reports;
pub mod sink;
pub mod transactions;
