//! A node that owns every shard, and what it stores.

use std::time::Duration;

use orchestrix::store::Postgres;
use orchestrix_core::store::{Batch, Claim, Commit, CommitOutcome, NewEvent, StreamRange};
use orchestrix_core::{Codec, CommandId, EventStore, Incarnation, ShardId, StreamId, Timestamp, Version};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

/// One run of a node that owns every shard.
#[derive(Clone)]
pub struct Owner {
    pub store: Postgres,
    pub incarnation: Incarnation,
    pub claims: Vec<Claim>,
}

impl Owner {
    pub async fn of(store: &Postgres) -> Self {
        let incarnation = Incarnation::fresh();
        let claims = store.claim(&shards(store), incarnation).await.expect("the shards can be claimed");
        Self { store: store.clone(), incarnation, claims }
    }

    /// The same run with another handle on the database.
    pub fn with(&self, store: &Postgres) -> Self {
        Self { store: store.clone(), ..self.clone() }
    }

    pub fn commit(&self, id: &str, expected: u64) -> Commit {
        let stream = stream(id);
        let shard = self.store.info().shard_count.shard_of_stream(&stream);
        let event = NewEvent {
            event_type: "note.taken".into(),
            schema_version: 1,
            codec: Codec::Json,
            payload: b"{}".to_vec(),
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

    pub async fn append(&self, commits: Vec<Commit>) -> Vec<CommitOutcome> {
        self.store.append(Batch { owner: self.incarnation, commits }).await
    }

    /// Appends one event to a stream at this version.
    pub async fn note(&self, id: &str, expected: u64) -> CommitOutcome {
        self.append(vec![self.commit(id, expected)]).await.remove(0)
    }
}

pub fn shards(store: &Postgres) -> Vec<ShardId> {
    store.info().shard_count.all().collect()
}

pub fn stream(id: &str) -> StreamId {
    StreamId::new("note", id)
}

/// Returns how many events a stream has, as read.
pub async fn length(store: &Postgres, id: &str) -> usize {
    let range = StreamRange::from(Version::new(1), usize::MAX);
    store.read_stream(&stream(id), range).await.expect("the stream can be read").len()
}

/// Runs a statement by hand.
pub async fn run(connection: &mut PgConnection, text: &str) {
    connection.execute(AssertSqlSafe(text)).await.unwrap_or_else(|error| panic!("{text}: {error}"));
}

/// Asks for one number by hand.
pub async fn number(connection: &mut PgConnection, text: &str) -> i64 {
    let asked = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection).await;
    asked.unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Waits until so many sessions of the store wait for a lock in this database.
pub async fn until_waiting(connection: &mut PgConnection, sessions: i64) {
    let text = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                AND datname = current_database() AND application_name LIKE 'orchestrix%'";
    while number(connection, text).await < sessions {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
