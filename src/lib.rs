//! With what foreshock talks: configuration, files, brokers and the command line.

pub mod config;
pub mod models;
