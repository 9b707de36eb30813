//! Obligation 10, and what each kind of read gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestrix_core::store::{Direction, EventStore, StreamRange};
use orchestrix_core::{Seq, ShardId, StreamId, Version};

use super::bench::{ALL, Bench, TYPE, committed, event, moment, read, stream};

fn range(from: u64, to: Option<u64>, limit: usize) -> StreamRange {
    StreamRange { to: to.map(Version::new), ..StreamRange::from(Version::new(from), limit) }
}

async fn versions(bench: &Bench, range: StreamRange) -> Vec<u64> {
    let events = bench.store().read_stream(&stream("a"), range).await.expect("a stream can be read");
    events.iter().map(|event| event.version.get()).collect()
}

/// 10. A read sees every commit that was answered before the read began, through every method, from any task.
pub async fn a_read_sees_every_commit_answered_before(bench: Bench) {
    let writer = bench.writer().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (writer, store, name) = (writer.clone(), bench.store(), stream(&format!("a-{number}")));
        tasks.spawn(async move {
            for version in 0..40 {
                let seq = committed(&writer.append_one(writer.commit(&name, version, 1)).await);
                let loaded = store.load(&name, ALL).await.expect("loads");
                assert_eq!((loaded.version.get(), loaded.events.len() as u64), (version + 1, version + 1));
                assert_eq!(read(&store, &name).await.len() as u64, version + 1);
                let shard = writer.shard_of(&name);
                let before = Seq::new(seq.get() - 1);
                let next = store.read_shard(shard, before, 1).await.expect("reads");
                assert_eq!((&next[0].stream, next[0].version.get()), (&name, version + 1));
            }
        });
    }
    tasks.join_all().await;
}

/// 10. A read never sees part of a commit, while commits of seven events come in.
pub async fn a_read_never_sees_part_of_a_commit(bench: Bench) {
    const EVENTS: usize = 7;
    let writer = bench.writer().await;
    let shard = ShardId::new(0);
    let streams = bench.streams_in(shard, 2);
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(read_whole(bench.store(), shard, streams.clone(), EVENTS, Arc::clone(&done)));
    for round in 0..60 {
        let commits = streams.iter().map(|name| writer.commit(name, round * EVENTS as u64, EVENTS)).collect();
        writer.append(commits).await.iter().for_each(|outcome| {
            committed(outcome);
        });
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::SeqCst);
    reader.await.expect("every read saw whole commits");
}

async fn read_whole(
    store: Arc<dyn EventStore>,
    shard: ShardId,
    streams: Vec<StreamId>,
    events: usize,
    done: Arc<AtomicBool>,
) {
    while !done.load(Ordering::SeqCst) {
        for name in &streams {
            let loaded = store.load(name, ALL).await.expect("loads");
            assert_eq!(loaded.events.len() % events, 0, "load saw part of a commit");
            assert_eq!(loaded.version.get(), loaded.events.len() as u64, "version and events agree");
            assert_eq!(read(&store, name).await.len() % events, 0, "read_stream saw part of a commit");
        }
        let shard = store.read_shard(shard, Seq::ZERO, ALL).await.expect("reads");
        assert_eq!(shard.len() % events, 0, "read_shard saw part of a commit");
        tokio::task::yield_now().await;
    }
}

/// A stream without events gives an empty answer, and so does a shard.
pub async fn a_stream_without_events_reads_empty(bench: Bench) {
    assert_eq!(bench.read(&stream("a")).await, []);
    assert_eq!(bench.read_shard(ShardId::new(0)).await, []);
    assert_eq!(bench.store().list_streams(TYPE, None, 10).await.expect("lists"), []);
}

/// A range has its first and its last version in it.
pub async fn a_range_is_cut_at_both_ends(bench: Bench) {
    let writer = bench.writer().await;
    // Commits of three events, so that ranges begin and end inside of commits.
    for round in 0..4 {
        committed(&writer.append_one(writer.commit(&stream("a"), round * 3, 3)).await);
    }
    assert_eq!(versions(&bench, range(5, Some(8), ALL)).await, [5, 6, 7, 8]);
    assert_eq!(versions(&bench, range(5, Some(5), ALL)).await, [5]);
    assert_eq!(versions(&bench, range(5, Some(4), ALL)).await, [0_u64; 0]);
    assert_eq!(versions(&bench, range(0, Some(2), ALL)).await, [1, 2]);
    assert_eq!(versions(&bench, range(11, None, ALL)).await, [11, 12]);
    assert_eq!(versions(&bench, range(11, Some(99), ALL)).await, [11, 12]);
    assert_eq!(versions(&bench, range(13, None, ALL)).await, [0_u64; 0]);
}

/// A moment lets events pass that were recorded at or before it.
pub async fn a_range_is_cut_at_a_moment(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 6).await;
    let until = |moment| StreamRange { until: Some(moment), ..range(1, None, ALL) };
    assert_eq!(versions(&bench, until(moment(4))).await, [1, 2, 3, 4]);
    let just_before = orchestrix_core::Timestamp::from_micros(moment(4).as_micros() - 1);
    assert_eq!(versions(&bench, until(just_before)).await, [1, 2, 3]);
    assert_eq!(versions(&bench, until(moment(0))).await, [0_u64; 0]);
    assert_eq!(versions(&bench, StreamRange { limit: 2, ..until(moment(4)) }).await, [1, 2]);
    let backwards = StreamRange { direction: Direction::Backwards, limit: 2, ..until(moment(4)) };
    assert_eq!(versions(&bench, backwards).await, [4, 3]);
}

