//! Recorded files as one log: opened, told by their first lines, cut into blocks of whole lines, merged by time.
//!
//! ```text
//! input (file, standard input) ─► blocks of whole lines ─► sniff: format and exchange ─► log: chunks in one order
//! ```

pub mod blocks;
pub mod input;
pub mod log;
pub mod sniff;
