//! The fence: a claim waits for appends in flight and ends the later ones, whoever makes it and however.

use orchestrix_core::store::{Batch, CommitOutcome};
use orchestrix_core::{EventStore, Incarnation, Seq, ShardId};
use sqlx::Executor as _;

use super::owner::{Owner, length, number, run, shards, until_waiting};
use super::place::Place;
use crate::harness::in_time;

/// The row that an append of a run locks, locked by hand as an append does.
const HOLD: &str = "SELECT 1 FROM orchestrix.fences WHERE lane = 0 FOR SHARE";

/// What an append does besides: one more event in the first shard.
const STORE: &str = "INSERT INTO orchestrix.events SELECT coalesce(max(seq), 0) + 1, 1, 1, now(), 0, 1, 0, \
                     gen_random_uuid(), gen_random_uuid(), 'note', 'by hand', 'note.taken', NULL, NULL, '' \
                     FROM orchestrix.events WHERE shard = 0";

#[tokio::test]
async fn a_claim_waits_for_an_append_in_flight_and_counts_it() {
    let place = Place::new();
    let old = Owner::of(&place.open().await).await;
    let (mut append, mut other) = (place.by_hand().await, place.by_hand().await);
    append.execute("BEGIN").await.expect("begins");
    run(&mut append, HOLD).await;
    run(&mut append, STORE).await;
    let store = place.open().await;
    let claim = tokio::spawn(async move { Owner::of(&store).await });
    until_waiting(&mut other, 1).await;
    assert!(!claim.is_finished(), "it waits for the append");
    append.execute("COMMIT").await.expect("commits");
    let new = claim.await.expect("it claims in the end");
    assert_eq!(new.claims[0].head, Seq::new(1), "the head counts the event that was in flight");
    assert_eq!(old.note("a", 0).await, CommitOutcome::Fenced);
    assert!(new.note("a", 0).await.is_committed());
}

/// The control: a weaker lock on the same row, and the claim would not wait. That is why it is not used.
#[tokio::test]
async fn for_key_share_would_be_no_fence() {
    let place = Place::new();
    let _old = Owner::of(&place.open().await).await;
    let mut append = place.by_hand().await;
    append.execute("BEGIN").await.expect("begins");
    run(&mut append, &HOLD.replace("FOR SHARE", "FOR KEY SHARE")).await;
    run(&mut append, STORE).await;
    let new = Owner::of(&place.open().await).await;
    assert_eq!(new.claims[0].head, Seq::ZERO, "it was not waited for");
    append.execute("ROLLBACK").await.expect("rolls back");
}

/// An append that comes while a claim is under way waits for it and is fenced.
#[tokio::test]
async fn an_append_that_meets_a_claim_stores_nothing() {
    let place = Place::new();
    let old = Owner::of(&place.open().await).await;
    assert!(old.note("a", 0).await.is_committed());
    let (mut claim, mut other) = (place.by_hand().await, place.by_hand().await);
    claim.execute("BEGIN").await.expect("begins");
    run(&mut claim, "UPDATE orchestrix.shards SET epoch = epoch + 1, incarnation = gen_random_uuid()").await;
    let append = tokio::spawn({
        let old = old.clone();
        async move { old.note("a", 1).await }
    });
    until_waiting(&mut other, 1).await;
    claim.execute("COMMIT").await.expect("commits");
    assert_eq!(append.await.expect("it is answered"), CommitOutcome::Fenced);
    assert_eq!(length(&old.store, "a").await, 1);
}

#[tokio::test]
async fn two_owners_at_one_epoch_are_told_apart() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    let stranger = Owner { incarnation: Incarnation::fresh(), ..owner.with(&place.open().await) };
    assert_eq!(stranger.note("a", 0).await, CommitOutcome::Fenced);
    assert!(owner.note("a", 0).await.is_committed());
    // Another run gets the shards at the very same epochs.
    let mut hand = place.by_hand().await;
    let given = format!("UPDATE orchestrix.shards SET incarnation = '{}'", stranger.incarnation);
    run(&mut hand, &given).await;
    assert_eq!(owner.note("a", 1).await, CommitOutcome::Fenced);
    assert_eq!(length(&owner.store, "a").await, 1);
}

