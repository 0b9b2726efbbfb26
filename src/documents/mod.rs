//! Documents that people write: YAML with places, types with limits, and errors that name file, line and key.
//!
//! ```text
//! file ─► yaml: nodes with their lines ─► section: values by key, each checked by its kind ─► errors with a way out
//! ```

pub mod duration;
pub mod error;
pub mod file;
pub mod kind;
pub mod section;
pub mod suggest;
pub mod yaml;
