//! Transactions that brokers have taken for ended without writing so to each of their partitions.
//!
//! Kafka 4.3.1 leaves out partitions that have no leader just then, as while the only broker stops (docs/kafka.md). What
//! such a transaction wrote there stays hidden until the partition gets the end of another transaction of the same
//! producer, and shares its fate:
//!
//! ```text
//! offsets    outputs                     what is done
//! settled    nothing hidden              nothing
//! settled    hidden, from C on           undone: those rows are told of again
//! settled    hidden, from before C       left: they count as told, the next commit there shows them
//! hidden     none visible from C on      undone: those rows are told of again
//! hidden     some visible from C on      the job ends: they can be neither undone nor counted as done
//! ```
//! C is the committed offset that no end is missing for. All of this is looked at when the shard's producer has been
//! taken over, so that nobody else writes under its name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tracing::warn;

use super::Job;
use super::recovery::{ANSWER_WITHIN, Partition};
use crate::backtest::Misuse;
use crate::kafka::offsets::{Bounds, Committed, Offsets, not_yet, passes};
use crate::kafka::peek::{Told, first_told, last_told};
use crate::kafka::transactions::Client;

/// Offsets before what is hidden in an output that are looked through for the last visible row of a shard.
const LOOKED_THROUGH: i64 = 10_000;

/// Shards whose outputs are looked at at the same time.
const ASKED_AT_ONCE: usize = 16;

/// How long one look into an output may take.
const LOOK_WITHIN: Duration = Duration::from_secs(20);

/// Looks after what transactions have left behind.
pub struct Unended<'a> {
    job: &'a Job,
    /// Ends behind all records, and gives offsets that may be undone yet.
    offsets: &'a Offsets,
    /// Ends before what is hidden, and waits for offsets to be settled.
    settled: Offsets,
    /// How many partitions each output has.
    outputs: BTreeMap<&'a str, usize>,
}

/// What is hidden at the end of an output.
struct Hidden<'a> {
    output: &'a str,
    /// Where it begins.
    from: i64,
    /// What the first record of it tells.
    first: Option<Told>,
}

