//! One effect and one reply per command id: under storms, across eviction, snapshot and restart, and at the edges of
//! what is remembered.

use std::sync::Arc;
use std::time::Duration;

use orchestrix::core::store::ReadError;
use orchestrix::core::{Clock, CommandId, SnapshotPolicy, Timestamp, Version};
use orchestrix::{AggregateRef, Done, Node, NotAttempted, Orchestrix, SaveError, SendError, Settings};
use orchestrix_testkit::{Fault, TestClock};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::counter::{Add, Counter, CounterEvent, Peek, counter};
use crate::harness::{
    CounterLog, Lanes, Stage, empty_log, eventually, in_time, stage, stage_on, start, stream,
};
use crate::tampered::Tampered;

/// A version 7 id that was made at a moment; the number tells ids of one moment apart.
fn id_made(at: Timestamp, number: u64) -> CommandId {
    let millis = (at.as_micros() / 1_000) as u128;
    CommandId::from_uuid(Uuid::from_u128((millis << 80) | (7 << 76) | (2 << 62) | u128::from(number)))
}

/// A random id, which does not tell its age.
fn ageless(number: u64) -> CommandId {
    CommandId::from_uuid(Uuid::from_u128((4 << 76) | (2 << 62) | u128::from(number)))
}

async fn add(to: &AggregateRef<Counter>, amount: u64, id: CommandId) -> Result<Done<u64>, NotAttempted> {
    match to.send(Add::new(amount)).id(id).receipt().await {
        Ok(done) => Ok(done),
        Err(SendError::NotAttempted(why)) => Err(why),
        Err(other) => panic!("neither done nor certainly not attempted: {other:?}"),
    }
}

/// Sends one command a hundred times at once and returns how many heard that it was the first.
async fn storm(to: &AggregateRef<Counter>, id: CommandId, expected: (u64, Version)) -> usize {
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let to = to.clone();
        calls.spawn(async move { add(&to, 7, id).await.expect("done") });
    }
    let answers = in_time("a storm", calls.join_all()).await;
    assert_eq!(answers.len(), 100);
    for done in &answers {
        assert_eq!((done.reply, done.version, done.command_id), (expected.0, expected.1, id));
    }
    answers.iter().filter(|done| !done.duplicate).count()
}

fn snapshots_every(events: u32) -> Settings {
    Settings { snapshots: SnapshotPolicy::every(events), ..Settings::default() }
}

async fn passivate(stage: &Stage, name: &str) {
    let gone = async || {
        stage.node.passivate::<Counter>(&counter(name)).await;
        stage.node.residency().aggregates == 0
    };
    eventually("the aggregate leaves", gone).await;
}

#[tokio::test]
async fn a_storm_has_one_effect_and_one_reply_through_eviction_and_restart() {
    for lanes in Lanes::ALL {
        let first = stage(lanes, snapshots_every(10)).await;
        let (name, id) = (counter("one"), CommandId::fresh());
        let one = first.node.of::<Counter>(name.clone());
        one.send(Add::new(1)).await.expect("done");
        assert_eq!(storm(&one, id, (8, Version::new(2))).await, 1, "one was the first");
        passivate(&first, "one").await;
        assert_eq!(storm(&one, id, (8, Version::new(2))).await, 0, "after the events were replayed");
        for _ in 0..20 {
            one.send(Add::new(1)).await.expect("done");
        }
        passivate(&first, "one").await;
        let saved = async || first.node.store().stats().await.is_ok_and(|stats| stats.snapshots == 1);
        eventually("a snapshot is saved", saved).await;
        assert_eq!(storm(&one, id, (8, Version::new(2))).await, 0, "after a snapshot was loaded");
        first.node.shutdown().await;
        let second = stage_on(first.log, lanes, snapshots_every(10)).await;
        let one = second.node.of::<Counter>(name.clone());
        assert_eq!(storm(&one, id, (8, Version::new(2))).await, 0, "after a restart");
        assert_eq!(CounterLog::read(&second.log, &name).await.version(), Version::new(22));
        second.node.shutdown().await;
    }
}

