//! Snapshots of the state: what was written is read, and what is not whole is never used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use foreshock::state::format::VERSION;
use foreshock::state::{
    Header, InstrumentState, Newest, ReadError, RecordPrint, Snapshot, Store, StoreError,
};
use foreshock_operators::time::Time;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Ended, finish, foreshock};

const JOB: &str = "watch";
const TOPIC: &str = "ticks.raw";

fn header(offset: i64) -> Header {
    Header {
        job: JOB.to_owned(),
        topic: TOPIC.to_owned(),
        partition: 3,
        incarnation: "life".to_owned(),
        offset,
        origin: 0,
        origin_is_cold: true,
        last_record: (offset > 0).then(|| RecordPrint { offset: offset - 1, sha256: [0xa5; 32] }),
        settings: "c0ffee".to_owned(),
        made_by: "0.1.0".to_owned(),
        made_at: Time(1_790_000_000_123_456_789),
    }
}

/// A small state that differs from offset to offset.
fn snapshot(offset: i64) -> Snapshot {
    let instrument = |symbol: &str| InstrumentState {
        exchange: "binance".to_owned(),
        symbol: symbol.to_owned(),
        sections: BTreeMap::from([
            ("features".to_owned(), format!("features at {offset}").into_bytes()),
            ("order".to_owned(), Vec::new()),
        ]),
    };
    Snapshot {
        header: header(offset),
        sections: BTreeMap::from([("account".to_owned(), offset.to_le_bytes().to_vec())]),
        instruments: vec![instrument("BTCUSDT"), instrument("ETHUSDT")],
    }
}

/// A section: whose it is, where not the shard's, its name and its bytes.
type Piece<'a> = (Option<(&'a str, &'a str)>, &'a str, &'a [u8]);

/// Everything of a snapshot, one section at a time.
fn pieces(snapshot: &Snapshot) -> Vec<Piece<'_>> {
    let shard = snapshot.sections.iter().map(|(name, bytes)| (None, name.as_str(), bytes.as_slice()));
    let instruments = snapshot.instruments.iter().flat_map(|state| {
        let whose = Some((state.exchange.as_str(), state.symbol.as_str()));
        state.sections.iter().map(move |(name, bytes)| (whose, name.as_str(), bytes.as_slice()))
    });
    shard.chain(instruments).collect()
}

fn write(store: &Store, snapshot: &Snapshot) -> Result<foreshock::state::Written, StoreError> {
    let mut writer = store.begin_snapshot(&snapshot.header)?;
    // Any order will do: the last first.
    for (whose, name, bytes) in pieces(snapshot).into_iter().rev() {
        match whose {
            None => writer.section(name, bytes)?,
            Some((exchange, symbol)) => writer.instrument(exchange, symbol, name, bytes)?,
        }
    }
    writer.finish()
}

#[track_caller]
fn keep(store: &Store, snapshot: &Snapshot) {
    write(store, snapshot).unwrap().publish().unwrap();
}

struct Kept {
    folder: TempDir,
    store: Store,
}

/// A store with snapshots of these offsets.
fn kept(offsets: &[i64]) -> Kept {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), JOB).unwrap();
    for offset in offsets {
        keep(&store, &snapshot(*offset));
    }
    Kept { folder, store }
}

/// The newest snapshot of the tests' shard that can be used, whatever it holds.
fn newest(store: &Store, at_most: i64) -> Newest<Snapshot> {
    store.newest(TOPIC, 3, 0..=at_most, |snapshot| Ok(Some(snapshot))).unwrap()
}

impl Kept {
    fn file(&self, offset: i64) -> PathBuf {
        self.folder.path().join(JOB).join(format!("{TOPIC}-3-{offset}.snapshot"))
    }

    /// All files of the job's folder, locks left out.
    fn files(&self) -> BTreeSet<String> {
        let names = fs::read_dir(self.folder.path().join(JOB)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".lock")).collect()
    }

    /// The offset of the snapshot that would be used, and why others were not.
    fn newest(&self) -> (Option<i64>, Vec<(i64, ReadError)>) {
        let newest = newest(&self.store, i64::MAX);
        let error = |error: anyhow::Error| error.downcast::<ReadError>().unwrap();
        let skipped = newest.skipped.into_iter().map(|skipped| (skipped.entry.offset, error(skipped.error)));
        (newest.found.map(|snapshot| snapshot.header.offset), skipped.collect())
    }

    fn offsets(&self) -> Vec<i64> {
        self.store.list(TOPIC, 3).unwrap().into_iter().map(|entry| entry.offset).collect()
    }
}

