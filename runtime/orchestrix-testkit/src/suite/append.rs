//! Obligations 1-3 and 6-8: what an append stores and what it answers.

use orchestrix_core::ShardId;
use orchestrix_core::store::{Commit, CommitOutcome};

use super::bench::{Bench, assert_conflict, committed, recorded, stream};

/// 1. A commit's events are stored together.
pub async fn a_commit_is_stored_together(bench: Bench) {
    let writer = bench.writer().await;
    let commit = writer.commit(&stream("a"), 0, 5);
    let first_seq = committed(&writer.append_one(commit.clone()).await);
    assert_eq!(bench.read(&stream("a")).await, recorded(&commit, first_seq));
    assert_eq!(bench.read_shard(commit.shard).await, recorded(&commit, first_seq));
}

/// 1. ... or not at all.
pub async fn a_refused_commit_stores_nothing(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 2).await;
    assert_conflict(&writer.append_one(writer.commit(&stream("a"), 1, 5)).await, 2);
    assert_conflict(&writer.append_one(writer.commit(&stream("a"), 3, 5)).await, 2);
    assert_eq!(bench.versions(&stream("a")).await, [1, 2]);
    assert_eq!(bench.read_shard(writer.shard_of(&stream("a"))).await.len(), 2);
}

/// 2. `Committed` is answered only when the events are durable.
pub async fn committed_events_survive_a_reopen(bench: Bench) {
    let writer = bench.writer().await;
    let commits: Vec<Commit> =
        (0..20).map(|number| writer.commit(&stream(&format!("a-{number}")), 0, 3)).collect();
    let outcomes = writer.append(commits.clone()).await;
    drop(writer);
    let bench = bench.reopen().await;
    for (commit, outcome) in commits.iter().zip(&outcomes) {
        assert_eq!(bench.read(&commit.stream).await, recorded(commit, committed(outcome)));
    }
}

/// 3. Versions of a stream are 1..n without a hole, over commits of several sizes.
pub async fn versions_are_without_a_hole(bench: Bench) {
    let writer = bench.writer().await;
    let mut version = 0;
    for events in [1, 3, 1, 7, 2] {
        committed(&writer.append_one(writer.commit(&stream("a"), version, events)).await);
        version += events as u64;
    }
    assert_eq!(bench.versions(&stream("a")).await, (1..=version).collect::<Vec<_>>());
    let loaded = bench.store().load(&stream("a"), 0).await.expect("loads");
    assert_eq!(loaded.version.get(), version);
}

/// 3. A commit whose `expected` is ahead of the stream would leave a hole: a `Conflict` that stores nothing.
pub async fn a_commit_that_expects_too_much_is_a_conflict(bench: Bench) {
    let writer = bench.writer().await;
    assert_conflict(&writer.append_one(writer.commit(&stream("new"), 1, 1)).await, 0);
    writer.fill(&stream("old"), 3).await;
    assert_conflict(&writer.append_one(writer.commit(&stream("old"), 4, 1)).await, 3);
    assert_conflict(&writer.append_one(writer.commit(&stream("old"), 1_000_000, 1)).await, 3);
    assert_eq!(bench.versions(&stream("new")).await, [0_u64; 0]);
    assert_eq!(bench.versions(&stream("old")).await, [1, 2, 3]);
}

/// 3. A commit whose `expected` is behind the stream is a `Conflict`, also where its events would reach past the end.
pub async fn a_commit_that_expects_too_little_is_a_conflict(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 3).await;
    for (expected, events) in [(0, 1), (2, 1), (2, 5), (0, 10)] {
        assert_conflict(&writer.append_one(writer.commit(&stream("a"), expected, events)).await, 3);
    }
    assert_eq!(bench.versions(&stream("a")).await, [1, 2, 3]);
    committed(&writer.append_one(writer.commit(&stream("a"), 3, 1)).await);
}

/// 6. One bad commit does not fail its neighbours in the batch, wherever it stands and however many there are.
pub async fn one_bad_commit_does_not_fail_its_neighbours(bench: Bench) {
    let writer = bench.writer().await;
    for (round, bad_at) in
        [vec![0], vec![7], vec![15], vec![3, 4], (0..16).step_by(2).collect()].iter().enumerate()
    {
        let name = |number: usize| stream(&format!("r{round}-{number}"));
        let expected = |number: usize| if bad_at.contains(&number) { 9 } else { 0 };
        let commits = (0..16).map(|number| writer.commit(&name(number), expected(number), 2)).collect();
        for (number, outcome) in writer.append(commits).await.iter().enumerate() {
            let stored = if bad_at.contains(&number) {
                assert_conflict(outcome, 0);
                0
            } else {
                committed(outcome);
                2
            };
            assert_eq!(bench.read(&name(number)).await.len(), stored, "commit {number} of round {round}");
        }
    }
}

