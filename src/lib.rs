//! With what foreshock talks: the command line, configuration, files and brokers.

pub mod backtest;
pub mod cli;
pub mod config;
pub mod logs;
pub mod models;
