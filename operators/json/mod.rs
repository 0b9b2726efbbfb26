//! JSON as feeds write it: a scanner that gives borrowed fields, and what a field may hold.
//!
//! A message is parsed once, into borrowed fields, by the scanner or, where that finds anything unusual, by serde; what they hold
//! is judged afterwards, so that a refusal can name the field, what was found and what is allowed.

pub(crate) mod decimal;
pub(crate) mod field;
pub(crate) mod message;
pub(crate) mod scan;
