//! Code that panics and events that cannot be read: one aggregate suffers, with a clear error, and nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use orchestrix::core::prelude::*;
use orchestrix::core::store::{Batch, Commit, EventStore, Loaded, NewEvent};
use orchestrix::core::{Codec, Incarnation, Name, ShardCount, StreamId};
use orchestrix::store::Memory;
use orchestrix::telemetry::{AggregateFailure, Hooks};
use orchestrix::{Consistency, Node, NotAttempted, Orchestrix, SendError, Settings};
use orchestrix_testkit::{Fault, Operation};
use tokio::task::JoinSet;

use crate::counter::{Add, AddRefusal, Counter, CounterId, Curse, Panic, Peek, counter, curse};
use crate::harness::{
    CounterLog, Lanes, SHARDS, empty_log, eventually, in_time, neighbour, stage, stage_on, start, stream,
};
use crate::tampered::Tampered;

fn panics(name: &str, times: u32) -> Panic {
    Panic { name: name.to_owned(), times }
}

/// The reason of a quarantine.
fn quarantined<T: std::fmt::Debug, R: std::fmt::Debug>(answer: Result<T, SendError<R>>) -> String {
    match answer {
        Err(SendError::NotAttempted(NotAttempted::Quarantined { reason, .. })) => reason.to_string(),
        other => panic!("a quarantine was expected, not {other:?}"),
    }
}

async fn add(node: &Node, name: &CounterId) -> Result<u64, SendError<AddRefusal>> {
    node.of::<Counter>(name.clone()).send(Add::new(1)).await
}

async fn version(log: &Memory, name: &CounterId) -> u64 {
    CounterLog::read(log, name).await.version().get()
}

#[tokio::test]
async fn a_handler_that_panics_once_is_asked_again_on_a_rebuilt_state() {
    for lanes in Lanes::ALL {
        let stage = stage(lanes, Settings { batch_events_max: 1, ..Settings::default() }).await;
        stage.barrier().await;
        let (name, word) = (counter("one"), format!("once {lanes:?}"));
        let one = stage.node.of::<Counter>(name.clone());
        stage.faults.on_append(1, Fault::Hold);
        let before = [one.send(Add::new(1)).receipt(), one.send(Add::new(1)).receipt()];
        let panicking = one.send(panics(&word, 1)).receipt();
        let after = [one.send(Add::new(1)).receipt(), one.send(Add::new(1)).receipt()];
        in_time("the first append", stage.faults.wait_for_held(1)).await;
        stage.barrier().await;
        stage.faults.release_held();
        let mut versions = Vec::new();
        for receipt in before {
            versions.push(receipt.await.expect("done").version.get());
        }
        versions.push(panicking.await.expect("done within").version.get());
        for receipt in after {
            versions.push(receipt.await.expect("done").version.get());
        }
        assert_eq!(versions, [1, 2, 3, 4, 5], "nobody lost their place");
        assert_eq!(stage.node.quarantined(1).await.expect("listed"), []);
        stage.node.shutdown().await;
    }
}

#[tokio::test]
async fn a_handler_that_panics_twice_quarantines_its_aggregate_until_it_is_released() {
    let first = stage(Lanes::OnArbiters, Settings::default()).await;
    let name = counter("poisoned");
    let one = first.node.of::<Counter>(name.clone());
    add(&first.node, &name).await.expect("done");
    let id = CommandId::fresh();
    let reason = quarantined(one.send(panics("twice", 2)).id(id).receipt().await);
    assert!(reason.contains("told to panic"), "{reason}");
    assert_eq!(quarantined(add(&first.node, &name).await), reason);
    let read = one.read(Consistency::Local, |_| ()).await;
    assert!(matches!(read, Err(NotAttempted::Quarantined { .. })), "{read:?}");
    let listed = first.node.quarantined(10).await.expect("listed");
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].stream, listed[0].command_id), (&stream(&name), Some(id)));
    assert_eq!(listed[0].reason, reason);
    first.node.shutdown().await;

    let second = stage_on(first.log, Lanes::OnArbiters, Settings::default()).await;
    assert_eq!(quarantined(add(&second.node, &name).await), reason, "a restart does not lift it");
    assert!(second.node.release(&stream(&name)).await.expect("released"));
    assert!(!second.node.release(&stream(&name)).await.expect("nothing left to release"));
    let retried = second.node.of::<Counter>(name.clone()).send(panics("twice", 2)).id(id).receipt().await;
    assert_eq!(retried.expect("it panics no more").version, Version::new(2), "never done before");
    assert_eq!(add(&second.node, &name).await.expect("done"), 3);
    second.node.shutdown().await;
}

