//! The index of streams is filled late: what a crash leaves is completed, and damage is named.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orchestrix::store::{OpenError, Sqlite};
use orchestrix_core::store::{ReadError, StreamRange};
use orchestrix_core::{EventStore, Seq, Version};
use sqlx::{AssertSqlSafe, Row};

use super::owner::{Owner, Place, length, stream};

/// Events after `indexed`, and those of them that are in the index all the same.
const UNINDEXED: &str = "FROM shards JOIN events AS e ON e.pos > shards.shard * 1099511627776 + shards.indexed \
                         AND e.pos < (shards.shard + 1) * 1099511627776";
const HALF_WRITTEN: &str = "JOIN stream_index AS i ON i.stream = e.stream AND i.version = e.version";

/// Events that are not in the index where they lie, and entries that lead to no event.
const DIFFERENCES: &str = "\
    SELECT (SELECT count(*) FROM events AS e WHERE NOT EXISTS (SELECT 1 FROM stream_index AS i \
            WHERE i.stream = e.stream AND i.version = e.version AND i.pos = e.pos)) \
         + (SELECT count(*) FROM stream_index AS i WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.pos = i.pos))";

/// A copy of the last event of the log, as the next one of its shard.
const STORE_TWICE: &str = "\
    INSERT INTO events SELECT pos + 1, stream, version, epoch, event_type, schema_version, codec, command_id, \
    recorded_at, headers, receipt, payload FROM events ORDER BY pos DESC LIMIT 1";

async fn count(place: &Place, text: &str) -> i64 {
    let rows = sqlx::query(AssertSqlSafe(text.to_owned())).fetch_all(&mut place.by_hand().await).await;
    rows.expect("it counts")[0].get(0)
}

async fn open(place: &Place, generation: usize) -> Sqlite {
    Sqlite::open(place.path()).index_after(generation).connect().await.expect("the database opens")
}

/// Appends so many events, one at a time, in turn to three streams.
async fn note(owner: &Owner, from: u64, events: u64) {
    for number in from..from + events {
        let outcome = owner.note(&format!("a-{}", number % 3), number / 3).await;
        assert!(outcome.is_committed(), "event {number}: {outcome:?}");
    }
}

/// Checks that the three streams have so many events together, each version once.
async fn check(store: &Sqlite, events: u64) {
    for at in 0..3 {
        let range = StreamRange::from(Version::new(1), usize::MAX);
        let read = store.read_stream(&stream(&format!("a-{at}")), range).await.expect("reads");
        let versions: Vec<u64> = read.iter().map(|event| event.version.get()).collect();
        assert_eq!(versions, (1..=events.saturating_sub(at).div_ceil(3)).collect::<Vec<_>>(), "a-{at}");
    }
}

#[tokio::test]
async fn a_crash_at_any_point_of_a_generation_loses_nothing() {
    let mut half_written = 0;
    for events in 0..30 {
        let place = Place::new();
        note(&Owner::of(&open(&place, 6).await).await, 0, events).await;
        half_written +=
            u32::from(count(&place, &format!("SELECT count(*) {UNINDEXED} {HALF_WRITTEN}")).await > 0);
        let store = open(&place, 6).await;
        check(&store, events).await;
        note(&Owner::of(&store).await, events, 20).await;
        check(&store, events + 20).await;
        store.close().await;
        assert_eq!(count(&place, DIFFERENCES).await, 0, "after a crash at {events}");
        assert_eq!(
            count(&place, &format!("SELECT count(*) {UNINDEXED}")).await,
            0,
            "a close completes the index"
        );
    }
    assert!(half_written > 5, "only {half_written} crashes hit a generation that was half written");
}

#[tokio::test]
async fn a_crash_after_a_crash_loses_nothing_either() {
    let place = Place::new();
    for round in 0..20 {
        let store = open(&place, 6).await;
        check(&store, round * 3).await;
        note(&Owner::of(&store).await, round * 3, 3).await;
    }
    open(&place, 6).await.close().await;
    assert_eq!(count(&place, DIFFERENCES).await, 0);
}

/// What a start reads again is bounded by the generation, and not by the log.
#[tokio::test]
async fn a_start_reads_two_generations_at_most() {
    let place = Place::new();
    let owner = Owner::of(&open(&place, 8).await).await;
    let mut most = 0;
    for at in 0..200 {
        note(&owner, at * 2, 2).await;
        most = most.max(count(&place, &format!("SELECT count(*) {UNINDEXED}")).await);
    }
    assert!((9..=16).contains(&most), "{most} of 400 events were to be read again");
}

#[tokio::test]
async fn a_batch_larger_than_a_generation_is_indexed_too() {
    let place = Place::new();
    let owner = Owner::of(&open(&place, 4).await).await;
    owner.fill(3_000).await;
    note(&owner, 0, 9).await;
    assert_eq!(length(&owner.store, "fill-2999").await, 1);
    drop(owner);
    let store = open(&place, 4).await;
    assert_eq!(store.list_streams("note", None, 5_000).await.expect("lists").len(), 3_003);
    check(&store, 9).await;
    store.close().await;
    assert_eq!(count(&place, DIFFERENCES).await, 0);
}

