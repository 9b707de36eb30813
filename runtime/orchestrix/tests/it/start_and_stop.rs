//! How a node starts, loses its shards, and stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestrix::core::store::EventStore;
use orchestrix::core::{
    Aggregate, AggregateType, Incarnation, Name, SnapshotPolicy, StreamId, Version, aggregate_type,
};
use orchestrix::store::Memory;
use orchestrix::telemetry::{Hooks, SnapshotEvent};
use orchestrix::{Consistency, Node, NodeStatus, NotAttempted, Orchestrix, SendError, Settings, StartError};

use crate::counter::{Add, Counter, CounterEvent, CounterId, counter};

async fn start(log: &Memory) -> Node {
    Orchestrix::builder().store(log.clone()).aggregate::<Counter>().start().await.expect("the node starts")
}

/// Another type that claims the counter's name.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Impostor;

impl Aggregate for Impostor {
    const TYPE: AggregateType = aggregate_type!("counter");
    type Id = CounterId;
    type Event = CounterEvent;

    fn apply(&mut self, _: &CounterEvent) {}
}

#[tokio::test]
async fn a_node_that_cannot_run_says_why() {
    let nothing = Orchestrix::builder().aggregate::<Counter>().start().await;
    assert!(matches!(nothing, Err(StartError::NoStore)));
    let twice = Orchestrix::builder().store(Memory::new()).aggregate::<Counter>().aggregate::<Impostor>();
    let error = twice.start().await.expect_err("one name, two types").to_string();
    assert!(error.contains("counter::Counter") && error.contains("Impostor"), "{error}");
    let settings = Settings { arbiters: 0, ..Settings::default() };
    let bad = Orchestrix::builder().store(Memory::new()).settings(settings).start().await;
    assert!(bad.expect_err("no arbiters").to_string().contains("arbiters is 0"));
}

#[tokio::test]
async fn an_aggregate_that_was_not_registered_is_reported_by_name() {
    let node = Orchestrix::builder().store(Memory::new()).start().await.expect("starts");
    let error = node.of::<Counter>(counter("a")).send(Add::new(1)).await.expect_err("not registered");
    assert!(matches!(
        error,
        SendError::NotAttempted(NotAttempted::NotRegistered { aggregate_type }) if aggregate_type == "counter"
    ));
}

#[tokio::test]
async fn a_shutdown_answers_everybody_and_keeps_what_was_answered() {
    let log = Memory::new();
    let node = start(&log).await;
    let callers: Vec<_> = (0..200)
        .map(|number| {
            let to = node.of::<Counter>(counter(&format!("c-{}", number % 5)));
            tokio::spawn(async move { to.send(Add::new(1)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    tokio::join!(node.shutdown(), node.shutdown());
    assert_eq!(node.status(), NodeStatus::Stopped);
    let mut done = 0;
    for caller in callers {
        match caller.await.expect("no caller panics") {
            Ok(_) => done += 1,
            Err(SendError::NotAttempted(NotAttempted::ShuttingDown)) => {}
            Err(error) => panic!("a caller heard {error}"),
        }
    }
    let again = start(&log).await;
    let totals =
        again.load_many::<Counter, _>((0..5).map(|n| counter(&format!("c-{n}"))), |state| state.total).await;
    let sum: u64 = totals.into_iter().map(|total| total.expect("read")).sum();
    assert_eq!(sum, done, "what was answered is there, and nothing else");
}

#[tokio::test]
async fn the_second_owner_fences_the_first() {
    let log = Memory::new();
    let first = start(&log).await;
    let one = first.of::<Counter>(counter("one"));
    one.send(Add::new(1)).await.expect("done");
    let second = start(&log).await;
    let confirmed = one.read(Consistency::Confirmed, |state| state.total).await;
    assert!(matches!(confirmed, Err(NotAttempted::NotOwner { .. })), "{confirmed:?}");
    let fenced = one.send(Add::new(1)).await.expect_err("the shard has another owner");
    assert!(matches!(fenced, SendError::NotAttempted(NotAttempted::NotOwner { .. })), "{fenced}");
    // The caller hears of it first, the node a moment later.
    while first.status() != NodeStatus::Fenced {
        tokio::task::yield_now().await;
    }
    assert!(one.read(Consistency::Leased, |state| state.total).await.is_err(), "it answers nothing any more");
    assert_eq!(second.of::<Counter>(counter("one")).send(Add::new(1)).await.expect("the owner serves"), 2);
    let store: Arc<dyn EventStore> = Arc::new(log);
    let stream = StreamId::new("counter", "one");
    assert_eq!(store.load(&stream, 10).await.expect("read").version, Version::new(2));
}

#[tokio::test]
async fn a_claim_by_another_run_at_any_moment_leaves_one_truth() {
    for round in 0..30_u64 {
        let log = Memory::new();
        let node = start(&log).await;
        let to = node.of::<Counter>(counter("one"));
        let caller = tokio::spawn(async move {
            let mut done = 0;
            while to.send(Add::new(1)).await.is_ok() {
                done += 1;
            }
            done
        });
        tokio::time::sleep(Duration::from_micros(round * 50)).await;
        let shards: Vec<_> = log.info().shard_count.all().collect();
        log.claim(&shards, Incarnation::fresh()).await.expect("claimed");
        let done: u64 = caller.await.expect("no panic");
        let version = log.load(&StreamId::new("counter", "one"), 1).await.expect("read").version;
        assert_eq!(version.get(), done, "every answer is in the log, and nothing that was refused");
    }
}

/// Counts calls.
#[derive(Clone, Default)]
struct Calls {
    stored: Arc<AtomicU64>,
    replayed: Arc<AtomicU64>,
    saved: Arc<AtomicU64>,
    loaded: Arc<AtomicU64>,
}

impl Hooks for Calls {
    fn on_event_stored(&self, _: &StreamId, _: Version, _: &Name) {
        self.stored.fetch_add(1, Ordering::Relaxed);
        panic!("a hook that panics hurts nobody");
    }

    fn on_event_replayed(&self, _: &StreamId, events: u64, _: Duration) {
        self.replayed.fetch_add(events, Ordering::Relaxed);
    }

    fn on_snapshot_saved(&self, _: &SnapshotEvent<'_>) {
        self.saved.fetch_add(1, Ordering::Relaxed);
    }

    fn on_snapshot_loaded(&self, _: &SnapshotEvent<'_>) {
        self.loaded.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn hooks_are_called_as_often_as_things_happen() {
    let (log, calls) = (Memory::new(), Calls::default());
    let settings = Settings { snapshots: SnapshotPolicy::every(10), ..Settings::default() };
    let builder =
        || Orchestrix::builder().store(log.clone()).aggregate::<Counter>().settings(settings.clone());
    let first = builder().hooks(calls.clone()).start().await.expect("starts");
    for _ in 0..25 {
        first.of::<Counter>(counter("one")).send(Add::new(1)).await.expect("done, whatever the hook does");
    }
    first.shutdown().await;
    assert_eq!(calls.stored.load(Ordering::Relaxed), 25);
    assert_eq!(calls.saved.load(Ordering::Relaxed), 2, "after 10 and 20 events");
    let second = builder().hooks(calls.clone()).start().await.expect("starts");
    assert_eq!(
        second.of::<Counter>(counter("one")).read(Consistency::Leased, |state| state.total).await,
        Ok(25)
    );
    assert_eq!(calls.loaded.load(Ordering::Relaxed), 1);
    assert_eq!(calls.replayed.load(Ordering::Relaxed), 5, "only what came after the snapshot");
}
