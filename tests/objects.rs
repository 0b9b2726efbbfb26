//! Snapshots in object stores: one in memory, and the one that `FORESHOCK_TEST_STORE` names by its URL.
#![cfg(feature = "cloud")]

use std::sync::Arc;

use foreshock::state::{Entry, Header, Newest, ReadError, Snapshot, Store, StoreError};
use foreshock_operators::time::Time;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

const JOB: &str = "watch";
const TOPIC: &str = "ticks.raw";

fn header(offset: i64) -> Header {
    Header {
        job: JOB.to_owned(),
        topic: TOPIC.to_owned(),
        partition: 0,
        life: String::new(),
        offset,
        origin: 0,
        origin_is_cold: true,
        last_record: None,
        settings: String::new(),
        made_by: String::new(),
        made_at: Time(offset),
    }
}

/// Bytes that differ everywhere, so that parts in the wrong order show.
fn filling(offset: i64, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u64 * 0x9e37_79b9 + offset as u64).to_le_bytes()[3]).collect()
}

/// Keeps a snapshot of about this size.
#[track_caller]
fn keep(store: &Store, offset: i64, bytes: usize) -> Entry {
    let mut writer = store.begin_snapshot(&header(offset)).unwrap();
    writer.instrument("binance", "BTCUSDT", "features", &filling(offset, bytes)).unwrap();
    let written = writer.finish().unwrap();
    assert!(written.bytes > bytes as u64);
    written.publish().unwrap()
}

fn offsets(store: &Store) -> Vec<i64> {
    store.list(TOPIC, 0).unwrap().into_iter().map(|entry| entry.offset).collect()
}

/// The newest snapshot that can be used, whatever it holds.
fn newest(store: &Store, at_most: i64) -> Newest<Snapshot> {
    store.newest(TOPIC, 0, 0..=at_most, |snapshot| Ok(Some(snapshot))).unwrap()
}

/// What any store has to do.
#[track_caller]
fn check(store: &Store) {
    assert_eq!(offsets(store), [] as [i64; 0]);
    assert!(newest(store, i64::MAX).found.is_none());
    // One request, exactly a part, and several parts.
    for (offset, bytes) in [(9, 10), (10, 8 << 20), (100, 20_000_001)] {
        let entry = keep(store, offset, bytes);
        let snapshot = store.load(&entry).unwrap();
        assert_eq!(snapshot.header, header(offset));
        assert!(snapshot.instruments[0].sections["features"] == filling(offset, bytes), "{bytes} bytes");
    }
    assert_eq!(offsets(store), [100, 10, 9]);
    assert_eq!(newest(store, 99).found.unwrap().header.offset, 10);
    assert_eq!(store.prune(TOPIC, 0, 2).unwrap(), 1);
    assert_eq!(offsets(store), [100, 10]);
    // Nothing is left of one that isn't published.
    drop(store.begin_snapshot(&header(200)).unwrap().finish().unwrap());
    assert_eq!(offsets(store), [100, 10]);
    assert_eq!(store.prune(TOPIC, 0, 0).unwrap(), 2);
}

#[test]
fn an_object_store_keeps_snapshots() {
    check(&Store::of_objects(Arc::new(InMemory::new()), "some/prefix", JOB).unwrap());
}

#[test]
fn a_damaged_object_is_skipped() {
    let objects = Arc::new(InMemory::new());
    let store = Store::of_objects(objects.clone(), "prefix", JOB).unwrap();
    keep(&store, 10, 100);
    keep(&store, 20, 100);
    let path = Path::from(format!("prefix/{JOB}/{TOPIC}-0-20.snapshot"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let whole = objects.get(&path).await.unwrap().bytes().await.unwrap();
        objects.put(&path, whole.slice(..whole.len() - 1).into()).await.unwrap();
        // Not ours to look at.
        objects
            .put(&Path::from(format!("prefix/{JOB}/deeper/{TOPIC}-0-30.snapshot")), "x".into())
            .await
            .unwrap();
        assert_eq!(objects.list_with_delimiter(None).await.unwrap().common_prefixes.len(), 1);
    });
    let newest = newest(&store, i64::MAX);
    assert_eq!(newest.found.unwrap().header.offset, 10);
    assert_eq!(
        (newest.skipped[0].entry.offset, newest.skipped[0].error.downcast_ref::<ReadError>().unwrap().kind()),
        (20, "damaged")
    );
}

#[test]
fn the_store_that_is_named_keeps_snapshots() {
    let Ok(location) = std::env::var("FORESHOCK_TEST_STORE") else {
        eprintln!(
            "SKIPPED the_store_that_is_named_keeps_snapshots: FORESHOCK_TEST_STORE names no object store"
        );
        return;
    };
    check(&Store::open(&format!("{location}/{}", std::process::id()), JOB).unwrap());
}

#[test]
fn a_store_that_does_not_answer_is_an_error() {
    let Ok(location) = std::env::var("FORESHOCK_TEST_STORE") else {
        eprintln!(
            "SKIPPED a_store_that_does_not_answer_is_an_error: FORESHOCK_TEST_STORE names no object store"
        );
        return;
    };
    // A bucket that isn't there.
    let scheme = location.split_once("://").unwrap().0;
    let store = Store::open(&format!("{scheme}://no-such-bucket-anywhere/x"), JOB).unwrap();
    assert!(matches!(store.list_all(), Err(StoreError::Io { .. })));
    let published = store.begin_snapshot(&header(1)).unwrap().finish().unwrap().publish();
    let told = format!("{:#}", anyhow::Error::from(published.unwrap_err()));
    assert!(told.contains("publish the snapshot of ticks.raw/0@1"), "{told}");
}
