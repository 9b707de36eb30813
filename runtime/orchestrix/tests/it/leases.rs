//! Nodes that share a database: one holds the shards under a lease, and what happens when the lease ends.

use std::sync::Arc;
use std::time::Duration;

use orchestrix::core::store::{ClaimError, EventStore};
use orchestrix::core::{CommandId, Version};
use orchestrix::{Consistency, Node, NodeStatus, NotAttempted, Orchestrix, SendError, Settings, StartError};
use orchestrix_testkit::{Fault, FaultControl, Faulty, Operation};

use crate::counter::{Add, Counter, counter};
use crate::harness::{eventually, in_time};
use crate::store_postgres::place::Place;

/// The shortest lease that is allowed.
const LEASE: Duration = Duration::from_secs(1);

fn settings(name: &str) -> Settings {
    Settings {
        node_name: Some(name.to_owned()),
        lease: LEASE,
        claim_wait_max: Duration::ZERO,
        arbiters: 2,
        ..Settings::default()
    }
}

async fn start(place: &Place, settings: Settings) -> Result<(Node, FaultControl), StartError> {
    let (store, faults) = Faulty::new(Arc::new(place.open().await));
    let store: Arc<dyn EventStore> = store;
    let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings);
    Ok((builder.metrics(false).start().await?, faults))
}

async fn started(place: &Place, settings: Settings) -> (Node, FaultControl) {
    start(place, settings).await.expect("the node starts")
}

/// A start that waits for as long as a lease may last.
fn patient(name: &str) -> Settings {
    Settings { claim_wait_max: Duration::from_mins(1), ..settings(name) }
}

async fn add(node: &Node, amount: u64) -> u64 {
    node.of::<Counter>(counter("shared")).send(Add::new(amount)).await.expect("the node serves")
}

async fn total(node: &Node) -> Result<(u64, Version), NotAttempted> {
    node.of::<Counter>(counter("shared")).read_versioned(Consistency::Leased, |state| state.total).await
}

async fn becomes(node: &Node, status: NodeStatus) {
    eventually(&format!("the node becomes {status:?}"), async || node.status() == status).await;
}

fn holder(error: StartError) -> String {
    match error {
        StartError::Claim(ClaimError::Held { holder, .. }) => holder,
        other => panic!("the shards are held, and that is what should be said, not {other}"),
    }
}

#[tokio::test]
async fn a_second_node_is_refused_by_the_name_of_the_holder() {
    let place = Place::new();
    let (first, _) = started(&place, settings("ada")).await;
    let refused = start(&place, settings("bob")).await.expect_err("the shards are held");
    assert!(holder(refused).contains("ada"));
    // It waits in vain for a holder that is alive: the lease is renewed meanwhile.
    let waiting = Settings { claim_wait_max: LEASE * 3, ..settings("bob") };
    let refused = start(&place, waiting).await.expect_err("the shards are still held");
    assert!(holder(refused).contains("ada"));
    assert_eq!((add(&first, 1).await, first.status()), (1, NodeStatus::Running));
    first.shutdown().await;
}

#[tokio::test]
async fn a_node_that_stopped_is_succeeded_at_once() {
    let place = Place::new();
    let (first, _) = started(&place, settings("ada")).await;
    add(&first, 1).await;
    first.shutdown().await;
    let (second, _) = started(&place, settings("bob")).await;
    assert_eq!(add(&second, 1).await, 2);
    second.shutdown().await;
}

#[tokio::test]
async fn a_node_that_cannot_renew_says_nothing_until_it_can() {
    let place = Place::new();
    let (node, faults) = started(&place, settings("ada")).await;
    add(&node, 1).await;
    faults.fail(Operation::Lease, u64::MAX);
    becomes(&node, NodeStatus::Suspended).await;
    assert!(matches!(total(&node).await, Err(NotAttempted::Unavailable { .. })));
    let refused = node.of::<Counter>(counter("shared")).send(Add { amount: 1, limit: 0 }).await;
    assert!(matches!(refused, Err(SendError::NotAttempted(NotAttempted::Unavailable { .. }))), "{refused:?}");
    assert!(faults.faults_hit().calls_failed >= 2, "the renewals failed");
    for consistency in [Consistency::Confirmed, Consistency::Local] {
        let of = node.of::<Counter>(counter("shared"));
        let seen = of.read_versioned(consistency, |state| state.total).await;
        assert_eq!(seen, Ok((1, Version::new(1))), "{consistency:?} does not rest on the lease");
    }
    faults.heal();
    becomes(&node, NodeStatus::Running).await;
    assert_eq!(total(&node).await, Ok((1, Version::new(1))), "nobody took over, so its states are good");
    node.shutdown().await;
}

#[tokio::test]
async fn a_deposed_node_answers_nothing_stale_and_claims_anew() {
    let place = Place::new();
    let (first, faults) = started(&place, settings("ada")).await;
    assert_eq!(add(&first, 1).await, 1);
    faults.fail(Operation::Lease, u64::MAX);
    let (second, _) = started(&place, patient("bob")).await;
    assert_ne!(first.status(), NodeStatus::Running, "it stopped before anybody else could begin");
    assert_eq!(add(&second, 10).await, 11);
    faults.heal();
    // It hears that it was deposed, and goes on trying for as long as the other one lives.
    eventually("the first node has asked to renew", async || faults.faults_hit().calls_failed > 0).await;
    for _ in 0..20 {
        assert!(total(&first).await.is_err(), "it would have been stale");
        tokio::time::sleep(LEASE / 20).await;
    }
    second.shutdown().await;
    becomes(&first, NodeStatus::Running).await;
    assert_eq!(total(&first).await, Ok((11, Version::new(2))), "what the other one stored is there");
    assert_eq!(add(&first, 1).await, 12);
    first.shutdown().await;
}

#[tokio::test]
async fn what_a_sleeper_had_in_its_hands_is_refused_after_a_takeover() {
    let place = Place::new();
    let (first, faults) = started(&place, settings("ada")).await;
    assert_eq!(add(&first, 1).await, 1);
    faults.on_next_append(Fault::Hold);
    let (to, id) = (first.of::<Counter>(counter("shared")), CommandId::fresh());
    let zombie = tokio::spawn(async move { to.send(Add::new(100)).id(id).await });
    in_time("the append", faults.wait_for_held(1)).await;
    faults.fail(Operation::Lease, u64::MAX);
    let (second, _) = started(&place, patient("bob")).await;
    assert_eq!(add(&second, 10).await, 11);
    faults.release_held();
    let heard = in_time("the zombie's command", zombie).await.expect("no panic");
    assert!(matches!(heard, Err(SendError::NotAttempted(NotAttempted::NotOwner { .. }))), "{heard:?}");
    assert_eq!(total(&second).await, Ok((11, Version::new(2))), "the zombie wrote nothing");
    // The same id, at the new owner: it was certainly not done, so it is done now, once.
    let to = second.of::<Counter>(counter("shared"));
    assert_eq!(to.send(Add::new(100)).id(id).await.expect("served"), 111);
    faults.heal();
    second.shutdown().await;
    becomes(&first, NodeStatus::Running).await;
    assert_eq!(total(&first).await, Ok((111, Version::new(3))));
    first.shutdown().await;
}
