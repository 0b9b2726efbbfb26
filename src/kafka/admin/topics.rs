//! Topics: how many partitions one has, and its creation where it is missing.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::info;

use crate::config::Kafka;
use crate::kafka::client::{Role, Words, client_config, refused};

/// How long brokers may take to answer a question about topics.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a topic that was created may take to show, with a leader for each partition.
const SHOW_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a topic that was created is looked for.
const SHOW_TICK: Duration = Duration::from_millis(50);

/// Asks brokers about topics.
pub struct TopicAdmin {
    kafka: Kafka,
    group: String,
    /// A consumer, since only as one the library can ask for a topic without having it created.
    client: BaseConsumer<Asking>,
}

impl TopicAdmin {
    /// Makes the client; brokers are not asked yet.
    ///
    /// # Errors
    /// When a property in the configuration is none of librdkafka's.
    pub fn new(kafka: &Kafka, group: &str) -> Result<TopicAdmin> {
        let mut config = client_config(kafka, group, Role::Admin);
        config.set("allow.auto.create.topics", "false");
        let client = refused(BaseConsumer::from_config_and_context(&config, Asking), "client")?;
        Ok(TopicAdmin { kafka: kafka.clone(), group: group.to_owned(), client })
    }

    /// How many partitions a topic has; `None` where there is no such topic. Creates nothing.
    ///
    /// # Errors
    /// When no broker answers in time, or the topic can't be looked at.
    pub fn partitions(&self, topic: &str) -> Result<Option<i32>> {
        Ok(self.look(topic)?.map(|found| found.partitions))
    }

    /// The partitions of a topic, which is created with `wanted` partitions where it is missing and
    /// `kafka.create_topics` allows it.
    ///
    /// # Errors
    /// Those of [`TopicAdmin::partitions`] and [`TopicAdmin::create`], and when the topic is missing and may not be created.
    pub fn ensure(&self, topic: &str, wanted: i32) -> Result<i32> {
        if let Some(partitions) = self.partitions(topic)? {
            return Ok(partitions);
        }
        if !self.kafka.create_topics {
            bail!(
                "there is no topic {topic:?} at {}, and kafka.create_topics is false: create it, or name another",
                self.kafka.brokers
            );
        }
        self.create(topic, wanted)?;
        // Somebody else may have been faster, with another number.
        self.partitions(topic)?.ok_or_else(|| anyhow!("the topic {topic:?} is gone again"))
    }

    /// Creates a topic and waits until it can be used; one that exists by now is left as it is.
    ///
    /// # Errors
    /// When the brokers refuse, do not answer, or do not show the topic in time.
    pub fn create(&self, topic: &str, partitions: i32) -> Result<()> {
        let what = || format!("could not create the topic {topic:?} with {partitions} partitions");
        let config = client_config(&self.kafka, &self.group, Role::Admin);
        let admin = refused(AdminClient::from_config_and_context(&config, Words), "admin client")?;
        // -1 leaves the number to the brokers.
        let replication = TopicReplication::Fixed(self.kafka.replication_factor.unwrap_or(-1));
        let new = NewTopic::new(topic, partitions, replication);
        let options =
            AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT)).operation_timeout(Some(ANSWER_TIMEOUT));
        let runtime = tokio::runtime::Builder::new_current_thread().build().with_context(what)?;
        let answers = runtime
            .block_on(admin.create_topics(&[new], &options))
            .map_err(|error| without_admin(&error).unwrap_or(error.into()))
            .with_context(what)?;
        for answer in answers {
            match answer {
                Ok(_) => info!(topic, partitions, "created a topic"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => {
                    let error =
                        without_admin(&KafkaError::AdminOp(code)).unwrap_or(KafkaError::AdminOp(code).into());
                    return Err(error).with_context(what);
                }
            }
        }
        let deadline = Instant::now() + SHOW_TIMEOUT;
        while !self.look(topic)?.is_some_and(|found| found.led) {
            if Instant::now() >= deadline {
                bail!(
                    "the topic {topic:?} was created, but did not show within {} s",
                    SHOW_TIMEOUT.as_secs()
                );
            }
            // Metadata can only be asked for again.
            thread::sleep(SHOW_TICK);
        }
        Ok(())
    }

    fn look(&self, topic: &str) -> Result<Option<Found>> {
        let what = || format!("could not look at the topic {topic:?} at {}", self.kafka.brokers);
        let answer = self.client.fetch_metadata(Some(topic), ANSWER_TIMEOUT);
        // What the client has to say of itself, such as why a broker refuses it.
        while self.client.poll(Duration::ZERO).is_some() {}
        let metadata = answer.map_err(|error| {
            let away = matches!(
                error.rdkafka_error_code(),
                Some(
                    RDKafkaErrorCode::BrokerTransportFailure
                        | RDKafkaErrorCode::AllBrokersDown
                        | RDKafkaErrorCode::OperationTimedOut
                        | RDKafkaErrorCode::Resolve
                )
            );
            if away {
                anyhow::Error::new(error).context(format!(
                    "no broker answered within {} s; see kafka.brokers in the configuration",
                    ANSWER_TIMEOUT.as_secs()
                ))
            } else {
                error.into()
            }
        });
        let metadata = metadata.with_context(what)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(None);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Ok(None);
            }
            // Its partitions have no leaders for a moment after it was created.
            Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
            Some(code) => return Err(KafkaError::MetadataFetch(code)).with_context(what),
        }
        let partitions = found.partitions();
        if partitions.is_empty() {
            return Ok(None);
        }
        let led = partitions.iter().all(|partition| partition.leader() >= 0);
        Ok(Some(Found { partitions: partitions.len() as i32, led }))
    }
}

/// The context of a consumer that only asks.
struct Asking;

impl ClientContext for Asking {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Words.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Words.error(error, reason);
    }
}

impl ConsumerContext for Asking {}

/// What metadata says of a topic.
struct Found {
    partitions: i32,
    /// Whether each partition has a leader.
    led: bool,
}

/// What to say of brokers that know no `CreateTopics`, such as librdkafka's mock cluster: they answer late or never.
fn without_admin(error: &KafkaError) -> Option<anyhow::Error> {
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    let is_unanswered = matches!(
        code,
        Some(
            RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::UnsupportedFeature
        )
    );
    is_unanswered.then(|| {
        anyhow!(
            "the brokers answer other questions, but not this one ({error}): they may not support it, as mock \
             clusters do not; create the topic by their own means"
        )
    })
}
