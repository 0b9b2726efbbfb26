//! Commits offsets, with a bound on the wait.
//!
//! The library's own call waits for a coordinator as long as there is none, so it has a thread of its own, which
//! the process does not wait for at its end.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Kafka;
use crate::kafka::client::{Role, Words, client_config, refused};

/// Commits for one group.
pub struct Commits {
    requests: Sender<TopicPartitionList>,
    answers: Receiver<Result<(), KafkaError>>,
    /// A request has had no answer yet.
    is_open: Cell<bool>,
}

impl Commits {
    /// A client of its own for a group.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn connect(kafka: &Kafka, group: &str) -> Result<Commits> {
        let config = client_config(kafka, group, Role::Admin);
        let consumer: BaseConsumer<Words> = refused(config.create_with_context(Words), "consumer")?;
        let (requests, taken) = bounded::<TopicPartitionList>(1);
        let (answer, answers) = bounded(1);
        let serve = move || {
            for offsets in taken {
                let done = consumer.commit(&offsets, CommitMode::Sync);
                // What the client has to say of itself; nothing is assigned, so no message is read.
                while consumer.poll(Duration::ZERO).is_some() {}
                if answer.send(done).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("commits".to_owned()).spawn(serve).context("could not start a thread")?;
        Ok(Commits { requests, answers, is_open: Cell::new(false) })
    }

    /// Commits these offsets, each with a note, and waits for the answer, but no longer than this.
    ///
    /// # Errors
    /// When the coordinator refuses, or has not answered by then.
    pub fn commit<'a>(
        &self,
        offsets: impl Iterator<Item = (&'a str, i32, i64, &'a str)>,
        at_most: Duration,
    ) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, offset, note) in offsets {
            let mut place = list.add_partition(topic, partition);
            place.set_offset(Offset::Offset(offset))?;
            if !note.is_empty() {
                place.set_metadata(note);
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        let deadline = Instant::now() + at_most;
        if self.is_open.get() {
            // Whatever it says, newer offsets follow.
            let _ = self.answer(deadline)?;
        }
        let gone = || KafkaError::ConsumerCommit(RDKafkaErrorCode::Fail);
        self.requests.send(list).map_err(|_| gone()).context("could not commit offsets")?;
        self.is_open.set(true);
        self.answer(deadline)?.context("could not commit offsets")
    }

    fn answer(&self, deadline: Instant) -> Result<Result<(), KafkaError>> {
        let late = || KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut);
        let answer = self.answers.recv_deadline(deadline).map_err(|_| late());
        let answer = answer.context("could not commit offsets: no coordinator has answered")?;
        self.is_open.set(false);
        Ok(answer)
    }
}