#[tokio::test]
async fn a_storm_while_the_first_is_under_way_waits_for_it() {
    for lanes in Lanes::ALL {
        let stage = stage(lanes, Settings::default()).await;
        stage.barrier().await;
        stage.faults.on_append(1, Fault::Hold);
        let one = stage.node.of::<Counter>(counter("one"));
        let id = CommandId::fresh();
        let storm = tokio::spawn(async move { storm(&one, id, (7, Version::new(1))).await });
        let sent = async || stage.node.residency().in_flight == 100;
        eventually("all are sent and none is answered", sent).await;
        stage.barrier().await;
        assert_eq!(
            stage.node.residency().in_flight,
            100,
            "a repeat was answered before the first was stored"
        );
        stage.faults.release_held();
        assert_eq!(storm.await.expect("no panic"), 1);
        assert_eq!(CounterLog::read(&stage.log, &counter("one")).await.version(), Version::new(1));
        stage.node.shutdown().await;
    }
}

#[tokio::test]
async fn a_storm_across_evictions_has_one_effect() {
    let stage = stage(Lanes::OnArbiters, Settings::default()).await;
    let (name, mut calls) = (counter("one"), JoinSet::new());
    let ids: Vec<_> = (0..50).map(|_| CommandId::fresh()).collect();
    for id in ids.iter().cycle().take(1_000) {
        let (one, id) = (stage.node.of::<Counter>(name.clone()), *id);
        calls.spawn(async move { add(&one, 1, id).await.expect("done") });
        if calls.len() % 7 == 0 {
            stage.node.passivate::<Counter>(&name).await;
            tokio::task::yield_now().await;
        }
    }
    let answers = in_time("the storm", calls.join_all()).await;
    let log = CounterLog::read(&stage.log, &name).await;
    assert_eq!(log.version(), Version::new(50), "each id has one effect");
    assert_eq!(answers.iter().filter(|done| !done.duplicate).count(), 50);
    for done in answers {
        assert_eq!(log.place_of(done.command_id), Some(done.version));
        assert_eq!(log.totals[done.version.get() as usize], done.reply);
    }
    stage.node.shutdown().await;
}

#[tokio::test]
async fn an_id_is_refused_for_another_body_or_command() {
    let stage = stage(Lanes::OnArbiters, Settings::default()).await;
    let one = stage.node.of::<Counter>(counter("one"));
    let (id, saved) = (CommandId::fresh(), CommandId::fresh());
    let events = |amount| vec![CounterEvent::Added { amount }];
    add(&one, 3, id).await.expect("done");
    one.save(Version::new(1), events(2)).id(saved).await.expect("saved");
    for _ in 0..2 {
        let reused = |why: &NotAttempted| matches!(why, NotAttempted::IdReused { command_id, .. } if *command_id == id);
        assert!(reused(&add(&one, 4, id).await.expect_err("another body")));
        let other = one.send(Peek {}).id(id).await.expect_err("another command");
        assert!(matches!(other, SendError::NotAttempted(why) if reused(&why)));
        let other = one.save(Version::new(2), events(3)).id(id).await.expect_err("a save");
        assert!(matches!(other, SaveError::NotAttempted(why) if reused(&why)));
        let again = one.save(Version::new(1), events(2)).id(saved).await.expect("a repeat");
        assert_eq!((again.version, again.duplicate), (Version::new(2), true));
        let other = one.save(Version::new(2), events(9)).id(saved).await.expect_err("other events");
        assert!(matches!(other, SaveError::NotAttempted(NotAttempted::IdReused { .. })));
        assert_eq!(stage.total("one").await, Ok((5, Version::new(2))), "nothing of it took effect");
        passivate(&stage, "one").await;
    }
    stage.node.shutdown().await;
}

