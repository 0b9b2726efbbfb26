//! What several benches share.

pub mod figures;
pub mod quotes;
