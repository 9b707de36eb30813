//! A store that misbehaves on demand, as networks and databases do.
//!
//! [`Faulty`] wraps any store and passes everything through until its [`FaultControl`] says otherwise. It breaks no
//! obligation of [`EventStore`]: it answers `Unavailable` only for what is not stored and never will be, and `Unknown`
//! for whatever a caller could not know. What a runtime makes of it is the test's question.

mod control;
mod plan;
mod seen;

use std::sync::Arc;
use std::time::Duration;

use orchestrix_core::store::{
    Batch, BoxFuture, Claim, ClaimError, ClusterView, CommitOutcome, EventStore, ImportError, ImportStep,
    Loaded, NodeRecord, PlanOutcome, QuarantineRecord, ReadError, RecordedEvent, Renewed, Report,
    SnapshotOutcome, SnapshotWrite, StoreInfo, StoreStats, StreamRange, Target, WriteError,
};
use orchestrix_core::{Checkpoint, Epoch, Incarnation, Seq, ShardId, StreamId, Version};

pub use control::FaultControl;
pub use plan::{Fault, FaultCounts, Operation};
pub use seen::AppendCounts;

use plan::Call;

/// Wraps a store and breaks calls as its [`FaultControl`] asks.
///
/// ```
/// use orchestrix_core::EventStore;
/// use orchestrix_testkit::{Fault, Faulty, Operation};
///
/// async fn a_lost_acknowledgement(store: std::sync::Arc<dyn EventStore>) {
///     let (store, faults) = Faulty::new(store);
///     faults.on_append(1, Fault::LoseAck);
///     faults.fail(Operation::Load, 2);
///     // ... drive the node on `store` ...
///     assert_eq!(faults.faults_hit().acks_lost, 1, "the fault must have hit something");
/// }
/// ```
#[derive(Debug)]
pub struct Faulty {
    control: FaultControl,
}

impl Faulty {
    /// Wraps a store; the handle steers the faults and may be cloned.
    #[allow(clippy::new_ret_no_self, reason = "a faulty store is of no use without its control")]
    pub fn new(inner: Arc<dyn EventStore>) -> (Arc<Self>, FaultControl) {
        let control = FaultControl::over(inner);
        (Arc::new(Self { control: control.clone() }), control)
    }

    fn inner(&self) -> &dyn EventStore {
        self.control.store()
    }

    /// Carries out a call other than an append, unless it is to fail.
    async fn call<'a, T, E: Injected>(
        &'a self,
        operation: Operation,
        call: impl FnOnce(&'a dyn EventStore) -> BoxFuture<'a, Result<T, E>>,
    ) -> Result<T, E> {
        match self.control.next_call(operation) {
            Call::Through => call(self.inner()).await,
            Call::FailBefore => Err(E::injected(format!("an injected fault failed a {operation:?}"))),
            Call::Delay(delay) => {
                tokio::time::sleep(delay).await;
                call(self.inner()).await
            }
            Call::Hold => {
                self.control.wait_for_release().await;
                call(self.inner()).await
            }
            Call::FailAfter => {
                call(self.inner()).await?;
                Err(E::injected(format!("an injected fault lost the answer to a {operation:?}")))
            }
        }
    }

    /// Appends, and takes note of what the store says.
    async fn append_truly(&self, batch: Batch) -> Vec<CommitOutcome> {
        let _under_way = self.control.append_begins();
        let outcomes = self.inner().append(batch).await;
        self.control.append_answered(&outcomes);
        outcomes
    }

    async fn append_with(&self, fault: Fault, batch: Batch) -> Vec<CommitOutcome> {
        let commits = batch.commits.len();
        match fault {
            Fault::FailBefore => vec![unavailable(); commits],
            Fault::Conflict => vec![CommitOutcome::Conflict { actual: None }; commits],
            Fault::Drop => vec![unknown(); commits],
            Fault::Panic => panic!("an injected fault made the store panic"),
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                self.append_truly(batch).await
            }
            Fault::Hold => {
                self.control.wait_for_release().await;
                self.append_truly(batch).await
            }
            Fault::LoseAck => {
                self.append_truly(batch).await;
                vec![unknown(); commits]
            }
            Fault::CommitLate { after } => {
                self.control.commit_late(batch, after);
                vec![unknown(); commits]
            }
        }
    }
}

fn unavailable() -> CommitOutcome {
    CommitOutcome::Unavailable { reason: "an injected fault failed the append".into() }
}

fn unknown() -> CommitOutcome {
    CommitOutcome::Unknown { reason: "an injected fault lost the answer to the append".into() }
}

/// An error that a fault can take the form of.
trait Injected {
    fn injected(reason: String) -> Self;
}

impl Injected for ReadError {
    fn injected(reason: String) -> Self {
        Self::unavailable(reason)
    }
}

impl Injected for WriteError {
    fn injected(reason: String) -> Self {
        Self::unavailable(reason)
    }
}

impl Injected for ClaimError {
    fn injected(reason: String) -> Self {
        Self::unavailable(reason)
    }
}

impl Injected for ImportError {
    fn injected(reason: String) -> Self {
        Self::unavailable(reason)
    }
}

impl EventStore for Faulty {
    fn info(&self) -> StoreInfo {
        self.inner().info()
    }

