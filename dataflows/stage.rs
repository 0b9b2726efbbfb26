//! One stage of a live worker: what decodes deliveries, the states that rows go through, what encodes what comes of them.
//!
//! ```text
//! deliveries ─decode─► rows ─market─► outcomes ─encode─► publications
//! ```
//! All of it is on the worker that reads the shards. Where deliveries come from and publications go is handed in.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::change::Change;
use timely::dataflow::StreamVec;

use crate::batch::Delivery;
use crate::encode_records::{EncodeRecords, Publication, encode_records};
use crate::instruments::Instruments;
use crate::live::{LastSeen, LiveDecode, LiveSettings, decode};
use crate::market::{Market, market_of_shards};
use crate::meter::Meter;
use crate::saving::Saver;
use crate::settings::Settings;
use foreshock_operators::outputs::OutputKind;

/// The three parts of a worker's graph, until they are built into it.
pub struct Stage {
    decode: LiveDecode,
    market: Market,
    encode: EncodeRecords,
    /// The configuration's settings, which a shard begins with where nothing else is known of it.
    configured: Arc<Settings>,
}

impl Stage {
    /// A stage around these states, whose shards go on from where they are.
    pub fn new(
        market: Market,
        decode: LiveSettings,
        kinds: Arc<[OutputKind]>,
        instruments: &Instruments,
        last_seen: LastSeen,
    ) -> Stage {
        let (names, configured) = (decode.shards.clone(), decode.settings.clone());
        Stage {
            decode: LiveDecode::new(decode, instruments, last_seen),
            market,
            encode: EncodeRecords::new(kinds, names, instruments.clone(), configured.clone()),
            configured,
        }
    }

    /// Has decoding and encoding go on where the states of restored shards are. `bases` are the settings that shards
    /// began with. Says of each which changes it has had since.
    pub fn resume_shards(
        &mut self,
        bases: &BTreeMap<u32, Arc<Settings>>,
        mut resumed: impl FnMut(u32, &[Arc<Change>]),
    ) {
        for (shard, restored) in self.market.take_restored() {
            let base = bases.get(&shard).unwrap_or(&self.configured);
            self.encode.begin_shard(shard, base, &restored.changes);
            resumed(shard, &restored.changes);
            self.decode.resume_shard(shard, restored);
        }
    }

    /// Has snapshots go there: the sections of the states and of what decoding knows of a shard.
    pub fn save_to(&mut self, saver: &Saver) {
        self.market.save_to(saver);
        self.decode.save_to(saver.clone());
    }

    /// Builds the graph on this worker.
    pub fn build<'scope>(
        self,
        deliveries: StreamVec<'scope, u64, Delivery>,
        deliver: impl FnMut(Publication) + 'static,
        meter: &Meter,
    ) {
        let rows = decode(deliveries, self.decode, meter);
        let outcomes = market_of_shards(rows, self.market, meter);
        encode_records(outcomes, self.encode, deliver, meter);
    }
}
