//! Appends single records of ours to a log.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::sender::{Outgoing, Sender};
use crate::config::Kafka;
use foreshock_dataflows::control::HEADER;

/// How long a record may take to arrive.
const WITHIN: Duration = Duration::from_secs(30);

/// Appends a control record to a partition and waits until it is there.
///
/// # Errors
/// When it is not, in time.
pub fn append(kafka: &Kafka, client_id: &str, (topic, partition): (&str, i32), record: &[u8]) -> Result<()> {
    let what = || format!("could not append a control record to {topic}/{partition}");
    let mut sender = Sender::new(kafka, client_id, topic, record.len()).with_context(what)?;
    let (key, headers): (_, &[(&str, &[u8])]) = (Some(b"control".as_slice()), &[(HEADER, b"1")]);
    let never = AtomicBool::new(false);
    sender.send(&Outgoing { partition, key, value: record, headers, tag: 0 }, &never);
    sender.drain(WITHIN).with_context(what)?;
    match sender.failure() {
        Some(failure) => Err(failure.error).with_context(what),
        None => Ok(()),
    }
}