/// 6. Commits that build on a bad one fail with it, and only they do.
pub async fn commits_that_build_on_a_bad_one_fail_with_it(bench: Bench) {
    let writer = bench.writer().await;
    let (hot, calm) = (stream("hot"), stream("calm"));
    let commits = vec![
        writer.commit(&hot, 0, 2),
        writer.commit(&calm, 0, 1),
        writer.commit(&hot, 3, 1),
        writer.commit(&calm, 1, 1),
        writer.commit(&hot, 4, 2),
        writer.commit(&hot, 2, 1),
        writer.commit(&calm, 2, 1),
    ];
    let outcomes = writer.append(commits).await;
    for good in [0, 1, 3, 6] {
        committed(&outcomes[good]);
    }
    assert_conflict(&outcomes[2], 2);
    assert!(
        matches!(outcomes[4], CommitOutcome::Conflict { .. }),
        "it builds on a bad one: {:?}",
        outcomes[4]
    );
    // The last one of the hot stream expects what is there; a store may also stop at the first conflict of a stream.
    let hot_versions: Vec<u64> = if outcomes[5].is_committed() { vec![1, 2, 3] } else { vec![1, 2] };
    assert_eq!(bench.versions(&hot).await, hot_versions);
    assert_eq!(bench.versions(&calm).await, [1, 2, 3]);
}

/// 8. Commits of one stream in one batch take effect in their order, also between commits of other streams.
pub async fn commits_of_one_stream_take_effect_in_their_order(bench: Bench) {
    let writer = bench.writer().await;
    let names: Vec<_> = (0..5).map(|number| stream(&format!("a-{number}"))).collect();
    let commits: Vec<Commit> = (0..20)
        .flat_map(|round| names.iter().map(move |name| (name, round)))
        .map(|(name, round)| writer.commit(name, round, 1))
        .collect();
    let outcomes = writer.append(commits.clone()).await;
    for name in &names {
        let of_stream = commits.iter().zip(&outcomes).filter(|(commit, _)| commit.stream == *name);
        let stored: Vec<_> =
            of_stream.flat_map(|(commit, outcome)| recorded(commit, committed(outcome))).collect();
        assert_eq!(bench.read(name).await, stored);
        assert!(stored.is_sorted_by_key(|event| event.seq), "versions and seqs have the same order");
    }
}

/// Answers come in the order of the batch, also when it is sorted or split inside.
pub async fn answers_come_in_the_order_of_the_batch(bench: Bench) {
    let writer = bench.writer().await;
    let deposed = ShardId::new(1);
    let _newer =
        bench.store().claim(&[deposed], orchestrix_core::Incarnation::fresh()).await.expect("claims");
    let names: Vec<_> = (0..60).rev().map(|number| stream(&format!("a-{number:02}"))).collect();
    let expected = |number: usize| if number.is_multiple_of(3) { 5 } else { 0 };
    let commits = names.iter().enumerate().map(|(number, name)| writer.commit(name, expected(number), 1));
    let outcomes = writer.append(commits.collect()).await;
    for (number, (name, outcome)) in names.iter().zip(&outcomes).enumerate() {
        if writer.shard_of(name) == deposed {
            assert_eq!(*outcome, CommitOutcome::Fenced, "commit {number}");
        } else if number.is_multiple_of(3) {
            assert_conflict(outcome, 0);
        } else {
            assert_eq!(bench.read(name).await[0].seq, committed(outcome), "commit {number}");
        }
    }
}

/// 7. `Conflict` and `Fenced` mean that the commit is not stored and never will be.
pub async fn what_was_refused_never_appears(bench: Bench) {
    let old = bench.writer().await;
    old.fill(&stream("a"), 1).await;
    assert_conflict(&old.append_one(old.commit(&stream("a"), 5, 1)).await, 1);
    let new = bench.writer().await;
    assert_eq!(old.append_one(old.commit(&stream("a"), 1, 1)).await, CommitOutcome::Fenced);
    // What the refused commits waited for comes true, and they still stay out.
    for expected in 1..5 {
        committed(&new.append_one(new.commit(&stream("a"), expected, 1)).await);
    }
    drop((old, new));
    let bench = bench.reopen().await;
    let events = bench.read(&stream("a")).await;
    assert_eq!(events.len(), 5);
    assert!(
        events[1..].iter().all(|event| event.epoch > events[0].epoch),
        "only the new owner's events follow"
    );
}

/// An empty batch is answered with nothing and changes nothing.
pub async fn an_empty_batch_is_answered_with_nothing(bench: Bench) {
    let writer = bench.writer().await;
    assert_eq!(writer.append(Vec::new()).await, []);
    assert_eq!(bench.store().stats().await.expect("counts").events, 0);
    writer.fill(&stream("a"), 1).await;
}

/// A batch of 3,000 events is stored whole, whatever limits the store has inside.
pub async fn a_large_batch_is_stored(bench: Bench) {
    let writer = bench.writer().await;
    let commits: Vec<Commit> =
        (0..1_000).map(|number| writer.commit(&stream(&format!("a-{number}")), 0, 3)).collect();
    let outcomes = writer.append(commits.clone()).await;
    for (commit, outcome) in commits.iter().zip(&outcomes).step_by(97) {
        assert_eq!(bench.read(&commit.stream).await, recorded(commit, committed(outcome)));
    }
    assert!(outcomes.iter().all(CommitOutcome::is_committed));
    assert_eq!(bench.store().stats().await.expect("counts").events, 3_000);
}

/// 1. A commit of 2,000 events is stored together.
pub async fn a_commit_of_many_events_is_stored(bench: Bench) {
    let writer = bench.writer().await;
    let commit = writer.commit(&stream("a"), 0, 2_000);
    let first_seq = committed(&writer.append_one(commit.clone()).await);
    assert_eq!(bench.read(&stream("a")).await, recorded(&commit, first_seq));
}
