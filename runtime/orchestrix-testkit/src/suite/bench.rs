//! What the checks are written with: a store, ways to reopen it, and a writer that owns shards.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orchestrix_core::store::{
    Batch, Claim, Commit, CommitOutcome, EventStore, NewEvent, NodeRecord, RecordedEvent, SnapshotRecord,
    SnapshotWrite, StreamRange,
};
use orchestrix_core::{
    Codec, CommandId, Epoch, Incarnation, Seq, ShardCount, ShardId, StreamId, Timestamp, Version,
};

use super::StoreFactory;

/// The aggregate type of the suite's streams.
pub(super) const TYPE: &str = "suite.thing";

/// The moment of the first event of each stream; each later one is recorded a second later.
const FIRST_MOMENT_US: i64 = 1_767_225_600_000_000;

/// More events than any check stores in one stream or shard, except where it says so.
pub(super) const ALL: usize = 100_000;

/// A lease that is longer than any check takes.
pub(super) const LONG: Duration = Duration::from_hours(1);

/// A store under test and the factory that opens it.
pub struct Bench {
    factory: Box<dyn StoreFactory>,
    store: Arc<dyn EventStore>,
}

impl Bench {
    /// Opens the store for the first time.
    pub async fn open(factory: impl StoreFactory) -> Self {
        let store = factory.open().await;
        assert!(store.info().shard_count.get() >= 2, "the suite needs a store with at least two shards");
        Self { factory: Box::new(factory), store }
    }

    /// Returns the store.
    pub fn store(&self) -> Arc<dyn EventStore> {
        Arc::clone(&self.store)
    }

    /// Closes the store and opens it again on the same data.
    pub async fn reopen(self) -> Self {
        self.store.close().await;
        drop(self.store);
        let store = self.factory.open().await;
        Self { factory: self.factory, store }
    }

    pub(super) fn shards(&self) -> ShardCount {
        self.store.info().shard_count
    }

    /// Claims every shard for a fresh incarnation.
    pub async fn writer(&self) -> Writer {
        let shards: Vec<ShardId> = self.shards().all().collect();
        Writer::claim(self.store(), &shards, Incarnation::fresh()).await
    }

    /// Announces a run under a lease.
    pub(super) async fn join(&self, name: &str, lease: Duration) -> Incarnation {
        let run = Incarnation::fresh();
        self.store.join(node(name, run), lease).await.expect("a run may join");
        run
    }

    /// Returns streams that live in one shard.
    pub(super) fn streams_in(&self, shard: ShardId, count: usize) -> Vec<StreamId> {
        let all = (0_u64..).map(|number| stream(&format!("s-{number}")));
        all.filter(|stream| self.shards().shard_of_stream(stream) == shard).take(count).collect()
    }

    /// Reads a whole stream.
    pub(super) async fn read(&self, stream: &StreamId) -> Vec<RecordedEvent> {
        read(&self.store, stream).await
    }

    /// Reads a whole shard.
    pub(super) async fn read_shard(&self, shard: ShardId) -> Vec<RecordedEvent> {
        self.store.read_shard(shard, Seq::ZERO, ALL).await.expect("a shard can be read")
    }

    /// Returns the versions of a stream's events, as read.
    pub(super) async fn versions(&self, stream: &StreamId) -> Vec<u64> {
        self.read(stream).await.iter().map(|event| event.version.get()).collect()
    }
}

/// A run that says nothing by which it could be proved to be gone.
pub(super) fn node(name: &str, incarnation: Incarnation) -> NodeRecord {
    NodeRecord {
        incarnation,
        name: name.to_owned(),
        host: format!("{name}.example"),
        boot_id: String::new(),
        pid_namespace: String::new(),
        pid: 1,
        pid_started: 0,
        application_version: "1.2.3".to_owned(),
        address: Some(format!("{name}.example:7000")),
    }
}

/// Reads a whole stream.
pub(super) async fn read(store: &Arc<dyn EventStore>, stream: &StreamId) -> Vec<RecordedEvent> {
    let range = StreamRange::from(Version::new(1), ALL);
    store.read_stream(stream, range).await.expect("a stream can be read")
}

/// Names a stream of the suite's type.
pub(super) fn stream(id: &str) -> StreamId {
    StreamId::new(TYPE, id)
}

/// Returns the moment at which the suite records the event with this version.
pub(super) fn moment(version: u64) -> Timestamp {
    Timestamp::from_micros(FIRST_MOMENT_US + (version as i64 - 1) * 1_000_000)
}

/// Makes an event.
pub(super) fn event(payload: impl Into<Vec<u8>>) -> NewEvent {
    NewEvent {
        event_type: "suite.happened".into(),
        schema_version: 1,
        codec: Codec::Json,
        payload: payload.into(),
    }
}

/// Returns what a read must give for a commit that was stored.
pub(super) fn recorded(commit: &Commit, first_seq: Seq) -> Vec<RecordedEvent> {
    let last = commit.events.len() - 1;
    let record = |(at, event): (usize, &NewEvent)| RecordedEvent {
        stream: commit.stream.clone(),
        version: commit.expected.plus(at as u64 + 1),
        shard: commit.shard,
        seq: first_seq.plus(at as u64),
        epoch: commit.epoch,
        event_type: event.event_type.clone(),
        schema_version: event.schema_version,
        codec: event.codec,
        command_id: commit.command_id,
        recorded_at: commit.recorded_at,
        headers: commit.headers.clone(),
        receipt: if at == last { commit.receipt.clone() } else { None },
        payload: event.payload.clone(),
    };
    commit.events.iter().enumerate().map(record).collect()
}