#[tokio::test]
async fn what_waits_behind_a_poisonous_command_is_not_attempted() {
    let stage = stage(Lanes::OnArbiters, Settings::default()).await;
    let name = counter("poisoned");
    let one = stage.node.of::<Counter>(name.clone());
    let poison = one.send(panics("queue", 2)).receipt();
    let waiting: Vec<_> = (0..50).map(|_| one.send(Add::new(1)).receipt()).collect();
    quarantined(poison.await);
    for receipt in waiting {
        quarantined(receipt.await);
    }
    assert_eq!(version(&stage.log, &name).await, 0);
    eventually("the poisoned one leaves memory", async || stage.node.residency().aggregates == 0).await;
    stage.node.shutdown().await;
}

#[tokio::test]
async fn an_event_that_apply_cannot_take_never_reaches_the_log() {
    let stage = stage(Lanes::OnArbiters, Settings::default()).await;
    let (name, id) = (counter("cursed"), CommandId::fresh());
    let one = stage.node.of::<Counter>(name.clone());
    add(&stage.node, &name).await.expect("done");
    curse(1_001, 1);
    assert_eq!(one.send(Curse { amount: 1_001 }).await.expect("applied at the second attempt"), 1_002);
    curse(1_002, 2);
    let reason = quarantined(one.send(Curse { amount: 1_002 }).id(id).receipt().await);
    assert!(reason.contains("a cursed event"), "{reason}");
    assert_eq!(CounterLog::read(&stage.log, &name).await.place_of(id), None, "it is in the log");
    assert!(stage.node.release(&stream(&name)).await.expect("released"));
    assert_eq!(add(&stage.node, &name).await.expect("done"), 1_003, "nothing of it is left in the state");
    assert_eq!(one.send(Curse { amount: 1_002 }).id(id).await.expect("the curse is over"), 2_005);
    stage.node.shutdown().await;
}

#[tokio::test]
async fn an_apply_that_panics_on_stored_events_quarantines_until_the_code_is_mended() {
    let first = stage(Lanes::OnArbiters, Settings::default()).await;
    let name = counter("cursed");
    let one = first.node.of::<Counter>(name.clone());
    add(&first.node, &name).await.expect("done");
    one.send(Curse { amount: 2_001 }).await.expect("done");
    first.node.shutdown().await;
    curse(2_001, u32::MAX);
    let second = stage_on(first.log, Lanes::OnArbiters, Settings::default()).await;
    let reason = quarantined(add(&second.node, &name).await);
    assert!(reason.contains("version 2") && reason.contains("a cursed event"), "{reason}");
    assert_eq!(second.node.quarantined(10).await.expect("listed").len(), 1);
    assert!(second.node.release(&stream(&name)).await.expect("released"));
    quarantined(add(&second.node, &name).await);
    assert_eq!(second.node.quarantined(10).await.expect("listed").len(), 1, "still poison, so back again");
    curse(2_001, 0);
    assert!(second.node.release(&stream(&name)).await.expect("released"));
    assert_eq!(add(&second.node, &name).await.expect("done"), 2_003);
    second.node.shutdown().await;
}

/// Puts an event into the log as another release, or a vandal, would have written it.
async fn write(
    log: &Memory,
    name: &CounterId,
    event_type: &'static str,
    schema_version: u16,
    payload: &[u8],
) {
    let shard = ShardCount::new(SHARDS).expect("in range").shard_of_stream(&stream(name));
    let owner = Incarnation::fresh();
    let epoch = log.claim(&[shard], owner).await.expect("claimed")[0].epoch;
    let commit = Commit {
        stream: stream(name),
        shard,
        epoch,
        expected: log.load(&stream(name), 0).await.expect("loads").version,
        command_id: CommandId::fresh(),
        recorded_at: Timestamp::from_micros(1_767_225_600_000_000),
        headers: None,
        receipt: None,
        events: vec![NewEvent {
            event_type: Name::Borrowed(event_type),
            schema_version,
            codec: Codec::Json,
            payload: payload.to_vec(),
        }],
    };
    let outcomes = log.append(Batch { owner, commits: vec![commit] }).await;
    assert!(outcomes[0].is_committed());
}

#[tokio::test]
async fn an_event_that_cannot_be_read_quarantines_its_aggregate() {
    let (log, name) = (empty_log(), counter("garbled"));
    write(&log, &name, "counter.added", 1, b"{\"amount\":1}").await;
    write(&log, &name, "counter.added", 1, b"{\"amount\":\"a lot\"}").await;
    for _ in 0..2 {
        let stage = stage_on(log.clone(), Lanes::OnArbiters, Settings::default()).await;
        let reason = quarantined(add(&stage.node, &name).await);
        assert!(reason.contains("version 2") && reason.contains("counter.added"), "{reason}");
        let listed = stage.node.quarantined(10).await.expect("listed");
        assert_eq!((listed.len(), &listed[0].stream), (1, &stream(&name)));
        stage.node.shutdown().await;
    }
    assert_eq!(log.load(&stream(&name), 9).await.expect("loads").version, Version::new(2), "untouched");
}

