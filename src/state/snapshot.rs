//! What a snapshot holds.

use std::collections::BTreeMap;
use std::io::Read;

use super::format::{Frame, ReadError, decode};
use super::header::Header;

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
