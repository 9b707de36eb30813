//! Every read gives the same with an archive as without one, also while events move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestrix::core::store::{Direction, Loaded, RecordedEvent, StreamRange};
use orchestrix::core::{CommandId, EventStore, Seq, StreamId, Version};
use orchestrix::ops::archive::{Archive, ArchiveState, Unarchived};
use orchestrix::ops::backup::{Backup, Restore};
use orchestrix::store::{Memory, Postgres};
use orchestrix::{Consistency, SendError};

use super::{archive, filled, node};
use crate::counter::{Add, Counter, counter};
use crate::harness::eventually;
use crate::store_postgres::owner::number;

/// Everything that can be read of a log.
#[derive(Debug, PartialEq)]
struct Seen {
    shards: Vec<Vec<RecordedEvent>>,
    pages: Vec<RecordedEvent>,
    ranges: Vec<Vec<RecordedEvent>>,
    loaded: Vec<Loaded>,
    loaded_together: Vec<Loaded>,
    listed: Vec<(StreamId, Version)>,
    counted: (u64, u64),
}

async fn look(store: &Postgres) -> Seen {
    let mut shards = Vec::new();
    for shard in store.info().shard_count.all() {
        shards.push(store.read_shard(shard, Seq::ZERO, usize::MAX).await.expect("reads"));
    }
    let streams: BTreeSet<StreamId> = shards.iter().flatten().map(|event| event.stream.clone()).collect();
    let streams: Vec<StreamId> = streams.into_iter().collect();
    let mut loaded = Vec::new();
    for stream in &streams {
        loaded.push(store.load(stream, 5).await.expect("loads"));
    }
    let stats = store.stats().await.expect("counts");
    Seen {
        pages: pages(store).await,
        ranges: ranges(store, &streams[0], &shards).await,
        loaded,
        loaded_together: store.load_many(&streams, 1_000).await.expect("loads"),
        listed: listed(store).await,
        counted: (stats.events, stats.streams),
        shards,
    }
}

/// Reads a shard in small pages, as a subscription does.
async fn pages(store: &Postgres) -> Vec<RecordedEvent> {
    let (mut events, mut after) = (Vec::new(), Seq::ZERO);
    let shard = store.info().shard_count.all().next().expect("there is one");
    loop {
        let page = store.read_shard(shard, after, 3).await.expect("reads");
        let Some(last) = page.last() else { return events };
        after = last.seq;
        events.extend(page);
    }
}

async fn ranges(
    store: &Postgres,
    stream: &StreamId,
    shards: &[Vec<RecordedEvent>],
) -> Vec<Vec<RecordedEvent>> {
    let own: Vec<&RecordedEvent> = shards.iter().flatten().filter(|event| event.stream == *stream).collect();
    let moment = own[own.len() / 2].recorded_at;
    let mut ranges = Vec::new();
    for direction in [Direction::Forwards, Direction::Backwards] {
        for from in [0, 1, 2, 9, 20, 30, 31, 99] {
            for to in [None, Some(1), Some(5), Some(15), Some(99)] {
                for until in [None, Some(moment)] {
                    for limit in [1, 4, 1_000] {
                        let to = to.map(Version::new);
                        let range = StreamRange { from: Version::new(from), to, until, direction, limit };
                        ranges.push(store.read_stream(stream, range).await.expect("reads"));
                    }
                }
            }
        }
    }
    ranges
}

async fn listed(store: &Postgres) -> Vec<(StreamId, Version)> {
    let (mut listed, mut after): (Vec<(StreamId, Version)>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.list_streams("counter", after.as_deref(), 2).await.expect("lists");
        let Some((last, _)) = page.last() else { return listed };
        after = Some(last.id.to_string());
        listed.extend(page);
    }
}

#[tokio::test]
async fn every_read_is_the_same_with_an_archive_and_after_it_was_restored() {
    let place = filled(5, 30).await;
    let store = place.open().await;
    let before = look(&store).await;
    assert_eq!(before.counted, (150, 5));
    let archived = archive(&store).await;
    // Each stream keeps its first event and its last one.
    assert_eq!((archived.events, archived.damaged_snapshots), (5 * 28, 0));
    assert!(archived.slices >= 140 / 7, "{archived:?}");
    let mut hand = place.by_hand().await;
    assert_eq!(number(&mut hand, "SELECT count(*) FROM orchestrix.events").await, 10);
    assert_eq!(look(&store).await, before);
    assert_eq!(look(&place.open().await).await, before, "a store that knows nothing yet");
    assert_eq!(archive(&store).await.events, 0, "there is nothing more");
    let state = Archive::new(store.clone()).verify().await.expect("verifies");
    assert_eq!(state, ArchiveState { events: 140, slices: archived.slices, problems: Vec::new() });
    let restored = Archive::new(store.clone()).restore().await.expect("restores");
    assert_eq!(restored, Unarchived { events: 140, slices: archived.slices });
    assert_eq!(look(&store).await, before);
    assert_eq!(number(&mut hand, "SELECT count(*) FROM orchestrix.events_archive").await, 0);
    assert_eq!(archive(&store).await.events, 140, "and they can go there again");
    assert_eq!(look(&store).await, before);
}

