//! How a shard begins where its next row or its state is gone: as `kafka.lost_offsets` says.

use std::sync::Arc;

use anyhow::{Result, bail};
use foreshock_dataflows::market::Market;
use tracing::warn;

use super::incarnation::{Incarnation, ParentIncarnation};
use super::recovery::Recovery;
use super::shard_start::{ResumePoint, ShardPlace, ShardStart};
use crate::config::LostOffsets;
use crate::kafka::out::transactions::Client;
use crate::live::account::ShardAccount;

impl Recovery<'_> {
    /// Does what is configured where rows or the state before the committed offset are gone.
    pub(super) fn begin_lost(
        &self,
        place: &ShardPlace,
        client: Arc<Client>,
        incarnation: Option<Incarnation>,
        committed: i64,
        why: &str,
        market: &mut Market,
    ) -> Result<ShardStart> {
        let (shard, low, job) = (place.name(), place.bounds.low, &self.job.config.job);
        let policy = self.job.config.kafka.lost_offsets;
        if policy == LostOffsets::Fail {
            bail!(
                "the job {job:?} can't go on with {shard} where it was: {why}; start with --from-beginning to read \
                 what is there from empty windows, or see kafka.lost_offsets"
            );
        }
        // Where the next row is still there only the state is lost.
        let next = if place.has(committed) { committed } else { low };
        let Some(old) = incarnation.filter(|_| policy == LostOffsets::Gap) else {
            warn!(shard, offset = low, why, "beginning anew, with empty windows");
            let beginning = self.begin_cold(place, client, low, market)?;
            return Ok(beginning.after(&shard, "earliest", why));
        };
        let found = self.restore_lost(place, &old, next, market)?;
        let Some((from, account)) = found else {
            warn!(
                shard,
                offset = next,
                why,
                "no snapshot tells of which instruments: going on with empty windows"
            );
            let beginning = self.begin_cold(place, client, next, market)?;
            return Ok(beginning.after(&shard, "gap", why));
        };
        warn!(shard, offset = next, why, "going on with empty windows, and a gap for each instrument");
        let Incarnation { base, settings, adopting, .. } = old;
        let incarnation =
            Incarnation { base, settings, adopting, from: Some(from), ..self.new_life(place, next) };
        client.commit(next, &incarnation.to_string())?;
        let incarnation = self.bring_settings_into_force(place, &client, incarnation, next)?;
        let state = ResumePoint { start: next, saved: None, account };
        Ok(place.beginning(client, incarnation, next, state).after(&shard, "gap", why))
    }

    /// Takes up the newest state of an incarnation, or of the one that it came from, with a gap up to `next`.
    fn restore_lost(
        &self,
        place: &ShardPlace,
        incarnation: &Incarnation,
        next: i64,
        market: &mut Market,
    ) -> Result<Option<(ParentIncarnation, ShardAccount)>> {
        market.forget(place.number);
        let lost = Some(next.unsigned_abs());
        let own = (incarnation.id.clone(), 0..=i64::MAX);
        let parent =
            incarnation.from.iter().map(|from| (from.incarnation.clone(), from.offset..=from.offset));
        for (incarnation, offsets) in std::iter::once(own).chain(parent) {
            if let Some((header, account)) = self.restore(place, &incarnation, offsets, lost, market)? {
                return Ok(Some((ParentIncarnation { incarnation, offset: header.offset }, account)));
            }
        }
        Ok(None)
    }
}
