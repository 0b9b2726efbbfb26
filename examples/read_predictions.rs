//! Reads predictions from their topic, as any program behind foreshock does, and prints those of a spike.
//!
//! `cargo run --release --example read_predictions -- 127.0.0.1:9092 [TOPIC]` reads what is committed from the topic's
//! beginning, and goes on until Ctrl-C. Nothing here is foreshock's but the names of fields (docs/outputs.md).

use std::env;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use serde::Deserialize;

/// The fields that are looked at; others are passed over, so that new ones do no harm.
#[derive(Deserialize)]
struct Prediction {
    exchange: String,
    instrument: String,
    event_time: String,
    probability: f64,
    prediction: u8,
    model_name: String,
    model_version: String,
}

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let brokers = args.next().context("usage: read_predictions HOST:PORT [TOPIC]")?;
    let topic = args.next().unwrap_or_else(|| "ticks.predictions".to_owned());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "read-predictions")
        .set("auto.offset.reset", "earliest")
        // With exactly-once delivery, each record is there once for readers of committed rows.
        .set("isolation.level", "read_committed")
        .create()?;
    consumer.subscribe(&[&topic])?;
    loop {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
        let message = message.with_context(|| format!("could not read {topic}"))?;
        let value = message.payload().unwrap_or_default();
        let row: Prediction = serde_json::from_slice(value).with_context(|| {
            format!("{topic}/{}/{}: no prediction", message.partition(), message.offset())
        })?;
        if row.prediction == 1 {
            // The row of the input that this prediction is about: topic/partition/offset/row.
            let source = message.headers().and_then(|headers| headers.iter().find(|h| h.key == "source"));
            let source = String::from_utf8_lossy(source.and_then(|header| header.value).unwrap_or_default());
            let Prediction { exchange, instrument, event_time, probability, .. } = row;
            let model = format!("{} {}", row.model_name, row.model_version);
            println!("{event_time}  {exchange}:{instrument}  {probability:.3} by {model}, of {source}");
        }
    }
}
