//! What stands beside a committed offset: where the job began to read the shard, and under which settings.
//!
//! ```text
//! foreshock/1 life=5f0c... origin=1200 cold=yes settings=ab12...
//! ```
//! It is committed with every transaction, so that a job whose snapshots are all lost still knows from where its state
//! can be made again, and one that was configured differently notices.

use std::fmt;

use crate::status::wall_time;

/// The first word of a note, with the version of its form.
const FORM: &str = "foreshock/1";

/// One life of a job on a shard: from the offset where it began, with nothing in its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Differs from one life to the next: snapshots of another one are not of this state.
    pub id: String,
    pub origin: i64,
    /// Whether the state at the origin was empty; if not, only snapshots can bring it back.
    pub is_cold: bool,
    /// Fingerprint of the settings that configuration asks for.
    pub settings: String,
}

impl Life {
    /// A life that begins at this offset with an empty state.
    pub fn begin(origin: i64, settings: &str) -> Life {
        let id = format!("{:016x}{:08x}", wall_time().0, std::process::id());
        Life { id, origin, is_cold: true, settings: settings.to_owned() }
    }

    /// Reads a note; `None` where it is none of ours.
    pub fn parse(note: &str) -> Option<Life> {
        let mut words = note.split(' ');
        if words.next() != Some(FORM) {
            return None;
        }
        let (mut id, mut origin, mut is_cold, mut settings) = (None, None, None, None);
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "life" => id = Some(value.to_owned()),
                "origin" => origin = value.parse().ok(),
                "cold" => is_cold = Some(value == "yes"),
                "settings" => settings = Some(value.to_owned()),
                // Later versions may say more.
                _ => {}
            }
        }
        Some(Life { id: id?, origin: origin?, is_cold: is_cold?, settings: settings? })
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Life { id, origin, is_cold, settings } = self;
        let cold = if *is_cold { "yes" } else { "no" };
        write!(f, "{FORM} life={id} origin={origin} cold={cold} settings={settings}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_others_are_none_of_ours() {
        for is_cold in [true, false] {
            let life = Life { is_cold, ..Life::begin(1_200, "ab12") };
            assert_eq!(Life::parse(&life.to_string()), Some(life.clone()));
            assert_eq!(Life::parse(&format!("{life} more=1")), Some(life));
        }
        for other in ["", "metadata", "foreshock/2 life=a origin=1 cold=yes settings=x", "foreshock/1 life=a"]
        {
            assert_eq!(Life::parse(other), None, "{other}");
        }
    }
}