/// The next release of the counter: it knows one more event, and a second version of an old one.
mod newer {
    use super::{AggregateType, Context, CounterId, Decision, Deserialize, Handle, Peek, Serialize};
    use orchestrix::core::prelude::{Aggregate, Event, Upcast, aggregate_type, nothing};

    #[derive(Deserialize)]
    pub(super) struct AddedV1 {
        amount: u64,
    }

    impl Upcast<CounterEvent> for AddedV1 {
        fn upcast(self) -> Vec<CounterEvent> {
            vec![CounterEvent::Added { amount: self.amount, note: String::new() }]
        }
    }

    #[derive(Clone, Debug, PartialEq, Event)]
    pub(super) enum CounterEvent {
        #[event("counter.added", version = 2, upcast_from = AddedV1)]
        Added { amount: u64, note: String },
        #[event("counter.exploded")]
        Exploded {},
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub(super) struct Counter {
        pub(super) total: u64,
        exploded: bool,
    }

    impl Aggregate for Counter {
        const TYPE: AggregateType = aggregate_type!("counter");
        type Id = CounterId;
        type Event = CounterEvent;

        fn apply(&mut self, event: &CounterEvent) {
            match event {
                CounterEvent::Added { amount, .. } => self.total += amount,
                CounterEvent::Exploded {} => self.exploded = true,
            }
        }
    }