/// A range reads backwards from its last version to its first.
pub async fn a_range_reads_backwards(bench: Bench) {
    let writer = bench.writer().await;
    for round in 0..3 {
        committed(&writer.append_one(writer.commit(&stream("a"), round * 3, 3)).await);
    }
    let backwards = |range| StreamRange { direction: Direction::Backwards, ..range };
    assert_eq!(versions(&bench, backwards(range(1, None, ALL))).await, [9, 8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(versions(&bench, backwards(range(3, Some(5), ALL))).await, [5, 4, 3]);
}

/// A limit cuts at the end of the answer, in either direction.
pub async fn a_limit_cuts_at_the_end_of_the_answer(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 9).await;
    let backwards = |range| StreamRange { direction: Direction::Backwards, ..range };
    assert_eq!(versions(&bench, range(2, Some(8), 3)).await, [2, 3, 4]);
    assert_eq!(versions(&bench, backwards(range(2, Some(8), 3))).await, [8, 7, 6]);
    assert_eq!(versions(&bench, range(1, None, 0)).await, [0_u64; 0]);
}

/// A shard is read after a seq, up to a limit, in order.
pub async fn a_shard_is_read_after_a_seq_up_to_a_limit(bench: Bench) {
    let writer = bench.writer().await;
    let shard = ShardId::new(1);
    let streams = bench.streams_in(shard, 2);
    for round in 0..3 {
        let commits = streams.iter().map(|name| writer.commit(name, round * 2, 2)).collect();
        writer.append(commits).await.iter().for_each(|outcome| {
            committed(outcome);
        });
    }
    for (after, limit, seqs) in [
        (0, 4, vec![1, 2, 3, 4]),
        (4, 3, vec![5, 6, 7]),
        (10, ALL, vec![11, 12]),
        (12, 5, vec![]),
        (99, 5, vec![]),
        (3, 0, vec![]),
    ] {
        let events = bench.store().read_shard(shard, Seq::new(after), limit).await.expect("reads");
        assert_eq!(
            events.iter().map(|event| event.seq.get()).collect::<Vec<_>>(),
            seqs,
            "after {after}, {limit}"
        );
    }
}

/// Ids that sort differently by bytes than by letters or by number.
const SORTED_IDS: [&str; 9] = ["A", "B-1", "a", "a b", "a-1", "a-10", "a-2", "z", "\u{e4}"];

/// Streams are listed in the order of their ids, bytewise, with their versions.
pub async fn streams_are_listed_in_the_order_of_their_ids(bench: Bench) {
    let writer = bench.writer().await;
    for (events, id) in (1..).zip(SORTED_IDS).collect::<Vec<_>>().into_iter().rev() {
        writer.fill(&stream(id), events).await;
    }
    let listed = bench.store().list_streams(TYPE, None, ALL).await.expect("lists");
    let expected: Vec<_> =
        (1..).zip(SORTED_IDS).map(|(version, id)| (stream(id), Version::new(version))).collect();
    assert_eq!(listed, expected);
}

/// Pages of any size, each after the last id of the one before, give every stream once.
pub async fn streams_are_listed_page_by_page(bench: Bench) {
    let writer = bench.writer().await;
    for id in SORTED_IDS {
        writer.fill(&stream(id), 1).await;
    }
    for limit in [1, 2, 4, SORTED_IDS.len()] {
        let mut ids: Vec<String> = Vec::new();
        loop {
            let after = ids.last().map(String::as_str);
            let page = bench.store().list_streams(TYPE, after, limit).await.expect("lists");
            assert!(page.len() <= limit, "a page of at most {limit}");
            if page.is_empty() {
                break;
            }
            ids.extend(page.iter().map(|(name, _)| name.id.to_string()));
            assert!(ids.len() <= SORTED_IDS.len(), "pages of {limit} repeat themselves: {ids:?}");
        }
        assert_eq!(ids, SORTED_IDS, "pages of {limit}");
    }
    // The id need not exist.
    let after = bench.store().list_streams(TYPE, Some("a-11"), 1).await.expect("lists");
    assert_eq!(&*after[0].0.id, "a-2");
}

/// Only streams of the type asked for are listed, and only those with events.
pub async fn only_streams_of_the_type_are_listed(bench: Bench) {
    let writer = bench.writer().await;
    for aggregate_type in ["suite.thin", TYPE, "suite.things"] {
        let name = StreamId::new(aggregate_type, "a");
        committed(&writer.append_one(writer.commit_of(&name, 0, vec![event("{}")])).await);
    }
    writer.append_one(writer.commit(&stream("refused"), 3, 1)).await;
    let listed = bench.store().list_streams(TYPE, None, ALL).await.expect("lists");
    assert_eq!(listed, [(stream("a"), Version::new(1))]);
}
