//! Several nodes on one store: each takes every command, each shard has one owner, and owners change while callers send.

mod cut_off;
mod place;
mod roll;

use std::sync::Arc;
use std::time::Duration;

use orchestrix::core::{CommandId, EventStore, ShardCount, Version};
use orchestrix::store::Memory;
use orchestrix::{
    ClusterOptions, Consistency, Node, NodeStatus, Orchestrix, SendError, Settings, StartError,
};
use orchestrix_testkit::{Fault, Faulty};

use crate::counter::{Add, AddRefusal, Counter, CounterEvent, CounterId, counter};
use crate::harness::{CounterLog, eventually, in_time};

/// Enough shards that each of three nodes has several.
const SHARDS: u32 = 24;

/// A short lease, so that a crash is over soon. It is long enough for a busy machine to renew it.
pub const LEASE: Duration = Duration::from_millis(1_500);

pub fn shared_log() -> Memory {
    Memory::with_shards(ShardCount::new(SHARDS).expect("in range")).shared()
}

pub async fn member(log: &Memory) -> Node {
    member_on(log.clone()).await
}

pub async fn member_on(store: impl orchestrix::IntoStore) -> Node {
    started(store, settings()).await
}

fn settings() -> Settings {
    Settings { lease: LEASE, arbiters: 2, ..Settings::default() }
}

async fn started(store: impl orchestrix::IntoStore, settings: Settings) -> Node {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings).metrics(false);
    builder.cluster(ClusterOptions::new(listen)).start().await.expect("the node starts")
}

pub fn owned(node: &Node) -> usize {
    node.cluster().expect("it is in a cluster").shards_owned
}

/// Waits until every shard is owned, and by nobody much more than by others.
pub async fn balanced(nodes: &[&Node]) {
    let shards = nodes[0].store().info().shard_count.get() as usize;
    // The planner lets small differences be.
    let fair = shards / nodes.len() * 4 / 5;
    let is_balanced = async || {
        let counts: Vec<_> = nodes.iter().map(|node| owned(node)).collect();
        counts.iter().sum::<usize>() == shards && counts.iter().all(|count| *count >= fair)
    };
    eventually("the shards are divided", is_balanced).await;
}