/// Nobody may learn from a refusal that an id was used by a command that then vanishes.
#[tokio::test]
async fn a_reused_id_is_refused_only_once_its_first_use_is_durable() {
    let stage = stage(Lanes::OnArbiters, Settings { batch_events_max: 1, ..Settings::default() }).await;
    stage.barrier().await;
    stage.faults.script([Some(Fault::Hold), Some(Fault::FailBefore)]);
    let one = stage.node.of::<Counter>(counter("one"));
    let id = CommandId::fresh();
    let held = one.send(Add::new(1)).receipt();
    let lost = one.send(Add::new(3)).id(id).receipt();
    let reused = one.send(Add::new(4)).id(id).receipt();
    in_time("the first append", stage.faults.wait_for_held(1)).await;
    stage.barrier().await;
    assert_eq!(stage.node.residency().in_flight, 3, "the refusal left before what it saw was stored");
    stage.faults.release_held();
    held.await.expect("done");
    assert!(matches!(lost.await, Err(SendError::NotAttempted(NotAttempted::Unavailable { .. }))));
    assert!(matches!(reused.await, Err(SendError::NotAttempted(NotAttempted::Unavailable { .. }))));
    assert_eq!(stage.faults.faults_hit().failed_before, 1);
    assert_eq!(add(&one, 4, id).await.expect("the id is free").reply, 5);
    stage.node.shutdown().await;
}

/// A node whose time is told, with room for ten commands or an hour in each memory.
async fn short_memory(clock: &TestClock) -> Node {
    let settings = Settings {
        dedup_commands_max: 10,
        dedup_age_max: Duration::from_hours(1),
        arbiters: 1,
        ..snapshots_every(4)
    };
    let builder = Orchestrix::builder().store(empty_log()).aggregate::<Counter>().settings(settings);
    builder.clock(clock.clone()).metrics(false).start().await.expect("the node starts")
}

fn is_expired(answer: &Result<Done<u64>, NotAttempted>) -> bool {
    matches!(answer, Err(NotAttempted::IdExpired { .. }))
}

#[tokio::test]
async fn an_id_older_than_the_window_is_refused_and_not_run() {
    let clock = TestClock::default();
    let node = short_memory(&clock).await;
    let one = node.of::<Counter>(counter("one"));
    let (young, old) = (id_made(clock.now(), 1), id_made(clock.now().minus(Duration::from_mins(61)), 2));
    assert!(is_expired(&add(&one, 1, old).await), "nobody can tell whether it was done");
    assert_eq!(add(&one, 1, young).await.expect("done").reply, 1);
    clock.advance(Duration::from_mins(59));
    assert!(add(&one, 1, young).await.expect("a repeat").duplicate);
    clock.advance(Duration::from_mins(2));
    one.send(Add::new(1)).await.expect("done; what is too old is forgotten now");
    assert!(is_expired(&add(&one, 1, young).await));
    node.passivate::<Counter>(&counter("one")).await;
    assert!(is_expired(&add(&one, 1, young).await), "also after an eviction");
    assert_eq!(one.send(Peek {}).await.expect("done"), 2);
    node.shutdown().await;
}

#[tokio::test]
async fn a_clock_that_steps_back_does_not_revive_what_was_forgotten() {
    let clock = TestClock::default();
    let node = short_memory(&clock).await;
    let one = node.of::<Counter>(counter("one"));
    let id = id_made(clock.now(), 1);
    add(&one, 1, id).await.expect("done");
    clock.advance(Duration::from_mins(90));
    one.send(Add::new(1)).await.expect("done; the first is forgotten");
    clock.set(clock.now().minus(Duration::from_hours(1)));
    assert!(is_expired(&add(&one, 1, id).await), "it was done before and must not run again");
    assert_eq!(one.send(Peek {}).await.expect("done"), 2);
    node.shutdown().await;
}

