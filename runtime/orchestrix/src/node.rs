//! The composition root: builds a node, hands out addresses, shuts it down.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use orchestrix_core::store::{BoxFuture, QuarantineRecord, ReadError, Source, WriteError};
use orchestrix_core::{
    Aggregate, Clock, Command, CommandId, Epoch, EventStore, Handle, Metadata, ShardId, StreamId, Timestamp,
    Version,
};

use crate::error::{HistoryError, NotAttempted, SaveError, SendError, StartError};
use crate::settings::Settings;

/// Something that opens as an event store when the node starts.
pub trait IntoStore {
    /// Opens the store.
    fn open(self) -> BoxFuture<'static, Result<Arc<dyn EventStore>, Source>>;
}

impl IntoStore for Arc<dyn EventStore> {
    fn open(self) -> BoxFuture<'static, Result<Arc<dyn EventStore>, Source>> {
        Box::pin(async move { Ok(self) })
    }
}

/// Where everything starts: [`Orchestrix::builder`].
#[derive(Debug)]
pub struct Orchestrix;

impl Orchestrix {
    /// Begins to describe a node.
    pub fn builder() -> Builder {
        todo!()
    }
}

/// Describes a node before it starts.
pub struct Builder {}

impl Builder {
    /// Sets where events are kept: `Memory::new()`, `Sqlite::open(path)`, or any `Arc<dyn EventStore>`.
    pub fn store(self, _store: impl IntoStore + Send + 'static) -> Self {
        todo!()
    }
    /// Registers a kind of aggregate.
    pub fn aggregate<A: Aggregate>(self) -> Self {
        todo!()
    }
    /// Replaces the default settings.
    pub fn settings(self, _settings: Settings) -> Self {
        todo!()
    }
    /// Replaces the system's clock, for tests.
    pub fn clock(self, _clock: impl Clock) -> Self {
        todo!()
    }
    /// Adds observability hooks; may be called several times.
    pub fn hooks(self, _hooks: impl crate::telemetry::Hooks) -> Self {
        todo!()
    }
    /// Opens the store, claims its shards and starts the arbiters.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(self) -> Result<Node, StartError> {
        todo!()
    }
}

/// A running node. Cheap to clone.
#[derive(Clone)]
pub struct Node {}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeStatus {
    /// It takes commands.
    Running,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It lost its shards to another owner and answers nothing.
    Fenced,
    /// It has stopped.
    Stopped,
}

/// What is resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Aggregates in memory.
    pub aggregates: u64,
    /// Their weight in bytes, by the same measure as `residency_bytes_max`.
    pub bytes: u64,
    /// Commands and reads accepted and not yet answered.
    pub in_flight: u64,
}

/// How sure a read must be that no other node has taken over. On a node with a store of its own all are strong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Under the node's lease: no extra round trip.
    #[default]
    Leased,
    /// Asks the store after the read whether the shard is still owned.
    Confirmed,
    /// Whatever this node has.
    Local,
}

impl Node {
    /// Addresses one aggregate.
    pub fn of<A: Aggregate>(&self, _id: A::Id) -> AggregateRef<A> {
        todo!()
    }
    /// Reads many aggregates at once, in the order of the ids.
    pub async fn load_many<A: Aggregate, R: Send + 'static>(
        &self,
        _ids: impl IntoIterator<Item = A::Id>,
        _view: impl Fn(&A) -> R + Clone + Send + 'static,
    ) -> Vec<Result<R, NotAttempted>> {
        todo!()
    }
    /// Returns the state of the node.
    pub fn status(&self) -> NodeStatus {
        todo!()
    }
    /// Returns what is resident now.
    pub fn residency(&self) -> Residency {
        todo!()
    }
    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn EventStore> {
        todo!()
    }
    /// Returns the node's clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        todo!()
    }
    /// Lists quarantined aggregates.
    pub async fn quarantined(&self, _limit: usize) -> Result<Vec<QuarantineRecord>, ReadError> {
        todo!()
    }
    /// Releases an aggregate from quarantine; `false` when it was not quarantined.
    pub async fn release(&self, _stream: &StreamId) -> Result<bool, WriteError> {
        todo!()
    }
    /// Stops taking work, finishes what is under way, passivates everything, closes the store.
    pub async fn shutdown(&self) {
        todo!()
    }
}

