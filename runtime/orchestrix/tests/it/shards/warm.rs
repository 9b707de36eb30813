//! What a shard's next owner finds: the last snapshots, and the aggregates that were used last.

use orchestrix::core::store::EventStore;
use orchestrix::core::{StreamId, Version};

use super::{Stage, hang, is_pending, shard};
use crate::counter::{CounterId, counter};
use crate::harness::{Lanes, in_time, shard_of, stream};

/// As many aggregates as one shard hands over warm, by the documentation.
const WARM_MAX: usize = 256;

/// Counters of one shard that holds no others.
fn in_one_shard(count: usize) -> Vec<CounterId> {
    let first = Stage::pair().moved;
    let names = (0..).map(|number| counter(&format!("warm-{number}")));
    names.filter(|name| shard_of(name) == shard_of(&first)).take(count).collect()
}

#[tokio::test]
async fn a_seal_waits_for_the_last_snapshots() {
    let stage = Stage::begin(Lanes::OnArbiters).await;
    let name = counter("warm");
    for _ in 0..20 {
        stage.add(&name).await.expect("done");
    }
    let all = hang(&stage.waits.saves).await;
    let mut sealing = stage.sealing(shard(&name));
    assert!(is_pending(&mut sealing).await, "the snapshot is not saved yet");
    drop(all);
    in_time("the seal", sealing).await.expect("no panic");
    let loaded = stage.log.load(&stream(&name), 1).await.expect("read");
    assert_eq!(loaded.snapshot.map(|snapshot| snapshot.version), Some(Version::new(20)));
    stage.node.shutdown().await;
}

#[tokio::test]
async fn what_was_used_last_is_listed_first_and_in_memory_before_the_work_comes() {
    let (stage, names) = (Stage::begin(Lanes::OnArbiters).await, in_one_shard(3));
    for name in &names {
        stage.add(name).await.expect("done");
    }
    let of = shard(&names[0]);
    let list = stage.shards.warm_list(of).await;
    let newest_first: Vec<_> = names.iter().rev().map(stream).collect();
    assert_eq!(list, newest_first);
    in_time("the seal", stage.sealing(of)).await.expect("no panic");
    assert_eq!(stage.shards.warm_list(of).await, [], "nobody is left");
    assert_eq!(stage.shards.pre_activate(&list).await, 0, "a shard that is not open is passed over");
    stage.claim_and_open(of).await;
    let unknown = [StreamId::new("unknown", "one")];
    assert_eq!(stage.shards.pre_activate(&unknown).await, 0, "and so is what the node does not know");
    assert_eq!(in_time("the activation", stage.shards.pre_activate(&list)).await, 3);
    let _all = hang(&stage.waits.loads).await;
    for name in &names {
        assert_eq!(in_time("a read", stage.total(name)).await, Ok((1, Version::new(1))), "nothing is loaded");
    }
    stage.node.shutdown().await;
}

#[tokio::test]
async fn a_list_of_warm_aggregates_has_a_bound() {
    let (stage, names) = (Stage::begin(Lanes::OnArbiters).await, in_one_shard(WARM_MAX + 20));
    for name in &names {
        stage.total(name).await.expect("read");
    }
    let list = stage.shards.warm_list(shard(&names[0])).await;
    let newest: Vec<_> = names.iter().rev().take(WARM_MAX).map(stream).collect();
    assert_eq!(list, newest);
    stage.node.shutdown().await;
}