    fn claim<'a>(
        &'a self,
        shards: &'a [ShardId],
        owner: Incarnation,
    ) -> BoxFuture<'a, Result<Vec<Claim>, ClaimError>> {
        Box::pin(self.call(Operation::Claim, move |store| store.claim(shards, owner)))
    }

    fn join(&self, node: NodeRecord, lease: Duration) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(self.call(Operation::Lease, move |store| store.join(node, lease)))
    }

    fn renew(
        &self,
        owner: Incarnation,
        lease: Duration,
        report: Report,
    ) -> BoxFuture<'_, Result<Renewed, WriteError>> {
        Box::pin(self.call(Operation::Lease, move |store| store.renew(owner, lease, report)))
    }

    fn leave(&self, owner: Incarnation) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(self.call(Operation::Lease, move |store| store.leave(owner)))
    }

    fn view(&self) -> BoxFuture<'_, Result<ClusterView, ReadError>> {
        Box::pin(self.call(Operation::View, EventStore::view))
    }

    fn set_targets(
        &self,
        planner: Incarnation,
        view: u64,
        targets: Vec<Target>,
    ) -> BoxFuture<'_, Result<PlanOutcome, WriteError>> {
        Box::pin(self.call(Operation::Plan, move |store| store.set_targets(planner, view, targets)))
    }

    fn release_shards<'a>(
        &'a self,
        owner: Incarnation,
        shards: &'a [(ShardId, Epoch)],
    ) -> BoxFuture<'a, Result<Vec<bool>, WriteError>> {
        Box::pin(self.call(Operation::Release, move |store| store.release_shards(owner, shards)))
    }

    fn drain(&self, run: Incarnation) -> BoxFuture<'_, Result<bool, WriteError>> {
        Box::pin(self.call(Operation::Plan, move |store| store.drain(run)))
    }

    fn append(&self, batch: Batch) -> BoxFuture<'_, Vec<CommitOutcome>> {
        Box::pin(async move {
            match self.control.next_append(batch.commits.len()) {
                None => self.append_truly(batch).await,
                Some(fault) => self.append_with(fault, batch).await,
            }
        })
    }

    fn confirm<'a>(
        &'a self,
        owner: Incarnation,
        shards: &'a [(ShardId, Epoch)],
    ) -> BoxFuture<'a, Result<Vec<bool>, ReadError>> {
        Box::pin(self.call(Operation::Confirm, move |store| store.confirm(owner, shards)))
    }

    fn load<'a>(
        &'a self,
        stream: &'a StreamId,
        events_max: usize,
    ) -> BoxFuture<'a, Result<Loaded, ReadError>> {
        Box::pin(self.call(Operation::Load, move |store| store.load(stream, events_max)))
    }

    fn load_many<'a>(
        &'a self,
        streams: &'a [StreamId],
        events_max: usize,
    ) -> BoxFuture<'a, Result<Vec<Loaded>, ReadError>> {
        Box::pin(self.call(Operation::Load, move |store| store.load_many(streams, events_max)))
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, ReadError>> {
        Box::pin(self.call(Operation::Read, move |store| store.read_stream(stream, range)))
    }

    fn read_shard(
        &self,
        shard: ShardId,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, ReadError>> {
        Box::pin(self.call(Operation::Read, move |store| store.read_shard(shard, after, limit)))
    }

    fn heads(&self) -> BoxFuture<'_, Result<Vec<Seq>, ReadError>> {
        Box::pin(self.call(Operation::Read, EventStore::heads))
    }

    fn import(&self, step: ImportStep) -> BoxFuture<'_, Result<(), ImportError>> {
        Box::pin(self.call(Operation::Import, move |store| store.import(step)))
    }

    fn list_streams<'a>(
        &'a self,
        aggregate_type: &'a str,
        after_id: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(StreamId, Version)>, ReadError>> {
        let list = move |store: &'a dyn EventStore| store.list_streams(aggregate_type, after_id, limit);
        Box::pin(self.call(Operation::Read, list))
    }

    fn save_snapshots(
        &self,
        owner: Incarnation,
        snapshots: Vec<SnapshotWrite>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotOutcome>, WriteError>> {
        Box::pin(self.call(Operation::Snapshot, move |store| store.save_snapshots(owner, snapshots)))
    }

    fn delete_snapshot<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(self.call(Operation::Snapshot, move |store| store.delete_snapshot(stream)))
    }

    fn checkpoint<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Result<Checkpoint, ReadError>> {
        Box::pin(self.call(Operation::Checkpoint, move |store| store.checkpoint(consumer)))
    }

    fn save_checkpoint<'a>(
        &'a self,
        consumer: &'a str,
        owner: Incarnation,
        claim: (ShardId, Epoch),
        seq: Seq,
    ) -> BoxFuture<'a, Result<bool, WriteError>> {
        let save = move |store: &'a dyn EventStore| store.save_checkpoint(consumer, owner, claim, seq);
        Box::pin(self.call(Operation::Checkpoint, save))
    }

    fn quarantine(&self, record: QuarantineRecord) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(self.call(Operation::Quarantine, move |store| store.quarantine(record)))
    }

    fn release<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<bool, WriteError>> {
        Box::pin(self.call(Operation::Quarantine, move |store| store.release(stream)))
    }

    fn quarantined(&self, limit: usize) -> BoxFuture<'_, Result<Vec<QuarantineRecord>, ReadError>> {
        Box::pin(self.call(Operation::Quarantine, move |store| store.quarantined(limit)))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(self.call(Operation::Ping, EventStore::ping))
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        Box::pin(self.call(Operation::Read, EventStore::stats))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner().close()
    }
}
