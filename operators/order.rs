//! Puts an instrument's rows in order and takes out what was told twice or too late (SPEC 2).

use serde::{Deserialize, Serialize};

use crate::time::Nanos;

/// How rows are put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderSettings {
    /// How long a row waits for older ones; 0: rows are taken as they come.
    pub reorder: Nanos,
}
