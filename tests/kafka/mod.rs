//! `foreshock run` from outside, with `foreshock replay` before it and a real Kafka between: the one that
//! `KAFKA_BOOTSTRAP_SERVERS` names, or one of its own where brokers are to go away (`scripts/kafka`).

mod alike;
mod codecs;
mod control;
mod exactly_once;
mod job;
mod lag;
mod offsets;
mod outages;
mod own;
mod poison;
mod processes;
mod refusals;
