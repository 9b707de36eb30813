//! The port that every event store fills.
//!
//! A store keeps the log, snapshots, checkpoints, ownership of shards and the list of quarantined aggregates.
//! Its obligations stand on [`EventStore`]; the conformance suite in `orchestrix-testkit` has a check for each, with
//! the same words. Futures are boxed, so that a store is one object behind an `Arc`.

mod cluster;
mod error;
mod import;
mod node;
mod record;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use cluster::{ClusterView, Member, PlanOutcome, Renewed, Report, ShardOwner, Target};
pub use error::{ClaimError, ReadError, Source, WriteError};
pub use import::{ImportError, ImportStep};
pub use node::NodeRecord;
pub use record::{
    Batch, Claim, Commit, CommitOutcome, Direction, Loaded, NewEvent, QuarantineRecord, Receipt,
    RecordedEvent, SnapshotOutcome, SnapshotRecord, SnapshotWrite, StoreInfo, StoreStats, StreamRange,
};

use crate::checkpoint::Checkpoint;
use crate::shard::ShardId;
use crate::stream::StreamId;
use crate::version::{Epoch, Incarnation, Seq, Version};

/// A future that a store returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps the log and what belongs to it.
///
/// # Obligations
///
/// **Append**
/// 1. A commit's events are stored together or not at all, also when the process or the machine dies.
/// 2. `Committed` is answered only when the events are durable (as durable as [`StoreInfo::durable`] says).
/// 3. Versions of a stream are 1..n without a hole: a commit whose `expected` is not the stream's version is a
///    `Conflict` and stores nothing.
/// 4. Each event gets the next seq of its shard: dense, and visible to a reader in that order only.
/// 5. A commit is stored only under the shard's current epoch *and* incarnation; otherwise it is `Fenced`.
/// 6. One bad commit does not fail its neighbours in the batch, unless they build on it.
/// 7. `Conflict`, `Fenced` and `Unavailable` mean that the commit is not stored and never will be.
///    Whatever cannot promise that is `Unknown`.
/// 8. Commits of one stream in one batch take effect in their order.
///
/// **Claim**
/// 9. A claim raises the epoch of each shard by one. When it returns, no append of an older epoch can take effect any
///    more, also none that was in flight; what a read then finds is final.
///
/// **Leases** (stores that say [`StoreInfo::leases`])
/// 14. While the lease of a run that joined has not ended, by the store's own clock, a claim of its shards by another
///     run is `Held` and changes nothing. A run that joined holds its lease until it leaves, until the lease ends, or
///     until the store can prove that its process is gone.
/// 15. A renewal is answered with `true` only while nobody has taken a shard of the run because its lease had ended.
///
/// **Read**
/// 10. A read sees every commit that was answered before the read began, and never part of a commit.
///
/// 16. The heads of all shards are those of one moment: whatever was answered before is in them, and what led to
///     something that is in them is in them too.
///
/// **Import** (stores that take one)
/// 17. Imported events are stored as they are, with their seqs, versions, epochs and times; those of a step together or
///     not at all. One that does not continue its shard and its stream is a `Gap`, and nothing of the step is stored.
/// 18. Only an empty store that nobody has claimed is imported into, and until the import is finished every claim
///     fails. An import that was interrupted is taken up again under its own name only.
/// 19. A finished import is another life of the store: what owned shards in the life that the events come from is fenced,
///     and the next claim gives each shard an epoch above that of every imported event.
///
/// **Snapshots, checkpoints**
/// 11. They are fenced as appends are. A snapshot never replaces one of a higher version.
///
/// **Cluster** (stores that say [`StoreInfo::leases`])
/// 20. A view is of one moment. Whatever changes what it tells, leases and loads apart, changes its version; what
///     changes nothing leaves the version as it is. A view that is read after a renewal has at least the version that
///     the renewal was answered with.
/// 21. Targets are set by one planner at a time, from the current view, and only where owner and epoch are still those
///     that the decision was made from. A target changes neither of them, and stops no append.
/// 22. A release takes a shard from its owner, at the epoch given, and leaves epoch and target as they are. When it
///     returns, no append under that ownership can take effect any more. What else the run owns stays with it.
/// 23. A shard that nobody owns may be claimed by anybody. A claim clears the target of what it takes.
/// 24. A run that is draining stays so for as long as it is a member.
///
/// **All**
/// 12. A future that is dropped leaves the store usable; the operation may or may not take effect.
/// 13. Every method may be called from many tasks at once.
pub trait EventStore: Send + Sync + 'static {
    /// Describes the store. The answer does not change while the store is open.
    fn info(&self) -> StoreInfo;

    /// Takes ownership of shards for one run of a node and returns their new epochs and heads, in the order asked for.
    fn claim<'a>(
        &'a self,
        shards: &'a [ShardId],
        owner: Incarnation,
    ) -> BoxFuture<'a, Result<Vec<Claim>, ClaimError>>;

    /// Announces a run of a node, which from now on holds what it claims for as long as its lease is renewed.
    ///
    /// A store that has one process at a time needs no leases and does nothing.
    fn join(&self, _node: NodeRecord, _lease: Duration) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Lets the lease of a run end so long from now, takes in what it says about itself, and tells the version of the
    /// view. A store without leases answers that it holds, at version 0.
    fn renew(
        &self,
        _owner: Incarnation,
        _lease: Duration,
        _report: Report,
    ) -> BoxFuture<'_, Result<Renewed, WriteError>> {
        Box::pin(std::future::ready(Ok(Renewed { holds: true, view: 0 })))
    }

    /// Ends the lease of a run: what it held may be claimed at once.
    fn leave(&self, _owner: Incarnation) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Reads who is there, who owns which shard and who should.
    ///
    /// A store without leases knows nobody but its caller, and answers `Unavailable`.
    fn view(&self) -> BoxFuture<'_, Result<ClusterView, ReadError>> {
        let reason = no_cluster(self.info().name);
        Box::pin(std::future::ready(Err(ReadError::Unavailable { reason, source: None })))
    }

    /// Says where shards should go, as decided from the view of this version. It does not wait for another planner.
    ///
    /// A store without leases answers `Unavailable`.
    fn set_targets(
        &self,
        _planner: Incarnation,
        _view: u64,
        _targets: Vec<Target>,
    ) -> BoxFuture<'_, Result<PlanOutcome, WriteError>> {
        let reason = no_cluster(self.info().name);
        Box::pin(std::future::ready(Err(WriteError::Unavailable { reason, source: None })))
    }

    /// Gives shards back, so that nobody owns them; answers for each, in order, whether the run owned it at that epoch.
    ///
    /// A store without leases answers `Unavailable`.
    fn release_shards<'a>(
        &'a self,
        _owner: Incarnation,
        _shards: &'a [(ShardId, Epoch)],
    ) -> BoxFuture<'a, Result<Vec<bool>, WriteError>> {
        let reason = no_cluster(self.info().name);
        Box::pin(std::future::ready(Err(WriteError::Unavailable { reason, source: None })))
    }

    /// Asks a run, in the name of a person, to give its shards away: marks it as draining. `false` when it is no member.
    ///
    /// A store without leases answers `Unavailable`.
    fn drain(&self, _run: Incarnation) -> BoxFuture<'_, Result<bool, WriteError>> {
        let reason = no_cluster(self.info().name);
        Box::pin(std::future::ready(Err(WriteError::Unavailable { reason, source: None })))
    }

    /// Appends commits of many streams and shards and answers for each, in the order of the batch.
    fn append(&self, batch: Batch) -> BoxFuture<'_, Vec<CommitOutcome>>;

    /// Tells whether the owner still holds each of the shards at the epoch given, by asking where ownership is kept.
    fn confirm<'a>(
        &'a self,
        owner: Incarnation,
        shards: &'a [(ShardId, Epoch)],
    ) -> BoxFuture<'a, Result<Vec<bool>, ReadError>>;

    /// Reads what an activation needs in one go: the snapshot, up to `events_max` events after it, the stream's
    /// version, and whether it is quarantined.
    fn load<'a>(
        &'a self,
        stream: &'a StreamId,
        events_max: usize,
    ) -> BoxFuture<'a, Result<Loaded, ReadError>>;

    /// Loads many streams; the answers come in the order asked for. Stores that can do it in one query override it.
    fn load_many<'a>(
        &'a self,
        streams: &'a [StreamId],
        events_max: usize,
    ) -> BoxFuture<'a, Result<Vec<Loaded>, ReadError>> {
        Box::pin(async move {
            let mut loaded = Vec::with_capacity(streams.len());
            for stream in streams {
                loaded.push(self.load(stream, events_max).await?);
            }
            Ok(loaded)
        })
    }

    /// Reads part of a stream, forwards or backwards. A stream without events gives an empty answer.
    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, ReadError>>;

    /// Reads up to `limit` events of a shard after a seq, in order.
    fn read_shard(
        &self,
        shard: ShardId,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, ReadError>>;

    /// Returns the last seq of each shard, in the order of the shards, all of one moment.
    ///
    /// A store that cannot tell answers `Unavailable`; no node needs it.
    fn heads(&self) -> BoxFuture<'_, Result<Vec<Seq>, ReadError>> {
        let reason = format!("the store {} does not tell the heads of its shards", self.info().name);
        Box::pin(std::future::ready(Err(ReadError::Unavailable { reason, source: None })))
    }

    /// Takes a step of an import: begin, events (many times), finish. A store that takes none answers `Unsupported`.
    fn import(&self, _step: ImportStep) -> BoxFuture<'_, Result<(), ImportError>> {
        Box::pin(std::future::ready(Err(ImportError::Unsupported { store: self.info().name })))
    }

    /// Lists the streams of a type in the order of their ids (bytewise), after `after_id`, with their versions.
    fn list_streams<'a>(
        &'a self,
        aggregate_type: &'a str,
        after_id: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(StreamId, Version)>, ReadError>>;

    /// Saves snapshots and answers for each, in order.
    fn save_snapshots(
        &self,
        owner: Incarnation,
        snapshots: Vec<SnapshotWrite>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotOutcome>, WriteError>>;

    /// Deletes the snapshot of a stream, if there is one.
    fn delete_snapshot<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<(), WriteError>>;

    /// Returns how far a consumer has come; an unknown consumer has seen nothing.
    fn checkpoint<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Result<Checkpoint, ReadError>>;

    /// Moves a consumer forward in one shard, under the shard's epoch; `false` when fenced. A step back is ignored.
    fn save_checkpoint<'a>(
        &'a self,
        consumer: &'a str,
        owner: Incarnation,
        claim: (ShardId, Epoch),
        seq: Seq,
    ) -> BoxFuture<'a, Result<bool, WriteError>>;

    /// Marks an aggregate as quarantined; a second mark replaces the first.
    fn quarantine(&self, record: QuarantineRecord) -> BoxFuture<'_, Result<(), WriteError>>;

    /// Lifts a quarantine; `false` when there was none.
    fn release<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<bool, WriteError>>;

    /// Lists the quarantined aggregates, the longest-standing first, up to `limit`.
    fn quarantined(&self, limit: usize) -> BoxFuture<'_, Result<Vec<QuarantineRecord>, ReadError>>;

    /// Asks the store for a sign of life that goes through everything an append needs, short of writing events.
    fn ping(&self) -> BoxFuture<'_, Result<(), ReadError>>;

    /// Counts what is stored. It may scan an index; it is for people, not for the path of a command.
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>>;

    /// Finishes what is under way and lets go of files and connections. Later calls answer `Unavailable`.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Why a store without leases does not answer about a cluster.
fn no_cluster(store: &str) -> String {
    format!("the store {store} has no leases, so no cluster shares it")
}