/// Returns the first seq of a commit that must have been stored.
#[track_caller]
pub(super) fn committed(outcome: &CommitOutcome) -> Seq {
    match outcome {
        CommitOutcome::Committed { first_seq } => *first_seq,
        other => panic!("the commit must be stored, the store answered {other:?}"),
    }
}

/// Checks that a commit was refused because of its expected version.
#[track_caller]
pub(super) fn assert_conflict(outcome: &CommitOutcome, version: u64) {
    match outcome {
        CommitOutcome::Conflict { actual: None } => {}
        CommitOutcome::Conflict { actual: Some(actual) } => {
            assert_eq!(
                actual.get(),
                version,
                "a conflict that tells the stream's version tells the true one"
            );
        }
        other => panic!("the commit must be a conflict, the store answered {other:?}"),
    }
}

/// One run of a node: owns shards and appends to them.
#[derive(Clone)]
pub struct Writer {
    /// Where it writes.
    pub store: Arc<dyn EventStore>,
    /// Its identity.
    pub owner: Incarnation,
    epochs: HashMap<ShardId, Epoch>,
    shard_count: ShardCount,
}

impl Writer {
    /// Claims shards.
    pub(super) async fn claim(store: Arc<dyn EventStore>, shards: &[ShardId], owner: Incarnation) -> Self {
        let claims = store.claim(shards, owner).await.expect("shards can be claimed");
        let epochs = claims.iter().map(|claim: &Claim| (claim.shard, claim.epoch)).collect();
        let shard_count = store.info().shard_count;
        Self { store, owner, epochs, shard_count }
    }

    /// Returns a writer that claims nothing and believes to own every shard at an epoch.
    pub(super) fn of_epoch(store: Arc<dyn EventStore>, epoch: Epoch) -> Self {
        let shard_count = store.info().shard_count;
        let epochs = shard_count.all().map(|shard| (shard, epoch)).collect();
        Self { store, owner: Incarnation::fresh(), epochs, shard_count }
    }

    /// Returns the same claims in the hands of another incarnation.
    pub(super) fn under(&self, owner: Incarnation) -> Self {
        Self { owner, ..self.clone() }
    }

    /// Returns the same claims, to be used on another handle.
    pub(super) fn over(self, store: Arc<dyn EventStore>) -> Self {
        Self { store, ..self }
    }

    pub(super) fn epoch(&self, shard: ShardId) -> Epoch {
        *self.epochs.get(&shard).expect("the writer owns the shard")
    }

    pub(super) fn shard_of(&self, stream: &StreamId) -> ShardId {
        self.shard_count.shard_of_stream(stream)
    }

    /// Makes a commit of so many events, each with a payload that names stream and version.
    pub(super) fn commit(&self, stream: &StreamId, expected: u64, events: usize) -> Commit {
        let payload =
            |at: usize| format!("{{\"stream\":{:?},\"version\":{}}}", stream.id, expected + 1 + at as u64);
        let events = (0..events).map(|at| event(payload(at))).collect();
        self.commit_of(stream, expected, events)
    }

    /// Makes a commit of these events.
    pub(super) fn commit_of(&self, stream: &StreamId, expected: u64, events: Vec<NewEvent>) -> Commit {
        let shard = self.shard_of(stream);
        Commit {
            stream: stream.clone(),
            shard,
            epoch: self.epoch(shard),
            expected: Version::new(expected),
            command_id: CommandId::fresh(),
            recorded_at: moment(expected + 1),
            headers: None,
            receipt: None,
            events,
        }
    }

    /// Appends and checks that every commit is answered.
    pub(super) async fn append(&self, commits: Vec<Commit>) -> Vec<CommitOutcome> {
        let asked = commits.len();
        let outcomes = self.store.append(Batch { owner: self.owner, commits }).await;
        assert_eq!(outcomes.len(), asked, "every commit is answered");
        outcomes
    }

    /// Appends one commit and returns its answer.
    pub(super) async fn append_one(&self, commit: Commit) -> CommitOutcome {
        self.append(vec![commit]).await.remove(0)
    }

    /// Appends so many events, one commit each, in one batch; each must be stored.
    pub(super) async fn fill(&self, stream: &StreamId, events: u64) {
        let commits = (0..events).map(|expected| self.commit(stream, expected, 1)).collect();
        for outcome in self.append(commits).await {
            committed(&outcome);
        }
    }

    /// Makes a snapshot of a stream at a version.
    pub(super) fn snapshot(&self, stream: &StreamId, version: u64, bytes: &[u8]) -> SnapshotWrite {
        let shard = self.shard_of(stream);
        let record = SnapshotRecord {
            version: Version::new(version),
            taken_at: moment(version),
            bytes: bytes.to_vec(),
        };
        SnapshotWrite { stream: stream.clone(), shard, epoch: self.epoch(shard), record }
    }
}
