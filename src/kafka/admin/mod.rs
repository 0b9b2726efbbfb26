//! What is asked of brokers, and told to them, beside reading and writing rows: topics, offsets, single records.

pub mod answers;
pub mod append;
pub mod commits;
pub mod lag;
pub mod offsets;
pub mod peek;
pub mod topics;