impl<'a> Unended<'a> {
    /// # Errors
    /// When brokers don't answer.
    pub fn look(job: &'a Job, offsets: &'a Offsets) -> Result<Unended<'a>> {
        let settled = Offsets::connect_settled(&job.config.kafka, &job.config.job)?;
        let mut outputs = BTreeMap::new();
        // Also those that this start does not write to: an earlier one may have.
        for topic in job.config.topics.output.values() {
            outputs.insert(topic.as_str(), offsets.partitions(topic, ANSWER_WITHIN)?);
        }
        Ok(Unended { job, offsets, settled, outputs })
    }

    /// What is committed for these shards, whose producers are given, when nothing of theirs is hidden any more.
    ///
    /// # Errors
    /// When brokers don't answer, or a transaction can't be undone.
    pub fn settle(&self, shards: &[Partition], clients: &[Arc<Client>]) -> Result<Vec<Option<Committed>>> {
        let answer = self.settled.committed_texts(shards, ANSWER_WITHIN);
        if answer.as_ref().is_err_and(|error| !passes(error)) {
            return answer;
        }
        let mut undone = false;
        for ((shard, client), hidden) in shards.iter().zip(clients).zip(self.all_hidden(shards)?) {
            // Not settled may be said of others, or by brokers that are slow.
            let is_settled = answer.is_ok() || self.is_settled(shard)?;
            if is_settled && hidden.iter().all(|hidden| !hidden.is_of(shard)) {
                continue;
            }
            if self.job.stop.load(Ordering::Relaxed) {
                return Err(not_yet("stopped while transactions without an end were looked for"));
            }
            undone |= self.mend(shard, client, is_settled, &hidden)?;
        }
        match answer {
            Ok(committed) if !undone => Ok(committed),
            _ => self.settled.committed_texts(shards, ANSWER_WITHIN),
        }
    }

    /// Undoes what has no end, where that is right; says whether it has.
    fn mend(&self, shard: &Partition, client: &Client, is_settled: bool, hidden: &[Hidden]) -> Result<bool> {
        let (topic, partition) = shard;
        let name = format!("{topic}/{partition}");
        let before = self.offsets.committed_texts(std::slice::from_ref(shard), ANSWER_WITHIN)?;
        let Some(before) = before.into_iter().next().flatten() else { return Ok(false) };
        let offset = before.offset;
        if is_settled {
            let counts_as_told = |hidden: &&Hidden| hidden.is_of(shard) && !hidden.tells_from(offset);
            if let Some(Hidden { output, from, .. }) = hidden.iter().find(counts_as_told) {
                warn!(
                    shard = name,
                    output,
                    from,
                    "rows that count as told are hidden: the brokers have not written the end of their transaction; \
                     the next transaction with a row there shows them"
                );
                return Ok(false);
            }
        } else {
            for output in self.outputs_with(*partition) {
                match hidden.iter().find(|hidden| hidden.output == output) {
                    Some(hidden) if hidden.is_of(shard) => {}
                    Some(hidden) if hidden.first.is_some() => {
                        return Err(not_yet(&format!(
                            "whether rows of {name} are visible in {output}/{partition} can't be told while another \
                             shard's transaction is open there"
                        )));
                    }
                    _ => self.assert_untold(&name, output, *partition, offset)?,
                }
            }
        }
        client.undo_unended(self.outputs_with(*partition), &before)?;
        if !self.is_settled(shard)? {
            bail!(Misuse(format!(
                "the brokers keep the offset of {name} for a transaction that has no end, of a producer that is not \
                 this job's any more: end it with kafka-transactions.sh abort, or go on under another job.name with \
                 other output topics"
            )));
        }
        self.job.metrics.job.aborted.inc();
        warn!(
            shard = name,
            offset,
            "undid a transaction that the brokers had taken for ended without writing its end: it is told of again"
        );
        Ok(true)
    }

    /// Makes sure that an output shows no row of a shard from an offset on.
    fn assert_untold(&self, shard: &str, output: &str, partition: i32, offset: i64) -> Result<()> {
        let (kafka, group) = (&self.job.config.kafka, &self.job.config.job);
        let bounds = self.bounds(&self.settled, output, partition)?;
        let place = (output, partition, bounds.low.max(bounds.high - LOOKED_THROUGH));
        let last = last_told(kafka, group, place, shard, LOOK_WITHIN)?;
        if last.is_none_or(|last| last < offset) {
            return Ok(());
        }
        bail!(Misuse(format!(
            "the brokers have ended a transaction of {shard} in {output}/{partition}, but not where offsets are kept: \
             outputs from offset {offset} on are visible, and can be neither undone nor counted as done; go on under \
             another job.name with other output topics"
        )))
    }

    /// What is hidden of each shard. There may be many, and nearly always nothing is.
    fn all_hidden(&self, shards: &[Partition]) -> Result<Vec<Vec<Hidden<'a>>>> {
        let mut found = Vec::new();
        for some in shards.chunks(ASKED_AT_ONCE) {
            let answers: Vec<_> = thread::scope(|scope| {
                let asking: Vec<_> = some.iter().map(|shard| scope.spawn(|| self.hidden(shard))).collect();
                asking.into_iter().map(|asking| asking.join()).collect()
            });
            for answer in answers {
                found.push(answer.map_err(|_| anyhow!("a thread panicked"))??);
            }
        }
        Ok(found)
    }

    /// What is hidden at the ends of the outputs of a shard.
    fn hidden(&self, (_, partition): &Partition) -> Result<Vec<Hidden<'a>>> {
        let (kafka, group) = (&self.job.config.kafka, &self.job.config.job);
        let mut found = Vec::new();
        for output in self.outputs_with(*partition) {
            let from = self.bounds(&self.settled, output, *partition)?.high;
            if from < self.bounds(self.offsets, output, *partition)?.high {
                let first = first_told(kafka, group, (output, *partition, from), LOOK_WITHIN)?;
                found.push(Hidden { output, from, first });
            }
        }
        Ok(found)
    }

    fn outputs_with(&self, partition: i32) -> impl Iterator<Item = &'a str> {
        let has = move |(_, partitions): &(&&str, &usize)| **partitions as i32 > partition;
        self.outputs.iter().filter(has).map(|(topic, _)| *topic)
    }

    fn is_settled(&self, shard: &Partition) -> Result<bool> {
        match self.settled.committed_texts(std::slice::from_ref(shard), ANSWER_WITHIN) {
            Ok(_) => Ok(true),
            Err(error) if passes(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn bounds(&self, offsets: &Offsets, output: &str, partition: i32) -> Result<Bounds> {
        offsets
            .bounds(output, partition, ANSWER_WITHIN)
            .with_context(|| format!("could not ask where {output}/{partition} begins and ends"))
    }
}

impl Hidden<'_> {
    fn is_of(&self, (topic, partition): &Partition) -> bool {
        self.first.as_ref().is_some_and(|told| told.shard == format!("{topic}/{partition}"))
    }

    fn tells_from(&self, offset: i64) -> bool {
        self.first.as_ref().is_some_and(|told| told.offset >= offset)
    }
}
