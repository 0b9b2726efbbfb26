//! What stands beside a committed offset: where the job began to read the shard, and under which settings.
//!
//! ```text
//! foreshock/1 life=5f0c... origin=1200 base=ab12... settings=ab12...
//! ```
//! It is committed with every transaction, so that a job whose snapshots are all lost still knows from where its state
//! can be made again, and one that was configured differently notices.

use std::fmt;

use crate::status::wall_time;

/// The first word of a note, with the version of its form.
const FORM: &str = "foreshock/1";

/// One life of a job on a shard: from the offset where it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Differs from one life to the next: snapshots of another one are not of this state.
    pub id: String,
    pub origin: i64,
    /// Fingerprint of the settings in force at the origin.
    pub base: String,
    /// Fingerprint of the settings that configuration asks for.
    pub settings: String,
    /// The state that the life began with; `None`: none. Such a state can't be made again from the log.
    pub from: Option<Ancestor>,
}

/// A snapshot of another life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    pub life: String,
    pub offset: i64,
}

impl Life {
    /// A life that begins at this offset with an empty state.
    pub fn begin(origin: i64, settings: &str) -> Life {
        let id = format!("{:016x}{:08x}", wall_time().0, std::process::id());
        Life { id, origin, base: settings.to_owned(), settings: settings.to_owned(), from: None }
    }

    /// Whether the state at its origin is empty.
    pub fn is_cold(&self) -> bool {
        self.from.is_none()
    }

    /// Reads a note; `None` where it is none of ours.
    pub fn parse(note: &str) -> Option<Life> {
        let mut words = note.split(' ');
        if words.next() != Some(FORM) {
            return None;
        }
        let (mut id, mut origin, mut base, mut settings, mut from) = (None, None, None, None, None);
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "life" => id = Some(value.to_owned()),
                "origin" => origin = value.parse().ok(),
                "base" => base = Some(value.to_owned()),
                "settings" => settings = Some(value.to_owned()),
                "from" => {
                    let (life, offset) = value.split_once('@')?;
                    from = Some(Ancestor { life: life.to_owned(), offset: offset.parse().ok()? });
                }
                // Later versions may say more.
                _ => {}
            }
        }
        Some(Life { id: id?, origin: origin?, base: base?, settings: settings?, from })
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Life { id, origin, base, settings, from } = self;
        write!(f, "{FORM} life={id} origin={origin} base={base} settings={settings}")?;
        match from {
            Some(Ancestor { life, offset }) => write!(f, " from={life}@{offset}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_others_are_none_of_ours() {
        let ancestor = Ancestor { life: "ab".to_owned(), offset: 17 };
        for from in [None, Some(ancestor)] {
            let life = Life { from, ..Life::begin(1_200, "ab12") };
            assert_eq!(Life::parse(&life.to_string()), Some(life.clone()));
            assert_eq!(Life::parse(&format!("{life} more=1")), Some(life));
        }
        let others = ["", "metadata", "foreshock/2 life=a origin=1 base=x settings=x", "foreshock/1 life=a"];
        for other in others {
            assert_eq!(Life::parse(other), None, "{other}");
        }
    }
}
