//! The HTTP server from outside: real requests over loopback.

mod about;
mod bounds;
mod client;
mod job;
mod overflow;
mod predict;
