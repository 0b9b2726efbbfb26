//! Recorded files as one log: opened, told by their first bytes and lines, cut into blocks of whole lines, merged by time.
//!
//! ```text
//! input (file, member of an archive, standard input) ─► text: lines, or the elements of an array ─► blocks of whole lines
//!   ─► sniff: format and exchange ─► log: chunks in one order
//! ```

mod archive;
pub mod blocks;
mod csv;
mod elements;
mod follow;
mod foreign;
pub mod input;
mod layout;
pub mod log;
pub mod notes;
pub mod sniff;
