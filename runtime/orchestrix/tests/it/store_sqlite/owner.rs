//! What the stories are told with: a database of its own, and a node that owns its shards.

use std::path::{Path, PathBuf};

use orchestrix::store::Sqlite;
use orchestrix_core::store::{Batch, Claim, Commit, CommitOutcome, NewEvent, StreamRange};
use orchestrix_core::{Codec, CommandId, EventStore, Incarnation, ShardId, StreamId, Timestamp, Version};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Executor};
use tempfile::TempDir;

/// A directory with room for one database.
pub(super) struct Place(TempDir);

impl Place {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(super) fn directory(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.path().join("bank.db")
    }

    pub(super) async fn open(&self) -> Sqlite {
        Sqlite::open(self.path()).connect().await.expect("the database opens")
    }

    /// Opens the file as any other program could.
    pub(super) async fn by_hand(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path()).create_if_missing(true);
        options.connect().await.expect("SQLite opens the file")
    }

    /// Changes the file behind the store's back.
    pub(super) async fn run(&self, text: &'static str) {
        self.by_hand().await.execute(text).await.expect("the statement runs");
    }
}

/// One run of a node that owns every shard.
pub(super) struct Owner {
    pub(super) store: Sqlite,
    incarnation: Incarnation,
    claims: Vec<Claim>,
}

impl Owner {
    pub(super) async fn of(store: &Sqlite) -> Self {
        let shards: Vec<ShardId> = store.info().shard_count.all().collect();
        let incarnation = Incarnation::fresh();
        let claims = store.claim(&shards, incarnation).await.expect("the shards can be claimed");
        Self { store: store.clone(), incarnation, claims }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.claims[0].epoch.get()
    }

    pub(super) fn commit(&self, id: &str, expected: u64, payload: &[u8]) -> Commit {
        let stream = stream(id);
        let shard = self.store.info().shard_count.shard_of_stream(&stream);
        let event = NewEvent {
            event_type: "note.taken".into(),
            schema_version: 1,
            codec: Codec::Json,
            payload: payload.to_vec(),
        };
        Commit {
            stream,
            shard,
            epoch: self.claims[shard.get() as usize].epoch,
            expected: Version::new(expected),
            command_id: CommandId::fresh(),
            recorded_at: Timestamp::from_micros(1),
            headers: None,
            receipt: None,
            events: vec![event],
        }
    }

    pub(super) async fn append(&self, commits: Vec<Commit>) -> Vec<CommitOutcome> {
        self.store.append(Batch { owner: self.incarnation, commits }).await
    }

    /// Appends one event to a stream at this version.
    pub(super) async fn note(&self, id: &str, expected: u64) -> CommitOutcome {
        self.append(vec![self.commit(id, expected, b"{}")]).await.remove(0)
    }

    /// Appends one event to each of so many new streams.
    pub(super) async fn fill(&self, streams: usize) {
        let commits = (0..streams).map(|at| self.commit(&format!("fill-{at}"), 0, b"{}")).collect();
        assert!(self.append(commits).await.iter().all(CommitOutcome::is_committed));
    }
}

pub(super) fn stream(id: &str) -> StreamId {
    StreamId::new("note", id)
}

/// Returns how many events a stream has, as read.
pub(super) async fn length(store: &Sqlite, id: &str) -> usize {
    let range = StreamRange::from(Version::new(1), usize::MAX);
    store.read_stream(&stream(id), range).await.expect("the stream can be read").len()
}