#[tokio::test]
async fn an_id_that_was_forgotten_by_count_is_refused_and_not_run() {
    let clock = TestClock::default();
    let node = short_memory(&clock).await;
    let one = node.of::<Counter>(counter("one"));
    let mut ids = Vec::new();
    for number in 1..=25 {
        clock.advance(Duration::from_millis(5));
        ids.push(id_made(clock.now(), number));
        add(&one, 1, ids[number as usize - 1]).await.expect("done");
    }
    for _ in 0..3 {
        for forgotten in &ids[..15] {
            assert!(is_expired(&add(&one, 1, *forgotten).await));
        }
        for remembered in &ids[15..] {
            assert!(add(&one, 1, *remembered).await.expect("a repeat").duplicate);
        }
        node.passivate::<Counter>(&counter("one")).await;
    }
    assert_eq!(one.send(Peek {}).await.expect("done"), 25);
    node.shutdown().await;
}

/// Whoever sends an id from the year 2199 must not lock everybody else out of the aggregate.
#[tokio::test]
async fn an_id_from_the_far_future_makes_no_other_id_expire() {
    let clock = TestClock::default();
    let node = short_memory(&clock).await;
    let one = node.of::<Counter>(counter("one"));
    let future = id_made(clock.now().plus(Duration::from_hours(24 * 365 * 173)), 1);
    add(&one, 1, future).await.expect("done");
    assert!(add(&one, 1, future).await.expect("a repeat").duplicate);
    for number in 0..30 {
        clock.advance(Duration::from_secs(1));
        let done = add(&one, 1, id_made(clock.now(), number)).await.expect("a good id is taken");
        assert!(!done.duplicate);
    }
    node.shutdown().await;
}

#[tokio::test]
async fn an_id_that_tells_no_age_is_remembered_for_the_window() {
    let clock = TestClock::default();
    let node = short_memory(&clock).await;
    let one = node.of::<Counter>(counter("one"));
    add(&one, 1, ageless(0)).await.expect("done");
    for number in 1..10 {
        add(&one, 1, ageless(number)).await.expect("done");
        assert!(add(&one, 1, ageless(0)).await.expect("a repeat").duplicate);
        node.passivate::<Counter>(&counter("one")).await;
    }
    add(&one, 1, ageless(10)).await.expect("done; the first is forgotten");
    assert!(!add(&one, 1, ageless(0)).await.expect("it is new again").duplicate);
    node.shutdown().await;
}

/// The memory of commands is in the snapshot: the events before it are not asked for.
#[tokio::test]
async fn retries_are_answered_when_the_events_before_the_snapshot_cannot_be_read() {
    let log = empty_log();
    let first = start(Arc::new(log.clone()), snapshots_every(20)).await;
    let one = first.of::<Counter>(counter("one"));
    let mut ids = Vec::new();
    for _ in 0..45 {
        ids.push(CommandId::fresh());
        add(&one, 2, *ids.last().expect("just pushed")).await.expect("done");
    }
    first.shutdown().await;
    let unreadable = |_: &_, events: &mut Vec<orchestrix::core::store::RecordedEvent>| {
        if events.iter().any(|event| event.version <= Version::new(40)) {
            return Err(ReadError::Corrupt { reason: "these events cannot be read".into() });
        }
        Ok(())
    };
    let second = start(Tampered::over(Arc::new(log)).on_read(unreadable).shared(), snapshots_every(20)).await;
    let one = second.of::<Counter>(counter("one"));
    assert!(one.history(Version::new(1), 10).await.is_err(), "the events cannot be read");
    for (version, id) in (1..).zip(ids) {
        let done = add(&one, 2, id).await.expect("a repeat");
        assert_eq!((done.version.get(), done.reply, done.duplicate), (version, 2 * version, true));
    }
    assert_eq!(one.stream(), stream(&counter("one")));
    second.shutdown().await;
}
