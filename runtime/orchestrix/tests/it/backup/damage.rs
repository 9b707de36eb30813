//! One wrong byte in any kind of file is found, and the file is named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrix::core::EventStore;
use orchestrix::ops::backup::{Backup, BackupError, Restore, verify};

use super::interrupted::interrupted;
use super::place::{self, Kind, Room, log_of};

async fn taken() -> tempfile::TempDir {
    let room = Room::new(Kind::Memory);
    place::fill(&room.open().await, 40).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    Backup::new(room.open().await, folder.path()).part_events(5).take().await.expect("takes");
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("reads").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Changes one bit of a file for as long as `look` looks.
async fn with_wrong_byte(path: &Path, at: usize, look: impl AsyncFnOnce()) {
    let good = std::fs::read(path).expect("reads");
    let mut bad = good.clone();
    bad[at] ^= 1;
    std::fs::write(path, bad).expect("writes");
    look().await;
    std::fs::write(path, good).expect("writes");
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

#[tokio::test]
async fn a_wrong_byte_in_any_file_is_found_and_the_file_is_named() {
    let folder = taken().await;
    let files = files(folder.path());
    assert!(files.len() > 8, "there are parts and a manifest: {files:?}");
    for path in &files {
        let length = std::fs::metadata(path).expect("is there").len() as usize;
        for at in (0..length).step_by(length / 20) {
            with_wrong_byte(path, at, async || {
                let error = verify(folder.path(), None).await.expect_err("a byte is wrong");
                assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
                assert!(error.to_string().contains(&name(path)), "byte {at} of {path:?}: {error}");
            })
            .await;
        }
    }
    verify(folder.path(), None).await.expect("all is as it was");
}

#[tokio::test]
async fn a_damaged_backup_is_not_restored_and_the_store_stays_as_it_was() {
    let folder = taken().await;
    let part = files(folder.path()).into_iter().find(|path| name(path).starts_with("shard")).expect("a part");
    let room = Room::new(Kind::Memory);
    with_wrong_byte(&part, 300, async || {
        let error = Restore::new(folder.path()).into(room.open().await).await.expect_err("a byte is wrong");
        assert!(error.to_string().contains(&name(&part)), "{error}");
    })
    .await;
    place::fill(&room.open().await, 1).await;
    assert_eq!(
        log_of(room.open().await.as_ref()).await.len(),
        2,
        "it was never marked, so a node can use it"
    );
}

#[tokio::test]
async fn a_missing_part_a_missing_manifest_and_another_directory_are_told_apart() {
    let folder = taken().await;
    let parts = files(folder.path());
    let part = parts.iter().find(|path| name(path).starts_with("shard")).expect("a part");
    let text = std::fs::read(part).expect("reads");
    std::fs::remove_file(part).expect("removes");
    let error = verify(folder.path(), None).await.expect_err("a part is gone");
    assert!(error.to_string().contains(&format!("{} is damaged: it is missing", name(part))), "{error}");
    std::fs::write(part, text).expect("writes");
    std::fs::rename(folder.path().join("manifest.json"), folder.path().join("moved")).expect("moves");
    let error = verify(folder.path(), None).await.expect_err("the manifest is gone");
    assert!(matches!(error, BackupError::NoManifest { .. }), "{error}");
    let store: Arc<dyn EventStore> = Room::new(Kind::Memory).open().await;
    let error = Backup::new(store, folder.path()).take().await.expect_err("something else is there");
    assert!(error.to_string().contains("holds moved, which belongs to no backup"), "{error}");
}

#[tokio::test]
async fn a_backup_of_a_newer_format_says_so() {
    let folder = taken().await;
    let path = folder.path().join("manifest.json");
    let text = std::fs::read_to_string(&path).expect("reads").replace("\"format\": 1", "\"format\": 2");
    std::fs::write(&path, text).expect("writes");
    let error = verify(folder.path(), None).await.expect_err("it is newer");
    assert!(matches!(error, BackupError::Newer { found: 2, known: 1, .. }), "{error}");
}

/// What an interrupted backup left behind is looked at as closely.
#[tokio::test]
async fn a_wrong_byte_in_an_interrupted_backup_is_found_when_it_goes_on() {
    let room = Room::new(Kind::Memory);
    place::fill(&room.open().await, 60).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    interrupted(room.open().await, folder.path(), 4).await;
    let files = files(folder.path());
    let kinds = ["begun.json", "shard"].map(|kind| files.iter().find(|path| name(path).starts_with(kind)));
    for path in kinds.map(|path| path.expect("it was left behind")) {
        let length = std::fs::metadata(path).expect("is there").len() as usize;
        for at in (0..length).step_by(length / 10) {
            with_wrong_byte(path, at, async || {
                let again = Backup::new(room.open().await, folder.path()).part_events(4);
                let error = again.take().await.expect_err("a byte is wrong");
                assert!(error.to_string().contains(&name(path)), "byte {at} of {path:?}: {error}");
            })
            .await;
        }
    }
}
