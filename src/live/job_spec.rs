//! What is fixed while a job runs: what was configured, and what its start has found.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::live::LiveSettings;
use foreshock_dataflows::settings::Settings;
use foreshock_operators::outputs::OutputKind;

use crate::cluster::place::ProcessPlace;
use crate::config::{Config, MemoryShare};
use crate::kafka::progress::Shard;

/// What one attempt of a job is to do.
pub struct JobSpec {
    pub config: Config,
    /// Which part of the job this process is.
    pub place: ProcessPlace,
    /// End where the logs end.
    pub until_end: bool,
    /// Which outputs are written.
    pub kinds: Arc<[OutputKind]>,
    /// All shards of the job, by number.
    pub shards: Arc<[Shard]>,
    /// How messages become rows.
    pub decode: LiveSettings,
    /// The instruments of this process: a table that grows while the job runs, the same for all its threads.
    pub instruments: Instruments,
    /// By shard: the settings that the job began it with; those that are left out began with the configured ones.
    pub bases: BTreeMap<u32, Arc<Settings>>,
    /// What was gone at the start, and what was done about it.
    pub lost: Vec<String>,
}

impl JobSpec {
    /// The shards that this process reads, by number.
    pub fn own_shards(&self) -> impl Iterator<Item = usize> {
        (0..self.shards.len()).filter(|shard| self.place.has(*shard))
    }

    /// What one worker may hold.
    pub fn memory(&self) -> MemoryShare {
        self.config.memory_share(self.place.workers)
    }
}
