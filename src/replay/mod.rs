//! Feeds recorded files into a Kafka topic, at the pace at which they were recorded or another.
//!
//! ```text
//! files ─reader thread─► lines ─► key, partition, headers ─wait until due─► producer ─► topic
//!   ▲                      │
//!   └──── next pass ◄──────┘ --loop: times and ids moved
//! ```

pub mod pace;
pub mod passes;
mod play;
mod reader;
pub mod summary;

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use anyhow::{Result, bail};
use foreshock_operators::time::Nanos;
use tracing::info;

use crate::config::Kafka;
use crate::kafka::admin::topics::TopicAdmin;
use crate::kafka::sender::Sender;
use crate::misuse::Misuse;
use crate::recordings::input::RecordedInput;
use crate::recordings::log::LogSettings;

use pace::Pace;
use play::Play;
use reader::{ReaderMessage, next};
use summary::ReplaySummary;

/// Recorded files to be played.
#[derive(Clone, Debug)]
pub struct Feed {
    pub log: LogSettings,
    pub pace: Pace,
    /// The longest wait between two messages.
    pub max_pause: Nanos,
    /// Ends the replay after so much recorded time.
    pub duration: Option<Nanos>,
    /// Starts over at the end of the log, with times and ids that go on.
    pub looped: bool,
}

/// Where messages go.
#[derive(Clone, Debug)]
pub struct Target {
    pub kafka: Kafka,
    pub client_id: String,
    pub topic: String,
    /// How many partitions the topic has; `None`: as many as it has, or `kafka.partitions` where it is missing.
    pub partitions: Option<i32>,
}

/// How far a replay has come, for whoever watches it.
#[derive(Debug, Default)]
pub struct ReplayCounters {
    /// Handed to the producer so far.
    pub messages: AtomicU64,
    pub bytes: AtomicU64,
    pub passes: AtomicU64,
}

impl Feed {
    /// Plays the log to its end, for the duration asked for, or until `stop` is set. Whatever the end, it waits for
    /// what was sent; the summary tells of messages that were not delivered.
    ///
    /// # Errors
    /// When the log can't be read or understood, brokers can't be reached, the topic can't be had as asked for, or
    /// messages are still on their way after `kafka.stop_timeout` without progress.
    pub fn run(
        &self,
        target: &Target,
        stop: &AtomicBool,
        counters: &ReplayCounters,
    ) -> Result<ReplaySummary> {
        if self.looped && self.log.inputs.contains(&RecordedInput::Stdin) {
            bail!(Misuse("standard input can be read only once: --loop takes files".to_owned()));
        }
        let news = reader::read(self.log.clone(), self.looped)?;
        // What can't be understood shall create no topic.
        let files = match next(&news, stop)? {
            Some(ReaderMessage::Opened(files)) => files,
            _ => bail!("stopped before the log was open"),
        };
        let partitions = partitions(target)?;
        let sender =
            Sender::new(&target.kafka, &target.client_id, &target.topic, self.log.max_message_bytes)?;
        info!(topic = target.topic, partitions, brokers = target.kafka.brokers, "feeding");
        let mut play = Play::new(self, files, partitions, sender, stop, counters);
        let started = Instant::now();
        let ended = play.run(&news);
        // What was sent is delivered even where the log turned out to be damaged.
        let drained = play.drain(target.kafka.stop_timeout);
        let ended = ended?;
        drained?;
        Ok(play.summary(target, ended, started.elapsed()))
    }
}

/// The topic's partitions, as they are or as they were asked for.
fn partitions(target: &Target) -> Result<i32> {
    let topics = TopicAdmin::new(&target.kafka, &target.client_id)?;
    let found = topics.ensure(&target.topic, target.partitions.unwrap_or(target.kafka.partitions))?;
    if let Some(wanted) = target.partitions.filter(|wanted| *wanted != found) {
        bail!(
            "the topic {:?} has {found} partitions, not {wanted}: leave out --partitions, or name another topic",
            target.topic
        );
    }
    Ok(found)
}
