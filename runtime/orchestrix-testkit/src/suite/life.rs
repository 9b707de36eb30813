//! Obligations 12 and 13, and how a store is described, asked for a sign of life, counted and closed.

use std::future::Future;
use std::task::{Context, Waker};

use orchestrix_core::store::{Batch, ClaimError, CommitOutcome, QuarantineRecord, ReadError, WriteError};
use orchestrix_core::{Seq, ShardId};

use super::bench::{ALL, Bench, TYPE, committed, moment, stream};

/// The description is usable and does not change.
pub async fn the_store_describes_itself(bench: Bench) {
    let info = bench.store().info();
    assert!(info.lanes >= 1, "at least one append at a time");
    assert!(info.batch_events_max >= 1, "at least one event in an append");
    assert!(!info.name.is_empty());
    bench.writer().await.fill(&stream("a"), 1).await;
    assert_eq!(bench.store().info(), info);
    assert_eq!(bench.reopen().await.store().info(), info);
}

/// 13. Every method may be called from many tasks at once: streams of their own, all stored, seqs dense.
pub async fn many_tasks_may_append_at_once(bench: Bench) {
    const TASKS: u64 = 16;
    const ROUNDS: u64 = 12;
    let writer = bench.writer().await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (writer, name) = (writer.clone(), stream(&format!("a-{task}")));
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                let commits =
                    vec![writer.commit(&name, round * 3, 1), writer.commit(&name, round * 3 + 1, 2)];
                writer.append(commits).await.iter().for_each(|outcome| {
                    committed(outcome);
                });
                writer.store.load(&name, 10).await.expect("loads");
                writer.store.ping().await.expect("answers");
            }
        });
    }
    tasks.join_all().await;
    let mut events = 0;
    for shard in bench.shards().all() {
        let stored = bench.read_shard(shard).await;
        assert!(stored.iter().zip(1..).all(|(event, seq)| event.seq.get() == seq), "shard {shard} is dense");
        events += stored.len() as u64;
    }
    assert_eq!(events, TASKS * ROUNDS * 3);
}

/// 3, 13. Of many writers of one version, one wins; the others conflict.
pub async fn one_of_many_writers_of_a_version_wins(bench: Bench) {
    const TASKS: usize = 8;
    let writer = bench.writer().await;
    for version in 0..15 {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..TASKS {
            let (writer, commit) = (writer.clone(), writer.commit(&stream("a"), version, 1));
            tasks.spawn(async move { (commit.command_id, writer.append_one(commit).await) });
        }
        let (won, lost): (Vec<_>, Vec<_>) =
            tasks.join_all().await.into_iter().partition(|(_, outcome)| outcome.is_committed());
        assert_eq!(won.len(), 1, "one winner of version {}", version + 1);
        assert!(
            lost.iter().all(|(_, outcome)| matches!(outcome, CommitOutcome::Conflict { .. })),
            "{lost:?}"
        );
        let stored = bench.read(&stream("a")).await;
        assert_eq!(
            stored.last().map(|event| event.command_id),
            Some(won[0].0),
            "the winner is what is stored"
        );
    }
}

/// 12. A future that is dropped, at whatever point, leaves the store usable; its commit is there whole or not at all.
pub async fn a_dropped_future_leaves_the_store_usable(bench: Bench) {
    const ROUNDS: usize = 60;
    let writer = bench.writer().await;
    let store = bench.store();
    for round in 0..ROUNDS {
        let name = stream(&format!("dropped-{round}"));
        let batch = Batch { owner: writer.owner, commits: vec![writer.commit(&name, 0, 3)] };
        poll_and_drop(store.append(batch), round % 6).await;
        poll_and_drop(store.load(&name, ALL), round % 3).await;
        poll_and_drop(store.read_shard(writer.shard_of(&name), Seq::ZERO, ALL), round % 4).await;
        let snapshots = vec![writer.snapshot(&name, 1, b"state")];
        poll_and_drop(store.save_snapshots(writer.owner, snapshots), round % 5).await;
        writer.fill(&stream(&format!("kept-{round}")), 2).await;
    }
    // A claim settles what may still be under way.
    let settled = bench.writer().await;
    for round in 0..ROUNDS {
        let stored = bench.versions(&stream(&format!("dropped-{round}"))).await;
        assert!(stored.is_empty() || stored == [1, 2, 3], "round {round} left {stored:?}");
        assert_eq!(bench.versions(&stream(&format!("kept-{round}"))).await, [1, 2]);
    }
    settled.fill(&stream("after"), 3).await;
}