/// The address of one aggregate. Cheap to clone.
pub struct AggregateRef<A: Aggregate> {
    _aggregate: PhantomData<A>,
}

/// What a command did, besides its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<R> {
    /// The reply.
    pub reply: R,
    /// The version of the aggregate after the command.
    pub version: Version,
    /// The shard of the aggregate.
    pub shard: ShardId,
    /// The epoch under which it was decided.
    pub epoch: Epoch,
    /// The command's id.
    pub command_id: CommandId,
    /// Whether this is the repeated answer to an earlier command with the same id.
    pub duplicate: bool,
}

/// One event of an aggregate's past.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEvent<E> {
    /// As it is stored, with version, time, command and shard.
    pub recorded: orchestrix_core::store::RecordedEvent,
    /// What it means today: one event, several or none.
    pub events: Vec<E>,
}

/// A state of the past.
#[derive(Clone, Debug)]
pub struct PastState<A> {
    /// The state.
    pub state: A,
    /// Its version; `ZERO` when the aggregate had no events yet.
    pub version: Version,
}

impl<A: Aggregate> AggregateRef<A> {
    /// Prepares a command; `.await` sends it.
    pub fn send<C: Command>(&self, _command: C) -> Sending<A, C>
    where
        A: Handle<C>,
    {
        todo!()
    }
    /// Reads the state: everything that was answered before is in it, nothing that may vanish is.
    pub async fn read<R: Send + 'static>(
        &self,
        _consistency: Consistency,
        _view: impl FnOnce(&A) -> R + Send + 'static,
    ) -> Result<R, NotAttempted> {
        todo!()
    }
    /// Like `read`, with the version of the state that was seen.
    pub async fn read_versioned<R: Send + 'static>(
        &self,
        _consistency: Consistency,
        _view: impl FnOnce(&A) -> R + Send + 'static,
    ) -> Result<(R, Version), NotAttempted> {
        todo!()
    }
    /// Stores events directly, if the aggregate is at the version expected; through its owner, like a command.
    pub async fn save(
        &self,
        _expected: Version,
        _events: Vec<A::Event>,
        _command_id: Option<CommandId>,
    ) -> Result<Done<()>, SaveError> {
        todo!()
    }
    /// Returns stored events from a version on, up to `limit`.
    pub async fn history(
        &self,
        _from: Version,
        _limit: usize,
    ) -> Result<Vec<HistoryEvent<A::Event>>, HistoryError> {
        todo!()
    }
    /// Rebuilds the state as it was at a version.
    pub async fn load_at_version(&self, _version: Version) -> Result<PastState<A>, HistoryError> {
        todo!()
    }
    /// Rebuilds the state as it was at a time.
    pub async fn load_at_time(&self, _time: Timestamp) -> Result<PastState<A>, HistoryError> {
        todo!()
    }
}

/// A command on its way: set what it needs, then `.await` it.
pub struct Sending<A: Aggregate, C: Command> {
    _types: PhantomData<(A, C)>,
}

impl<A: Handle<C>, C: Command> Sending<A, C> {
    /// Sets the command's id; without one a fresh one is made.
    pub fn id(self, _id: CommandId) -> Self {
        todo!()
    }
    /// Sets how long the answer may take.
    pub fn within(self, _limit: Duration) -> Self {
        todo!()
    }
    /// Sets what travels with the command.
    pub fn metadata(self, _metadata: Metadata) -> Self {
        todo!()
    }
    /// Sends it and returns the reply with version, epoch and id.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn receipt(self) -> Result<Done<C::Reply>, SendError<C::Refusal>> {
        todo!()
    }
}

impl<A: Handle<C>, C: Command> IntoFuture for Sending<A, C> {
    type Output = Result<C::Reply, SendError<C::Refusal>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.receipt().await.map(|done| done.reply) })
    }
}
