//! With what foreshock talks: the command line, configuration, files and brokers.

pub mod account;
pub mod backtest;
pub mod cli;
pub mod config;
pub mod http;
pub mod kafka;
pub mod logs;
pub mod metrics;
pub mod models;
pub mod status;