/// What kind of error the snapshot at offset 20 has with these bytes; the one at 10 must be used in its place.
#[track_caller]
fn refused(kept: &Kept, bytes: &[u8], what: &str) -> &'static str {
    fs::write(kept.file(20), bytes).unwrap();
    let (used, skipped) = kept.newest();
    assert_eq!((used, skipped.len()), (Some(10), 1), "{what}");
    let (offset, error) = &skipped[0];
    assert_eq!(*offset, 20, "{what}");
    error.kind()
}

/// What each snapshot begins with.
fn beginning() -> Vec<u8> {
    [&b"\xf5SHOCKS\n"[..], &VERSION.to_le_bytes()].concat()
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let sections = || btree_map(".{0,9}", vec(any::<u8>(), 0..200), 0..4);
    let instruments = btree_set((".{0,5}", ".{0,9}"), 0..6).prop_flat_map(move |names| {
        let one = move |(exchange, symbol): (String, String)| {
            let nonempty = btree_map(".{0,9}", vec(any::<u8>(), 0..200), 1..4);
            nonempty.prop_map(move |sections| InstrumentState {
                exchange: exchange.clone(),
                symbol: symbol.clone(),
                sections,
            })
        };
        names.into_iter().map(one).collect::<Vec<_>>()
    });
    let head = (0..=i64::MAX, any::<[u8; 32]>(), ".{0,20}", any::<bool>(), any::<i64>());
    (head, sections(), instruments).prop_map(|((offset, sha256, text, flag, time), sections, instruments)| {
        let header = Header {
            origin: offset / 2,
            origin_is_cold: flag,
            last_record: flag.then_some(RecordPrint { offset, sha256 }),
            settings: text.clone(),
            made_by: text,
            made_at: Time(time),
            ..header(offset)
        };
        Snapshot { header, sections, instruments }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read(snapshot in any_snapshot()) {
        let kept = kept(&[]);
        keep(&kept.store, &snapshot);
        let newest = newest(&kept.store, i64::MAX);
        prop_assert!(newest.skipped.is_empty(), "{:?}", newest.skipped);
        prop_assert_eq!(newest.found.unwrap(), snapshot);
    }

    #[test]
    fn no_bytes_at_all_make_a_reader_panic(bytes in vec(any::<u8>(), 0..300), whole: bool) {
        // Behind a right beginning too.
        let mut file = if whole { beginning() } else { Vec::new() };
        file.extend(bytes);
        prop_assert!(Snapshot::read(&file[..]).is_err());
    }
}

#[test]
fn a_snapshot_cut_off_at_any_byte_is_not_used() {
    let kept = kept(&[10, 20]);
    let whole = fs::read(kept.file(20)).unwrap();
    for length in 0..whole.len() {
        let kind = refused(&kept, &whole[..length], &format!("cut off at {length}"));
        assert_eq!(kind, if length < 8 { "foreign" } else { "damaged" }, "cut off at {length}");
    }
    let more = [&whole[..], b"\0"].concat();
    assert_eq!(refused(&kept, &more, "with one more byte"), "damaged");
    fs::write(kept.file(20), &whole).unwrap();
    assert_eq!(kept.newest().0, Some(20), "the whole one is used");
}

#[test]
fn a_snapshot_with_any_bit_flipped_is_not_used() {
    let kept = kept(&[10, 20]);
    let whole = fs::read(kept.file(20)).unwrap();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let kind = refused(&kept, &bytes, &format!("bit {bit} of byte {at}"));
            let expected: &[&str] = match at {
                0..8 => &["foreign"],
                // A version that is not known may be newer.
                8..12 => &["newer", "older", "damaged"],
                _ => &["damaged"],
            };
            assert!(expected.contains(&kind), "bit {bit} of byte {at}: {kind}");
        }
    }
}

