//! What stays in the log: whatever is not old, not in a verified snapshot, not seen by all, or the last of its stream.

use orchestrix::core::store::{SnapshotRecord, SnapshotWrite};
use orchestrix::core::{EventStore, Seq, StreamId, Timestamp, Version};
use orchestrix::ops::archive::Archive;
use orchestrix::store::Postgres;

use super::{archive, filled};
use crate::store_postgres::owner::{Owner, number, run};
use crate::store_postgres::place::Place;

async fn in_log(place: &Place, id: &str) -> i64 {
    let mut hand = place.by_hand().await;
    number(&mut hand, &format!("SELECT count(*) FROM orchestrix.events WHERE aggregate_id = '{id}'")).await
}

#[tokio::test]
async fn a_stream_without_a_snapshot_stays() {
    let place = filled(2, 9).await;
    let store = place.open().await;
    for name in ["c-0", "c-1"] {
        store.delete_snapshot(&StreamId::new("counter", name)).await.expect("deletes");
    }
    assert_eq!(archive(&store).await.events, 0);
    assert_eq!(in_log(&place, "c-0").await, 9);
}

#[tokio::test]
async fn events_after_the_snapshot_stay() {
    // Ten events, a snapshot, and a few more that no snapshot has.
    let place = filled(1, 10).await;
    let store = place.open().await;
    let snapshot = store.load(&StreamId::new("counter", "c-0"), 1).await.expect("loads").snapshot;
    assert_eq!(snapshot.map(|snapshot| snapshot.version), Some(Version::new(10)));
    let owner = Owner::of(&store).await;
    for version in 10..14 {
        let commit = orchestrix::core::store::Commit {
            shard: store.info().shard_count.shard_of("counter", "c-0"),
            stream: StreamId::new("counter", "c-0"),
            epoch: owner.claims[store.info().shard_count.shard_of("counter", "c-0").get() as usize].epoch,
            ..owner.commit("x", version)
        };
        assert!(owner.append(vec![commit]).await[0].is_committed());
    }
    assert_eq!(archive(&store).await.events, 9);
    assert_eq!(in_log(&place, "c-0").await, 5);
}

#[tokio::test]
async fn a_damaged_snapshot_covers_nothing() {
    let place = filled(2, 20).await;
    let mut hand = place.by_hand().await;
    run(
        &mut hand,
        "UPDATE orchestrix.snapshots SET bytes = set_byte(bytes, length(bytes) - 1, \
         (get_byte(bytes, length(bytes) - 1) + 1) % 256) WHERE aggregate_id = 'c-0'",
    )
    .await;
    let archived = archive(&place.open().await).await;
    assert_eq!((archived.events, archived.streams, archived.damaged_snapshots), (18, 2, 1));
    assert_eq!((in_log(&place, "c-0").await, in_log(&place, "c-1").await), (20, 2));
}

/// The bytes of one aggregate's snapshot do not cover another one's events.
#[tokio::test]
async fn a_snapshot_of_another_aggregate_or_version_covers_nothing() {
    let place = filled(2, 20).await;
    let mut hand = place.by_hand().await;
    run(
        &mut hand,
        "UPDATE orchestrix.snapshots SET bytes = (SELECT s.bytes FROM orchestrix.snapshots AS s \
         WHERE s.aggregate_id = 'c-1') WHERE aggregate_id = 'c-0'",
    )
    .await;
    run(&mut hand, "UPDATE orchestrix.snapshots SET version = 15 WHERE aggregate_id = 'c-1'").await;
    let archived = archive(&place.open().await).await;
    assert_eq!((archived.events, archived.damaged_snapshots), (0, 2));
}

