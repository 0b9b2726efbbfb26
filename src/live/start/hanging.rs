//! Hanging transactions (KIP-664): brokers have taken them for ended without writing so to each of their partitions.
//!
//! Kafka 4.3.1 leaves out partitions that have no leader just then, as while the only broker stops (docs/kafka.md). What
//! such a transaction wrote there stays hidden until the partition gets the end of another transaction of the same
//! producer, and shares its fate:
//!
//! ```text
//! offsets   rows of the shard in outputs      what is done
//! settled   nothing hidden                    nothing
//! either    hidden, some from C on            undone there, and emitted again
//! either    hidden, all from before C         left: they count as emitted, the next commit there shows them
//! hidden    none visible from C on            undone, and emitted again
//! hidden    some visible from C on            the job ends: they can be neither undone nor counted as done
//! ```
//! C is the committed offset that no end is missing for. All of this is looked at when the shard's producer has been
//! taken over, so that nobody else writes under its name. Where the note beside C says that a row was waiting there
//! (`order.reorder`, `input.max_jump`) an output of a row before C may belong to either side, and nothing is done that could
//! be wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tracing::warn;

use super::OFFSETS_WITHIN;
use crate::kafka::admin::offsets::{Bounds, Committed, Offsets, not_yet, passes};
use crate::kafka::admin::peek::{Sight, emitted_rows};
use crate::kafka::out::exactly_once::HAS_WAITING;
use crate::kafka::out::transactions::Client;
use crate::kafka::progress::Partition;
use crate::live::Job;
use crate::misuse::Misuse;

/// Offsets at the end of what is visible that are looked through for rows of a shard; more where there are none.
const LOOKED_THROUGH: i64 = 10_000;

/// How often shards are looked at again because something of another one was undone.
const ROUNDS: usize = 3;

/// Shards whose outputs are looked at at the same time.
const ASKED_AT_ONCE: usize = 16;

/// How long one look into an output may take.
const LOOK_WITHIN: Duration = Duration::from_secs(20);

/// Looks after what transactions have left behind.
pub struct HangingTransactions<'a> {
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
    /// The largest offset of the shard's rows in it; `None`: it has none.
    own: Option<i64>,
    /// Another shard's transaction stands before all: what has ended is hidden behind it too.
    is_blocked: bool,
}

/// What came of looking at a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mended {
    /// There was nothing to do.
    Nothing,
    Undone,
    /// It can't be judged while another shard's transaction has no end.
    Later,
}

