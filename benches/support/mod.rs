//! What several benches share.

pub mod figures;
pub mod job;
pub mod quotes;
