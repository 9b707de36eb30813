//! What can be wrong with a path, and what opening does not depend on.

use orchestrix::store::{OpenError, Sqlite};
use orchestrix_core::{EventStore, ShardCount};

use super::owner::{Owner, Place, length};

async fn refusal(path: impl Into<std::path::PathBuf>) -> OpenError {
    Sqlite::open(path).connect().await.expect_err("it cannot be opened")
}

#[tokio::test]
async fn missing_directories_are_created() {
    let place = Place::new();
    let path = place.directory().join("a/b/bank.db");
    let store = Sqlite::open(&path).connect().await.expect("it opens");
    assert_eq!(store.path(), path);
    assert!(path.exists());
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let place = Place::new();
    std::fs::write(place.directory().join("file"), "").expect("a file");
    let error = refusal(place.directory().join("file/bank.db")).await;
    assert!(matches!(&error, OpenError::Directory { .. }), "{error}");
    assert!(error.to_string().contains("file/bank.db cannot be created"), "{error}");
}

#[tokio::test]
async fn a_path_that_is_a_directory_cannot_be_written() {
    let place = Place::new();
    std::fs::create_dir(place.path()).expect("a directory");
    let error = refusal(place.path()).await;
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let place = Place::new();
    let text = "dear diary, ".repeat(1_000);
    std::fs::write(place.path(), &text).expect("a file");
    let error = refusal(place.path()).await;
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(place.path()).expect("it is still there"), text);
}

#[tokio::test]
async fn a_database_whose_shards_are_gone_is_corrupt() {
    let place = Place::new();
    place.open().await.close().await;
    place.run("DELETE FROM shards WHERE shard = 7").await;
    let error = refusal(place.path()).await;
    assert!(
        matches!(&error, OpenError::Corrupt { reason, .. } if reason.contains("16 shards and has 15")),
        "{error}"
    );
}

#[tokio::test]
async fn a_read_only_store_creates_nothing() {
    let place = Place::new();
    let error = Sqlite::open(place.path()).read_only().connect().await.expect_err("there is nothing");
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    assert!(!place.path().exists());
}

#[tokio::test]
async fn the_number_of_shards_is_fixed_when_a_database_is_created() {
    let place = Place::new();
    let eight = ShardCount::new(8).expect("in range");
    let store = Sqlite::open(place.path()).shards(eight).connect().await.expect("it opens");
    assert_eq!(store.info().shard_count, eight);
    store.close().await;
    assert_eq!(place.open().await.info().shard_count, eight, "who asks for none gets what there is");
    let error =
        Sqlite::open(place.path()).shards(ShardCount::DEFAULT).connect().await.expect_err("they differ");
    assert!(matches!(error, OpenError::ShardCount { stored: 8, wanted: 256, .. }), "{error}");
}

#[tokio::test]
async fn a_hundred_readers_read_while_the_writer_writes() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    let readers: Vec<_> = (0..100)
        .map(|_| {
            let store = owner.store.clone();
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < 50 {
                    let now = length(&store, "a").await;
                    assert!(now >= seen, "{now} events after {seen}");
                    seen = now;
                }
            })
        })
        .collect();
    for version in 0..50 {
        assert!(owner.note("a", version).await.is_committed());
    }
    for reader in readers {
        reader.await.expect("no reader failed");
    }
}
