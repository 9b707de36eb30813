//! The in-memory store: the reference that says, in the fewest lines, what a store is.
//!
//! It keeps every obligation of [`EventStore`] except that nothing survives the process: [`StoreInfo::durable`] is
//! `false`. All that belongs to a shard (ownership, log, streams, snapshots, checkpoints, quarantine) stands in one
//! [`Shard`] behind one lock, so that each fence is checked and each commit is stored under the same lock. No lock is
//! held across an `.await`. Heads, imports and what nodes share hold several: shards in their order, then the members.

mod cluster;
mod import;
mod log;
mod members;
mod packed;
mod shard;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use orchestrix_core::store::{
    Batch, BoxFuture, Claim, ClaimError, ClusterView, Commit, CommitOutcome, EventStore, ImportError,
    ImportStep, Loaded, NodeRecord, PlanOutcome, QuarantineRecord, ReadError, RecordedEvent, Renewed, Report,
    SnapshotOutcome, SnapshotWrite, StoreInfo, StoreStats, StreamRange, Target, WriteError,
};
use orchestrix_core::{Checkpoint, Epoch, Incarnation, Seq, ShardCount, ShardId, StreamId, Version};

use members::Members;
use shard::Shard;
use tokio::time::Instant;

/// How many appends are worth carrying at once: shards are locked one by one, so every arbiter may have a lane.
const LANES: usize = 64;

/// The most events that one append should carry. An append has no fixed cost here, and a batch of this size is one small
/// allocation: with 256 events, a sixth of the processor went into fresh pages for it.
const BATCH_EVENTS_MAX: usize = 32;

/// Keeps everything in memory, for tests and for trying things out.
///
/// A clone is a second handle on the same data, open even when the first is closed: that is how a test "restarts" a
/// node. Every future is ready when it is first polled.
///
/// ```
/// # use orchestrix::store::Memory;
/// use orchestrix_core::{EventStore, Incarnation, ShardCount, ShardId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Memory::with_shards(ShardCount::new(4).ok_or("1 to 4,096")?);
/// let claims = store.claim(&[ShardId::new(3)], Incarnation::fresh()).await?;
/// assert_eq!(claims[0].epoch.get(), 1);
/// # Ok(())
/// # }
/// ```
pub struct Memory {
    shards: Arc<[Mutex<Shard>]>,
    shard_count: ShardCount,
    /// `None` unless nodes share the store.
    members: Option<Arc<Mutex<Members>>>,
    /// Belongs to the handle, not to the data.
    closed: AtomicBool,
}

impl Memory {
    /// Makes an empty store with the default number of shards.
    pub fn new() -> Self {
        Self::with_shards(ShardCount::DEFAULT)
    }

    /// Makes an empty store with this many shards.
    pub fn with_shards(shard_count: ShardCount) -> Self {
        let shards = shard_count.all().map(|shard| Mutex::new(Shard::new(shard))).collect();
        Self { shards, shard_count, members: None, closed: AtomicBool::new(false) }
    }

