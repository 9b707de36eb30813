//! Snapshots change nothing but speed: whole or broken, newer or older, one's own or another's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use orchestrix::core::store::{EventStore, SnapshotRecord, SnapshotWrite};
use orchestrix::core::{CommandId, Incarnation, ShardCount, ShardId, SnapshotPolicy, StreamId, Version};
use orchestrix::store::Memory;
use orchestrix::telemetry::exporter::Recorder;
use orchestrix::telemetry::{Hooks, SnapshotEvent};
use orchestrix::{Consistency, Node, Orchestrix, Settings};
use orchestrix_testkit::{Fault, Faulty};
use tokio::task::JoinSet;

use crate::counter::{Add, Counter, CounterId, counter};
use crate::harness::{
    CounterLog, Dice, SHARDS, empty_log, eventually, fresh_seed, in_time, neighbour, start, stream,
};
use crate::tampered::Tampered;

fn every(events: u32) -> Settings {
    Settings { snapshots: SnapshotPolicy::every(events), arbiters: 2, ..Settings::default() }
}

/// Counts what hooks hear of snapshots.
#[derive(Clone, Default)]
struct Ears {
    saved: Arc<Mutex<Vec<(StreamId, u64)>>>,
    loaded: Arc<AtomicU64>,
}

impl Hooks for Ears {
    fn on_snapshot_saved(&self, snapshot: &SnapshotEvent<'_>) {
        self.saved.lock().expect("no panic").push((snapshot.stream.clone(), snapshot.version.get()));
    }

    fn on_snapshot_loaded(&self, _: &SnapshotEvent<'_>) {
        self.loaded.fetch_add(1, Ordering::Relaxed);
    }
}

impl Ears {
    fn saved_of(&self, name: &CounterId) -> Vec<u64> {
        let saved = self.saved.lock().expect("no panic");
        saved.iter().filter(|(of, _)| *of == stream(name)).map(|(_, version)| *version).collect()
    }
}

async fn node_with(store: Arc<dyn EventStore>, settings: Settings, ears: &Ears) -> Node {
    let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings);
    builder.hooks(ears.clone()).start().await.expect("the node starts")
}

/// Adds 1, 2, 3 ... under ids that are returned.
async fn fill(node: &Node, name: &CounterId, commands: u64) -> Vec<CommandId> {
    let mut ids = Vec::new();
    for amount in 1..=commands {
        ids.push(CommandId::fresh());
        let sent = node.of::<Counter>(name.clone()).send(Add::new(amount)).id(ids[ids.len() - 1]);
        sent.await.expect("done");
    }
    ids
}

/// Checks that state and memory of commands are what the log says.
async fn check(node: &Node, log: &Memory, name: &CounterId, ids: &[CommandId]) {
    let one = node.of::<Counter>(name.clone());
    let stored = CounterLog::read(log, name).await;
    let seen = one.read_versioned(Consistency::Leased, Counter::clone).await.expect("read");
    assert_eq!(seen.0, Counter { total: stored.total(), events: stored.version().get() }, "{name}");
    assert_eq!(seen.1, stored.version(), "{name}");
    for (amount, id) in (1..).zip(ids) {
        let done = one.send(Add::new(amount)).id(*id).receipt().await.expect("a repeat");
        let version = stored.place_of(*id).expect("it is stored");
        assert_eq!((done.version, done.duplicate), (version, true), "{name}");
        assert_eq!(done.reply, stored.totals[version.get() as usize], "{name}");
    }
}