impl<'a> HangingTransactions<'a> {
    /// # Errors
    /// When brokers don't answer.
    pub fn look(job: &'a Job, offsets: &'a Offsets) -> Result<HangingTransactions<'a>> {
        let settled = Offsets::connect_settled(&job.config.kafka, &job.config.job)?;
        let mut outputs = BTreeMap::new();
        // Also those that this start does not write to: an earlier one may have.
        for topic in job.config.topics.output.values() {
            outputs.insert(topic.as_str(), offsets.partitions(topic, OFFSETS_WITHIN)?);
        }
        Ok(HangingTransactions { job, offsets, settled, outputs })
    }

    /// What is committed for these shards, whose producers are given, when nothing of theirs is hidden any more.
    ///
    /// # Errors
    /// When brokers don't answer, or a transaction can't be undone.
    pub fn resolve(&self, shards: &[Partition], clients: &[Arc<Client>]) -> Result<Vec<Option<Committed>>> {
        let answer = self.settled.committed_texts(shards, OFFSETS_WITHIN);
        if answer.as_ref().is_err_and(|error| !passes(error)) {
            return answer;
        }
        let mut undone = false;
        for _ in 0..ROUNDS {
            let mut found = Vec::new();
            for ((shard, client), hidden) in shards.iter().zip(clients).zip(self.all_hidden(shards)?) {
                // Not settled may be said of others, or by brokers that are slow.
                let is_settled = answer.is_ok() || self.is_settled(shard)?;
                if is_settled && hidden.iter().all(|hidden| hidden.own.is_none()) {
                    continue;
                }
                if self.job.stop.load(Ordering::Relaxed) {
                    return Err(not_yet("stopped while transactions without an end were looked for"));
                }
                found.push(self.mend(shard, client, is_settled, &hidden)?);
            }
            let has = |what| found.contains(&what);
            undone |= has(Mended::Undone);
            match (has(Mended::Later), has(Mended::Undone)) {
                // What stood in the way may be gone.
                (true, true) => {}
                (true, false) => {
                    let shards = "a shard's transaction without an end is hidden behind another shard's";
                    return Err(not_yet(&format!("{shards} that has not ended yet")));
                }
                (false, _) => break,
            }
        }
        match answer {
            Ok(committed) if !undone => Ok(committed),
            _ => self.settled.committed_texts(shards, OFFSETS_WITHIN),
        }
    }

    /// Undoes what has no end, where that is right.
    fn mend(
        &self,
        shard: &Partition,
        client: &Client,
        is_settled: bool,
        hidden: &[Hidden],
    ) -> Result<Mended> {
        let (topic, partition) = shard;
        let name = format!("{topic}/{partition}");
        let before = self.offsets.committed_texts(std::slice::from_ref(shard), OFFSETS_WITHIN)?;
        let Some(before) = before.into_iter().next().flatten() else { return Ok(Mended::Nothing) };
        let offset = before.offset;
        let (untold, emitted_rows): (Vec<&Hidden>, Vec<&Hidden>) = hidden
            .iter()
            .filter(|hidden| hidden.own.is_some())
            .partition(|hidden| hidden.own >= Some(offset));
        if !emitted_rows.is_empty() && before.metadata.split(' ').any(|word| word == HAS_WAITING) {
            bail!(Misuse(format!(
                "the brokers have not written the end of a transaction of {name}, and rows before offset {offset} were \
                 waiting there (order.reorder, input.max_jump), so they may be told or not; go on under another job.name \
                 with other output topics"
            )));
        }
        for Hidden { output, .. } in &emitted_rows {
            warn!(
                shard = name,
                output,
                "rows that count as told are hidden: the brokers have not written the end of their transaction; the \
                 next transaction with a row there shows them"
            );
        }
        if is_settled && untold.is_empty() {
            return Ok(Mended::Nothing);
        }
        // A rewound job emits everything again, so what is visible says nothing.
        if !is_settled && !self.job.from_beginning {
            for output in self.outputs_with(*partition) {
                self.assert_untold(&name, output, *partition, offset)?;
            }
            if hidden.iter().any(|hidden| hidden.is_blocked && hidden.own.is_none()) {
                return Ok(Mended::Later);
            }
        }
        client.abort_hanging(untold.iter().map(|hidden| hidden.output), &before)?;
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
        Ok(Mended::Undone)
    }

    /// Makes sure that an output shows no row of a shard from an offset on.
    fn assert_untold(&self, shard: &str, output: &str, partition: i32, offset: i64) -> Result<()> {
        let (kafka, group) = (&self.job.config.kafka, &self.job.config.job);
        let bounds = self.bounds(&self.settled, output, partition)?;
        let mut length = LOOKED_THROUGH;
        let last = loop {
            let from = bounds.low.max(bounds.high - length);
            let found = emitted_rows(kafka, group, (output, partition, from), Sight::Visible, LOOK_WITHIN)?;
            match found.largest.get(shard) {
                None if from > bounds.low => length *= 10,
                last => break last.copied(),
            }
        };
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
    fn hidden(&self, (topic, partition): &Partition) -> Result<Vec<Hidden<'a>>> {
        let (kafka, group) = (&self.job.config.kafka, &self.job.config.job);
        let shard = format!("{topic}/{partition}");
        let mut hidden = Vec::new();
        for output in self.outputs_with(*partition) {
            let from = self.bounds(&self.settled, output, *partition)?.high;
            if from < self.bounds(self.offsets, output, *partition)?.high {
                let found = emitted_rows(kafka, group, (output, *partition, from), Sight::All, LOOK_WITHIN)?;
                let is_blocked = found.first.is_some_and(|first| first != shard);
                hidden.push(Hidden { output, own: found.largest.get(&shard).copied(), is_blocked });
            }
        }
        Ok(hidden)
    }

    fn outputs_with(&self, partition: i32) -> impl Iterator<Item = &'a str> {
        let has = move |(_, partitions): &(&&str, &usize)| **partitions as i32 > partition;
        self.outputs.iter().filter(has).map(|(topic, _)| *topic)
    }

    /// Whether a shard's offset is settled. Brokers that are slow or away are no answer.
    fn is_settled(&self, shard: &Partition) -> Result<bool> {
        let shard = std::slice::from_ref(shard);
        match self.settled.committed_texts(shard, OFFSETS_WITHIN) {
            Ok(_) => Ok(true),
            // The two look the same from here.
            Err(error) if passes(&error) => {
                self.offsets.committed_texts(shard, OFFSETS_WITHIN).map(|_| false)
            }
            Err(error) => Err(error),
        }
    }

    fn bounds(&self, offsets: &Offsets, output: &str, partition: i32) -> Result<Bounds> {
        offsets
            .bounds(output, partition, OFFSETS_WITHIN)
            .with_context(|| format!("could not ask where {output}/{partition} begins and ends"))
    }
}