/// A snapshot that changed after it was verified does not count: somebody may have damaged it.
#[tokio::test]
async fn a_snapshot_that_changed_since_it_was_verified_covers_nothing() {
    let place = filled(1, 20).await;
    let store = place.open().await;
    let candidate = store.archive_candidates(None, super::LATER, 10).await.expect("lists").remove(0);
    let mut hand = place.by_hand().await;
    run(&mut hand, "UPDATE orchestrix.snapshots SET bytes = bytes || '\\x00'").await;
    let shard = store.info().shard_count.shard_of_stream(&candidate.stream);
    let moved =
        store.archive_slice(shard, super::LATER, 100, vec![candidate.covered]).await.expect("answers");
    assert_eq!(moved, None);
}

#[tokio::test]
async fn younger_events_stay_and_so_does_everything_behind_them() {
    let place = filled(1, 20).await;
    let mut hand = place.by_hand().await;
    // As a clock that went back leaves it: version 8 seems younger than those behind it.
    run(&mut hand, "UPDATE orchestrix.events SET recorded_at = '2020-01-01' WHERE version <> 8").await;
    run(&mut hand, "UPDATE orchestrix.events SET recorded_at = '2024-01-01' WHERE version = 8").await;
    let moment: Timestamp = "2022-01-01T00:00:00Z".parse().expect("RFC 3339");
    let archived = Archive::new(place.open().await).older_than(moment).await.expect("answers");
    assert_eq!((archived.events, in_log(&place, "c-0").await), (6, 14));
    let before: Timestamp = "2019-01-01T00:00:00Z".parse().expect("RFC 3339");
    assert_eq!(Archive::new(place.open().await).older_than(before).await.expect("answers").events, 0);
}

async fn save_checkpoint(store: &Postgres, owner: &Owner, consumer: &str, shard: usize, seq: u64) {
    let claim = (owner.claims[shard].shard, owner.claims[shard].epoch);
    assert!(store.save_checkpoint(consumer, owner.incarnation, claim, Seq::new(seq)).await.expect("saves"));
}

#[tokio::test]
async fn what_a_consumer_has_not_seen_stays() {
    let place = filled(1, 20).await;
    let store = place.open().await;
    let owner = Owner::of(&store).await;
    let own = store.info().shard_count.shard_of("counter", "c-0").get() as usize;
    let other = (own + 1) % owner.claims.len();
    // One has seen all, one has seen half, and one has not begun with this shard.
    save_checkpoint(&store, &owner, "all", own, 20).await;
    save_checkpoint(&store, &owner, "half", own, 9).await;
    save_checkpoint(&store, &owner, "elsewhere", other, 1).await;
    assert_eq!(archive(&store).await.events, 0);
    save_checkpoint(&store, &owner, "elsewhere", own, 20).await;
    assert_eq!(archive(&store).await.events, 8);
    save_checkpoint(&store, &owner, "half", own, 20).await;
    assert_eq!(archive(&store).await.events, 10);
    assert_eq!(in_log(&place, "c-0").await, 2);
}

/// However far its snapshot reaches: the next commit builds on the last event, and the first one says that it exists.
#[tokio::test]
async fn the_first_and_the_last_event_of_a_stream_always_stay() {
    for events in 1..4 {
        let place = filled(1, events).await;
        let store = place.open().await;
        let owner = Owner::of(&store).await;
        let stream = StreamId::new("counter", "c-0");
        let shard = store.info().shard_count.shard_of_stream(&stream);
        let version = Version::new(events + 5);
        let body = orchestrix::core::codec::bincode::encode("test", &("c-0", version)).expect("encodes");
        let bytes = orchestrix::core::snapshot::seal(1, &body);
        let write = SnapshotWrite {
            epoch: owner.claims[shard.get() as usize].epoch,
            record: SnapshotRecord { version, taken_at: Timestamp::from_micros(0), bytes },
            stream,
            shard,
        };
        store.save_snapshots(owner.incarnation, vec![write]).await.expect("saves");
        let archived = archive(&store).await;
        assert_eq!(archived.events, events.saturating_sub(2), "of {events}");
        assert_eq!(in_log(&place, "c-0").await, events.min(2) as i64);
    }
}