#[tokio::test]
async fn a_snapshot_is_taken_every_so_many_events_and_used() {
    let (log, ears, name) = (empty_log(), Ears::default(), counter("one"));
    let first = node_with(Arc::new(log.clone()), every(10), &ears).await;
    let ids = fill(&first, &name, 35).await;
    first.shutdown().await;
    assert_eq!(ears.saved_of(&name), [10, 20, 30], "five more did not pay on the way out");
    let second = node_with(Arc::new(log.clone()), every(10), &ears).await;
    check(&second, &log, &name, &ids).await;
    assert_eq!(ears.loaded.load(Ordering::Relaxed), 1);
    second.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_is_taken_on_the_way_out_where_it_pays() {
    let (log, ears) = (empty_log(), Ears::default());
    let node = node_with(Arc::new(log.clone()), every(1_000), &ears).await;
    let (few, many) = (counter("few"), counter("many"));
    fill(&node, &few, 15).await;
    let ids = fill(&node, &many, 16).await;
    for name in [&few, &many] {
        node.passivate::<Counter>(name).await;
    }
    eventually("a snapshot is saved", async || !ears.saved_of(&many).is_empty()).await;
    check(&node, &log, &many, &ids).await;
    node.shutdown().await;
    assert_eq!((ears.saved_of(&few), ears.saved_of(&many)), (vec![], vec![16]));
}

/// A snapshot is taken ahead of the store; it is saved only once its version is durable, and never if that is lost.
#[tokio::test]
async fn no_snapshot_holds_events_that_were_lost() {
    let (log, ears, name) = (empty_log(), Ears::default(), counter("one"));
    let (broken, faults) = Faulty::new(Arc::new(log.clone()));
    let settings = Settings { batch_events_max: 1, ..every(4) };
    let node = node_with(broken, settings, &ears).await;
    faults.script([Some(Fault::Hold), None, Some(Fault::FailBefore)]);
    let one = node.of::<Counter>(name.clone());
    let mut sent = vec![one.send(Add::new(1)).receipt()];
    in_time("the first append", faults.wait_for_held(1)).await;
    sent.extend((0..5).map(|_| one.send(Add::new(1)).receipt()));
    let barrier = neighbour(&name, "barrier");
    for _ in 0..2 {
        node.of::<Counter>(barrier.clone()).read(Consistency::Local, |_| ()).await.expect("read");
    }
    faults.release_held();
    let mut done = 0;
    for receipt in sent {
        done += usize::from(receipt.await.is_ok());
    }
    assert_eq!((done, faults.faults_hit().failed_before), (2, 1), "four were decided on top and lost");
    node.shutdown().await;
    assert!(ears.saved_of(&name).is_empty(), "a state was saved that never was");
}

#[tokio::test]
async fn no_snapshot_of_a_deposed_owner_is_saved() {
    let (log, ears, name) = (empty_log(), Ears::default(), counter("one"));
    let node = node_with(Arc::new(log.clone()), every(1_000), &ears).await;
    fill(&node, &name, 20).await;
    let all: Vec<_> = (0..SHARDS).map(ShardId::new).collect();
    log.claim(&all, Incarnation::fresh()).await.expect("claimed");
    node.passivate::<Counter>(&name).await;
    node.shutdown().await;
    assert_eq!(log.stats().await.expect("stats").snapshots, 0);
    assert!(ears.saved_of(&name).is_empty());
}

#[tokio::test]
async fn hits_misses_and_defects_are_counted() {
    let recorder = Recorder::new();
    let _local = metrics::set_default_local_recorder(&recorder);
    let (log, ears) = (empty_log(), Ears::default());
    let first = node_with(Arc::new(log.clone()), every(10), &ears).await;
    for name in ["hit", "defect"] {
        fill(&first, &counter(name), 12).await;
    }
    fill(&first, &counter("miss"), 2).await;
    first.shutdown().await;
    let cut = |of: &StreamId, loaded: &mut orchestrix::core::store::Loaded| {
        if &*of.id == "defect"
            && let Some(snapshot) = &mut loaded.snapshot
        {
            snapshot.bytes.truncate(5);
        }
    };
    let second = node_with(Tampered::over(Arc::new(log)).on_load(cut).shared(), every(10), &ears).await;
    for name in ["hit", "defect", "miss", "new"] {
        let one = second.of::<Counter>(counter(name));
        one.read(Consistency::Leased, |_| ()).await.expect("read");
    }
    let page = recorder.render();
    for line in [
        "orchestrix_snapshot_hits_total{aggregate_type=\"counter\"} 1",
        "orchestrix_snapshot_misses_total{aggregate_type=\"counter\"} 2",
        "orchestrix_snapshots_saved_total{aggregate_type=\"counter\"} 2",
        "orchestrix_snapshot_defects_total{aggregate_type=\"counter\",kind=\"no_header\"} 1",
    ] {
        assert!(page.contains(line), "{line} is missing:\n{page}");
    }
    assert_eq!(ears.loaded.load(Ordering::Relaxed), 1);
    second.shutdown().await;
}

/// What is done to one stored snapshot.
fn tamper(dice: &mut Dice, snapshot: &mut SnapshotRecord, other: &SnapshotRecord) -> &'static str {
    let bits = snapshot.bytes.len() as u64 * 8;
    match dice.roll(6) {
        0 => {
            let bit = dice.roll(bits) as usize;
            snapshot.bytes[bit / 8] ^= 1 << (bit % 8);
            "a flipped bit"
        }
        1 => {
            snapshot.bytes.truncate(dice.roll(bits / 8) as usize);
            "cut off"
        }
        2 => {
            snapshot.bytes.clone_from(&other.bytes);
            "another aggregate's"
        }
        3 => {
            snapshot.version = Version::new(snapshot.version.get() - 1 - dice.roll(15));
            "said to be older"
        }
        4 => {
            snapshot.version = snapshot.version.plus(1 + dice.roll(4));
            "said to be newer"
        }
        _ => {
            snapshot.version = snapshot.version.plus(1_000);
            "ahead of the stream"
        }
    }
}

