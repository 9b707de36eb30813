//! Backups and restores: what is promised of them, on every store.

mod damage;
mod former_life;
mod interrupted;
mod load;
mod place;

use std::sync::Arc;

use orchestrix::core::store::RecordedEvent;
use orchestrix::core::{EventStore, Seq, ShardId};
use orchestrix::ops::backup::{Backup, Restore, RestoreError, verify};

use self::place::{Kind, Room, log_of};

/// Puts a log through a backup into a store of another kind, and looks at every byte.
#[tokio::test]
async fn a_log_comes_back_byte_for_byte_on_every_kind_of_store() {
    for (from, to) in [
        (Kind::Memory, Kind::Sqlite),
        (Kind::Sqlite, Kind::Postgres),
        (Kind::Postgres, Kind::Memory),
        (Kind::Postgres, Kind::Postgres),
    ] {
        let source = Room::new(from);
        place::fill(&source.open().await, 40).await;
        let log = log_of(source.open().await.as_ref()).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let manifest =
            Backup::new(source.open().await, folder.path()).part_events(7).take().await.expect("takes");
        assert_eq!(manifest.events, log.len() as u64);
        assert_eq!(verify(folder.path(), None).await.expect("it is sound").manifest, manifest);
        let target = Room::new(to);
        let restored = Restore::new(folder.path()).into(target.open().await).await.expect("restores");
        assert_eq!((restored.events, restored.left_out), (manifest.events, 0));
        assert_eq!(log_of(target.open().await.as_ref()).await, log, "{from:?} to {to:?}");
        place::serves(&target, &log).await;
    }
}

#[tokio::test]
async fn a_store_that_is_in_use_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = Room::new(Kind::Memory);
    place::fill(&source.open().await, 3).await;
    Backup::new(source.open().await, folder.path()).take().await.expect("takes");
    for kind in [Kind::Memory, Kind::Sqlite, Kind::Postgres] {
        let target = Room::new(kind);
        place::fill(&target.open().await, 1).await;
        let before = log_of(target.open().await.as_ref()).await;
        let refused = Restore::new(folder.path()).into(target.open().await).await.expect_err("it has events");
        assert!(refused.to_string().contains("import into a new database"), "{refused}");
        assert_eq!(log_of(target.open().await.as_ref()).await, before);
    }
}

#[tokio::test]
async fn another_number_of_shards_is_refused_with_the_right_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Backup::new(Room::new(Kind::Memory).open().await, folder.path()).take().await.expect("takes");
    let other =
        orchestrix::store::Memory::with_shards(orchestrix::core::ShardCount::new(3).expect("in range"));
    let refused = Restore::new(folder.path()).into(Arc::new(other)).await.expect_err("the shards differ");
    assert!(refused.to_string().contains("SHARD_COUNT=8"), "{refused}");
}

/// A position names where each shard ends; a commit that goes on behind it is left out as a whole.
#[tokio::test]
async fn a_restore_may_end_at_a_position() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = Room::new(Kind::Memory);
    place::fill(&source.open().await, 30).await;
    let store = source.open().await;
    Backup::new(Arc::clone(&store), folder.path()).take().await.expect("takes");
    let log = log_of(store.as_ref()).await;
    let of = |shard: ShardId| log.iter().filter(move |event| event.shard == shard);
    let in_commit =
        log.iter().find(|event| event.receipt.is_none()).expect("there are commits of two events");
    let (shard, seq) = (in_commit.shard, in_commit.seq);
    let target = Room::new(Kind::Memory);
    let restored =
        Restore::new(folder.path()).position(shard, seq).into(target.open().await).await.expect("restores");
    let expected: Vec<&RecordedEvent> =
        log.iter().filter(|event| event.shard != shard || event.seq < seq).collect();
    assert_eq!(log_of(target.open().await.as_ref()).await.iter().collect::<Vec<_>>(), expected);
    assert_eq!(restored.left_out, of(shard).count() as u64 - (seq.get() - 1));
    let beyond = Restore::new(folder.path()).position(shard, Seq::new(9_999));
    let refused = beyond.into(Room::new(Kind::Memory).open().await).await.expect_err("it is not there");
    assert!(matches!(refused, RestoreError::Position { .. }), "{refused}");
}

/// Reads a whole log shard by shard.
async fn heads(store: &dyn EventStore) -> Vec<Seq> {
    store.heads().await.expect("the heads can be read")
}
