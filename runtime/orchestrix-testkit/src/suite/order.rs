//! Obligation 4: each event gets the next seq of its shard: dense, and visible to a reader in that order only.

use std::sync::Arc;

use orchestrix_core::store::{EventStore, RecordedEvent};
use orchestrix_core::{Seq, ShardId};

use super::bench::{Bench, assert_conflict, committed, stream};

fn seqs(events: &[RecordedEvent]) -> Vec<u64> {
    events.iter().map(|event| event.seq.get()).collect()
}

/// 4. Each event gets the next seq of its shard, over streams, commits and batches.
pub async fn each_event_gets_the_next_seq_of_its_shard(bench: Bench) {
    let writer = bench.writer().await;
    let streams = bench.streams_in(ShardId::new(0), 4);
    let mut next = 1;
    for round in 0..5 {
        let commits: Vec<_> = streams.iter().map(|name| writer.commit(name, round * 2, 2)).collect();
        let mut first_seqs: Vec<u64> =
            writer.append(commits).await.iter().map(|outcome| committed(outcome).get()).collect();
        first_seqs.sort_unstable();
        assert_eq!(first_seqs, [next, next + 2, next + 4, next + 6], "round {round}");
        next += 8;
    }
    assert_eq!(seqs(&bench.read_shard(ShardId::new(0)).await), (1..next).collect::<Vec<_>>());
}

/// 4. Each shard counts for itself, also in one batch.
pub async fn seqs_of_shards_are_independent(bench: Bench) {
    let writer = bench.writer().await;
    let names: Vec<_> = (0..200).map(|number| stream(&format!("a-{number}"))).collect();
    let commits = names.iter().map(|name| writer.commit(name, 0, 1)).collect();
    writer.append(commits).await.iter().for_each(|outcome| {
        committed(outcome);
    });
    let mut events = 0;
    for shard in bench.shards().all() {
        let stored = bench.read_shard(shard).await;
        assert!(stored.iter().all(|event| event.shard == shard), "shard {shard} holds its own events only");
        assert_eq!(seqs(&stored), (1..=stored.len() as u64).collect::<Vec<_>>(), "shard {shard}");
        events += stored.len();
    }
    assert_eq!(events, names.len());
}

/// 4. A commit that is refused takes no seq.
pub async fn a_refused_commit_takes_no_seq(bench: Bench) {
    let writer = bench.writer().await;
    let shard = ShardId::new(1);
    let streams = bench.streams_in(shard, 3);
    for round in 0..3 {
        let commits = vec![
            writer.commit(&streams[0], round, 1),
            writer.commit(&streams[1], 77, 3),
            writer.commit(&streams[2], round, 1),
        ];
        let outcomes = writer.append(commits).await;
        committed(&outcomes[0]);
        assert_conflict(&outcomes[1], 0);
        committed(&outcomes[2]);
    }
    assert_eq!(seqs(&bench.read_shard(shard).await), [1, 2, 3, 4, 5, 6]);
}

/// 4. Seqs go on where they were when the store is opened again, also under a new owner.
pub async fn seqs_go_on_after_a_reopen(bench: Bench) {
    let shard = ShardId::new(0);
    let name = bench.streams_in(shard, 1).remove(0);
    let writer = bench.writer().await;
    writer.fill(&name, 3).await;
    drop(writer);
    let bench = bench.reopen().await;
    let writer = bench.writer().await;
    assert_eq!(committed(&writer.append_one(writer.commit(&name, 3, 2)).await).get(), 4);
    assert_eq!(seqs(&bench.read_shard(shard).await), [1, 2, 3, 4, 5]);
}

/// 4. A reader that follows a shard while it grows sees every seq once and in order.
pub async fn a_reader_sees_seqs_in_order_only(bench: Bench) {
    const EVENTS: u64 = 600;
    let writer = bench.writer().await;
    let shard = ShardId::new(0);
    let follower = tokio::spawn(follow(bench.store(), shard, EVENTS));
    let mut writers = tokio::task::JoinSet::new();
    for name in bench.streams_in(shard, 4) {
        let writer = writer.clone();
        writers.spawn(async move {
            for round in 0..EVENTS / 4 / 3 {
                committed(&writer.append_one(writer.commit(&name, round * 3, 3)).await);
            }
        });
    }
    writers.join_all().await;
    follower.await.expect("the follower saw every seq in order");
}

async fn follow(store: Arc<dyn EventStore>, shard: ShardId, until: u64) {
    let mut seen = 0;
    while seen < until {
        for event in store.read_shard(shard, Seq::new(seen), 50).await.expect("a shard can be read") {
            assert_eq!(event.seq.get(), seen + 1, "the next seq after {seen}");
            seen += 1;
        }
        tokio::task::yield_now().await;
    }
}
