//! Obligations 5 and 9: who may write, and what a claim ends.

use std::sync::Arc;

use orchestrix_core::store::{Batch, CommitOutcome};
use orchestrix_core::{Epoch, Incarnation, ShardId, StreamId};
use tokio::sync::Notify;

use super::bench::{Bench, Writer, committed, stream};

/// 5. Nobody may write to a shard that nobody has claimed.
pub async fn an_unclaimed_shard_is_fenced(bench: Bench) {
    let name = stream("a");
    let owner = Incarnation::fresh();
    let others: Vec<ShardId> = bench.shards().all().collect();
    let other = others.into_iter().find(|shard| *shard != bench.shards().shard_of_stream(&name));
    let elsewhere = bench.streams_in(other.expect("there are two shards"), 1).remove(0);
    let writer = Writer::claim(bench.store(), &[bench.shards().shard_of_stream(&name)], owner).await;
    let mut commit = writer.commit(&name, 0, 1);
    commit.stream = elsewhere.clone();
    commit.shard = bench.shards().shard_of_stream(&elsewhere);
    for epoch in [0, 1] {
        commit.epoch = Epoch::new(epoch);
        assert_eq!(writer.append_one(commit.clone()).await, CommitOutcome::Fenced, "epoch {epoch}");
    }
    assert_eq!(bench.versions(&elsewhere).await, [0_u64; 0]);
}

/// 5. A commit under an older epoch is `Fenced`.
pub async fn an_older_epoch_is_fenced(bench: Bench) {
    let old = bench.writer().await;
    old.fill(&stream("a"), 1).await;
    let new = bench.writer().await;
    assert_eq!(old.append_one(old.commit(&stream("a"), 1, 1)).await, CommitOutcome::Fenced);
    committed(&new.append_one(new.commit(&stream("a"), 1, 1)).await);
    // The same run of a node is fenced too, under the epoch that it held before.
    let mut commit = new.commit(&stream("a"), 2, 1);
    commit.epoch = old.epoch(commit.shard);
    assert_eq!(new.append_one(commit).await, CommitOutcome::Fenced);
    assert_eq!(bench.versions(&stream("a")).await, [1, 2]);
}

/// 5. A commit under an epoch that has not begun is `Fenced`.
pub async fn a_future_epoch_is_fenced(bench: Bench) {
    let writer = bench.writer().await;
    let mut commit = writer.commit(&stream("a"), 0, 1);
    commit.epoch = commit.epoch.next();
    assert_eq!(writer.append_one(commit).await, CommitOutcome::Fenced);
    assert_eq!(bench.versions(&stream("a")).await, [0_u64; 0]);
}

/// 5. A commit is stored only under the shard's current epoch *and* incarnation.
pub async fn another_incarnation_at_the_same_epoch_is_fenced(bench: Bench) {
    let writer = bench.writer().await;
    let batch = Batch { owner: Incarnation::fresh(), commits: vec![writer.commit(&stream("a"), 0, 1)] };
    assert_eq!(bench.store().append(batch).await, [CommitOutcome::Fenced]);
    assert_eq!(bench.versions(&stream("a")).await, [0_u64; 0]);
    committed(&writer.append_one(writer.commit(&stream("a"), 0, 1)).await);
}

/// 5, 6. A commit to a shard that was lost does not fail the commits to shards that were not.
pub async fn a_fenced_commit_does_not_fail_other_shards(bench: Bench) {
    let writer = bench.writer().await;
    let (lost, kept) = (ShardId::new(0), ShardId::new(1));
    let _new = Writer::claim(bench.store(), &[lost], Incarnation::fresh()).await;
    let (of_lost, of_kept) = (bench.streams_in(lost, 2), bench.streams_in(kept, 2));
    let commits = vec![
        writer.commit(&of_lost[0], 0, 1),
        writer.commit(&of_kept[0], 0, 1),
        writer.commit(&of_lost[1], 0, 1),
        writer.commit(&of_kept[1], 0, 1),
    ];
    let outcomes = writer.append(commits).await;
    assert_eq!((&outcomes[0], &outcomes[2]), (&CommitOutcome::Fenced, &CommitOutcome::Fenced));
    committed(&outcomes[1]);
    committed(&outcomes[3]);
    assert_eq!(bench.read_shard(lost).await, []);
    assert_eq!(bench.read_shard(kept).await.len(), 2);
}

/// 9. A claim raises the epoch of each shard by one, also when the owner claims again, and of no other shard.
pub async fn a_claim_raises_each_epoch_by_one(bench: Bench) {
    let owner = Incarnation::fresh();
    let (one, two) = (ShardId::new(0), ShardId::new(1));
    for (shards, epochs) in [(vec![one], vec![1]), (vec![one], vec![2]), (vec![one, two], vec![3, 1])] {
        let claims = bench.store().claim(&shards, owner).await.expect("claims");
        assert_eq!(claims.iter().map(|claim| claim.epoch.get()).collect::<Vec<_>>(), epochs);
    }
}

/// Claims come in the order asked for, with the last seq of each shard.
pub async fn claims_come_in_the_order_asked_for_with_their_heads(bench: Bench) {
    let writer = bench.writer().await;
    let (one, two) = (ShardId::new(0), ShardId::new(1));
    writer.fill(&bench.streams_in(one, 1)[0], 3).await;
    let claims = bench.store().claim(&[two, one], Incarnation::fresh()).await.expect("claims");
    let found: Vec<_> =
        claims.iter().map(|claim| (claim.shard, claim.epoch.get(), claim.head.get())).collect();
    assert_eq!(found, [(two, 2, 0), (one, 2, 3)]);
    let none = bench.store().claim(&[], Incarnation::fresh()).await.expect("claims nothing");
    assert!(none.is_empty());
}

