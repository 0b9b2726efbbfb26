//! The account of one shard since the job began to read it: what a restart goes on from.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use foreshock_dataflows::settings::Settings;
use foreshock_operators::account::Counts;
use serde::{Deserialize, Serialize};

use super::alerts::Active;

/// What is known of a shard as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardAccount {
    /// The settings that the job began the shard with; changes since then stand in the log.
    pub base: Option<Arc<Settings>>,
    pub counts: Counts,
    /// Alerts that are active, by id: for status.
    pub alerts: BTreeMap<String, Active>,
}

impl ShardAccount {
    /// Its section in a snapshot.
    pub const SECTION: &'static str = "account";

    /// In the form of a snapshot.
    pub fn bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("an account is plain data")
    }

    /// Reads what [`ShardAccount::bytes`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(bytes: &[u8]) -> Result<ShardAccount> {
        postcard::from_bytes(bytes).context("its account can't be read")
    }
}
