//! Obligation 11 for checkpoints: fenced as appends are, and never back.

use orchestrix_core::{Checkpoint, Incarnation, Seq, ShardId};

use super::bench::{Bench, Writer};

const ONE: ShardId = ShardId::new(0);
const TWO: ShardId = ShardId::new(1);

async fn save(writer: &Writer, consumer: &str, shard: ShardId, seq: u64) -> bool {
    let claim = (shard, writer.epoch(shard));
    writer.store.save_checkpoint(consumer, writer.owner, claim, Seq::new(seq)).await.expect("saves")
}

async fn places(bench: &Bench, consumer: &str) -> Vec<(ShardId, u64)> {
    let checkpoint = bench.store().checkpoint(consumer).await.expect("a checkpoint can be read");
    checkpoint.iter().map(|(shard, seq)| (shard, seq.get())).collect()
}

/// An unknown consumer has seen nothing.
pub async fn an_unknown_consumer_has_seen_nothing(bench: Bench) {
    assert_eq!(bench.store().checkpoint("nobody").await.expect("reads"), Checkpoint::default());
}

/// 11. A step back is ignored, and is no failure.
pub async fn a_checkpoint_never_moves_back(bench: Bench) {
    let writer = bench.writer().await;
    for (seq, stored) in [(5, 5), (9, 9), (7, 9), (9, 9), (10, 10)] {
        assert!(save(&writer, "balances", ONE, seq).await, "the owner may save {seq}");
        assert_eq!(places(&bench, "balances").await, [(ONE, stored)]);
    }
}

/// 11. Checkpoints are fenced as appends are: by epoch and by incarnation.
pub async fn a_checkpoint_of_a_deposed_owner_is_fenced(bench: Bench) {
    let old = bench.writer().await;
    assert!(save(&old, "balances", ONE, 3).await);
    let new = bench.writer().await;
    assert!(!save(&old, "balances", ONE, 8).await, "a deposed owner is told so");
    let stranger = new.under(Incarnation::fresh());
    assert!(!save(&stranger, "balances", ONE, 8).await, "another incarnation at the same epoch too");
    assert!(!save(&old, "fresh", ONE, 1).await, "also where nothing is stored yet");
    assert_eq!(places(&bench, "balances").await, [(ONE, 3)]);
    assert_eq!(places(&bench, "fresh").await, []);
    assert!(save(&new, "balances", ONE, 4).await);
}

/// Consumers and shards do not mix.
pub async fn consumers_and_shards_do_not_mix(bench: Bench) {
    let writer = bench.writer().await;
    save(&writer, "balances", TWO, 2).await;
    save(&writer, "balances", ONE, 1).await;
    save(&writer, "Balances", ONE, 7).await;
    assert_eq!(places(&bench, "balances").await, [(ONE, 1), (TWO, 2)]);
    assert_eq!(places(&bench, "Balances").await, [(ONE, 7)]);
}

/// Checkpoints survive a reopen.
pub async fn checkpoints_survive_a_reopen(bench: Bench) {
    let writer = bench.writer().await;
    save(&writer, "balances", ONE, 41).await;
    drop(writer);
    let bench = bench.reopen().await;
    assert_eq!(places(&bench, "balances").await, [(ONE, 41)]);
}
