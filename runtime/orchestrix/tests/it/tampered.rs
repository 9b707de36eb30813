//! A store that passes everything on and lets a story change what a read finds, or how the store describes itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orchestrix::core::store::{
    Batch, BoxFuture, Claim, ClaimError, CommitOutcome, EventStore, Loaded, QuarantineRecord, ReadError,
    RecordedEvent, SnapshotOutcome, SnapshotWrite, StoreInfo, StoreStats, StreamRange, WriteError,
};
use orchestrix::core::{Checkpoint, Epoch, Incarnation, Seq, ShardId, StreamId, Version};
use tokio::sync::Semaphore;

type OnLoad = Box<dyn Fn(&StreamId, &mut Loaded) + Send + Sync>;
type OnRead = Box<dyn Fn(&StreamId, &mut Vec<RecordedEvent>) -> Result<(), ReadError> + Send + Sync>;

/// The store and what is changed about it.
pub struct Tampered {
    inner: Arc<dyn EventStore>,
    info: StoreInfo,
    /// The only shard that is claimed, whatever is asked for.
    only: Option<ShardId>,
    on_load: OnLoad,
    on_read: OnRead,
    /// What stories hold up.
    pub waits: Waits,
}

/// A call takes a permit and gives it back; a story that wants calls to hang takes them all.
#[derive(Clone)]
pub struct Waits {
    /// Before a load.
    pub loads: Arc<Semaphore>,
    /// Before snapshots are saved.
    pub saves: Arc<Semaphore>,
    /// After the store has confirmed, before that is told.
    pub confirms: Arc<Semaphore>,
    /// The questions who owns a shard.
    pub asked: Arc<AtomicU64>,
}

/// How many calls of a kind may be under way: more than any story has.
pub const ALL: u32 = 1 << 16;

impl Default for Waits {
    fn default() -> Self {
        let all = || Arc::new(Semaphore::new(ALL as usize));
        Self { loads: all(), saves: all(), confirms: all(), asked: Arc::default() }
    }
}

impl Tampered {
    pub fn over(inner: Arc<dyn EventStore>) -> Self {
        Self {
            info: inner.info(),
            inner,
            only: None,
            on_load: Box::new(|_, _| ()),
            on_read: Box::new(|_, _| Ok(())),
            waits: Waits::default(),
        }
    }

    pub fn with_lanes(mut self, lanes: usize) -> Self {
        self.info.lanes = lanes;
        self
    }

    /// Has leases, which never end by themselves.
    pub fn with_leases(mut self) -> Self {
        self.info.leases = true;
        self
    }

    /// Claims no other shard than this one.
    pub fn claiming_only(mut self, shard: ShardId) -> Self {
        self.only = Some(shard);
        self
    }

    /// Changes what an activation finds.
    pub fn on_load(mut self, change: impl Fn(&StreamId, &mut Loaded) + Send + Sync + 'static) -> Self {
        self.on_load = Box::new(change);
        self
    }

    /// Changes what a read of a stream finds, or fails it.
    pub fn on_read(
        mut self,
        change: impl Fn(&StreamId, &mut Vec<RecordedEvent>) -> Result<(), ReadError> + Send + Sync + 'static,
    ) -> Self {
        self.on_read = Box::new(change);
        self
    }

    pub fn shared(self) -> Arc<dyn EventStore> {
        Arc::new(self)
    }
}

impl EventStore for Tampered {
    fn info(&self) -> StoreInfo {
        self.info.clone()
    }

    fn claim<'a>(
        &'a self,
        shards: &'a [ShardId],
        owner: Incarnation,
    ) -> BoxFuture<'a, Result<Vec<Claim>, ClaimError>> {
        Box::pin(async move {
            let claimed = |shard: &ShardId| self.only.is_none_or(|only| only == *shard);
            let shards: Vec<_> = shards.iter().copied().filter(claimed).collect();
            self.inner.claim(&shards, owner).await
        })
    }

    fn append(&self, batch: Batch) -> BoxFuture<'_, Vec<CommitOutcome>> {
        self.inner.append(batch)
    }

    fn confirm<'a>(
        &'a self,
        owner: Incarnation,
        shards: &'a [(ShardId, Epoch)],
    ) -> BoxFuture<'a, Result<Vec<bool>, ReadError>> {
        Box::pin(async move {
            self.waits.asked.fetch_add(1, Ordering::SeqCst);
            let confirmed = self.inner.confirm(owner, shards).await;
            let _permit = self.waits.confirms.acquire().await;
            confirmed
        })
    }

    fn load<'a>(
        &'a self,
        stream: &'a StreamId,
        events_max: usize,
    ) -> BoxFuture<'a, Result<Loaded, ReadError>> {
        Box::pin(async move {
            let _permit = self.waits.loads.acquire().await;
            let mut loaded = self.inner.load(stream, events_max).await?;
            (self.on_load)(stream, &mut loaded);
            Ok(loaded)
        })
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, ReadError>> {
        Box::pin(async move {
            let mut events = self.inner.read_stream(stream, range).await?;
            (self.on_read)(stream, &mut events)?;
            Ok(events)
        })
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
        Box::pin(async move {
            let _permit = self.waits.saves.acquire().await;
            self.inner.save_snapshots(owner, snapshots).await
        })
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