    impl Handle<Peek> for Counter {
        fn handle(&self, _: &Peek, _: &Context) -> Decision<Self, Peek> {
            nothing().reply(self.total)
        }
    }
}

#[tokio::test]
async fn an_event_of_a_newer_release_waits_for_that_release_and_no_longer() {
    let log = empty_log();
    let (unknown_type, unknown_version) = (counter("type"), counter("version"));
    for name in [&unknown_type, &unknown_version] {
        write(&log, name, "counter.added", 1, b"{\"amount\":5}").await;
    }
    write(&log, &unknown_type, "counter.exploded", 1, b"{}").await;
    write(&log, &unknown_version, "counter.added", 2, b"{\"amount\":2,\"note\":\"x\"}").await;
    let older = stage_on(log.clone(), Lanes::OnArbiters, Settings::default()).await;
    let reason = quarantined(add(&older.node, &unknown_type).await);
    assert!(reason.contains("counter.exploded"), "{reason}");
    let reason = quarantined(add(&older.node, &unknown_version).await);
    assert!(reason.contains("schema version 2"), "{reason}");
    assert_eq!(older.node.quarantined(10).await.expect("listed"), [], "nobody has to release it");
    older.node.shutdown().await;
    let builder = Orchestrix::builder().store(log).aggregate::<newer::Counter>().metrics(false);
    let newer = builder.start().await.expect("the node starts");
    assert_eq!(newer.of::<newer::Counter>(unknown_type).send(Peek {}).await.expect("known"), 5);
    assert_eq!(newer.of::<newer::Counter>(unknown_version).send(Peek {}).await.expect("known"), 7);
    newer.shutdown().await;
}

#[tokio::test]
async fn a_hole_or_a_repetition_in_the_versions_quarantines() {
    let log = empty_log();
    let node = start(Arc::new(log.clone()), Settings::default()).await;
    let names = ["first", "middle", "last", "twice", "whole"].map(counter);
    for name in names.iter().cycle().take(25) {
        add(&node, name).await.expect("done");
    }
    node.shutdown().await;
    let damage = |of: &StreamId, loaded: &mut Loaded| match &*of.id {
        "first" => drop(loaded.events.remove(0)),
        "middle" => drop(loaded.events.remove(2)),
        "last" => drop(loaded.events.pop()),
        "twice" => loaded.events.insert(2, loaded.events[1].clone()),
        _ => {}
    };
    // A read after the load finds nothing either, as if the last event had been deleted.
    let store = Tampered::over(Arc::new(log)).on_load(damage).on_read(|_, events| {
        events.clear();
        Ok(())
    });
    let node = start(store.shared(), Settings::default()).await;
    for (name, missing) in names.iter().zip(["version 1 ", "version 3 ", "version 5 ", "version 3 "]) {
        let reason = quarantined(add(&node, name).await);
        assert!(reason.contains(missing), "{name}: {reason}");
    }
    assert_eq!(node.quarantined(10).await.expect("listed").len(), 4);
    assert_eq!(add(&node, &names[4]).await.expect("done"), 6);
    node.shutdown().await;
}

/// Adds to a counter until it is told to stop, and returns how often.
async fn keep_adding(node: Node, name: CounterId, stop: Arc<AtomicBool>) -> u64 {
    let mut added = 0;
    while !stop.load(Ordering::Relaxed) {
        added += 1;
        assert_eq!(add(&node, &name).await.expect("a neighbour is served"), added);
    }
    added
}

#[tokio::test]
async fn neighbours_on_the_same_arbiter_are_served_while_others_are_poisoned() {
    let stage = stage(Lanes::OnArbiters, Settings::default()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut names: Vec<_> = vec![counter("beside")];
    for _ in 0..3 {
        let last = &names[names.len() - 1];
        names.push(neighbour(last, &format!("near-{}", names.len())));
    }
    let mut adding = JoinSet::new();
    for name in &names {
        adding.spawn(keep_adding(stage.node.clone(), name.clone(), Arc::clone(&stop)));
    }
    for number in 0..20 {
        let name = neighbour(&names[0], &format!("poisoned-{number}"));
        let one = stage.node.of::<Counter>(name.clone());
        add(&stage.node, &name).await.expect("done");
        quarantined(one.send(panics(&format!("beside {number}"), 2)).await);
        curse(3_000 + number, 2);
        assert!(stage.node.release(&stream(&name)).await.expect("released"));
        quarantined(one.send(Curse { amount: 3_000 + number }).await);
    }
    stop.store(true, Ordering::Relaxed);
    let added = in_time("the neighbours", adding.join_all()).await;
    assert!(added.iter().all(|added| *added >= 20), "too few to prove anything: {added:?}");
    assert_eq!(stage.node.quarantined(100).await.expect("listed").len(), 20);
    stage.node.shutdown().await;
}

#[tokio::test]
async fn a_release_takes_effect_although_callers_never_pause() {
    let stage = stage(Lanes::OnArbiters, Settings::default()).await;
    let name = counter("poisoned");
    quarantined(stage.node.of::<Counter>(name.clone()).send(panics("flood", 2)).await);
    let (done, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut flood = JoinSet::new();
    for _ in 0..8 {
        let (node, name) = (stage.node.clone(), name.clone());
        let (done, refused) = (Arc::clone(&done), Arc::clone(&refused));
        flood.spawn(async move {
            while done.load(Ordering::Relaxed) == 0 {
                match add(&node, &name).await {
                    Ok(_) => done.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        quarantined::<(), _>(Err(error));
                        refused.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
        });
    }
    eventually("the flood is on", async || refused.load(Ordering::Relaxed) >= 100).await;
    assert!(stage.node.release(&stream(&name)).await.expect("released"));
    in_time("the flood", flood.join_all()).await;
    stage.node.shutdown().await;
}

#[tokio::test]
async fn a_quarantine_that_cannot_be_stored_holds_nobody_up() {
    let stage = stage(Lanes::OnArbiters, Settings::default()).await;
    let name = counter("garbled");
    write(&stage.log, &name, "counter.added", 1, b"no json").await;
    stage.faults.fail(Operation::Quarantine, u64::MAX);
    quarantined(add(&stage.node, &name).await);
    quarantined(add(&stage.node, &name).await);
    assert!(stage.faults.faults_hit().calls_failed >= 2, "no write of a quarantine failed");
    stage.faults.heal();
    quarantined(add(&stage.node, &name).await);
    assert_eq!(stage.node.quarantined(10).await.expect("listed").len(), 1);
    stage.node.shutdown().await;
}

/// Counts what hooks hear of failures.
#[derive(Clone, Default)]
struct Ears(Arc<std::sync::Mutex<Vec<(String, &'static str)>>>);

impl Hooks for Ears {
    fn on_aggregate_error(&self, failure: &AggregateFailure<'_>) {
        self.0.lock().expect("no panic").push((failure.stream.id.to_string(), failure.kind));
    }
}

#[tokio::test]
async fn hooks_hear_of_each_failure_with_its_aggregate() {
    let (log, ears) = (empty_log(), Ears::default());
    write(&log, &counter("garbled"), "counter.added", 1, b"no json").await;
    let builder = Orchestrix::builder().store(log).aggregate::<Counter>().metrics(false);
    let node = builder.hooks(ears.clone()).start().await.expect("the node starts");
    node.of::<Counter>(counter("once")).send(panics("heard once", 1)).await.expect("done");
    quarantined(node.of::<Counter>(counter("twice")).send(panics("heard twice", 2)).await);
    quarantined(add(&node, &counter("garbled")).await);
    let mut heard = std::mem::take(&mut *ears.0.lock().expect("no panic"));
    heard.sort();
    let expected =
        [("garbled", "undecodable"), ("once", "panicked"), ("twice", "panicked"), ("twice", "panicked")];
    assert_eq!(heard, expected.map(|(id, kind)| (id.to_owned(), kind)));
    node.shutdown().await;
}
