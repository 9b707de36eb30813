//! A slice beside appends, claims and another archive.

use orchestrix::core::store::CommitOutcome;
use orchestrix::core::{EventStore, StreamId};
use orchestrix::ops::archive::Archive;
use orchestrix::store::Postgres;
use sqlx::Executor as _;

use super::{LATER, archive, filled};
use crate::store_postgres::owner::{Owner, run, shards, until_waiting};

/// Moves a slice of this stream in a transaction that stays open.
async fn slice_by_hand(hand: &mut sqlx::postgres::PgConnection, store: &Postgres) {
    let shard = store.info().shard_count.shard_of("counter", "c-0");
    hand.execute("BEGIN").await.expect("begins");
    let text = format!(
        "SELECT * FROM orchestrix.archive_slice({shard}, '2200-01-01', 100, \
         (SELECT array_agg(s.stream) FROM orchestrix.snapshots AS s), \
         (SELECT array_agg(s.version) FROM orchestrix.snapshots AS s), \
         (SELECT array_agg(sha256(s.bytes)) FROM orchestrix.snapshots AS s))"
    );
    run(hand, &text).await;
}

#[tokio::test]
async fn an_append_does_not_wait_for_a_slice_and_a_claim_does() {
    let place = filled(1, 20).await;
    let store = place.open().await;
    let owner = Owner::of(&store).await;
    let shard = store.info().shard_count.shard_of("counter", "c-0");
    let next = |version| orchestrix::core::store::Commit {
        shard,
        stream: StreamId::new("counter", "c-0"),
        epoch: owner.claims[shard.get() as usize].epoch,
        ..owner.commit("x", version)
    };
    let (mut hand, mut other) = (place.by_hand().await, place.by_hand().await);
    slice_by_hand(&mut hand, &store).await;
    assert!(owner.append(vec![next(20)]).await[0].is_committed(), "in the middle of the slice");
    let read = store.load(&StreamId::new("counter", "c-0"), 100).await.expect("loads");
    assert_eq!(read.version.get(), 21, "a reader sees everything as it was");
    let claim = tokio::spawn({
        let store = place.open().await;
        async move { Owner::of(&store).await }
    });
    until_waiting(&mut other, 1).await;
    hand.execute("COMMIT").await.expect("commits");
    let new = claim.await.expect("it was let in");
    assert_eq!(new.claims[shard.get() as usize].head.get(), 21);
    assert_eq!(owner.append(vec![next(21)]).await, [CommitOutcome::Fenced]);
    let events = store.read_shard(shard, orchestrix::core::Seq::ZERO, 100).await.expect("reads");
    assert_eq!(events.len(), 21);
}

/// An archive that was cut off in the middle of a slice has moved nothing of it.
#[tokio::test]
async fn a_slice_that_is_rolled_back_was_never_moved() {
    let place = filled(1, 20).await;
    let store = place.open().await;
    let mut hand = place.by_hand().await;
    slice_by_hand(&mut hand, &store).await;
    hand.execute("ROLLBACK").await.expect("rolls back");
    assert_eq!(archive(&store).await.events, 18);
    assert_eq!(Archive::new(store).verify().await.expect("verifies").problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_archives_at_once_move_each_event_once() {
    let place = filled(6, 30).await;
    let mut both = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let archive = Archive::new(place.open().await).slice_events(5);
        both.spawn(archive.older_than(LATER));
    }
    let mut moved = 0;
    while let Some(done) = both.join_next().await {
        moved += done.expect("no panic").expect("the archive takes them").events;
    }
    assert_eq!(moved, 6 * 28);
    let state = Archive::new(place.open().await).verify().await.expect("verifies");
    assert_eq!((state.events, state.problems), (168, Vec::new()));
}

/// Slices come back newest first: an older one before it would leave a hole in the log's part of a stream.
#[tokio::test]
async fn an_older_slice_does_not_come_back_before_a_newer_one() {
    let place = filled(1, 30).await;
    let store = place.open().await;
    archive(&store).await;
    let slices = store.archive_slices().await.expect("lists");
    assert!(slices.len() > 2 && slices[0].slice > slices[1].slice);
    let oldest = slices[slices.len() - 1].slice;
    let refused = store.restore_slice(oldest).await.expect_err("there are newer ones");
    assert!(refused.to_string().contains("they come back first"), "{refused}");
    for slice in &slices {
        assert_eq!(store.restore_slice(slice.slice).await.expect("comes back"), slice.events);
        assert_eq!(store.restore_slice(slice.slice).await.expect("answers"), 0, "only once");
    }
    assert_eq!(shards(&store).len(), 8);
}
