//! A database that was destroyed and restored, while a node of its former life still runs.

use std::sync::Arc;

use orchestrix::core::store::{ClaimError, CommitOutcome};
use orchestrix::core::{EventStore, Version};
use orchestrix::ops::backup::{Backup, Restore};
use orchestrix::{NodeStatus, SendError};

use super::place::{Room, log_of, node, serves};
use crate::counter::{Add, Counter, counter};
use crate::harness::eventually;
use crate::store_postgres::owner::{Owner, shards};
use crate::store_postgres::place::Place;

#[tokio::test]
async fn a_node_of_the_former_life_stores_nothing_in_a_restored_database() {
    let place = Place::new();
    let old = node(Arc::new(place.open().await)).await;
    for amount in 1..=20 {
        old.of::<Counter>(counter("a")).send(Add::new(amount)).await.expect("it serves");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = place.open().await;
    Backup::new(Arc::new(store.clone()), folder.path()).take().await.expect("takes");
    // Acknowledged after the backup: the restore goes back behind it.
    old.of::<Counter>(counter("a")).send(Add::new(100)).await.expect("it serves");
    let former = store.cluster();
    drop(store);
    place.destroy().await;
    Restore::new(folder.path()).into(Arc::new(place.open().await)).await.expect("restores");
    assert_ne!(place.open().await.cluster(), former, "it is another life");
    // The old node believes to own the shards and to know the log.
    let refused = old.of::<Counter>(counter("a")).send(Add::new(1)).await;
    assert!(matches!(refused, Err(SendError::NotAttempted(_) | SendError::Unknown(_))), "{refused:?}");
    eventually("the old node knows", async || old.status() != NodeStatus::Running).await;
    let log = log_of(&place.open().await).await;
    assert_eq!(log.last().map(|event| event.version), Some(Version::new(20)));
    // A node of the new life starts at once, and the old one does not take the shards back.
    serves(&Room::Postgres(place.clone()), &log).await;
    assert_ne!(old.status(), NodeStatus::Running);
    assert_eq!(log_of(&place.open().await).await.len(), 21);
    old.shutdown().await;
}

/// The same by hand: the append is refused, and so is the claim that would make it welcome.
#[tokio::test]
async fn an_append_and_a_claim_of_the_former_life_are_refused() {
    let place = Place::new();
    let old = Owner::of(&place.open().await).await;
    assert!(old.note("a", 0).await.is_committed());
    let folder = tempfile::tempdir().expect("a temporary folder");
    Backup::new(Arc::new(place.open().await), folder.path()).take().await.expect("takes");
    assert!(old.note("a", 1).await.is_committed());
    place.destroy().await;
    Restore::new(folder.path()).into(Arc::new(place.open().await)).await.expect("restores");
    // The first one may find that its session is gone; no answer says that it is stored.
    let outcome = loop {
        match old.note("a", 2).await {
            CommitOutcome::Unavailable { .. } | CommitOutcome::Unknown { .. } => {}
            decided => break decided,
        }
    };
    assert_eq!(outcome, CommitOutcome::Fenced);
    let refused =
        old.store.claim(&shards(&old.store), old.incarnation).await.expect_err("it is of the former life");
    assert!(
        matches!(&refused, ClaimError::Unavailable { reason, .. } if reason.contains("another life")),
        "{refused}"
    );
    let new = Owner::of(&place.open().await).await;
    let before = old.claims.iter().map(|claim| claim.epoch).max();
    assert!(new.claims[new.commit("a", 0).shard.get() as usize].epoch >= before.expect("it had shards"));
    assert!(new.note("a", 1).await.is_committed());
    assert_eq!(log_of(&place.open().await).await.len(), 2);
}