/// Polls a future so many times, with a breath between, and drops it.
async fn poll_and_drop<T>(mut future: std::pin::Pin<Box<dyn Future<Output = T> + Send + '_>>, polls: usize) {
    for _ in 0..polls {
        let mut context = Context::from_waker(Waker::noop());
        if future.as_mut().poll(&mut context).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A ping is answered, on a new store and on a used one.
pub async fn a_ping_is_answered(bench: Bench) {
    bench.store().ping().await.expect("a new store answers");
    bench.writer().await.fill(&stream("a"), 3).await;
    bench.store().ping().await.expect("a used store answers");
    assert_eq!(bench.versions(&stream("a")).await, [1, 2, 3], "a ping writes no events");
}

/// The counts are those of what is stored.
pub async fn stats_count_what_is_stored(bench: Bench) {
    let empty = bench.store().stats().await.expect("counts");
    assert_eq!((empty.events, empty.streams, empty.snapshots, empty.quarantined), (0, 0, 0, 0));
    let writer = bench.writer().await;
    for (id, events) in [("a", 5), ("b", 1), ("c", 2)] {
        writer.fill(&stream(id), events).await;
    }
    writer.append_one(writer.commit(&stream("refused"), 4, 1)).await;
    let snapshots = vec![writer.snapshot(&stream("a"), 2, b"2"), writer.snapshot(&stream("a"), 4, b"4")];
    writer.store.save_snapshots(writer.owner, snapshots).await.expect("saves");
    let record = QuarantineRecord {
        stream: stream("c"),
        reason: "poison".to_owned(),
        command_id: None,
        since: moment(1),
    };
    bench.store().quarantine(record).await.expect("marks");
    let stats = bench.store().stats().await.expect("counts");
    assert_eq!((stats.events, stats.streams, stats.snapshots, stats.quarantined), (8, 3, 1, 1));
}

/// A closed store answers `Unavailable` to everything, and a second close changes nothing.
pub async fn a_closed_store_is_unavailable(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 1).await;
    let store = bench.store();
    store.close().await;
    store.close().await;
    let outcomes =
        writer.append(vec![writer.commit(&stream("a"), 1, 1), writer.commit(&stream("b"), 0, 1)]).await;
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, CommitOutcome::Unavailable { .. })),
        "{outcomes:?}"
    );
    let claimed = store.claim(&[ShardId::new(0)], writer.owner).await;
    assert!(matches!(claimed, Err(ClaimError::Unavailable { .. })), "claim: {claimed:?}");
    assert_unavailable("load", store.load(&stream("a"), 1).await);
    assert_unavailable("load_many", store.load_many(&[stream("a")], 1).await);
    assert_unavailable("read_shard", store.read_shard(ShardId::new(0), Seq::ZERO, 1).await);
    assert_unavailable("list_streams", store.list_streams(TYPE, None, 1).await);
    assert_unavailable("checkpoint", store.checkpoint("balances").await);
    assert_unavailable("quarantined", store.quarantined(1).await);
    assert_unavailable("ping", store.ping().await);
    assert_unavailable("stats", store.stats().await);
    let snapshots = vec![writer.snapshot(&stream("a"), 1, b"1")];
    let saved = store.save_snapshots(writer.owner, snapshots).await;
    assert!(matches!(saved, Err(WriteError::Unavailable { .. })), "save_snapshots: {saved:?}");
    drop((store, writer));
    assert_eq!(
        bench.reopen().await.versions(&stream("a")).await,
        [1],
        "what was stored before is still there"
    );
}

fn assert_unavailable<T: std::fmt::Debug>(call: &str, answer: Result<T, ReadError>) {
    assert!(matches!(answer, Err(ReadError::Unavailable { .. })), "{call} answered {answer:?} after close");
}
