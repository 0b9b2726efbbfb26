//! What stands beside a committed offset: where the job began to read the shard, and under which settings.
//!
//! ```text
//! foreshock/1 life=5f0c... origin=1200 base=ab12... settings=ab12... reading=cd34... partitions=4
//! ```
//! It is committed with every transaction, so that a job whose snapshots are all lost still knows from where its state
//! can be made again, and one that was configured differently notices.

use std::fmt;

use crate::status::wall_time;

/// The first word of a note, with the version of its form.
const FORM: &str = "foreshock/1";

/// What results depend on, in few letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Of the settings, which control records can change.
    pub settings: String,
    /// Of how messages are read.
    pub reading: String,
}

/// One incarnation of a job on a shard: from the offset where it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Differs from one incarnation to the next: snapshots of another one are not of this state.
    pub id: String,
    pub origin: i64,
    /// Fingerprint of the settings in force at the origin.
    pub base: String,
    /// Fingerprint of the settings that configuration asks for.
    pub settings: String,
    /// Fingerprint of how messages are read, which nothing can change in an incarnation.
    pub reading: String,
    /// How many partitions the topic has: with another number keys may have moved.
    pub partitions: usize,
    /// The id of a control record that is to be appended, or was just then.
    pub adopting: Option<String>,
    /// The state that the incarnation began with; `None`: none. Such a state can't be made again from the log.
    pub from: Option<ParentIncarnation>,
}

/// A snapshot of another incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentIncarnation {
    pub incarnation: String,
    pub offset: i64,
}

impl Incarnation {
    /// An incarnation that begins at this offset with an empty state.
    pub fn starting_at(origin: i64, conditions: &Conditions, partitions: usize) -> Incarnation {
        let Conditions { settings, reading } = conditions.clone();
        Incarnation {
            id: format!("{:016x}{:08x}", wall_time().0, std::process::id()),
            origin,
            base: settings.clone(),
            settings,
            reading,
            partitions,
            adopting: None,
            from: None,
        }
    }

    /// Whether the state at its origin is empty.
    pub fn is_cold(&self) -> bool {
        self.from.is_none()
    }

    /// Reads a note; `None` where it is none of ours.
    pub fn parse(note: &str) -> Option<Incarnation> {
        let mut words = note.split(' ');
        if words.next() != Some(FORM) {
            return None;
        }
        let (mut id, mut origin, mut base, mut settings) = (None, None, None, None);
        let (mut reading, mut partitions, mut adopting, mut from) = (None, None, None, None);
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "life" => id = Some(value.to_owned()),
                "origin" => origin = value.parse().ok(),
                "base" => base = Some(value.to_owned()),
                "settings" => settings = Some(value.to_owned()),
                "reading" => reading = Some(value.to_owned()),
                "partitions" => partitions = value.parse().ok(),
                "adopting" => adopting = Some(value.to_owned()),
                "from" => {
                    let (incarnation, offset) = value.split_once('@')?;
                    from = Some(ParentIncarnation {
                        incarnation: incarnation.to_owned(),
                        offset: offset.parse().ok()?,
                    });
                }
                // Later versions may say more.
                _ => {}
            }
        }
        Some(Incarnation {
            id: id?,
            origin: origin?,
            base: base?,
            settings: settings?,
            reading: reading?,
            partitions: partitions?,
            adopting,
            from,
        })
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Incarnation { id, origin, base, settings, reading, partitions, adopting, from } = self;
        write!(f, "{FORM} life={id} origin={origin} base={base} settings={settings} reading={reading}")?;
        write!(f, " partitions={partitions}")?;
        if let Some(record) = adopting {
            write!(f, " adopting={record}")?;
        }
        match from {
            Some(ParentIncarnation { incarnation, offset }) => write!(f, " from={incarnation}@{offset}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_others_are_none_of_ours() {
        let ancestor = ParentIncarnation { incarnation: "ab".to_owned(), offset: 17 };
        for from in [None, Some(ancestor)] {
            let conditions = Conditions { settings: "ab12".to_owned(), reading: "cd34".to_owned() };
            let adopting = from.as_ref().map(|_| "adopt-1".to_owned());
            let incarnation =
                Incarnation { from, adopting, ..Incarnation::starting_at(1_200, &conditions, 4) };
            assert_eq!(Incarnation::parse(&incarnation.to_string()), Some(incarnation.clone()));
            assert_eq!(Incarnation::parse(&format!("{incarnation} more=1")), Some(incarnation));
        }
        let others = ["", "metadata", "foreshock/2 life=a origin=1 base=x settings=x", "foreshock/1 life=a"];
        for other in others {
            assert_eq!(Incarnation::parse(other), None, "{other}");
        }
    }
}
