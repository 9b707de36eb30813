//! When a write fails: what is answered is true, and the store goes on.

use orchestrix::store::Sqlite;
use orchestrix_core::store::{CommitOutcome, Direction, NewEvent, StreamRange};
use orchestrix_core::{EventStore, Seq, Version};

use super::owner::{Owner, Place, length, stream};

#[tokio::test]
async fn a_full_disk_refuses_and_keeps_what_is_stored() {
    let place = Place::new();
    let small = Sqlite::open(place.path()).bytes_max(1 << 20).connect().await.expect("it opens");
    let owner = Owner::of(&small).await;
    let payload = vec![7; 100_000];
    let mut stored = 0;
    let refused = loop {
        match owner.append(vec![owner.commit("a", stored, &payload)]).await.remove(0) {
            CommitOutcome::Committed { .. } => stored += 1,
            other => break other,
        }
    };
    assert!(
        matches!(&refused, CommitOutcome::Unavailable { reason } if reason.contains("full")),
        "{refused:?}"
    );
    assert!((1..20).contains(&stored), "{stored} events of 100 kB fit in 1 MiB");
    assert_eq!(length(&small, "a").await as u64, stored);
    assert!(owner.note("a", stored).await.is_committed(), "a small one still fits");
    small.close().await;
    let owner = Owner::of(&place.open().await).await;
    let next = owner.commit("a", stored + 1, &payload);
    assert!(owner.append(vec![next]).await[0].is_committed(), "with more room it goes on");
}

/// Rows that appear behind the writer's back, past every fence, make its picture of the stream wrong.
#[tokio::test]
async fn a_wrong_picture_of_a_stream_is_corrected() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
    place
        .run(
            "INSERT INTO events SELECT pos + 1, stream, version + 1, epoch, event_type, schema_version, codec, \
             command_id, recorded_at, headers, receipt, payload FROM events",
        )
        .await;
    let outcomes = owner.append(vec![owner.commit("a", 1, b"{}"), owner.commit("b", 0, b"{}")]).await;
    assert_eq!(outcomes[0], CommitOutcome::Conflict { actual: Some(Version::new(2)) });
    assert!(outcomes[1].is_committed(), "its neighbour is stored: {:?}", outcomes[1]);
    assert!(owner.note("a", 2).await.is_committed());
    assert_eq!((length(&owner.store, "a").await, length(&owner.store, "b").await), (3, 1));
}

#[tokio::test]
async fn a_row_that_cannot_be_stored_does_not_fail_its_neighbours() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    place.run("CREATE TRIGGER picky BEFORE INSERT ON events WHEN new.payload = x'21' BEGIN SELECT raise(ABORT, 'no'); END").await;
    let commits = vec![owner.commit("a", 0, b"1"), owner.commit("b", 0, b"!"), owner.commit("c", 0, b"3")];
    let outcomes = owner.append(commits).await;
    assert!(outcomes[0].is_committed() && outcomes[2].is_committed(), "{outcomes:?}");
    assert!(
        matches!(&outcomes[1], CommitOutcome::Unavailable { reason } if reason.contains("no")),
        "{outcomes:?}"
    );
    let lengths =
        [length(&owner.store, "a").await, length(&owner.store, "b").await, length(&owner.store, "c").await];
    assert_eq!(lengths, [1, 0, 1]);
}

#[tokio::test]
async fn a_stored_codec_that_nobody_knows_is_reported() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
    place.run("UPDATE events SET codec = 99").await;
    let error = owner.store.load(&stream("a"), 1).await.expect_err("nobody knows codec 99");
    assert!(error.to_string().contains("codec 99"), "{error}");
}

#[tokio::test]
async fn a_batch_larger_than_a_statement_is_stored_in_one_transaction() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    owner.fill(2_500).await;
    let mut large = owner.commit("large", 0, b"{}");
    large.events = vec![large.events[0].clone(); 3_000];
    assert!(owner.append(vec![large]).await[0].is_committed());
    assert_eq!(length(&owner.store, "large").await, 3_000);
    assert_eq!(owner.store.stats().await.expect("counts").streams, 2_501);
}

/// 5,000 events are more than one page of an answer holds.
#[tokio::test]
async fn a_long_stream_reads_the_same_in_every_way() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    let mut large = owner.commit("long", 0, b"{}");
    large.events = (0..5_000)
        .map(|at| NewEvent { payload: format!("{at}").into_bytes(), ..large.events[0].clone() })
        .collect();
    assert!(owner.append(vec![large.clone()]).await[0].is_committed());
    let name = stream("long");
    let forwards =
        owner.store.read_stream(&name, StreamRange::from(Version::new(1), usize::MAX)).await.expect("reads");
    assert!(forwards.iter().map(|event| &event.payload).eq(large.events.iter().map(|event| &event.payload)));
    let range = StreamRange { direction: Direction::Backwards, ..StreamRange::from(Version::ZERO, 4_999) };
    let backwards = owner.store.read_stream(&name, range).await.expect("reads");
    assert!(backwards.iter().eq(forwards.iter().rev().take(4_999)));
    assert_eq!(owner.store.load(&name, usize::MAX).await.expect("loads").events, forwards);
    assert_eq!(owner.store.load(&name, 4_500).await.expect("loads").events, forwards[..4_500]);
    assert_eq!(owner.store.read_shard(large.shard, Seq::ZERO, usize::MAX).await.expect("reads"), forwards);
}

#[tokio::test]
async fn many_streams_load_as_each_does_alone() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    owner.fill(150).await;
    // Known and unknown, in no order, one of them twice.
    let names: Vec<_> = (0..160).rev().chain([7]).map(|at| stream(&format!("fill-{at}"))).collect();
    let together = owner.store.load_many(&names, 10).await.expect("loads");
    assert_eq!(together.len(), names.len());
    for (name, loaded) in names.iter().zip(together) {
        assert_eq!(loaded, owner.store.load(name, 10).await.expect("loads"), "{name}");
    }
}

/// SQLite by itself would do so at twice this length.
#[tokio::test]
async fn a_long_write_ahead_log_is_folded_beside_the_writer() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    let length = |name: &str| std::fs::metadata(place.directory().join(name)).expect("it exists").len();
    let payload = vec![7; 1 << 20];
    for version in 0..72 {
        let commit = owner.commit("large", version, &payload);
        assert!(owner.append(vec![commit]).await[0].is_committed());
    }
    // So few that the log stays far from where SQLite would fold it: a note writes some four pages.
    let mut notes = 0;
    while length("bank.db") < 64 << 20 {
        assert!(notes < 2_000, "{} bytes are in the database", length("bank.db"));
        assert!(owner.note("small", notes).await.is_committed());
        notes += 1;
    }
    let folded = length("bank.db-wal");
    for version in 72..136 {
        let commit = owner.commit("large", version, &payload);
        assert!(owner.append(vec![commit]).await[0].is_committed());
    }
    let after = length("bank.db-wal");
    assert!(
        after <= folded + (8 << 20),
        "the log starts over: {folded} bytes, and {after} after 64 MiB more"
    );
}