/// Readers race with generations that come and go, and with a store of another process.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_reads_after_an_answer_sees_it() {
    const EVENTS: u64 = 400;
    let place = Place::new();
    let owner = Owner::of(&open(&place, 2).await).await;
    let answered = Arc::new(AtomicU64::new(0));
    let beside = Sqlite::open(place.path()).read_only().connect().await.expect("it takes no lock");
    let stores = [owner.store.clone(), owner.store.clone(), owner.store.clone(), beside];
    let shard = owner.store.info().shard_count.shard_of_stream(&stream("a"));
    let readers = stores.map(|store| {
        let answered = Arc::clone(&answered);
        tokio::spawn(async move {
            let mut reads = 0;
            loop {
                let before = answered.load(Ordering::SeqCst);
                let shard = store.read_shard(shard, Seq::ZERO, 1_000).await.expect("reads");
                let loaded = store.load(&stream("a"), 1_000).await.expect("loads");
                let listed = store.list_streams("note", None, 9).await.expect("lists");
                let version = loaded.version.get();
                assert!(version >= before, "version {version} after {before} were answered");
                assert!(version.is_multiple_of(2), "half of a commit at version {version}");
                assert_eq!(loaded.events.len() as u64, version);
                assert!(shard.len() as u64 <= version, "{} in the shard, then {version} only", shard.len());
                assert!(listed.iter().all(|(_, listed)| listed.get() >= version));
                reads += 1;
                if before == EVENTS {
                    return reads;
                }
            }
        })
    });
    for version in (0..EVENTS).step_by(2) {
        let mut commit = owner.commit("a", version, b"{}");
        commit.events.push(commit.events[0].clone());
        assert!(owner.append(vec![commit]).await[0].is_committed());
        answered.store(version + 2, Ordering::SeqCst);
    }
    for reader in readers {
        let reads: u32 = reader.await.expect("every read was right");
        assert!(reads > 1, "a reader came too late");
    }
}

fn verify(place: &Place) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrix"));
    command.env_clear().env("DATABASE_URL", format!("sqlite://{}", place.path().display()));
    let output = command.arg("verify").output().expect("the binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn a_version_that_was_stored_twice_is_named_by_verify_and_by_whoever_reads_it() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
    assert!(owner.note("a", 1).await.is_committed());
    owner.store.close().await;
    assert_eq!(verify(&place), (Some(0), "sound: 2 events of 1 streams in 16 shards\n".to_owned()));
    place.run(STORE_TWICE).await;
    let (code, told) = verify(&place);
    assert_eq!(code, Some(1));
    assert!(told.contains("version 2 comes again") && told.contains("note/a"), "{told}");
    let store = place.open().await;
    let twice = "version 2 of stream number 1 is stored twice: as seq 3 and as seq 2";
    let read = store.read_stream(&stream("a"), StreamRange::from(Version::new(1), 9)).await;
    assert!(matches!(&read, Err(ReadError::Corrupt { reason }) if reason.contains(twice)), "{read:?}");
    let loaded = store.load(&stream("a"), 9).await;
    assert!(matches!(&loaded, Err(ReadError::Corrupt { reason }) if reason.contains(twice)), "{loaded:?}");
    // The others go on, and the older event keeps its place.
    let owner = Owner::of(&store).await;
    assert!(owner.note("b", 0).await.is_committed());
    store.close().await;
    assert_eq!(length(&place.open().await, "a").await, 2);
    assert_eq!(verify(&place).0, Some(1), "verify still finds it");
}

#[tokio::test]
async fn a_version_that_was_stored_twice_since_the_last_generation_is_named_by_open() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
    drop(owner);
    place.run(STORE_TWICE).await;
    let error = Sqlite::open(place.path()).connect().await.expect_err("version 1 is there twice");
    assert!(matches!(&error, OpenError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("version 1 of stream number 1 is stored twice: as seq 1"), "{error}");
    assert_eq!(verify(&place).0, Some(1));
}

/// Between a commit and the moment when the writer has taken it in, no kind of read may see it: one would, another not.
#[tokio::test]
async fn what_is_stored_and_not_yet_answered_is_seen_by_all_reads_or_by_none() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
    let shard = owner.commit("a", 1, b"{}").shard;
    place
        .run(
            "INSERT INTO events SELECT pos + 1, stream, version + 1, epoch, event_type, schema_version, codec, \
             command_id, recorded_at, headers, receipt, payload FROM events; \
             INSERT INTO streams SELECT stream + 1, aggregate_type, 'b' FROM streams",
        )
        .await;
    let seen = async || {
        let of_shard = owner.store.read_shard(shard, Seq::ZERO, 9).await.expect("reads").len();
        let loaded = owner.store.load(&stream("a"), 9).await.expect("loads");
        let listed = owner.store.list_streams("note", None, 9).await.expect("lists");
        (of_shard, loaded.events.len(), loaded.version.get(), length(&owner.store, "a").await, listed.len())
    };
    assert_eq!(seen().await, (1, 1, 1, 1, 1));
    Owner::of(&owner.store).await;
    assert_eq!(seen().await, (2, 2, 2, 2, 1), "a claim makes certain what is stored");
}

/// An entry of the index that leads elsewhere must not hand out the events of another stream.
#[tokio::test]
async fn an_entry_that_leads_to_another_stream_leads_nowhere() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed() && owner.note("b", 0).await.is_committed());
    owner.store.close().await;
    place.run("UPDATE stream_index SET pos = (SELECT max(pos) FROM stream_index)").await;
    let store = place.open().await;
    let lengths = [length(&store, "a").await, length(&store, "b").await];
    assert_eq!(lengths.iter().sum::<usize>(), 1, "one of the two entries is right: {lengths:?}");
}