fn counters(count: usize) -> Vec<CounterId> {
    (0..count).map(|number| counter(&format!("shared-{number}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_takes_every_command_and_each_shard_has_one_owner() {
    let log = shared_log();
    let nodes = [member(&log).await, member(&log).await, member(&log).await];
    balanced(&nodes.each_ref()).await;
    let ids = counters(60);
    for (number, id) in ids.iter().enumerate() {
        for (place, node) in nodes.iter().enumerate() {
            let sent = node.of::<Counter>(id.clone()).send(Add::new(1 + place as u64)).receipt();
            let done = in_time("a command", sent).await.expect("it is done");
            assert_eq!((done.version.get(), done.duplicate), (place as u64 + 1, false), "{number}");
        }
    }
    for id in &ids {
        let read = CounterLog::read(&log, id).await;
        assert_eq!((read.total(), read.version()), (6, Version::new(3)));
        for node in &nodes {
            for consistency in [Consistency::Leased, Consistency::Confirmed] {
                let reading = node.of::<Counter>(id.clone()).reading(|state| state.total);
                let seen =
                    reading.consistency(consistency).min_version(read.version()).await.expect("it is seen");
                assert_eq!((seen.value, seen.version), (6, read.version()));
                assert!(seen.epoch.get() > 0, "an owner has seen it");
            }
        }
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_conflicts_and_repeats_are_the_same_through_every_node() {
    let log = shared_log();
    let nodes = [member(&log).await, member(&log).await];
    balanced(&nodes.each_ref()).await;
    for id in counters(12) {
        let command_id = CommandId::fresh();
        for (place, node) in nodes.iter().enumerate() {
            let of = node.of::<Counter>(id.clone());
            let done = of.send(Add::new(5)).id(command_id).receipt().await.expect("it is done");
            assert_eq!((done.reply, done.version, done.duplicate), (5, Version::new(1), place > 0));
            let Err(SendError::Refused(refusal)) = of.send(Add { amount: 1, limit: 5 }).await else {
                panic!("it is over the limit");
            };
            assert_eq!(refusal, AddRefusal::OverLimit { total: 5, limit: 5 });
            let reused = of.send(Add::new(6)).id(command_id).await.expect_err("another body");
            assert!(reused.to_string().contains("another command or body"), "{reused}");
            let conflict = of.save(Version::ZERO, vec![CounterEvent::Added { amount: 1 }]).await;
            assert!(conflict.expect_err("it is at version 1").to_string().contains("version"));
        }
        let of = nodes[1].of::<Counter>(id.clone());
        let saved =
            of.save(Version::new(1), vec![CounterEvent::Added { amount: 2 }]).await.expect("it is saved");
        assert_eq!(saved.version, Version::new(2));
        assert_eq!(CounterLog::read(&log, &id).await.total(), 7);
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_left_behind_is_served_by_the_others() {
    let log = shared_log();
    let (one, two) = (member(&log).await, member(&log).await);
    balanced(&[&one, &two]).await;
    let ids = counters(24);
    for id in &ids {
        one.of::<Counter>(id.clone()).send(Add::new(1)).await.expect("it is done");
    }
    // Not shut down: it is gone as after a crash, and its lease has to end.
    drop(one);
    for id in &ids {
        let total = in_time(
            "a command after the crash",
            two.of::<Counter>(id.clone()).send(Add::new(1)).into_future(),
        )
        .await;
        assert_eq!(total.expect("it is done"), 2);
    }
    assert_eq!(owned(&two), SHARDS as usize);
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_writer_broke_is_succeeded_before_its_lease_ends() {
    let log = shared_log();
    let (store, faults) = Faulty::new(Arc::new(log.clone()));
    let store: Arc<dyn EventStore> = store;
    // A lease that does not end within the story.
    let settings = Settings { lease: Duration::from_mins(5), ..settings() };
    let (one, two) = (started(store, settings.clone()).await, started(log.clone(), settings).await);
    balanced(&[&one, &two]).await;
    faults.on_next_append(Fault::Panic);
    for id in counters(24) {
        // Those that go to the broken node are not answered by it.
        let sent = one.of::<Counter>(id).send(Add::new(1)).within(Duration::from_millis(200));
        if sent.await.is_err() {
            break;
        }
    }
    eventually("the other one takes everything", async || owned(&two) == SHARDS as usize).await;
    assert_eq!((faults.faults_hit().panics, one.status()), (1, NodeStatus::Fenced));
    for id in counters(24) {
        in_time("a command", two.of::<Counter>(id).send(Add::new(1)).into_future())
            .await
            .expect("it is done");
    }
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_hands_everything_over_and_a_single_one_leaves_alone() {
    let log = shared_log();
    let (one, two) = (member(&log).await, member(&log).await);
    balanced(&[&one, &two]).await;
    in_time("a shutdown", one.shutdown()).await;
    assert_eq!(owned(&two), SHARDS as usize, "nothing waits for a lease to end");
    let view = log.view().await.expect("the store answers");
    assert_eq!(view.members.len(), 1);
    in_time("the last shutdown", two.shutdown()).await;
    assert!(log.view().await.expect("the store answers").members.is_empty());
}

#[tokio::test]
async fn a_store_of_one_process_makes_no_cluster() {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let builder = Orchestrix::builder().store(Memory::new()).aggregate::<Counter>();
    let error = builder.cluster(ClusterOptions::new(listen)).start().await.expect_err("it is not shared");
    assert!(matches!(error, StartError::NotShared { store: "inmemory" }), "{error}");
}

#[tokio::test]
async fn an_address_that_is_taken_stops_the_start_and_leaves_nothing_behind() {
    let log = shared_log();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let options = ClusterOptions::new(taken.local_addr().expect("an address"));
    let builder = Orchestrix::builder().store(log.clone()).aggregate::<Counter>().metrics(false);
    let error = builder.cluster(options).start().await.expect_err("somebody listens there");
    assert!(error.to_string().contains("cannot be listened at"), "{error}");
    assert!(log.view().await.expect("the store answers").members.is_empty());
}
