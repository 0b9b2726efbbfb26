//! What tests and benches share: nothing of the product uses it.

pub mod feed;
pub mod http;
pub mod models;
pub mod process;
pub mod random;
pub mod rows;