    /// Makes it a store that several nodes of this process share, each with a clone made afterwards: they join, hold
    /// their shards under leases, and see each other, as on PostgreSQL. Leases are counted by tokio's clock, which a test
    /// may pause and move.
    ///
    /// ```
    /// # use orchestrix::store::Memory;
    /// use orchestrix_core::EventStore;
    ///
    /// let store = Memory::new().shared();
    /// assert!(store.info().leases && !Memory::new().info().leases);
    /// ```
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.members = Some(Arc::new(Mutex::new(Members::new())));
        self
    }

    /// Locks the members, after the shards.
    fn members(&self) -> Result<MutexGuard<'_, Members>, Refused> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refused::Closed);
        }
        let members = self.members.as_ref().ok_or(Refused::NotShared)?;
        Ok(members.lock().expect("nothing panics under this lock"))
    }

    /// Locks one shard.
    fn shard(&self, shard: ShardId) -> Result<MutexGuard<'_, Shard>, Refused> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refused::Closed);
        }
        match self.shards.get(shard.get() as usize) {
            Some(lock) => Ok(lock.lock().expect("nothing panics under this lock")),
            None => Err(Refused::NoSuchShard { shard, count: self.shard_count.get() }),
        }
    }

    fn shard_of(&self, stream: &StreamId) -> Result<MutexGuard<'_, Shard>, Refused> {
        self.shard(self.shard_count.shard_of_stream(stream))
    }

    /// Visits every shard, one lock at a time.
    fn each_shard(&self, mut visit: impl FnMut(&Shard)) -> Result<(), Refused> {
        self.shard_count.all().try_for_each(|shard| {
            visit(&*self.shard(shard)?);
            Ok(())
        })
    }

    fn append_one(&self, owner: Incarnation, commit: &Commit) -> CommitOutcome {
        match self.shard(commit.shard) {
            Ok(mut shard) => shard.append(owner, commit),
            Err(refused) => CommitOutcome::Unavailable { reason: refused.to_string().into() },
        }
    }

    fn claim_all(&self, shards: &[ShardId], owner: Incarnation) -> Result<Vec<Claim>, ClaimError> {
        if self.members.is_some() {
            return self.claim_shared(shards, owner);
        }
        shards.iter().map(|shard| Ok(self.shard(*shard)?.claim(owner)?)).collect()
    }

    fn streams_after(
        &self,
        aggregate_type: &str,
        after_id: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Version)>, Refused> {
        let mut found = Vec::new();
        self.each_shard(|shard| found.extend(shard.streams_after(aggregate_type, after_id)))?;
        found.sort_unstable_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        found.truncate(limit);
        Ok(found)
    }

    fn quarantined_first(&self, limit: usize) -> Result<Vec<QuarantineRecord>, Refused> {
        let mut found = Vec::new();
        self.each_shard(|shard| found.extend(shard.quarantined().cloned()))?;
        found.sort_unstable_by(|a, b| (a.since, &a.stream).cmp(&(b.since, &b.stream)));
        found.truncate(limit);
        Ok(found)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Memory {
    fn clone(&self) -> Self {
        Self {
            shards: Arc::clone(&self.shards),
            shard_count: self.shard_count,
            members: self.members.clone(),
            closed: AtomicBool::new(false),
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("shard_count", &self.shard_count)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl EventStore for Memory {
    fn info(&self) -> StoreInfo {
        StoreInfo {
            name: "inmemory",
            shard_count: self.shard_count,
            durable: false,
            lanes: LANES,
            batch_events_max: BATCH_EVENTS_MAX,
            leases: self.members.is_some(),
        }
    }

    fn claim<'a>(
        &'a self,
        shards: &'a [ShardId],
        owner: Incarnation,
    ) -> BoxFuture<'a, Result<Vec<Claim>, ClaimError>> {
        Box::pin(async move { self.claim_all(shards, owner) })
    }

    fn join(&self, node: NodeRecord, lease: Duration) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(async move {
            match self.members {
                Some(_) => Ok(self.join_now(node, lease)?),
                None => Ok(()),
            }
        })
    }

    fn renew(
        &self,
        owner: Incarnation,
        lease: Duration,
        report: Report,
    ) -> BoxFuture<'_, Result<Renewed, WriteError>> {
        Box::pin(async move {
            match self.members {
                Some(_) => Ok(self.members()?.renew(owner, lease, report, Instant::now())),
                None => Ok(Renewed { holds: true, view: 0 }),
            }
        })
    }

    fn leave(&self, owner: Incarnation) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(async move {
            if self.members.is_some() {
                self.members()?.leave(owner);
            }
            Ok(())
        })
    }

    fn view(&self) -> BoxFuture<'_, Result<ClusterView, ReadError>> {
        Box::pin(async move { Ok(self.view_now()?) })
    }

    fn set_targets(
        &self,
        planner: Incarnation,
        view: u64,
        targets: Vec<Target>,
    ) -> BoxFuture<'_, Result<PlanOutcome, WriteError>> {
        Box::pin(async move { Ok(self.set_targets_now(planner, view, &targets)?) })
    }

    fn release_shards<'a>(
        &'a self,
        owner: Incarnation,
        shards: &'a [(ShardId, Epoch)],
    ) -> BoxFuture<'a, Result<Vec<bool>, WriteError>> {
        Box::pin(async move { Ok(self.release_shards_now(owner, shards)?) })
    }

    fn drain(&self, run: Incarnation) -> BoxFuture<'_, Result<bool, WriteError>> {
        Box::pin(async move { Ok(self.members()?.drain(run)) })
    }

    fn append(&self, batch: Batch) -> BoxFuture<'_, Vec<CommitOutcome>> {
        Box::pin(
            async move { batch.commits.iter().map(|commit| self.append_one(batch.owner, commit)).collect() },
        )
    }

    fn confirm<'a>(
        &'a self,
        owner: Incarnation,
        shards: &'a [(ShardId, Epoch)],
    ) -> BoxFuture<'a, Result<Vec<bool>, ReadError>> {
        let held = move |(shard, epoch): &(ShardId, Epoch)| Ok(self.shard(*shard)?.is_held(owner, *epoch));
        Box::pin(async move { shards.iter().map(held).collect() })
    }

    fn load<'a>(
        &'a self,
        stream: &'a StreamId,
        events_max: usize,
    ) -> BoxFuture<'a, Result<Loaded, ReadError>> {
        Box::pin(async move { Ok(self.shard_of(stream)?.load(stream, events_max)) })
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, ReadError>> {
        Box::pin(async move { Ok(self.shard_of(stream)?.read_stream(stream, &range)) })
    }

    fn read_shard(
        &self,
        shard: ShardId,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, ReadError>> {
        Box::pin(async move { Ok(self.shard(shard)?.read(after, limit)) })
    }

    fn heads(&self) -> BoxFuture<'_, Result<Vec<Seq>, ReadError>> {
        Box::pin(async move { Ok(self.heads_now()?) })
    }

    fn import(&self, step: ImportStep) -> BoxFuture<'_, Result<(), ImportError>> {
        Box::pin(async move { self.import_step(step) })
    }

    /// Looks at every stream for each page: fine for what fits in memory.
    fn list_streams<'a>(
        &'a self,
        aggregate_type: &'a str,
        after_id: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(StreamId, Version)>, ReadError>> {
        Box::pin(async move { Ok(self.streams_after(aggregate_type, after_id, limit)?) })
    }

    fn save_snapshots(
        &self,
        owner: Incarnation,
        snapshots: Vec<SnapshotWrite>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotOutcome>, WriteError>> {
        let save = move |write: SnapshotWrite| Ok(self.shard(write.shard)?.save_snapshot(owner, write));
        Box::pin(async move { snapshots.into_iter().map(save).collect() })
    }

    fn delete_snapshot<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move {
            self.shard_of(stream)?.delete_snapshot(stream);
            Ok(())
        })
    }

    fn checkpoint<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Result<Checkpoint, ReadError>> {
        Box::pin(async move {
            let mut checkpoint = Checkpoint::default();
            self.each_shard(|shard| shard.add_checkpoint(consumer, &mut checkpoint))?;
            Ok(checkpoint)
        })
    }

    fn save_checkpoint<'a>(
        &'a self,
        consumer: &'a str,
        owner: Incarnation,
        (shard, epoch): (ShardId, Epoch),
        seq: Seq,
    ) -> BoxFuture<'a, Result<bool, WriteError>> {
        Box::pin(async move { Ok(self.shard(shard)?.save_checkpoint(consumer, owner, epoch, seq)) })
    }

    fn quarantine(&self, record: QuarantineRecord) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(async move {
            self.shard_of(&record.stream)?.quarantine(record);
            Ok(())
        })
    }

    fn release<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<bool, WriteError>> {
        Box::pin(async move { Ok(self.shard_of(stream)?.release(stream)) })
    }

    fn quarantined(&self, limit: usize) -> BoxFuture<'_, Result<Vec<QuarantineRecord>, ReadError>> {
        Box::pin(async move { Ok(self.quarantined_first(limit)?) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move { Ok(self.each_shard(|_| ())?) })
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        Box::pin(async move {
            let mut stats = StoreStats::default();
            self.each_shard(|shard| shard.add_stats(&mut stats))?;
            Ok(stats)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.closed.store(true, Ordering::Release) })
    }
}

/// Why a handle does not act. Nothing was changed.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the in-memory store is closed; clone it to open a new handle on its data")]
    Closed,
    #[error("the in-memory store is not shared by nodes; make it with Memory::shared")]
    NotShared,
    #[error("there is no shard {shard}; the log has {count}, counted from 0")]
    NoSuchShard { shard: ShardId, count: u32 },
    #[error("the store is being imported into: {0}; it can be claimed when that is finished")]
    Importing(String),
}

impl From<Refused> for ReadError {
    fn from(refused: Refused) -> Self {
        Self::unavailable(refused)
    }
}

impl From<Refused> for WriteError {
    fn from(refused: Refused) -> Self {
        Self::unavailable(refused)
    }
}

impl From<Refused> for ClaimError {
    fn from(refused: Refused) -> Self {
        Self::unavailable(refused)
    }
}
