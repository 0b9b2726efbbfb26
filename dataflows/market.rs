//! The path of every row, live or replayed:
//!
//! ```text
//! rows ─► chain of each instrument: order ─► gaps ─► features ─► seconds ─► score ─► rules ─► outcomes
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::chain::SECTION;
use foreshock_operators::change::Change;
use foreshock_operators::market::MarketLinks;
use foreshock_operators::operator::RestoreError;
use foreshock_operators::order::Order;
use foreshock_operators::row::{InstrumentId, Row};
use foreshock_operators::stages::Outcome;
use timely::dataflow::StreamVec;

use crate::batch::{Batch, BatchOrigin, FromFiles, FromShard};
use crate::changes::RestoredShard;
use crate::instruments::Instruments;
use crate::keyed::{Keyed, keyed};
use crate::meter::Meter;
use crate::saving::Saver;
use crate::settings::Settings;

/// The states of one worker's instruments.
pub struct Market {
    states: Keyed<Order, MarketLinks>,
    /// What shards go on from, until decoding takes it.
    restored: BTreeMap<u32, RestoredShard>,
}

impl Market {
    /// The section of a snapshot that states are saved in.
    pub const SECTION: &'static str = SECTION;

    /// No states yet.
    pub fn new(settings: &Settings, instruments: &Instruments) -> Market {
        let states = Keyed::new(settings.parameters.clone(), instruments.clone());
        Market { states, restored: BTreeMap::new() }
    }

    /// Has new instruments of a shard begin with these settings.
    pub fn assume_settings(&mut self, shard: u32, settings: &Settings) {
        self.states.assume_parameters(shard, settings.parameters.clone());
    }

    /// Feeds a batch, which holds the rows of this worker's instruments, in log order.
    pub fn on_batch<O: BatchOrigin>(&mut self, batch: Batch<Row, O>) -> Batch<Outcome, O> {
        self.states.on_batch(batch, &mut ())
    }

    /// Appends the state of an instrument to `bytes`; nothing where it has none.
    pub fn save(&self, instrument: InstrumentId, bytes: &mut Vec<u8>) {
        self.states.save(instrument, bytes);
    }

    /// Takes up the state of an instrument; `changes` are those that the shard keeps.
    ///
    /// # Errors
    /// When it can't be read, or was made with other settings.
    pub fn restore(
        &mut self,
        instrument: InstrumentId,
        changes: &[Arc<Change>],
        bytes: &[u8],
    ) -> Result<(), RestoreError> {
        self.states.restore(instrument, changes, bytes)
    }

    /// Lets go of all states of a shard.
    pub fn forget(&mut self, shard: u32) {
        self.states.forget(shard);
        self.restored.remove(&shard);
    }

    /// Whether somebody asks how far the shards could be called done without their states.
    pub fn track_waiting(&mut self, track: bool) {
        self.states.track_waiting(track);
    }

    /// Has decoding and encoding of a shard go on from there.
    pub fn resume_shard(&mut self, shard: u32, restored: RestoredShard) {
        self.restored.insert(shard, restored);
    }

    /// Gives what shards go on from to whoever decodes and encodes.
    pub fn take_restored(&mut self) -> BTreeMap<u32, RestoredShard> {
        std::mem::take(&mut self.restored)
    }

    /// Has snapshots go there.
    pub fn save_to(&mut self, saver: &Saver) {
        self.states.save_to(saver.clone());
    }
}

/// Builds the graph of recorded logs on this worker. Batches must hold the rows of this worker's instruments, in log order.
///
/// This function and the next are two, and not one over all origins, so that the chain is compiled here, with the
/// optimisation that it needs, and once.
pub fn market_of_files<'scope>(
    rows: StreamVec<'scope, u64, Batch<Row, FromFiles>>,
    market: Market,
    meter: &Meter,
) -> StreamVec<'scope, u64, Batch<Outcome, FromFiles>> {
    keyed("market", rows, market.states, meter)
}

/// Builds the graph of live shards on this worker, as [`market_of_files`] does.
pub fn market_of_shards<'scope>(
    rows: StreamVec<'scope, u64, Batch<Row, FromShard>>,
    market: Market,
    meter: &Meter,
) -> StreamVec<'scope, u64, Batch<Outcome, FromShard>> {
    keyed("market", rows, market.states, meter)
}