#[test]
fn a_piece_that_is_missing_doubled_or_moved_is_noticed() {
    let kept = kept(&[10, 20]);
    let whole = fs::read(kept.file(20)).unwrap();
    // Frames after magic and version: a kind, a length, that much, a checksum.
    let mut frames = Vec::new();
    let mut at = 12;
    while at < whole.len() {
        let length = u32::from_le_bytes(whole[at + 1..at + 5].try_into().unwrap()) as usize;
        frames.push(&whole[at..at + 9 + length]);
        at += 9 + length;
    }
    let put = |frames: &[&[u8]]| [&whole[..12], &frames.concat()].concat();
    assert_eq!(put(&frames), whole);
    for at in 0..frames.len() {
        let mut missing = frames.clone();
        missing.remove(at);
        refused(&kept, &put(&missing), &format!("frame {at} is missing"));
        let mut doubled = frames.clone();
        doubled.insert(at, frames[at]);
        refused(&kept, &put(&doubled), &format!("frame {at} is there twice"));
        if at > 0 {
            let mut moved = frames.clone();
            moved.swap(at - 1, at);
            refused(&kept, &put(&moved), &format!("frame {at} comes early"));
        }
    }
}

#[test]
fn a_length_that_is_damaged_asks_for_no_memory() {
    // 4 GiB of a section that isn't there; were they allocated first, this would be slow at the least.
    let mut bytes = beginning();
    bytes.push(1);
    bytes.extend(u32::MAX.to_le_bytes());
    match Snapshot::read(&bytes[..]) {
        Err(ReadError::Damaged { at: 17, expected, .. }) => assert!(expected.contains("4294967295 bytes")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_section_written_twice_is_refused_when_read() {
    let kept = kept(&[]);
    let mut writer = kept.store.begin_snapshot(&header(20)).unwrap();
    writer.instrument("binance", "BTCUSDT", "order", b"1").unwrap();
    writer.instrument("binance", "BTCUSDT", "order", b"2").unwrap();
    writer.finish().unwrap().publish().unwrap();
    let (used, skipped) = kept.newest();
    assert_eq!(used, None);
    assert!(skipped[0].1.to_string().contains("order of binance:BTCUSDT twice"), "{}", skipped[0].1);
}

#[test]
fn what_is_not_ours_says_so() {
    let kept = kept(&[10]);
    assert_eq!(refused(&kept, b"PK\x03\x04 an archive", "an archive"), "foreign");
    assert_eq!(refused(&kept, b"", "an empty file"), "foreign");
    let mut newer = fs::read(kept.file(10)).unwrap();
    newer[8..12].copy_from_slice(&7u32.to_le_bytes());
    assert_eq!(refused(&kept, &newer, "a newer one"), "newer");
    assert!(kept.newest().1[0].1.to_string().contains("version 7"));
    let mut older = newer;
    older[8..12].copy_from_slice(&1u32.to_le_bytes());
    assert_eq!(refused(&kept, &older, "an older one"), "older");
    assert!(kept.newest().1[0].1.to_string().contains("version 1"));
    // A copy under another name is another shard's state.
    assert_eq!(refused(&kept, &fs::read(kept.file(10)).unwrap(), "another offset"), "other");
}

#[test]
fn another_jobs_snapshot_is_not_used() {
    let kept = kept(&[10]);
    let other = Store::open(kept.folder.path().to_str().unwrap(), "other").unwrap();
    assert_eq!(other.list_all().unwrap(), []);
    fs::create_dir(kept.folder.path().join("other")).unwrap();
    let name = kept.file(10).file_name().unwrap().to_owned();
    fs::copy(kept.file(10), kept.folder.path().join("other").join(name)).unwrap();
    let newest = newest(&other, i64::MAX);
    assert!(newest.found.is_none());
    let told = newest.skipped[0].error.to_string();
    assert!(told.contains("\"watch\"") && told.contains("\"other\""), "{told}");
}

#[test]
fn the_newest_not_beyond_an_offset_is_used() {
    let kept = kept(&[10, 9, 100, 20]);
    assert_eq!(kept.offsets(), [100, 20, 10, 9], "by number, not by text");
    for (at_most, expected) in [(100, Some(100)), (99, Some(20)), (20, Some(20)), (9, Some(9)), (8, None)] {
        let newest = newest(&kept.store, at_most);
        assert_eq!(newest.found.map(|snapshot| snapshot.header.offset), expected, "at most {at_most}");
        assert!(newest.skipped.is_empty());
    }
    let other = kept.store.newest(TOPIC, 0, 0..=i64::MAX, |snapshot| Ok(Some(snapshot))).unwrap();
    assert!(other.found.is_none(), "another partition");
}

#[test]
fn shards_with_similar_names_are_kept_apart() {
    let kept = kept(&[]);
    for (topic, partition) in [("a", 1), ("a-1", 0), ("a-1-0", 1), ("a", 10)] {
        let header = Header { topic: topic.to_owned(), partition, ..header(7) };
        keep(&kept.store, &Snapshot { header, ..snapshot(7) });
    }
    let shards: Vec<String> = kept.store.list_all().unwrap().iter().map(|entry| entry.name()).collect();
    assert_eq!(shards, ["a/1@7", "a/10@7", "a-1/0@7", "a-1-0/1@7"]);
    assert_eq!(kept.store.prune("a", 1, 0).unwrap(), 1);
    assert_eq!(kept.store.list_all().unwrap().len(), 3);
}

#[test]
fn old_ones_are_removed_and_others_left_alone() {
    let kept = kept(&[10, 20, 30]);
    keep(&kept.store, &Snapshot { header: Header { partition: 4, ..header(5) }, ..snapshot(5) });
    fs::write(kept.folder.path().join(JOB).join("notes.txt"), "mine").unwrap();
    assert_eq!(kept.store.prune(TOPIC, 3, 2).unwrap(), 1);
    assert_eq!(kept.offsets(), [30, 20]);
    assert_eq!(kept.store.prune(TOPIC, 3, 1).unwrap(), 1);
    assert_eq!(kept.offsets(), [30]);
    assert_eq!(kept.store.list(TOPIC, 4).unwrap().len(), 1);
    assert!(kept.files().contains("notes.txt"));
}

#[test]
fn a_shard_that_is_begun_anew_further_back_keeps_its_new_ones() {
    let kept = kept(&[100, 200]);
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    for offset in [100, 200] {
        fs::File::options().write(true).open(kept.file(offset)).unwrap().set_modified(before).unwrap();
    }
    for (offset, left) in
        [(10, vec![200, 100, 10]), (20, vec![200, 100, 20, 10]), (30, vec![200, 100, 30, 20])]
    {
        keep(&kept.store, &snapshot(offset));
        kept.store.prune(TOPIC, 3, 2).unwrap();
        assert_eq!(kept.offsets(), left);
    }
    // When the old ones are passed they go.
    for offset in [300, 400] {
        keep(&kept.store, &snapshot(offset));
        kept.store.prune(TOPIC, 3, 2).unwrap();
    }
    assert_eq!(kept.offsets(), [400, 300]);
}

#[test]
fn nothing_is_left_of_what_was_not_published() {
    let kept = kept(&[10]);
    let mut writer = kept.store.begin_snapshot(&header(20)).unwrap();
    writer.section("account", &[1; 1_000_000]).unwrap();
    assert_eq!(kept.files().len(), 2, "it is being written");
    assert_eq!(kept.offsets(), [10], "but is not there");
    drop(writer);
    drop(write(&kept.store, &snapshot(30)).unwrap());
    assert_eq!(kept.files().len(), 1);
    let written = write(&kept.store, &snapshot(40)).unwrap();
    fs::remove_dir_all(kept.folder.path().join(JOB)).unwrap();
    let error = written.publish().unwrap_err().to_string();
    assert!(error.contains("ticks.raw/3"), "{error}");
    assert_eq!(kept.newest().0, None);
}

#[test]
fn crash_leftovers_go_and_what_is_being_written_stays() {
    let kept = kept(&[10]);
    let folder = kept.folder.path().join(JOB);
    let left = [format!(".{TOPIC}-3-20.snapshot.1.0.tmp"), format!(".{TOPIC}-3-20.snapshot.77.12.tmp")];
    let others = format!(".{TOPIC}-4-20.snapshot.1.0.tmp");
    for name in left.iter().chain([&others]) {
        fs::write(folder.join(name), "half").unwrap();
    }
    let writer = kept.store.begin_snapshot(&header(30)).unwrap();
    assert_eq!(kept.newest().0, Some(10));
    assert_eq!(kept.store.prune(TOPIC, 3, 2).unwrap(), 0);
    let files = kept.files();
    assert!(left.iter().all(|name| !files.contains(name)), "{files:?}");
    assert!(files.contains(&others), "another shard's are for its own writer");
    assert_eq!(files.len(), 3, "the one that is being written is there: {files:?}");
    writer.finish().unwrap().publish().unwrap();
    assert_eq!(kept.offsets(), [30, 10]);
}

#[test]
fn writers_of_two_shards_and_of_one_do_not_disturb_each_other() {
    let kept = kept(&[]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = kept.store.clone();
            scope.spawn(move || {
                for round in 0..20 {
                    let header = Header { partition: thread % 2, ..header(round) };
                    let written = write(&store, &Snapshot { header, ..snapshot(round) }).unwrap();
                    // Two are at each shard: one may find the other at it.
                    match written.publish() {
                        Ok(_) | Err(StoreError::Busy { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    match store.prune(TOPIC, thread % 2, 3) {
                        Ok(_) | Err(StoreError::Busy { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    for partition in 0..2 {
        kept.store.prune(TOPIC, partition, 3).unwrap();
        let entries = kept.store.list(TOPIC, partition).unwrap();
        // The newest by offset and by time, as the two came past each other.
        assert!((3..=6).contains(&entries.len()), "{entries:?}");
        for entry in entries {
            kept.store.load(&entry).unwrap();
        }
    }
    assert!(kept.files().iter().all(|name| !name.ends_with(".tmp")));
}

#[test]
fn a_shard_that_another_process_is_at_is_left_alone() {
    let kept = kept(&[10, 20]);
    let lock = kept.folder.path().join(JOB).join(format!(".{TOPIC}-3.lock"));
    let held = fs::File::open(lock).unwrap();
    held.lock().unwrap();
    let busy = write(&kept.store, &snapshot(30)).unwrap().publish().unwrap_err();
    assert!(matches!(busy, StoreError::Busy { .. }), "{busy}");
    assert!(busy.to_string().contains("ticks.raw/3"), "{busy}");
    assert!(matches!(kept.store.prune(TOPIC, 3, 1), Err(StoreError::Busy { .. })));
    assert_eq!(kept.offsets(), [20, 10]);
    assert_eq!(kept.files().len(), 2, "nothing is left of it");
    drop(held);
    keep(&kept.store, &snapshot(30));
    assert_eq!(kept.offsets(), [30, 20, 10]);
}

#[test]
fn places_that_are_none_are_told() {
    #[track_caller]
    fn check(location: &str, job: &str, told: &str) {
        let error = Store::open(location, job).unwrap_err().to_string();
        assert!(error.contains(told), "{location}: {error}");
    }
    check("", JOB, "it names no folder");
    check("ftp://host/x", JOB, "s3://");
    check("file://host/x", JOB, "slash");
    check("/tmp", "..", "\"..\"");
    check("/tmp", "a/b", "\"a/b\"");
    #[cfg(not(feature = "cloud"))]
    check("s3://bucket/prefix", JOB, "--features cloud");
    let folder = TempDir::new().unwrap();
    let store = Store::open(&format!("file://{}", folder.path().display()), JOB).unwrap();
    assert_eq!(store.list_all().unwrap(), [], "nothing is there yet, and looking makes nothing");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    keep(&store, &snapshot(1));
    assert!(folder.path().join(JOB).join("ticks.raw-3-1.snapshot").is_file());
}

/// Names the folder for the test inside.
const INSIDE: &str = "FORESHOCK_TEST_STATE_FOLDER";

/// Runs one test of this file again, in a mount namespace of its own after this was done; false, aloud, where there
/// can't be one.
#[track_caller]
fn inside(test: &str, setup: &str, folder: &Path) -> bool {
    let script = format!("{setup}\nexec \"$TEST\" --exact state::{test} --nocapture");
    let root: &[&str] = if nix_is_root() { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] };
    let can = Command::new("unshare").args(root).args(["mount", "-t", "tmpfs", "t"]).arg(folder).status();
    if !can.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED {test}: no file system can be mounted here (unshare --mount)");
        return false;
    }
    let ended = Command::new("unshare")
        .args(root)
        .args(["sh", "-euc", &script])
        .env("TEST", std::env::current_exe().unwrap())
        .env("FOLDER", folder)
        .env(INSIDE, folder)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && told.contains("1 passed"), "{told}");
    true
}

fn nix_is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let Ok(folder) = std::env::var(INSIDE) else {
        let kept = kept(&[]);
        let setup = "mount -t tmpfs -o size=1m tmpfs \"$FOLDER\"";
        inside("a_full_disk_is_an_error_and_leaves_nothing", setup, kept.folder.path());
        return;
    };
    let store = Store::open(&folder, JOB).unwrap();
    keep(&store, &snapshot(10));
    let mut large = snapshot(20);
    // Less than a buffer at a time, so that any write may be the one that fails; and one that only the end writes.
    for (sections, bytes) in [(40, 50_000), (1, 20_000_000)] {
        large.sections = (0..sections).map(|n| (format!("{n}"), vec![1; bytes])).collect();
        let error = write(&store, &large).unwrap_err();
        let told = format!("{:#}", anyhow::Error::from(error));
        assert!(told.contains("ticks.raw/3@20") && told.contains("No space left"), "{told}");
    }
    // A part of it that has room may not be taken for all of it.
    let mut writer = store.begin_snapshot(&header(20)).unwrap();
    while writer.section("more", &[0; 100_000]).is_ok() {}
    fs::write(Path::new(&folder).join("other"), "").unwrap();
    writer.section("small", b"1").unwrap_err();
    let _ = writer.finish().map(|_| panic!("it is not whole"));
    let newest = newest(&store, i64::MAX);
    assert_eq!(newest.found.unwrap().header.offset, 10);
    assert!(newest.skipped.is_empty());
    keep(&store, &snapshot(20));
}

#[test]
fn a_read_only_folder_is_an_error() {
    let Ok(folder) = std::env::var(INSIDE) else {
        let kept = kept(&[]);
        let setup = "mount -t tmpfs tmpfs \"$FOLDER\"";
        inside("a_read_only_folder_is_an_error", setup, kept.folder.path());
        return;
    };
    let store = Store::open(&folder, JOB).unwrap();
    keep(&store, &snapshot(10));
    keep(&store, &snapshot(20));
    let mut begun = store.begin_snapshot(&header(30)).unwrap();
    begun.section("account", b"1").unwrap();
    let written = begun.finish().unwrap();
    // Lazily: the open files are let go of.
    let remount = |how: &str| {
        let done = Command::new("mount").args(["-o", how, &folder]).status().unwrap();
        done.success()
    };
    drop(written);
    assert!(remount("remount,ro"));
    #[track_caller]
    fn check<T>(done: Result<T, StoreError>, what: &str) {
        let Err(error) = done else { panic!("{what} should fail") };
        let told = format!("{:#}", anyhow::Error::from(error));
        assert!(told.contains(what) && told.contains("Read-only file system"), "{told}");
    }
    check(store.begin_snapshot(&header(30)), "begin a snapshot of ticks.raw/3@30");
    check(store.prune(TOPIC, 3, 1), "ticks.raw/3");
    let newest = newest(&store, i64::MAX);
    assert_eq!(newest.found.unwrap().header.offset, 20, "it can be read");
    assert!(remount("remount,rw"));
    keep(&store, &snapshot(30));
}

/// `foreshock state` on this store.
fn command<'a>(kept: &Kept, args: impl IntoIterator<Item = &'a str>) -> Ended {
    let mut command = foreshock();
    command.arg("state").args(args);
    command.env("FORESHOCK_JOB__NAME", JOB).env("FORESHOCK_STATE__STORE", kept.folder.path());
    finish(command, None)
}

#[track_caller]
fn json<'a>(kept: &Kept, args: impl IntoIterator<Item = &'a str>) -> Value {
    let ended = command(kept, args);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    serde_json::from_slice(&ended.stdout).unwrap()
}

#[test]
fn the_list_says_what_is_good() {
    let kept = kept(&[10, 20]);
    keep(&kept.store, &Snapshot { header: Header { partition: 4, ..header(5) }, ..snapshot(5) });
    fs::write(kept.file(20), &fs::read(kept.file(20)).unwrap()[..300]).unwrap();
    let listed = json(&kept, ["list", "--json"]);
    let of = |name: &str| -> Vec<Value> {
        listed["snapshots"].as_array().unwrap().iter().map(|entry| entry[name].clone()).collect()
    };
    assert_eq!(of("offset"), [20, 10, 5]);
    assert_eq!(of("partition"), [3, 3, 4]);
    assert_eq!(of("state"), ["damaged", "good", "good"]);
    assert_eq!(of("instruments"), [Value::Null, 2.into(), 2.into()]);
    assert!(of("problem")[0].as_str().unwrap().contains("at byte 300"), "{listed}");
    assert_eq!(of("bytes")[1], fs::metadata(kept.file(10)).unwrap().len());

    let ended = command(&kept, ["list"]);
    let text = String::from_utf8(ended.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((ended.status, lines.len(), ended.stderr.as_str()), (Some(0), 4, ""), "{text}");
    let words = |line: &'static str| line.split_whitespace();
    assert!(lines[0].split_whitespace().eq(words("shard offset age bytes instruments state")), "{text}");
    assert!(lines[1].starts_with("ticks.raw/3") && lines[1].contains("damaged at byte 300"), "{text}");
    assert!(lines[2].ends_with("good"), "{text}");
}

#[test]
fn verifying_fails_when_one_is_damaged() {
    let kept = kept(&[10, 20]);
    let ended = command(&kept, ["verify"]);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "ticks.raw/3@20: good\nticks.raw/3@10: good\n");
    fs::write(kept.file(10), "PK").unwrap();
    let ended = command(&kept, ["verify"]);
    assert_eq!(ended.status, Some(1));
    let told = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(told, "ticks.raw/3@20: good\nticks.raw/3@10: it is no snapshot of foreshock's\n");
    assert!(ended.stderr.contains("1 of 2 snapshots can't be used"), "{}", ended.stderr);
    let ended = command(&kept, ["verify", "--json"]);
    let object: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.status, &object["snapshots"][1]["state"]), (Some(1), &"foreign".into()));
}

#[test]
fn one_snapshot_is_shown_with_its_largest_instruments_first() {
    let kept = kept(&[10]);
    let mut large = snapshot(20);
    large.instruments[1].sections.insert("more".to_owned(), vec![0; 5_000]);
    keep(&kept.store, &large);
    let shown = json(&kept, ["inspect", "ticks.raw/3", "--json"]);
    assert_eq!(shown["offset"], 20, "the newest");
    assert_eq!(shown["header"]["last_record"]["sha256"], "a5".repeat(32));
    assert_eq!(shown["header"]["made_at"], "2026-09-21T14:13:20.123Z");
    assert_eq!(shown["sections"]["account"], 8);
    assert_eq!(shown["instruments"][0]["symbol"], "ETHUSDT");
    assert_eq!(shown["instruments"][0]["sections"]["more"], 5_000);
    assert_eq!(shown["instruments"][1]["bytes"], "features at 20".len());

    let text = String::from_utf8(command(&kept, ["inspect", "ticks.raw/3@10"]).stdout).unwrap();
    for part in ["ticks.raw/3@10", "offset 9, sha256 a5a5", "0, begun with empty state", "binance:BTCUSDT"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    #[track_caller]
    fn fails(kept: &Kept, wanted: &str, status: i32, told: &str) {
        let ended = command(kept, ["inspect", wanted]);
        assert_eq!(ended.status, Some(status), "{}", ended.stderr);
        assert!(ended.stdout.is_empty() && ended.stderr.contains(told), "{}", ended.stderr);
    }
    fails(&kept, "ticks.raw/3@11", 1, "there is no snapshot of ticks.raw/3 at offset 11");
    fails(&kept, "ticks.raw", 2, "like ticks.raw/0@1200");
    fs::write(kept.file(10), "PK").unwrap();
    fails(&kept, "ticks.raw/3@10", 1, "it is no snapshot of foreshock's");
}

#[test]
fn a_store_with_nothing_in_it_is_no_error_and_a_wrong_one_is() {
    let kept = kept(&[]);
    assert_eq!(json(&kept, ["list", "--json"])["snapshots"], serde_json::json!([]));
    assert_eq!(command(&kept, ["verify"]).status, Some(0));
    let mut wrong = foreshock();
    wrong.args(["state", "list"]).env("FORESHOCK_STATE__STORE", "ftp://host");
    let ended = finish(wrong, None);
    assert_eq!(ended.status, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("state.store"), "{}", ended.stderr);
}
