//! What brokers know of a job: the offsets it has committed, and where its logs begin and end.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Kafka;
use crate::kafka::client::{Role, Words, client_config, refused};

/// Asks for offsets. Reads no messages.
pub struct Offsets {
    consumer: BaseConsumer<Words>,
}

/// One end of a log and the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is still there.
    pub low: i64,
    /// The offset behind the last message.
    pub high: i64,
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to process.
    pub offset: i64,
    /// The text that was committed with it; may be empty.
    pub metadata: String,
}

impl Offsets {
    /// A client of its own for a group.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn connect(kafka: &Kafka, group: &str) -> Result<Offsets> {
        // With the default a log would end before an open transaction.
        Offsets::isolated(kafka, group, "read_uncommitted")
    }

    /// The same, but an offset that an open transaction may yet change is asked for again until it is settled, and
    /// logs end before open transactions.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn connect_settled(kafka: &Kafka, group: &str) -> Result<Offsets> {
        Offsets::isolated(kafka, group, "read_committed")
    }

    fn isolated(kafka: &Kafka, group: &str, level: &str) -> Result<Offsets> {
        let mut config = client_config(kafka, group, Role::Admin);
        config.set("isolation.level", level);
        Ok(Offsets { consumer: refused(config.create_with_context(Words), "consumer")? })
    }

    /// How many partitions a topic has by now.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub fn partitions(&self, topic: &str, at_most: Duration) -> Result<usize, KafkaError> {
        let answer = self.consumer.fetch_metadata(Some(topic), at_most);
        self.listen();
        let metadata = answer?;
        Ok(metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic)
            .map_or(0, |found| found.partitions().len()))
    }

    /// Lets the client tell what it has to say of itself: without this nobody would learn why a broker refuses.
    fn listen(&self) {
        while self.consumer.poll(Duration::ZERO).is_some() {}
    }

    /// Where a partition's log begins and ends.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub fn bounds(&self, topic: &str, partition: i32, at_most: Duration) -> Result<Bounds, KafkaError> {
        let ask = || self.consumer.fetch_watermarks(topic, partition, at_most);
        let answer = ask().or_else(|error| {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::UnknownPartition) {
                return Err(error);
            }
            // A broker that was just stopping or starting has said that the partition has no leader. The library
            // believes that for a quarter of an hour, and asks nobody; metadata it asks for each time.
            self.consumer.fetch_metadata(Some(topic), at_most)?;
            ask()
        });
        self.listen();
        let (low, high) = answer?;
        Ok(Bounds { low, high })
    }

    /// The committed offsets of these partitions, `None` where there is none.
    ///
    /// # Errors
    /// When no coordinator answers in time, or refuses.
    pub fn committed(&self, partitions: &[(String, i32)], at_most: Duration) -> Result<Vec<Option<i64>>> {
        let found = self.committed_texts(partitions, at_most)?;
        Ok(found.into_iter().map(|found| found.map(|committed| committed.offset)).collect())
    }

    /// The committed offsets of these partitions with the texts that were committed with them, `None` where there is
    /// none.
    ///
    /// # Errors
    /// When no coordinator answers in time, or refuses.
    pub fn committed_texts(
        &self,
        partitions: &[(String, i32)],
        at_most: Duration,
    ) -> Result<Vec<Option<Committed>>> {
        let mut asked = TopicPartitionList::new();
        for (topic, partition) in partitions {
            asked.add_partition(topic, *partition);
        }
        let answer = self.consumer.committed_offsets(asked, at_most);
        self.listen();
        let answer = answer.context("could not read committed offsets")?;
        let find = |(topic, partition): &(String, i32)| {
            let Some(found) = answer.find_partition(topic, *partition) else { return Ok(None) };
            found
                .error()
                .with_context(|| format!("could not read the committed offset of {topic}/{partition}"))?;
            Ok(match found.offset() {
                Offset::Offset(offset) => Some(Committed { offset, metadata: found.metadata().to_owned() }),
                _ => None,
            })
        };
        partitions.iter().map(find).collect()
    }
}

/// An error that passes, for a reason of our own.
pub fn not_yet(why: &str) -> anyhow::Error {
    anyhow::Error::new(KafkaError::OffsetFetch(RDKafkaErrorCode::UnstableOffsetCommit))
        .context(why.to_owned())
}

/// Whether an error, at its root, says that brokers are away: then the same may pass later.
pub fn passes(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<KafkaError>()).any(is_away)
}

/// Whether an error says that brokers are away or busy with themselves, rather than that what was asked is wrong.
pub fn is_away(error: &KafkaError) -> bool {
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    matches!(
        code,
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::TimedOutQueue
                | RDKafkaErrorCode::NetworkException
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::WaitingForCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::NoOffset
                | RDKafkaErrorCode::OffsetNotAvailable
                | RDKafkaErrorCode::UnstableOffsetCommit
                | RDKafkaErrorCode::LeaderNotAvailable
                // What the library says of a partition that has no leader.
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::ReplicaNotAvailable
                | RDKafkaErrorCode::KafkaStorageError
                | RDKafkaErrorCode::NotController
        )
    )
}
