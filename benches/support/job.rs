//! Jobs to be measured, and what feeds them.

use std::sync::Arc;
use std::time::Duration;

use foreshock::config::{Config, Kafka, Mode};
use foreshock::kafka::client::{Role, client_config};
use foreshock::live::Job;
use foreshock::metrics::Metrics;
use foreshock::status::JobStatus;
use foreshock_operators::outputs::OutputKind;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// How long what was sent may take to arrive.
const DELIVERED_WITHIN: Duration = Duration::from_secs(60);

/// What a job of this name is told, which has topics of its own and takes all instruments.
pub fn settings(brokers: &str, name: &str) -> Vec<(String, String)> {
    let settings = [
        ("KAFKA__BROKERS", brokers.to_owned()),
        ("JOB__NAME", name.to_owned()),
        ("TOPICS__INPUT", format!("{name}.raw")),
        ("TOPICS__FEATURES", format!("{name}.features")),
        ("TOPICS__PREDICTIONS", format!("{name}.predictions")),
        ("HTTP__LISTEN", "off".to_owned()),
        ("INSTRUMENTS__UNKNOWN", "accept".to_owned()),
    ];
    settings.into_iter().map(|(key, value)| setting(key, &value)).collect()
}

/// One more setting.
pub fn setting(key: &str, value: &str) -> (String, String) {
    (format!("FORESHOCK_{key}"), value.to_owned())
}

/// The configuration that comes of settings.
pub fn config(settings: &[(String, String)], mode: Mode) -> Config {
    Config::load(&[], settings.iter().cloned(), mode).expect("the settings are valid")
}

/// A job of one worker in this process, that ends where its input ends.
pub fn job(config: &Config) -> Job {
    Job {
        config: config.clone(),
        workers: 1,
        kinds: vec![OutputKind::Features, OutputKind::Predictions],
        format: None,
        exchange: None,
        from_beginning: true,
        adopt: false,
        retry: false,
        until_end: true,
        job_status: Arc::<JobStatus>::default(),
        metrics: Metrics::new(&config.metrics),
        stop: Arc::default(),
    }
}

/// A producer with the job's own properties.
pub fn producer(kafka: &Kafka) -> BaseProducer {
    client_config(kafka, "bench", Role::Producer).create().expect("a producer can be made")
}

/// Hands a record over, as soon as there is room.
pub fn send<'a, K: ToBytes + ?Sized + 'a, P: ToBytes + ?Sized + 'a>(
    producer: &BaseProducer,
    record: impl Fn() -> BaseRecord<'a, K, P>,
) {
    while let Err((error, _)) = producer.send(record()) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(1));
    }
}

/// Waits until all is delivered.
pub fn flush(producer: &BaseProducer) {
    producer.flush(DELIVERED_WITHIN).expect("all is delivered");
}
