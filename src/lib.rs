//! With what foreshock talks: the command line, configuration, files and brokers.

pub mod account;
pub mod backtest;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod documents;
pub mod faults;
pub mod halt;
pub mod hex;
pub mod http;
pub mod kafka;
pub mod launch;
pub mod live;
pub mod logs;
pub mod metrics;
pub mod misuse;
pub mod models;
mod process_metrics;
pub mod recordings;
pub mod replay;
pub mod state;
pub mod status;
pub mod summary;
