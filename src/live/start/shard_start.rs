//! Where a shard begins: its log, the state it goes on from, what it needs to go on.

use std::sync::Arc;

use super::incarnation::Incarnation;
use crate::kafka::admin::offsets::Bounds;
use crate::kafka::out::transactions::Client;
use crate::kafka::progress::Shard;
use crate::live::account::ShardAccount;

/// Where a shard begins, and what it needs for that.
pub struct ShardStart {
    pub shard: Shard,
    pub client: Arc<Client>,
    pub incarnation: Incarnation,
    pub account: ShardAccount,
    /// The offset of the snapshot that its state is from.
    pub saved: Option<i64>,
    /// What was gone, and what was done about it.
    pub lost: Option<String>,
}

impl ShardStart {
    /// Says that something was gone, and what was done about it.
    pub fn after(self, shard: &str, policy: &str, why: &str) -> ShardStart {
        ShardStart {
            lost: Some(format!("{shard} began as kafka.lost_offsets: {policy} says: {why}")),
            ..self
        }
    }
}

/// The state that a shard begins with, which is that behind `start`.
pub struct ResumePoint {
    pub start: i64,
    /// The offset of the snapshot that it is from.
    pub saved: Option<i64>,
    pub account: ShardAccount,
}

/// One shard, and where its log begins and ends.
pub struct ShardPlace<'a> {
    pub number: u32,
    pub topic: &'a str,
    pub partition: i32,
    pub bounds: Bounds,
}

impl ShardPlace<'_> {
    pub fn name(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    pub fn beginning(
        &self,
        client: Arc<Client>,
        incarnation: Incarnation,
        committed: i64,
        state: ResumePoint,
    ) -> ShardStart {
        let ResumePoint { start, saved, account } = state;
        let shard = Shard {
            topic: self.topic.to_owned(),
            partition: self.partition,
            start,
            emit_from: committed,
            end: self.bounds.high,
        };
        ShardStart { shard, client, incarnation, account, saved, lost: None }
    }

    /// Whether a job can go on at this offset.
    pub fn has(&self, offset: i64) -> bool {
        (self.bounds.low..=self.bounds.high).contains(&offset)
    }

    pub fn gone(&self, offset: i64) -> String {
        let Bounds { low, high } = self.bounds;
        format!(
            "it has read up to offset {offset}, but the broker has only {low} to {high}: records were removed, or \
             the topic was made anew"
        )
    }
}
