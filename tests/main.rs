//! The program from outside: its commands, files, topics and endpoints. One binary, since each links all libraries.

mod account;
mod bad_input;
mod cluster;
mod command_line;
mod config;
mod control;
mod demo;
mod golden;
mod house;
mod http;
mod kafka;
mod live_path;
mod looped;
mod market;
mod memory;
mod metrics;
mod mock;
mod models;
mod objects;
mod replay;
mod replay_command;
mod state;
mod subjects;
mod support;
mod transactions;
mod trees;
