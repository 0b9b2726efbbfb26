//! The path of every row, live or replayed:
//!
//! ```text
//! rows ─► order ─► gaps ─► features ─► seconds ─► score ─► rules ─► outcomes
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::change::Change;
use foreshock_operators::features::FeatureWindows;
use foreshock_operators::gaps::Gaps;
use foreshock_operators::operator::{Operator, RestoreError};
use foreshock_operators::order::Order;
use foreshock_operators::row::{InstrumentId, Row};
use foreshock_operators::rules::Rules;
use foreshock_operators::score::Score;
use foreshock_operators::seconds::Seconds;
use foreshock_operators::stages::Outcome;
use timely::dataflow::StreamVec;

use crate::batch::Batch;
use crate::changes::RestoredShard;
use crate::instruments::Instruments;
use crate::keyed::{Keyed, keyed};
use crate::meter::Meter;
use crate::saving::Saver;
use crate::settings::Settings;

/// The states of one worker's instruments.
pub struct Market {
    order: Keyed<Order>,
    gaps: Keyed<Gaps>,
    features: Keyed<FeatureWindows>,
    seconds: Keyed<Seconds>,
    score: Keyed<Score>,
    rules: Keyed<Rules>,
    /// What shards go on from, until decoding takes it.
    begun: BTreeMap<u32, RestoredShard>,
}

impl Market {
    /// The sections of a snapshot that states are saved in, in the order of the graph.
    pub const SECTIONS: [&'static str; 6] =
        [Order::NAME, Gaps::NAME, FeatureWindows::NAME, Seconds::NAME, Score::NAME, Rules::NAME];

    /// No states yet.
    pub fn new(settings: &Settings, instruments: &Instruments) -> Market {
        Market {
            order: Keyed::new(settings.order, instruments.clone()),
            gaps: Keyed::new(settings.windows(), instruments.clone()),
            features: Keyed::new(settings.features.clone(), instruments.clone()),
            seconds: Keyed::new(settings.seconds, instruments.clone()),
            score: Keyed::new(settings.model.clone(), instruments.clone()),
            rules: Keyed::new(settings.rules.clone(), instruments.clone()),
            begun: BTreeMap::new(),
        }
    }

    /// Has new instruments of a shard begin with these settings.
    pub fn assume_settings(&mut self, shard: u32, settings: &Settings) {
        self.order.assume_settings(shard, settings.order);
        self.gaps.assume_settings(shard, settings.windows());
        self.features.assume_settings(shard, settings.features.clone());
        self.seconds.assume_settings(shard, settings.seconds);
        self.score.assume_settings(shard, settings.model.clone());
        self.rules.assume_settings(shard, settings.rules.clone());
    }

    /// Takes up the states of an instrument, by section; `changes` are those that the shard keeps.
    ///
    /// # Errors
    /// When one can't be read, or was made with other settings.
    pub fn restore(
        &mut self,
        instrument: InstrumentId,
        changes: &[Arc<Change>],
        sections: &BTreeMap<String, Vec<u8>>,
    ) -> Result<(), RestoreError> {
        restore(&mut self.order, instrument, changes, sections)?;
        restore(&mut self.gaps, instrument, changes, sections)?;
        restore(&mut self.features, instrument, changes, sections)?;
        restore(&mut self.seconds, instrument, changes, sections)?;
        restore(&mut self.score, instrument, changes, sections)?;
        restore(&mut self.rules, instrument, changes, sections)
    }

    /// Lets go of all states of a shard.
    pub fn forget(&mut self, shard: u32) {
        self.order.forget(shard);
        self.gaps.forget(shard);
        self.features.forget(shard);
        self.seconds.forget(shard);
        self.score.forget(shard);
        self.rules.forget(shard);
        self.begun.remove(&shard);
    }

    /// Nobody asks how far the shards could be called done without their states.
    pub fn skip_low_watermark(&mut self) {
        self.order.skip_low_watermark();
        self.gaps.skip_low_watermark();
        self.features.skip_low_watermark();
        self.seconds.skip_low_watermark();
        self.score.skip_low_watermark();
        self.rules.skip_low_watermark();
    }

    /// Has decoding and publishing of a shard go on from there.
    pub fn resume_shard(&mut self, shard: u32, begun: RestoredShard) {
        self.begun.insert(shard, begun);
    }

    /// Gives what shards go on from to whoever decodes and publishes.
    pub fn take_restored(&mut self) -> BTreeMap<u32, RestoredShard> {
        std::mem::take(&mut self.begun)
    }

    /// Has snapshots go there.
    pub fn save_to(&mut self, saver: &Saver) {
        self.order.save_to(saver.clone());
        self.gaps.save_to(saver.clone());
        self.features.save_to(saver.clone());
        self.seconds.save_to(saver.clone());
        self.score.save_to(saver.clone());
        self.rules.save_to(saver.clone());
    }
}

/// An operator has no state of an instrument before the first row that reached it.
fn restore<O: Operator>(
    keyed: &mut Keyed<O>,
    instrument: InstrumentId,
    changes: &[Arc<Change>],
    sections: &BTreeMap<String, Vec<u8>>,
) -> Result<(), RestoreError> {
    match sections.get(O::NAME) {
        Some(bytes) => keyed.restore(instrument, changes, bytes),
        None => Ok(()),
    }
}

/// Builds the graph on this worker. Batches must hold the rows of this worker's instruments, in log order.
pub fn market<'scope>(
    rows: StreamVec<'scope, u64, Batch<Row>>,
    market: Market,
    meter: &Meter,
) -> StreamVec<'scope, u64, Batch<Outcome>> {
    let ordered = keyed(rows, market.order, meter);
    let live = keyed(ordered, market.gaps, meter);
    let measured = keyed(live, market.features, meter);
    let sampled = keyed(measured, market.seconds, meter);
    let scored = keyed(sampled, market.score, meter);
    keyed(scored, market.rules, meter)
}
