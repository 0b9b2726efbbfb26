//! Clients: their properties, and what they have to say meanwhile.

use anyhow::{Context as _, Result};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tracing::{debug, error, info, warn};

use crate::config::Kafka;

/// Properties of all clients. Ours come first, so that configuration can change each of them.
const ALL: [(&str, &str); 6] = [
    // A broker that is back should be met again within a second; librdkafka adds jitter of its own.
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    // A broker that takes a connection and then says nothing, as one may that is just starting, is left again.
    ("socket.connection.setup.timeout.ms", "5000"),
    ("socket.timeout.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    ("log.connection.close", "false"),
];

const CONSUMER: [(&str, &str); 8] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // An offset that is gone is for us to judge, not to be skipped over silently.
    ("auto.offset.reset", "error"),
    ("fetch.wait.max.ms", "10"),
    ("fetch.error.backoff.ms", "100"),
    // With the default of a second a reader that is faster than the broker stands still most of the time.
    ("fetch.queue.backoff.ms", "5"),
    ("queued.min.messages", "20000"),
    ("isolation.level", "read_committed"),
];

const PRODUCER: [(&str, &str); 6] = [
    ("enable.idempotence", "true"),
    // A row that can't be delivered now waits until it can: its input isn't read on meanwhile.
    ("message.timeout.ms", "0"),
    ("linger.ms", "2"),
    ("retry.backoff.ms", "50"),
    ("compression.codec", "none"),
    ("queue.buffering.max.messages", "200000"),
];

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Consumer,
    Producer,
    /// Asks for topics and offsets, and commits.
    Admin,
}

/// The properties of a client, as librdkafka takes them.
pub fn client_config(kafka: &Kafka, group: &str, role: Role) -> ClientConfig {
    let mut config = ClientConfig::new();
    let own: &[(&str, &str)] = match role {
        Role::Producer => &PRODUCER,
        Role::Consumer | Role::Admin => &CONSUMER,
    };
    for (name, value) in ALL.iter().chain(own) {
        config.set(*name, *value);
    }
    config.set("bootstrap.servers", &kafka.brokers);
    config.set("client.id", group);
    if role != Role::Producer {
        config.set("group.id", group);
    }
    let special = match role {
        Role::Producer => &kafka.producer_properties,
        Role::Consumer | Role::Admin => &kafka.consumer_properties,
    };
    for (name, value) in kafka.properties.iter().chain(special) {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Whether the configuration sets a property itself.
pub fn is_configured(kafka: &Kafka, role: Role, name: &str) -> bool {
    let special = match role {
        Role::Producer => &kafka.producer_properties,
        Role::Consumer | Role::Admin => &kafka.consumer_properties,
    };
    kafka.properties.iter().chain(special).any(|(known, _)| known == name)
}

/// Property: how much a producer may hold.
const HELD_KBYTES: &str = "queue.buffering.max.kbytes";

/// The least that a producer may hold: more than the largest record.
const HELD_KBYTES_MIN: usize = 1024;

/// Bounds what a producer holds, unless the configuration does.
pub fn hold_at_most(config: &mut ClientConfig, kafka: &Kafka, bytes: usize) {
    if !is_configured(kafka, Role::Producer, HELD_KBYTES) {
        config.set(HELD_KBYTES, (bytes / 1024).max(HELD_KBYTES_MIN).to_string());
    }
}

/// What to add to the error of a client that could not be made.
pub fn refused<T>(made: Result<T, KafkaError>, what: &str) -> Result<T> {
    made.with_context(|| {
        format!("could not make a Kafka {what}: see kafka.properties and their like in the configuration")
    })
}

/// Takes a client's own words into the log.
#[derive(Clone, Debug, Default)]
pub struct Words;

impl ClientContext for Words {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(target: "foreshock::kafka::client", facility, "{message}");
            }
            // A broker that is away is told of once, by the job itself; a coordinator that loads is asked again.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning
                if matches!(facility, "FAIL" | "GETPID" | "COORD" | "ERROR") =>
            {
                debug!(target: "foreshock::kafka::client", facility, "{message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                warn!(target: "foreshock::kafka::client", facility, "{message}");
            }
            RDKafkaLogLevel::Notice => info!(target: "foreshock::kafka::client", facility, "{message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                debug!(target: "foreshock::kafka::client", facility, "{message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // No error: the queue of the partition has told of it.
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PartitionEOF)) {
            return;
        }
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::PollExceeded,
            ) => debug!(target: "foreshock::kafka::client", %error, reason, "a broker is away"),
            _ => warn!(target: "foreshock::kafka::client", %error, reason, "a Kafka client met an error"),
        }
    }
}
