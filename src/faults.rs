//! Points at which a test of the recovery has the process die or do wrong. Without the feature `faults` nothing of it
//! is there.
//!
//! Three variables of the environment say what is to happen:
//!
//! ```text
//! FORESHOCK_FAILPOINT=NAME:N   the process kills itself when it comes to this point for the N-th time
//! FORESHOCK_SABOTAGE=WHAT:N    every N-th time this is done wrong
//! FORESHOCK_MARKS=FILE         what is open now is noted here, where it outlives the process
//! ```
//! The file of marks has one slot of 4 bytes for each sort of mark and shard ([`slot`]): the id of the process that
//! has something open, or 0.

#[cfg(feature = "faults")]
pub use on::{is_variable, mark, point, sabotage};

#[cfg(not(feature = "faults"))]
pub use off::{is_variable, mark, point, sabotage};

/// What marks are about.
pub const MARKS: [&str; 2] = ["transaction", "snapshot"];

/// Bytes of a slot.
pub const SLOT_BYTES: usize = 4;

/// Where the slot of a mark stands in the file.
pub fn slot(what: &str, shard: u32) -> Option<u64> {
    let sort = MARKS.iter().position(|known| *known == what)?;
    Some((u64::from(shard) * MARKS.len() as u64 + sort as u64) * SLOT_BYTES as u64)
}

#[cfg(not(feature = "faults"))]
mod off {
    /// A place where the process may be told to die.
    #[inline(always)]
    pub fn point(_name: &'static str) {}

    /// Whether this is to be done wrong now: `skip-commit`, `drop`, `duplicate`, `swap`.
    #[inline(always)]
    pub fn sabotage(_what: &'static str) -> bool {
        false
    }

    /// Notes outside the process that something of a shard has begun or ended: `transaction`, `snapshot`.
    #[inline(always)]
    pub fn mark(_what: &'static str, _shard: u32, _open: bool) {}

    /// Whether a variable of the environment is meant for this module, and so no key of the configuration.
    #[inline(always)]
    pub fn is_variable(_name: &str) -> bool {
        false
    }
}

#[cfg(feature = "faults")]
mod on {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::FileExt;
    use std::process;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use signal_hook::consts::SIGKILL;
    use signal_hook::low_level::raise;

    use super::slot;

    const FAILPOINT: &str = "FORESHOCK_FAILPOINT";
    const SABOTAGE: &str = "FORESHOCK_SABOTAGE";
    const MARKS: &str = "FORESHOCK_MARKS";

    /// Something that happens when it is come to for the `every`-th time.
    struct Armed {
        name: String,
        every: u64,
        come: AtomicU64,
    }

    impl Armed {
        fn from_environment(variable: &str) -> Option<Armed> {
            let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
            let armed = Armed::parse(&text);
            assert!(armed.is_some(), "{variable} is NAME:N with N from 1, found {text:?}");
            armed
        }

        fn parse(text: &str) -> Option<Armed> {
            let (name, every) = text.rsplit_once(':')?;
            let every = every.parse().ok().filter(|every| *every > 0)?;
            Some(Armed { name: name.to_owned(), every, come: AtomicU64::new(0) })
        }

        fn is_due(&self, name: &str) -> bool {
            self.name == name && (self.come.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.every)
        }
    }

    static POINT: LazyLock<Option<Armed>> = LazyLock::new(|| Armed::from_environment(FAILPOINT));
    static WRONG: LazyLock<Option<Armed>> = LazyLock::new(|| Armed::from_environment(SABOTAGE));
    static NOTES: LazyLock<Option<File>> = LazyLock::new(|| {
        let path = std::env::var_os(MARKS).filter(|path| !path.is_empty())?;
        match OpenOptions::new().write(true).create(true).truncate(false).open(&path) {
            Ok(file) => Some(file),
            Err(error) => panic!("could not open {MARKS} {}: {error}", path.display()),
        }
    });

    /// A place where the process may be told to die.
    pub fn point(name: &'static str) {
        if POINT.as_ref().is_some_and(|armed| armed.is_due(name)) {
            // As if from outside: nothing of this process runs on.
            let killed = raise(SIGKILL);
            assert!(killed.is_ok(), "a process may kill itself");
            loop {
                thread::park();
            }
        }
    }

    /// Whether this is to be done wrong now: `skip-commit`, `drop`, `duplicate`, `swap`.
    pub fn sabotage(what: &'static str) -> bool {
        WRONG.as_ref().is_some_and(|armed| armed.is_due(what))
    }

    /// Notes outside the process that something of a shard has begun or ended: `transaction`, `snapshot`.
    pub fn mark(what: &'static str, shard: u32, open: bool) {
        let (Some(file), Some(slot)) = (NOTES.as_ref(), slot(what, shard)) else { return };
        let process = if open { process::id() } else { 0 };
        let noted = file.write_all_at(&process.to_le_bytes(), slot);
        assert!(noted.is_ok(), "{MARKS} can be written: {noted:?}");
    }

    /// Whether a variable of the environment is meant for this module, and so no key of the configuration.
    pub fn is_variable(name: &str) -> bool {
        [FAILPOINT, SABOTAGE, MARKS].contains(&name)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn happens_each_time_its_count_is_full() {
            let armed = Armed::parse("drop:3").unwrap();
            let happened: Vec<bool> = (0..7).map(|_| armed.is_due("drop")).collect();
            assert_eq!(happened, [false, false, true, false, false, true, false]);
        }

        #[test]
        fn is_not_moved_by_other_names() {
            let armed = Armed::parse("drop:1").unwrap();
            assert!(!armed.is_due("swap"));
            assert!(armed.is_due("drop"));
        }

        #[test]
        fn is_not_armed_by_what_cannot_be_read() {
            for text in ["drop", "drop:", "drop:0", "drop:x", ""] {
                assert!(Armed::parse(text).is_none(), "{text}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_of_every_shard_has_a_slot_of_its_own() {
        let slots = (0..3).flat_map(|shard| MARKS.map(|what| slot(what, shard).unwrap()));
        assert_eq!(slots.collect::<Vec<_>>(), [0, 4, 8, 12, 16, 20]);
        assert_eq!(slot("lunch", 0), None);
    }
}
