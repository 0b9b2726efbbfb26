//! Snapshots of a job's state, and where they are kept.
//!
//! ```text
//! Store::begin_snapshot ─► Writer (sections, in any order) ─► finish ─► Written ─► publish        Store::newest ─► Snapshot
//!                 a temporary file ...                          synced      renamed, or uploaded
//! ```
//! One file is the state of one shard at one offset. It has its name only when all of it is on the disk, so a crash
//! leaves no half snapshot; a file that was damaged later is recognised and the one before it is used.

mod folder;
pub mod format;
mod header;
#[cfg(feature = "cloud")]
mod objects;
pub mod requests;
mod snapshot;
mod store;

pub use format::ReadError;
pub use header::{Header, RecordPrint};
pub use snapshot::{InstrumentState, Snapshot};
pub use store::{Entry, Newest, Skipped, Store, StoreError, Writer, Written};
