//! What a snapshot holds.

use std::collections::BTreeMap;
use std::io::Read;

use foreshock_operators::time::Time;
use serde::{Deserialize, Serialize};

use super::format::{Frame, ReadError, decode};

/// Of what a snapshot is. New fields need a default, so that older snapshots can still be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub job: String,
    pub topic: String,
    pub partition: i32,
    /// The life of the job on the shard: another one began elsewhere.
    #[serde(default)]
    pub life: String,
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
    #[serde(with = "hex")]
    pub sha256: [u8; 32],
}

/// The state of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub header: Header,
    /// Of the shard as a whole, by name.
    pub sections: BTreeMap<String, Vec<u8>>,
    /// By exchange, then symbol.
    pub instruments: Vec<InstrumentState>,
}

/// The state of one instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstrumentState {
    pub exchange: String,
    pub symbol: String,
    /// By name.
    pub sections: BTreeMap<String, Vec<u8>>,
}

impl InstrumentState {
    /// The sum of its sections.
    pub fn bytes(&self) -> u64 {
        self.sections.values().map(|bytes| bytes.len() as u64).sum()
    }
}

impl Snapshot {
    /// Reads a snapshot to its end.
    ///
    /// # Errors
    /// When it is none, or not whole.
    pub fn read(input: impl Read) -> Result<Snapshot, ReadError> {
        let mut header = None;
        let mut sections = BTreeMap::new();
        let mut instruments = BTreeMap::<(String, String), BTreeMap<String, Vec<u8>>>::new();
        decode(input, |frame| {
            let (what, earlier) = match frame {
                Frame::Header(found) => ("the header".to_owned(), header.replace(found).map(|_| Vec::new())),
                Frame::Section { name, bytes } => (name.clone(), sections.insert(name, bytes)),
                Frame::Instrument { exchange, symbol, name, bytes } => {
                    let what = format!("{name} of {exchange}:{symbol}");
                    (what, instruments.entry((exchange, symbol)).or_default().insert(name, bytes))
                }
            };
            match earlier {
                None => Ok(()),
                Some(_) => Err(twice(&what)),
            }
        })?;
        let header = header.ok_or_else(|| twice("no header"))?;
        let instruments = instruments
            .into_iter()
            .map(|((exchange, symbol), sections)| InstrumentState { exchange, symbol, sections })
            .collect();
        Ok(Snapshot { header, sections, instruments })
    }
}

/// Whoever wrote it meant one of two, and nobody knows which.
fn twice(what: &str) -> ReadError {
    ReadError::Damaged { at: 0, found: format!("{what} twice"), expected: "each section once".to_owned() }
}

/// Fingerprints as text.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&super::hex_text(bytes))
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

/// Bytes as hex digits.
pub fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
