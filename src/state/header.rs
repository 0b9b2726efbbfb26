//! What a snapshot says of itself before all else.

use foreshock_operators::time::Time;
use serde::{Deserialize, Serialize};

/// Of what a snapshot is. New fields need a default, so that older snapshots can still be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub job: String,
    pub topic: String,
    pub partition: i32,
    /// The incarnation of the job on the shard: another one began elsewhere.
    #[serde(default, rename = "life")]
    pub incarnation: String,
    /// The next offset to process: all before it is in the state.
    pub offset: i64,
    /// Where the job began to read this shard.
    pub origin: i64,
    /// False: the state at `origin` was not empty, so it can't be rebuilt by reading from there.
    pub origin_is_cold: bool,
    /// The last record before `offset`; `None` where there was none.
    pub last_record: Option<RecordPrint>,
    /// Fingerprint (hex) of the settings that configuration had asked for.
    pub settings: String,
    /// The version of foreshock that made it.
    pub made_by: String,
    /// Wall clock.
    pub made_at: Time,
}

impl Header {
    /// `topic/partition`, as in a row's source.
    pub fn shard(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }
}

/// A record's fingerprint, from which a topic that was made anew is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPrint {
    pub offset: i64,
    #[serde(with = "fingerprint")]
    pub sha256: [u8; 32],
}

/// Fingerprints as text.
mod fingerprint {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::hex::hex;

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        let digits = text.as_bytes().chunks(2).zip(&mut bytes);
        for (digits, byte) in digits {
            let digits = std::str::from_utf8(digits).map_err(Error::custom)?;
            *byte = u8::from_str_radix(digits, 16).map_err(Error::custom)?;
        }
        if text.len() == 64 { Ok(bytes) } else { Err(Error::custom("a sha256 has 64 digits")) }
    }
}