/// 9, 13. Claims at once get epochs of their own, and only the highest may write.
pub async fn claims_at_once_get_epochs_of_their_own(bench: Bench) {
    const CLAIMS: u64 = 8;
    let name = stream("a");
    let shard = bench.shards().shard_of_stream(&name);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CLAIMS {
        let store = bench.store();
        tasks.spawn(async move { Writer::claim(store, &[shard], Incarnation::fresh()).await });
    }
    let mut writers = tasks.join_all().await;
    writers.sort_by_key(|writer| writer.epoch(shard));
    let epochs: Vec<u64> = writers.iter().map(|writer| writer.epoch(shard).get()).collect();
    assert_eq!(epochs, (1..=CLAIMS).collect::<Vec<_>>());
    for (at, writer) in (1..).zip(&writers) {
        let outcome = writer.append_one(writer.commit(&name, 0, 1)).await;
        assert_eq!(outcome.is_committed(), at == CLAIMS, "epoch {at} was answered {outcome:?}");
    }
}

/// 5, 9. Epochs and owners are stored: after a reopen the owner may go on, and the next claim gets the next epoch.
pub async fn ownership_survives_a_reopen(bench: Bench) {
    let old = bench.writer().await;
    let current = bench.writer().await;
    let bench = bench.reopen().await;
    let (old, current) = (old.over(bench.store()), current.over(bench.store()));
    assert_eq!(old.append_one(old.commit(&stream("a"), 0, 1)).await, CommitOutcome::Fenced);
    committed(&current.append_one(current.commit(&stream("a"), 0, 1)).await);
    assert_eq!(bench.writer().await.epoch(ShardId::new(0)).get(), 3);
}

/// `confirm` tells for each shard whether owner and epoch are the current ones.
pub async fn confirm_tells_who_holds_a_shard(bench: Bench) {
    let (one, two) = (ShardId::new(0), ShardId::new(1));
    let owner = Incarnation::fresh();
    let writer = Writer::claim(bench.store(), &[one], owner).await;
    let epoch = writer.epoch(one);
    let asked = [(two, epoch), (one, epoch), (one, epoch.next()), (one, Epoch::ZERO)];
    let answers = bench.store().confirm(owner, &asked).await.expect("answers");
    assert_eq!(answers, [false, true, false, false]);
    let stranger = bench.store().confirm(Incarnation::fresh(), &[(one, epoch)]).await.expect("answers");
    assert_eq!(stranger, [false]);
    let _new = Writer::claim(bench.store(), &[one], Incarnation::fresh()).await;
    assert_eq!(bench.store().confirm(owner, &[(one, epoch)]).await.expect("answers"), [false]);
}

/// 9. When a claim returns, no append of an older epoch can take effect any more, also none that was in flight.
///
/// What a read then finds is final: many rounds of writers that are in the middle of appending when the claim comes.
pub async fn after_a_claim_no_older_append_takes_effect(bench: Bench) {
    const ROUNDS: usize = 25;
    const WRITERS: usize = 3;
    let shard = ShardId::new(0);
    let streams = bench.streams_in(shard, ROUNDS * WRITERS);
    let mut owner = Writer::claim(bench.store(), &[shard], Incarnation::fresh()).await;
    for names in streams.chunks(WRITERS) {
        let started = Arc::new(Notify::new());
        let mut appends = tokio::task::JoinSet::new();
        for name in names {
            appends.spawn(append_until_fenced(owner.clone(), name.clone(), Arc::clone(&started)));
        }
        started.notified().await;
        let next = Incarnation::fresh();
        let claim = bench.store().claim(&[shard], next).await.expect("claims")[0];
        let final_log = bench.read_shard(shard).await;
        assert_eq!(final_log.len() as u64, claim.head.get(), "the claim's head is the end of the log");
        let acknowledged: u64 = appends.join_all().await.iter().sum();
        assert_eq!(bench.read_shard(shard).await, final_log, "nothing came after the claim");
        let of_round = final_log.iter().filter(|event| names.contains(&event.stream)).count() as u64;
        assert!(of_round >= acknowledged, "{acknowledged} were acknowledged, {of_round} are stored");
        owner = Writer::claim(bench.store(), &[shard], next).await;
    }
}

/// Appends small batches until the fence stops it and returns how many events were acknowledged.
async fn append_until_fenced(writer: Writer, name: StreamId, started: Arc<Notify>) -> u64 {
    let mut acknowledged = 0;
    loop {
        let commits = (0..4).map(|at| writer.commit(&name, acknowledged + at, 1)).collect();
        let outcomes = writer.append(commits).await;
        let stored = outcomes.iter().take_while(|outcome| outcome.is_committed()).count();
        acknowledged += stored as u64;
        started.notify_one();
        // A store whose futures are always ready would keep this loop from ever being stopped.
        tokio::task::yield_now().await;
        match outcomes.get(stored) {
            None => {}
            Some(CommitOutcome::Fenced) => return acknowledged,
            Some(other) => panic!("only a fence may stop this writer, not {other:?}"),
        }
    }
}