/// Two processes, many rounds: the loser's appends that were acknowledged are what the winner sees, and no more come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_races_appends_and_one_of_them_wins() {
    const ROUNDS: usize = 30;
    let place = Place::new();
    let stores = [place.open().await, place.open().await];
    let mut owner = Owner::of(&stores[0]).await;
    let (mut events, mut cut_short) = (0, 0);
    for round in 1..=ROUNDS {
        let loser = tokio::spawn(append_until_fenced(owner.clone(), format!("r{round}")));
        // The race begins when the loser is in the middle of it.
        while length(&stores[0], &format!("r{round}")).await < 3 {
            tokio::task::yield_now().await;
        }
        owner = Owner::of(&stores[round % 2]).await;
        let seen = length(&owner.store, &format!("r{round}")).await;
        let (acknowledged, sent) = in_time("the loser's race", loser).await.expect("it was fenced");
        assert_eq!(seen, acknowledged, "round {round}: the winner saw what the loser was told");
        assert_eq!(
            length(&owner.store, &format!("r{round}")).await,
            seen,
            "round {round}: nothing came later"
        );
        events += seen;
        cut_short += usize::from(sent > acknowledged);
    }
    let heads: u64 = {
        let claims = owner.store.claim(&shards(&owner.store), owner.incarnation).await.expect("claims");
        claims.iter().map(|claim| claim.head.get()).sum()
    };
    assert_eq!(heads, events as u64, "no seq is missing or used twice");
    assert_eq!(cut_short, ROUNDS, "each round had an append that lost");
}

/// Returns how many events were acknowledged, and how many were sent.
async fn append_until_fenced(owner: Owner, id: String) -> (usize, usize) {
    let mut acknowledged = 0;
    loop {
        let commits: Vec<_> = (0..3).map(|at| owner.commit(&id, (acknowledged + at) as u64)).collect();
        let sent = acknowledged + commits.len();
        let outcomes = owner.append(commits).await;
        acknowledged += outcomes.iter().take_while(|outcome| outcome.is_committed()).count();
        match outcomes.last() {
            Some(CommitOutcome::Fenced) => return (acknowledged, sent),
            Some(CommitOutcome::Committed { .. }) => {}
            other => panic!("only a fence may stop it, not {other:?}"),
        }
    }
}

/// A shard that is lost does not fail the others: the run reads what it still owns and goes on with that.
#[tokio::test]
async fn a_run_that_loses_one_shard_goes_on_with_the_others() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    let lost = owner.commit("a", 0).shard;
    place.open().await.claim(&[lost], Incarnation::fresh()).await.expect("claims one");
    let ids: Vec<String> = (0..20).map(|at| format!("n-{at}")).collect();
    let commits: Vec<_> = ids.iter().map(|id| owner.commit(id, 0)).collect();
    let of: Vec<ShardId> = commits.iter().map(|commit| commit.shard).collect();
    let outcomes = owner.append(commits).await;
    for (shard, outcome) in of.iter().zip(&outcomes) {
        assert_eq!(outcome.is_committed(), *shard != lost, "shard {shard}: {outcome:?}");
    }
    assert!(of.contains(&lost) && of.iter().any(|shard| *shard != lost), "both kinds were there");
}

/// The same run over two handles: neither knows of the other, and still no seq is lost or used twice.
#[tokio::test]
async fn two_handles_of_one_run_number_events_together() {
    let place = Place::new();
    let one = Owner::of(&place.open().await).await;
    let two = one.with(&place.open().await);
    for version in 0..10 {
        let owner = if version % 2 == 0 { &one } else { &two };
        assert!(owner.note("a", version).await.is_committed(), "version {version}");
    }
    let shard = one.commit("a", 0).shard;
    let events = one.store.read_shard(shard, Seq::ZERO, 100).await.expect("reads");
    let seqs: Vec<u64> = events.iter().map(|event| event.seq.get()).collect();
    assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
}

/// Fences of runs that are gone do not pile up.
#[tokio::test]
async fn fences_of_former_owners_are_cleared_away() {
    let place = Place::new();
    let store = place.open().await;
    for _ in 0..5 {
        Owner::of(&store).await;
    }
    let mut hand = place.by_hand().await;
    assert_eq!(number(&mut hand, "SELECT count(DISTINCT incarnation) FROM orchestrix.fences").await, 1);
}

/// A generation is never used again, so an append from before cannot fit the fence of a run that lost everything and
/// claimed anew.
#[tokio::test]
async fn a_run_that_comes_back_has_another_generation() {
    let place = Place::new();
    let store = place.open().await;
    let owner = Owner::of(&store).await;
    let mut hand = place.by_hand().await;
    let generation = "SELECT max(generation) FROM orchestrix.fences";
    let first = number(&mut hand, generation).await;
    let _other = Owner::of(&store).await;
    store.claim(&shards(&store), owner.incarnation).await.expect("it comes back");
    assert!(number(&mut hand, generation).await > first);
    let batch = Batch { owner: owner.incarnation, commits: vec![owner.commit("a", 0)] };
    assert_eq!(store.append(batch).await, [CommitOutcome::Fenced], "its old epoch is over");
}
