//! Backups and restores that are cut off half-way, and go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrix::core::store::ClaimError;
use orchestrix::core::{EventStore, Incarnation, ShardId, Timestamp};
use orchestrix::ops::backup::{Backup, BackupError, Progress, Restore, verify};
use tokio::sync::Notify;

use super::place::{self, Kind, Room, log_of};

/// Tells when half of the work is done.
fn half_way() -> (Progress, Arc<Notify>) {
    let half = Arc::new(Notify::new());
    let told = Arc::clone(&half);
    let progress: Progress = Arc::new(move |done, all| {
        if done * 2 >= all {
            told.notify_one();
        }
    });
    (progress, half)
}

/// How long a folder must stay as it is to count as left alone. A write that was under way when its backup was dropped
/// still comes to its end.
const REST: Duration = Duration::from_millis(100);

/// Begins a backup of a store in a folder and drops it half-way.
pub(super) async fn interrupted(store: Arc<dyn EventStore>, folder: &Path, part_events: u64) {
    let (progress, half) = half_way();
    let backup = Backup::new(store, folder).part_events(part_events).progress(progress);
    tokio::select! {
        biased;
        () = half.notified() => {}
        taken = backup.take() => panic!("it came to its end: {taken:?}"),
    }
    let mut before = None;
    while before.as_ref() != Some(&contents(folder)) {
        before = Some(contents(folder));
        tokio::time::sleep(REST).await;
    }
}

/// Returns every file with its size.
fn contents(folder: &Path) -> BTreeMap<std::ffi::OsString, Option<u64>> {
    let entries = std::fs::read_dir(folder).expect("reads").map(|entry| entry.expect("an entry"));
    // One that has just got its final name has no size under the old one.
    entries.map(|entry| (entry.file_name(), entry.metadata().ok().map(|data| data.len()))).collect()
}

/// Returns the complete parts, with what changes when a file is written again.
fn parts(folder: &Path) -> BTreeMap<String, std::time::SystemTime> {
    let entries = std::fs::read_dir(folder).expect("reads").map(|entry| entry.expect("an entry"));
    let parts = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".ndjson"));
    parts
        .map(|entry| {
            let written = entry.metadata().expect("is there").modified().expect("has a time");
            (entry.file_name().to_string_lossy().into_owned(), written)
        })
        .collect()
}

#[tokio::test]
async fn an_interrupted_backup_goes_on_with_its_complete_parts_and_its_own_moment() {
    for kind in [Kind::Memory, Kind::Postgres] {
        let room = Room::new(kind);
        place::fill(&room.open().await, 120).await;
        let log = log_of(room.open().await.as_ref()).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        interrupted(room.open().await, folder.path(), 5).await;
        let error = verify(folder.path(), None).await.expect_err("it is not complete");
        assert!(matches!(error, BackupError::NoManifest { .. }), "{error}");
        let before = parts(folder.path());
        assert!(before.len() > 4, "{before:?}");
        // What is stored in between is not part of it.
        place::fill(&room.open().await, 10).await;
        let backup = Backup::new(room.open().await, folder.path()).part_events(5);
        let manifest = backup.take().await.expect("it goes on");
        let after = parts(folder.path());
        assert!(before.iter().all(|part| after.get_key_value(part.0) == Some(part)), "complete parts stay");
        assert_eq!(manifest.events, log.len() as u64);
        let target = Room::new(Kind::Memory);
        Restore::new(folder.path()).into(target.open().await).await.expect("restores");
        assert_eq!(log_of(target.open().await.as_ref()).await, log);
        let left = std::fs::read_dir(folder.path()).expect("reads").count();
        assert_eq!(left, after.len() + 1, "nothing but parts and the manifest is left");
    }
}

#[tokio::test]
async fn a_backup_does_not_go_on_with_that_of_another_log() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (one, other) = (Room::new(Kind::Memory), Room::new(Kind::Memory));
    place::fill(&one.open().await, 60).await;
    place::fill(&other.open().await, 60).await;
    interrupted(one.open().await, folder.path(), 5).await;
    let error = Backup::new(other.open().await, folder.path()).take().await.expect_err("it is another log");
    assert!(matches!(error, BackupError::OtherLog { .. }), "{error}");
    Backup::new(one.open().await, folder.path()).take().await.expect("it goes on with its own");
    let error = Backup::new(one.open().await, folder.path()).take().await.expect_err("it is complete");
    assert!(error.to_string().contains("holds a complete backup"), "{error}");
}

#[tokio::test]
async fn two_backups_do_not_write_into_one_directory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let room = Room::new(Kind::Memory);
    place::fill(&room.open().await, 60).await;
    let (progress, half) = half_way();
    let first = Backup::new(room.open().await, folder.path()).part_events(5).progress(progress);
    let mut first = Box::pin(first.take());
    tokio::select! {
        biased;
        () = half.notified() => {}
        taken = &mut first => panic!("it came to its end: {taken:?}"),
    }
    let error = Backup::new(room.open().await, folder.path()).take().await.expect_err("the first one writes");
    assert!(error.to_string().contains("is being written by another backup"), "{error}");
    first.await.expect("the first one is not disturbed");
}

#[tokio::test]
async fn an_interrupted_restore_is_of_use_to_nobody_until_it_has_gone_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = Room::new(Kind::Memory);
    place::fill(&source.open().await, 200).await;
    Backup::new(source.open().await, folder.path()).part_events(9).take().await.expect("takes");
    let log = log_of(source.open().await.as_ref()).await;
    for kind in [Kind::Sqlite, Kind::Postgres, Kind::Memory] {
        let room = Room::new(kind);
        half_restored(folder.path(), &room, log.len() as u64).await;
        let store = room.open().await;
        let shards: Vec<ShardId> = store.info().shard_count.all().collect();
        let claimed = store.claim(&shards, Incarnation::fresh()).await.expect_err("it is not finished");
        assert!(matches!(&claimed, ClaimError::Unavailable { .. }), "{claimed}");
        let other = Restore::new(folder.path()).until(Timestamp::from_micros(0));
        let error = other.into(Arc::clone(&store)).await.expect_err("it is another restore");
        assert!(error.to_string().contains("another import is under way: backup "), "{error}");
        let restored = Restore::new(folder.path()).into(Arc::clone(&store)).await.expect("it goes on");
        assert!(restored.found > 0 && restored.events == log.len() as u64, "{restored:?}");
        store.close().await;
        assert_eq!(log_of(room.open().await.as_ref()).await, log, "{kind:?}");
        place::serves(&room, &log).await;
    }
}

/// Stops a restore when some of the events are in the store: what follows the verification counts up from nothing.
async fn half_restored(folder: &Path, room: &Room, events: u64) {
    let store = room.open().await;
    let stop = Arc::new(Notify::new());
    let (told, verified) = (Arc::clone(&stop), std::sync::atomic::AtomicBool::new(false));
    let progress: Progress = Arc::new(move |done, _| {
        use std::sync::atomic::Ordering;
        // The verification ends with all of them.
        if done == events {
            verified.store(true, Ordering::Release);
        } else if verified.load(Ordering::Acquire) {
            told.notify_one();
        }
    });
    let restore = Restore::new(folder).progress(progress).into(Arc::clone(&store));
    tokio::select! {
        biased;
        () = stop.notified() => {}
        restored = restore => panic!("it came to its end: {restored:?}"),
    }
    store.close().await;
}
