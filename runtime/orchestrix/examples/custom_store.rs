//! A store of one's own: here one that wraps another and counts what goes through it.
//!
//! The same way leads to a store for any database. `docs/internals/stores.md` says what a store owes,
//! and the suite of `orchestrix-testkit` checks it.
//! Run it with `cargo run --package orchestrix --example custom_store`.

mod account;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use account::{Account, Deposit, account_id};
use orchestrix::Orchestrix;
use orchestrix::store::Memory;
use orchestrix_core::store::{
    Batch, BoxFuture, Claim, ClaimError, CommitOutcome, EventStore, Loaded, QuarantineRecord, ReadError,
    RecordedEvent, SnapshotOutcome, SnapshotWrite, StoreInfo, StoreStats, StreamRange, WriteError,
};
use orchestrix_core::{Checkpoint, Epoch, Incarnation, Seq, ShardId, StreamId, Version};

/// Counts appends and commits, and leaves the rest to the store inside.
struct Counting<S> {
    inner: S,
    appends: AtomicUsize,
    commits: AtomicUsize,
}

impl<S: EventStore> EventStore for Counting<S> {
    fn append(&self, batch: Batch) -> BoxFuture<'_, Vec<CommitOutcome>> {
        Box::pin(async move {
            let outcomes = self.inner.append(batch).await;
            self.appends.fetch_add(1, Ordering::Relaxed);
            self.commits.fetch_add(outcomes.iter().filter(|o| o.is_committed()).count(), Ordering::Relaxed);
            outcomes
        })
    }

    fn info(&self) -> StoreInfo {
        // One lane, so that this example has something to show: commits then share appends.
        StoreInfo { lanes: 1, ..self.inner.info() }
    }

    fn claim<'a>(
        &'a self,
        shards: &'a [ShardId],
        owner: Incarnation,
    ) -> BoxFuture<'a, Result<Vec<Claim>, ClaimError>> {
        self.inner.claim(shards, owner)
    }

    fn confirm<'a>(
        &'a self,
        owner: Incarnation,
        shards: &'a [(ShardId, Epoch)],
    ) -> BoxFuture<'a, Result<Vec<bool>, ReadError>> {
        self.inner.confirm(owner, shards)
    }

    fn load<'a>(
        &'a self,
        stream: &'a StreamId,
        events_max: usize,
    ) -> BoxFuture<'a, Result<Loaded, ReadError>> {
        self.inner.load(stream, events_max)
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, ReadError>> {
        self.inner.read_stream(stream, range)
    }

    fn read_shard(
        &self,
        shard: ShardId,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, ReadError>> {
        self.inner.read_shard(shard, after, limit)
    }

    fn list_streams<'a>(
        &'a self,
        aggregate_type: &'a str,
        after_id: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(StreamId, Version)>, ReadError>> {
        self.inner.list_streams(aggregate_type, after_id, limit)
    }

    fn save_snapshots(
        &self,
        owner: Incarnation,
        snapshots: Vec<SnapshotWrite>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotOutcome>, WriteError>> {
        self.inner.save_snapshots(owner, snapshots)
    }

    fn delete_snapshot<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<(), WriteError>> {
        self.inner.delete_snapshot(stream)
    }

    fn checkpoint<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Result<Checkpoint, ReadError>> {
        self.inner.checkpoint(consumer)
    }

    fn save_checkpoint<'a>(
        &'a self,
        consumer: &'a str,
        owner: Incarnation,
        claim: (ShardId, Epoch),
        seq: Seq,
    ) -> BoxFuture<'a, Result<bool, WriteError>> {
        self.inner.save_checkpoint(consumer, owner, claim, seq)
    }

    fn quarantine(&self, record: QuarantineRecord) -> BoxFuture<'_, Result<(), WriteError>> {
        self.inner.quarantine(record)
    }

    fn release<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<bool, WriteError>> {
        self.inner.release(stream)
    }

    fn quarantined(&self, limit: usize) -> BoxFuture<'_, Result<Vec<QuarantineRecord>, ReadError>> {
        self.inner.quarantined(limit)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        self.inner.ping()
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        self.inner.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let store = Arc::new(Counting { inner: Memory::new(), appends: 0.into(), commits: 0.into() });
    let shared: Arc<dyn EventStore> = Arc::clone(&store) as _;
    let node = Orchestrix::builder().store(shared).aggregate::<Account>().start().await?;

    // A hundred commands on one account, all under way at once.
    let account = node.of::<Account>(account_id("ada"));
    let sent: Vec<_> = (0..100).map(|_| account.send(Deposit { amount: 1 }).receipt()).collect();
    for receipt in sent {
        receipt.await?;
    }

    let (appends, commits) = (store.appends.load(Ordering::Relaxed), store.commits.load(Ordering::Relaxed));
    println!("commits: {commits}, appends: {appends}");
    assert_eq!(commits, 100);
    assert!(appends <= commits);
    node.shutdown().await;
    Ok(())
}
