//! Appends single records of ours to a log.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result};
use foreshock_dataflows::control::HEADER;

use crate::config::Kafka;
use crate::kafka::sender::{Outgoing, Sender};

/// How long a record may take to arrive.
const WITHIN: Duration = Duration::from_secs(30);

/// Appends a control record to partitions of a topic and waits until it is there.
///
/// # Errors
/// When some have not taken it in time; others may have.
pub fn append(kafka: &Kafka, client_id: &str, topic: &str, partitions: &[i32], record: &[u8]) -> Result<()> {
    let what = || format!("could not append a control record to {topic:?}");
    let mut sender = Sender::new(kafka, client_id, topic, record.len()).with_context(what)?;
    let never = AtomicBool::new(false);
    for partition in partitions {
        let message = Outgoing {
            partition: *partition,
            key: Some(b"control"),
            value: record,
            headers: &[(HEADER, b"1")],
            tag: *partition as usize,
        };
        sender.send(&message, &never);
    }
    sender.drain(WITHIN).with_context(what)?;
    match sender.failure() {
        Some(failure) => {
            let (count, first) = (failure.count, failure.tag);
            Err(failure.error).with_context(|| {
                format!("{count} partitions of {topic:?} did not take the record, first {first}")
            })
        }
        None => Ok(()),
    }
}
