//! What the user did wrong, as opposed to what the program met: exit status 2.

/// An error in how the program was called or configured, rather than in what it met.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);
