//! Obligations 14 and 15: what a lease keeps from whom. A store without leases has nothing to keep: its checks tell that
//! its claims are never refused and that its answers are those of a run that nobody disturbs.

use std::time::Duration;

use orchestrix_core::store::{Claim, ClaimError, CommitOutcome, NodeRecord, Report};
use orchestrix_core::{Incarnation, ShardId};

use super::bench::{Bench, Writer, committed, stream};

/// Longer than any check takes.
const LONG: Duration = Duration::from_hours(1);

/// A run that says nothing by which it could be proved to be gone.
fn node(name: &str, incarnation: Incarnation) -> NodeRecord {
    NodeRecord {
        incarnation,
        name: name.to_owned(),
        host: format!("{name}.example"),
        boot_id: String::new(),
        pid_namespace: String::new(),
        pid: 1,
        pid_started: 0,
        application_version: "1.2.3".to_owned(),
        address: None,
    }
}

async fn join(bench: &Bench, name: &str, lease: Duration) -> Incarnation {
    let owner = Incarnation::fresh();
    bench.store().join(node(name, owner), lease).await.expect("a run may join");
    owner
}

/// Renews a lease, and tells whether it holds.
async fn renew(bench: &Bench, owner: Incarnation) -> bool {
    bench.store().renew(owner, LONG, Report::default()).await.expect("answers").holds
}

async fn claim(bench: &Bench, owner: Incarnation) -> Result<Vec<Claim>, ClaimError> {
    bench.store().claim(&[ShardId::new(0), ShardId::new(1)], owner).await
}

/// 14. While a lease holds, another run's claim is `Held`, names the holder, and changes nothing.
pub async fn a_claim_of_a_leased_shard_is_held_and_changes_nothing(bench: Bench) {
    let holder = join(&bench, "first", LONG).await;
    let shards = [ShardId::new(0), ShardId::new(1)];
    let writer = Writer::claim(bench.store(), &shards, holder).await;
    let name = bench.streams_in(shards[1], 1).remove(0);
    let other = join(&bench, "second", LONG).await;
    match claim(&bench, other).await {
        Err(ClaimError::Held { shard, holder }) if bench.store().info().leases => {
            assert_eq!(shard, shards[0], "the first shard that is held");
            assert!(holder.contains("first"), "the holder is named: {holder}");
            committed(&writer.append_one(writer.commit(&name, 0, 1)).await);
            assert!(renew(&bench, writer.owner).await, "it still holds");
        }
        Ok(claims) if !bench.store().info().leases => {
            assert_eq!(claims.len(), 2, "a store without leases lets the newest run have them");
        }
        unexpected => panic!("the claim was answered with {unexpected:?}"),
    }
}

/// 14. The holder itself may claim again, and what nobody holds may be claimed.
pub async fn a_lease_does_not_stop_its_holder_or_what_is_free(bench: Bench) {
    let holder = join(&bench, "first", LONG).await;
    bench.store().claim(&[ShardId::new(0)], holder).await.expect("nobody holds it");
    bench.store().claim(&[ShardId::new(0)], holder).await.expect("it holds it itself");
    let other = join(&bench, "second", LONG).await;
    let claims = bench.store().claim(&[ShardId::new(1)], other).await.expect("nobody holds it");
    assert_eq!(claims[0].epoch.get(), 1);
}

/// 14. A run that left holds nothing any more.
pub async fn a_run_that_left_holds_nothing(bench: Bench) {
    let holder = join(&bench, "first", LONG).await;
    claim(&bench, holder).await.expect("nobody holds them");
    bench.store().leave(holder).await.expect("a run may leave");
    bench.store().leave(holder).await.expect("a second time changes nothing");
    let other = join(&bench, "second", LONG).await;
    let claims = claim(&bench, other).await.expect("nobody holds them any more");
    assert!(claims.iter().all(|claim| claim.epoch.get() == 2));
}

/// 14, 15. After a lease has ended its shards may be claimed; the run that held them is told at its next renewal, and
/// stores nothing any more.
pub async fn a_run_whose_lease_ended_is_deposed_by_a_claim(bench: Bench) {
    let holder = join(&bench, "first", Duration::ZERO).await;
    let writer = Writer::claim(bench.store(), &[ShardId::new(0), ShardId::new(1)], holder).await;
    let name = bench.streams_in(ShardId::new(0), 1).remove(0);
    committed(&writer.append_one(writer.commit(&name, 0, 1)).await);
    let other = join(&bench, "second", LONG).await;
    claim(&bench, other).await.expect("the lease has ended");
    assert_eq!(writer.append_one(writer.commit(&name, 1, 1)).await, CommitOutcome::Fenced);
    if bench.store().info().leases {
        assert!(!renew(&bench, holder).await, "it is told");
        let refused = claim(&bench, holder).await;
        assert!(
            matches!(refused, Err(ClaimError::Held { .. })),
            "the renewal gave nothing back: {refused:?}"
        );
    }
    assert!(renew(&bench, other).await);
}

/// 15. A lease that ended while nobody took a shard can be renewed, and then holds again.
pub async fn a_lease_that_nobody_took_over_can_be_renewed(bench: Bench) {
    let holder = join(&bench, "first", Duration::ZERO).await;
    claim(&bench, holder).await.expect("nobody holds them");
    assert!(renew(&bench, holder).await, "nobody has taken anything");
    let other = join(&bench, "second", LONG).await;
    if bench.store().info().leases {
        let refused = claim(&bench, other).await;
        assert!(matches!(refused, Err(ClaimError::Held { .. })), "{refused:?}");
    }
}

/// Runs that never joined hold no lease: the newest claim wins, as before there were leases.
pub async fn a_run_that_never_joined_holds_no_lease(bench: Bench) {
    let old = bench.writer().await;
    let new = bench.writer().await;
    let name = stream("a");
    assert_eq!(old.append_one(old.commit(&name, 0, 1)).await, CommitOutcome::Fenced);
    committed(&new.append_one(new.commit(&name, 0, 1)).await);
}

/// 14. Leases are stored: they hold over a reopen.
pub async fn leases_survive_a_reopen(bench: Bench) {
    let holder = join(&bench, "first", LONG).await;
    claim(&bench, holder).await.expect("nobody holds them");
    let bench = bench.reopen().await;
    let other = join(&bench, "second", LONG).await;
    let claimed = claim(&bench, other).await;
    assert_eq!(matches!(claimed, Err(ClaimError::Held { .. })), bench.store().info().leases, "{claimed:?}");
    assert!(renew(&bench, holder).await);
}