/// Without its snapshot an aggregate is rebuilt from the archive and the log.
#[tokio::test]
async fn an_aggregate_that_lost_its_snapshot_is_rebuilt_from_the_archive() {
    let place = filled(2, 30).await;
    let store = place.open().await;
    archive(&store).await;
    for name in ["c-0", "c-1"] {
        store.delete_snapshot(&StreamId::new("counter", name)).await.expect("deletes");
    }
    let node = node(&place).await;
    for name in ["c-0", "c-1"] {
        let counter = node.of::<Counter>(counter(name));
        let total = counter.read(Consistency::Leased, |state| state.total).await.expect("reads");
        assert_eq!(total, (1..=30).sum::<u64>());
        let past = counter.load_at_version(Version::new(7)).await.expect("it has a past");
        assert_eq!(past.state.total, (1..=7).sum::<u64>());
    }
    node.shutdown().await;
}

/// The memory of command ids is in the snapshot, also of those whose events were moved.
#[tokio::test]
async fn a_retry_of_a_command_whose_events_are_in_the_archive_gets_its_first_reply() {
    let place = filled(1, 1).await;
    let (first, early) = (node(&place).await, CommandId::fresh());
    let reply = first.of::<Counter>(counter("c-0")).send(Add::new(5)).id(early).await.expect("it serves");
    for _ in 0..30 {
        first.of::<Counter>(counter("c-0")).send(Add::new(1)).await.expect("it serves");
    }
    first.shutdown().await;
    let store = place.open().await;
    assert!(archive(&store).await.events >= 25);
    let second = node(&place).await;
    let again = second.of::<Counter>(counter("c-0")).send(Add::new(5)).id(early).await.expect("it remembers");
    assert_eq!((again, reply), (6, 6));
    let other = second.of::<Counter>(counter("c-0")).send(Add::new(6)).id(early).await;
    assert!(matches!(other, Err(SendError::NotAttempted(_))), "{other:?}");
    let total = second.of::<Counter>(counter("c-0")).read(Consistency::Leased, |state| state.total).await;
    assert_eq!(total.expect("reads"), 36, "nothing was added twice");
    // And where the snapshot is gone, the memory is rebuilt from the events in the archive.
    second.shutdown().await;
    store.delete_snapshot(&StreamId::new("counter", "c-0")).await.expect("deletes");
    let third = node(&place).await;
    let again = third.of::<Counter>(counter("c-0")).send(Add::new(5)).id(early).await.expect("it remembers");
    assert_eq!(again, 6);
    third.shutdown().await;
}