#[tokio::test]
async fn a_broken_or_swapped_snapshot_changes_nothing_but_speed() {
    const BROKEN: usize = 300;
    const WHOLE: usize = 20;
    let (log, ears) = (empty_log(), Ears::default());
    let mut dice = Dice(fresh_seed("snapshots"));
    let first = node_with(Arc::new(log.clone()), every(20), &ears).await;
    let mut tasks = JoinSet::new();
    for number in 0..BROKEN + WHOLE {
        let (node, name) = (first.clone(), counter(&format!("c-{number}")));
        tasks.spawn(async move { (name.clone(), fill(&node, &name, 25).await) });
    }
    let filled = in_time("filling", tasks.join_all()).await;
    first.shutdown().await;
    let mut changed = HashMap::new();
    for (place, (name, _)) in filled[..BROKEN].iter().enumerate() {
        let of = async |name| log.load(&stream(name), 0).await.expect("loads").snapshot.expect("it has one");
        let (mut snapshot, other) = (of(name).await, of(&filled[place + 1].0).await);
        let original = snapshot.clone();
        let what = tamper(&mut dice, &mut snapshot, &other);
        assert_ne!(snapshot, original, "{what} changed nothing");
        changed.insert(stream(name), (what, snapshot));
    }
    let kinds: std::collections::HashSet<_> = changed.values().map(|(what, _)| *what).collect();
    assert_eq!(kinds.len(), 6, "every kind of damage occurs");
    let put = move |of: &StreamId, loaded: &mut orchestrix::core::store::Loaded| {
        let Some((_, snapshot)) = changed.get(of) else { return };
        // As a store would: the events after the version that the snapshot claims.
        loaded.events.retain(|event| event.version > snapshot.version);
        loaded.snapshot = Some(snapshot.clone());
    };
    let second =
        node_with(Tampered::over(Arc::new(log.clone())).on_load(put).shared(), every(20), &ears).await;
    for (name, ids) in &filled {
        check(&second, &log, name, ids).await;
    }
    assert_eq!(ears.loaded.load(Ordering::Relaxed), WHOLE as u64, "only whole snapshots are used");
    assert_eq!(second.quarantined(1).await.expect("listed"), []);
    second.shutdown().await;
}

/// A state that claims to be of a version that the stream has not reached: what a restored log leaves behind.
async fn plant_a_snapshot_ahead(log: &Memory, name: &CounterId) {
    let other = empty_log();
    let node = start(Arc::new(other.clone()), every(50)).await;
    for _ in 0..50 {
        node.of::<Counter>(name.clone()).send(Add::new(1_000)).await.expect("done");
    }
    node.shutdown().await;
    let record = other.load(&stream(name), 0).await.expect("loads").snapshot.expect("at version 50");
    let shard = ShardCount::new(SHARDS).expect("in range").shard_of_stream(&stream(name));
    let owner = Incarnation::fresh();
    let epoch = log.claim(&[shard], owner).await.expect("claimed")[0].epoch;
    let write = SnapshotWrite { stream: stream(name), shard, epoch, record };
    log.save_snapshots(owner, vec![write]).await.expect("saved");
}

#[tokio::test]
async fn a_snapshot_ahead_of_its_stream_is_never_used_also_not_when_the_stream_has_grown() {
    let (log, name) = (empty_log(), counter("one"));
    plant_a_snapshot_ahead(&log, &name).await;
    let settings = || Settings { snapshots: SnapshotPolicy::OFF, ..Settings::default() };
    let mut ids = Vec::new();
    for commands in [5, 70, 1] {
        let node = start(Arc::new(log.clone()), settings()).await;
        let one = node.of::<Counter>(name.clone());
        let past = one.load_at_version(CounterLog::read(&log, &name).await.version()).await.expect("there");
        assert_eq!(
            past.state.total,
            CounterLog::read(&log, &name).await.total(),
            "the past is not touched either"
        );
        for id in std::iter::repeat_with(CommandId::fresh).take(commands) {
            ids.push(id);
            one.send(Add::new(ids.len() as u64)).id(id).await.expect("done");
        }
        node.shutdown().await;
    }
    let node = start(Arc::new(log.clone()), settings()).await;
    check(&node, &log, &name, &ids).await;
    node.shutdown().await;
}

/// With snapshots at many places, some ahead of the store, under load and restarts: the state is the fold.
#[tokio::test]
async fn state_and_memory_equal_a_full_replay_wherever_a_snapshot_was_taken() {
    let (log, mut all) = (empty_log(), HashMap::<CounterId, Vec<CommandId>>::new());
    for events in [1, 3, 7, 16] {
        let ears = Ears::default();
        let node = node_with(Arc::new(log.clone()), every(events), &ears).await;
        for number in 0..4 {
            let name = counter(&format!("c-{number}"));
            let ids = all.entry(name.clone()).or_default();
            let one = node.of::<Counter>(name);
            let sent: Vec<_> = (0..40)
                .map(|_| {
                    ids.push(CommandId::fresh());
                    one.send(Add::new(ids.len() as u64)).id(ids[ids.len() - 1]).receipt()
                })
                .collect();
            for receipt in sent {
                receipt.await.expect("done");
            }
        }
        node.shutdown().await;
        assert!(ears.saved.lock().expect("no panic").len() >= 4, "each took one at least");
    }
    let node = start(Arc::new(log.clone()), every(1)).await;
    for (name, ids) in &all {
        check(&node, &log, name, ids).await;
    }
    node.shutdown().await;
}
