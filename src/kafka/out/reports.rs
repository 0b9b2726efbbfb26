//! What a producer's client reports of each record.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use crate::kafka::client::Words;
use crate::kafka::message::SOURCE;
use crate::kafka::out::in_flight::InFlight;

/// Takes a client's delivery reports.
#[derive(Clone)]
pub struct Reports {
    pub in_flight: Arc<Mutex<InFlight>>,
    /// Counts the clients: what an old one still says doesn't count.
    pub generation: u32,
}

impl Reports {
    /// What is on its way.
    pub fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, why: impl FnOnce() -> String) {
        let mut in_flight = self.in_flight();
        if in_flight.generation == self.generation {
            in_flight.failed.get_or_insert_with(why);
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Words.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fail(|| format!("the producer can't go on: {reason}"));
        }
        Words.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult, tag: usize) {
        match result {
            Ok(_) => {
                let (shard, number) = untag(tag);
                self.in_flight().arrived(self.generation, shard, number);
            }
            Err((error, message)) => self.fail(|| {
                let headers = message.headers();
                let source = headers.and_then(|headers| headers.iter().find(|header| header.key == SOURCE));
                let source = source.and_then(|header| header.value).map(String::from_utf8_lossy);
                format!(
                    "could not deliver an output of {} to {}/{}: {error}",
                    source.unwrap_or_default(),
                    message.topic(),
                    message.partition(),
                )
            }),
        }
    }
}

/// Bits of a record's tag that are its publication's number; the ones above are the shard's.
const NUMBER_BITS: u32 = 40;

/// A record's tag: what its report names it by.
pub fn tag(shard: u32, number: u64) -> usize {
    (u64::from(shard) << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1)) as usize
}

fn untag(tag: usize) -> (u32, u64) {
    ((tag as u64 >> NUMBER_BITS) as u32, tag as u64 & ((1 << NUMBER_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_holds_shard_and_number() {
        for (shard, number) in [(0, 0), (1, 7), (9_999_999, (1 << 40) - 1)] {
            assert_eq!(untag(tag(shard, number)), (shard, number));
        }
    }
}