/// Commands, readers and an archive at once: no reader ever sees a hole, and every command is there in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_move_while_commands_run_and_readers_see_no_hole() {
    let place = filled(4, 20).await;
    let node = Arc::new(node(&place).await);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|name| {
            let (node, stop) = (Arc::clone(&node), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut sent = 0;
                while !stop.load(Ordering::Acquire) {
                    let id = counter(&format!("c-{name}"));
                    node.of::<Counter>(id).send(Add::new(1)).await.expect("it serves");
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    let reader = tokio::spawn(read_until(place.open().await, Arc::clone(&stop)));
    let (store, mut moved) = (place.open().await, 0);
    let all_rounds = async || {
        moved += archive(&store).await.events;
        moved >= 400
    };
    eventually("enough events have moved", all_rounds).await;
    stop.store(true, Ordering::Release);
    let mut sent = 0_u64;
    for caller in callers {
        sent += caller.await.expect("it was answered to its end");
    }
    let looks = reader.await.expect("it saw no hole");
    assert!(looks > 0 && sent > 0);
    Arc::into_inner(node).expect("the callers are gone").shutdown().await;
    let seen = look(&store).await;
    assert_eq!(seen.counted.0, 80 + sent);
    let state = Archive::new(store.clone()).verify().await.expect("verifies");
    assert_eq!((state.events, state.problems), (moved, Vec::new()));
    Archive::new(store.clone()).restore().await.expect("restores");
    assert_eq!(look(&store).await, seen);
}

/// Reads all shards and one stream again and again.
async fn read_until(store: Postgres, stop: Arc<AtomicBool>) -> u64 {
    let stream = StreamId::new("counter", "c-0");
    let mut looks = 0;
    while !stop.load(Ordering::Acquire) {
        for shard in store.info().shard_count.all() {
            let events = store.read_shard(shard, Seq::ZERO, usize::MAX).await.expect("reads");
            let dense = events.iter().zip(1..).all(|(event, seq)| event.seq == Seq::new(seq));
            assert!(
                dense,
                "shard {shard} has a hole: {:?}",
                events.iter().map(|event| event.seq).collect::<Vec<_>>()
            );
        }
        let range = StreamRange::from(Version::new(1), usize::MAX);
        let events = store.read_stream(&stream, range).await.expect("reads");
        assert!(events.iter().zip(1..).all(|(event, version)| event.version == Version::new(version)));
        looks += 1;
    }
    looks
}

#[tokio::test]
async fn a_backup_has_what_is_in_the_archive() {
    let place = filled(3, 25).await;
    let store = place.open().await;
    let before = look(&store).await;
    archive(&store).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    Backup::new(Arc::new(store), folder.path()).take().await.expect("takes");
    let target = Memory::with_shards(orchestrix::core::ShardCount::new(8).expect("in range"));
    Restore::new(folder.path()).into(Arc::new(target.clone())).await.expect("restores");
    for (shard, events) in target.info().shard_count.all().zip(&before.shards) {
        assert_eq!(target.read_shard(shard, Seq::ZERO, usize::MAX).await.expect("reads"), *events);
    }
}

/// What somebody does to the archive by hand is found, and is not brought back.
#[tokio::test]
async fn a_wrong_byte_in_the_archive_is_found_and_not_restored() {
    use crate::store_postgres::owner::run;
    let place = filled(2, 20).await;
    let store = place.open().await;
    archive(&store).await;
    let mut hand = place.by_hand().await;
    let problem = async || Archive::new(store.clone()).verify().await.expect("verifies").problems;
    for (wrong, right, words) in [
        (
            "UPDATE orchestrix.events_archive SET payload = payload || '\\x20' WHERE version = 3 AND aggregate_id = 'c-0'",
            "UPDATE orchestrix.events_archive SET payload = substr(payload, 1, length(payload) - 1) \
             WHERE version = 3 AND aggregate_id = 'c-0'",
            "its events are not those that were put there",
        ),
        (
            "CREATE TABLE public.kept AS SELECT * FROM orchestrix.events_archive WHERE version = 5; \
             DELETE FROM orchestrix.events_archive WHERE version = 5",
            "INSERT INTO orchestrix.events_archive SELECT * FROM public.kept",
            "and should have",
        ),
        (
            "INSERT INTO orchestrix.events SELECT seq, version, epoch, recorded_at, shard, schema_version, codec, stream, \
             command_id, aggregate_type, aggregate_id, event_type, headers, receipt, payload \
             FROM orchestrix.events_archive WHERE version = 4",
            "DELETE FROM orchestrix.events WHERE version = 4",
            "in the log as well",
        ),
        (
            "UPDATE orchestrix.archive_slices SET restored_at = now() WHERE slice = 1",
            "UPDATE orchestrix.archive_slices SET restored_at = NULL WHERE slice = 1",
            "of 1 slices that it does not know",
        ),
    ] {
        run(&mut hand, wrong).await;
        let found = problem().await;
        assert!(found.iter().any(|one| one.contains(words)), "{wrong}: {found:?}");
        run(&mut hand, right).await;
        assert_eq!(problem().await, Vec::<String>::new(), "{right}");
    }
    run(&mut hand, "UPDATE orchestrix.events_archive SET epoch = epoch + 1 WHERE version = 2").await;
    let refused = Archive::new(store.clone()).restore().await.expect_err("it is not what was put there");
    assert!(refused.to_string().contains("is not what was put there"), "{refused}");
}

/// Whatever version a writer believes in, it is told the true one: also where the versions behind it are in the archive,
/// and by a store that has not seen the stream before.
#[tokio::test]
async fn what_expects_a_version_in_the_archive_is_a_conflict() {
    use crate::store_postgres::owner::Owner;
    use orchestrix::core::store::{Commit, CommitOutcome};
    let place = filled(1, 20).await;
    assert_eq!(archive(&place.open().await).await.events, 18);
    let stream = StreamId::new("counter", "c-0");
    let owner = Owner::of(&place.open().await).await;
    for is_known in [false, true] {
        for expected in (0..20).chain(21..25) {
            // A handle of its own each time, which knows the stream only if it has loaded it.
            let owner = owner.with(&place.open().await);
            if is_known {
                owner.store.load(&stream, 1).await.expect("loads");
            }
            let shard = owner.store.info().shard_count.shard_of_stream(&stream);
            let epoch = owner.claims[shard.get() as usize].epoch;
            let commit = Commit { shard, epoch, stream: stream.clone(), ..owner.commit("x", expected) };
            let outcome = owner.append(vec![commit]).await.remove(0);
            let conflict = CommitOutcome::Conflict { actual: Some(Version::new(20)) };
            assert_eq!(outcome, conflict, "expected {expected}, known {is_known}");
        }
    }
}
