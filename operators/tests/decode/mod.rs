//! Decoders against real messages, and against what no venue should send.
//!
//! A message's fate is compared as one line of text: `control`, `ignored`, `refused wrong_type`, `contradiction
//! binance`, or its rows in order, each `quote`, `trade`, `heartbeat` or the reason why it was refused.

mod binance;
mod canonical;
mod coinbase;
mod fields;
mod messages;
mod okx;
mod recordings;
mod run;
mod shapes;
mod times;
