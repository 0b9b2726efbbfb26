//! The HTTP server from outside: real requests over loopback.

#[path = "../support/mod.rs"]
mod support;

mod about;
mod bounds;
mod client;
mod job;
mod predict;
