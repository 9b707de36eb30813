//! The store for services on one or many machines: PostgreSQL 14 or later.
//!
//! It keeps every obligation of [`EventStore`], with commits that are durable on the server whatever a role or a
//! database has as its default. Read in this order:
//!
//! 1. `migrations/postgres/`: the tables, the fence and the functions, and why they are as they are;
//! 2. `ledger` ◇, `book`: what the store knows about its shards and streams, and what it decides from that;
//! 3. `append`, `lanes`: how a batch is carried out in one round trip, and what is answered when that fails;
//! 4. `keep`, `life`, `read`: claims and leases, the other writes, the reads;
//! 5. `session`, `pool`, `error`: sessions, and what an error says about what was done;
//! 6. `options`, `open_error`, `migrations`: how a database is opened;
//! 7. `arguments`, `rows`, `statements`, `key`, `moment`: values to the server and back.
//!
//! A caller who goes away cuts nothing off: all work on a session runs in a task that nobody drops.

mod append;
mod archive;
mod arguments;
mod book;
mod error;
mod import;
mod keep;
mod key;
mod lanes;
mod ledger;
mod migrations;
mod moment;
mod open_error;
mod options;
mod pool;
mod read;
mod report;
mod rows;
mod session;
mod statements;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use orchestrix_core::store::{
    Batch, BoxFuture, Claim, ClaimError, CommitOutcome, EventStore, ImportError, ImportStep, Loaded,
    NodeRecord, QuarantineRecord, ReadError, RecordedEvent, Renewed, Report, SnapshotOutcome, SnapshotWrite,
    StoreInfo, StoreStats, StreamRange, WriteError,
};
use orchestrix_core::{Checkpoint, Epoch, Incarnation, Seq, ShardId, StreamId, Version};
use tokio::runtime::Handle;
use uuid::Uuid;

pub use archive::{ArchiveCandidate, ArchiveSlice, Covered, SliceState};
pub use open_error::PostgresOpenError;
pub use options::PostgresOptions;
pub use pool::PoolStatus;
pub(crate) use report::ServerReport;
#[cfg(test)]
pub(crate) use report::{Holder as ReportedHolder, Table as ReportedTable};

use append::{Work, unavailable};
use book::Book;
use error::Failed;
use lanes::Lanes;
use options::Log;
use pool::{Pool, PoolLimits};
use session::{Session, Target};

use crate::telemetry::metrics::PoolMetrics;

/// The most events that one append should carry: beyond it, batches gained nothing (see `docs/internals/postgres.md`).
const BATCH_EVENTS_MAX: usize = 1_024;

/// How often it is said that commits are not durable.
const WARNING_PAUSE: Duration = Duration::from_mins(1);

/// How often the gauges of the pool are set.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Keeps the log in PostgreSQL.
///
/// A clone is a second handle on the same open store.
///
/// ```no_run
/// use orchestrix::store::Postgres;
/// use orchestrix_core::EventStore;
/// # async fn open() -> Result<(), orchestrix::store::PostgresOpenError> {
/// let store = Postgres::open("postgres://bank@localhost/bank")?.connect().await?;
/// assert!(store.info().durable);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Postgres {
    inner: Arc<Inner>,
}

struct Inner {
    target: Arc<Target>,
    pool: Arc<Pool>,
    lanes: Arc<Lanes>,
    book: Arc<Book>,
    /// Changes only when an import is finished over this very handle.
    cluster: RwLock<Uuid>,
    lane_count: usize,
    read_only: bool,
    /// Carries the connections, and the work on them.
    runtime: Handle,
}

impl Postgres {
    /// Names a database by its URL, `postgres://user:password@host:port/database?sslmode=verify-full`; what it leaves
    /// out is taken from the `PG*` variables of the environment. [`PostgresOptions::connect`] opens it.
    ///
    /// # Errors
    /// [`PostgresOpenError::Url`] when the URL is not understood.
    pub fn open(url: &str) -> Result<PostgresOptions, PostgresOpenError> {
        PostgresOptions::new(url)
    }

    /// Returns how the pool of connections stands.
    pub fn pool(&self) -> PoolStatus {
        self.inner.pool.status()
    }

    /// Returns the name of this life of the database: a restore gives it another one.
    pub fn cluster(&self) -> Uuid {
        self.inner.cluster()
    }

    fn assemble(
        target: Arc<Target>,
        limits: PoolLimits,
        lane_count: usize,
        read_only: bool,
        first: Session,
        log: Log,
    ) -> Self {
        let inner = Inner {
            pool: Pool::new(Arc::clone(&target), limits, read_only, first),
            lanes: Lanes::new(Arc::clone(&target), lane_count, limits.recycle),
            book: Book::new(log.shard_count, log.stream_seed),
            target,
            cluster: RwLock::new(log.cluster),
            lane_count,
            read_only,
            runtime: Handle::current(),
        };
        let store = Self { inner: Arc::new(inner) };
        store.inner.runtime.spawn(watch(Arc::downgrade(&store.inner.pool)));
        store
    }

    /// Says that commits may be lost, now and again for as long as the store is open.
    fn warn_about(&self, settings: &[(&'static str, String)]) {
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (settings, inner) = (settings.join(", "), Arc::downgrade(&self.inner));
        self.inner.runtime.spawn(async move {
            while Weak::strong_count(&inner) > 0 {
                tracing::warn!(%settings, "the database is not durable: a power cut loses acknowledged events");
                tokio::time::sleep(WARNING_PAUSE).await;
            }
        });
    }

    /// Carries work to its end in a task of its own, also when the caller goes away.
    async fn carry<T, E, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Failed> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let carried = self.inner.runtime.spawn(work(Arc::clone(&self.inner))).await;
        carried.unwrap_or_else(|cut| Err(Failed::CutOff(cut.to_string()).into()))
    }

    /// As [`carry`](Self::carry), for what changes the database.
    async fn change<T, E, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Failed> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        if self.inner.read_only {
            return Err(Failed::ReadOnly.into());
        }
        self.carry(work).await
    }
}

/// Shows how the pool stands, for as long as it is there.
async fn watch(pool: Weak<Pool>) {
    let metrics = PoolMetrics::new();
    while let Some(pool) = pool.upgrade() {
        let PoolStatus { idle, in_use, waiters, .. } = pool.status();
        drop(pool);
        metrics.set(idle, in_use, waiters);
        tokio::time::sleep(WATCH_PAUSE).await;
    }
    metrics.set(0, 0, 0);
}

impl Inner {
    fn cluster(&self) -> Uuid {
        *self.cluster.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_cluster(&self, cluster: Uuid) {
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = cluster;
    }

    fn check_shards(&self, shards: &[ShardId]) -> Result<(), Failed> {
        let count = self.book.shard_count.get();
        match shards.iter().find(|shard| shard.get() >= count) {
            Some(shard) => Err(Failed::NoSuchShard { shard: *shard, count }),
            None => Ok(()),
        }
    }

    async fn append(&self, batch: Batch) -> Result<Vec<CommitOutcome>, Failed> {
        let commits = batch.commits.len();
        let lane = match self.lanes.take().await {
            Ok(lane) => lane,
            Err(error) => return Ok(vec![unavailable(error.to_string()); commits]),
        };
        let _hold = self.book.hold(&batch.commits).await;
        let durable = !self.target.allow_unsafe_durability;
        Ok(Work::run(Arc::clone(&self.book), durable, lane, batch).await)
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("place", &self.inner.target.place)
            .field("shard_count", &self.inner.book.shard_count)
            .finish_non_exhaustive()
    }
}

impl EventStore for Postgres {
    fn info(&self) -> StoreInfo {
        StoreInfo {
            name: "postgres",
            shard_count: self.inner.book.shard_count,
            durable: !self.inner.target.allow_unsafe_durability,
            lanes: self.inner.lane_count,
            batch_events_max: BATCH_EVENTS_MAX,
            leases: true,
        }
    }

    /// Claims shards. A run that joined and holds a lease keeps what it claimed; one that never joined does not.
    fn claim<'a>(
        &'a self,
        shards: &'a [ShardId],
        owner: Incarnation,
    ) -> BoxFuture<'a, Result<Vec<Claim>, ClaimError>> {
        let wanted = shards.to_vec();
        Box::pin(self.change(move |inner| async move {
            inner.check_shards(&wanted)?;
            inner.claim(&wanted, owner).await
        }))
    }

    fn join(&self, node: NodeRecord, lease: Duration) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(self.change(move |inner| async move { Ok(inner.join(&node, lease).await?) }))
    }

    fn renew(
        &self,
        owner: Incarnation,
        lease: Duration,
        _report: Report,
    ) -> BoxFuture<'_, Result<Renewed, WriteError>> {
        Box::pin(self.change(move |inner| async move {
            Ok(Renewed { holds: inner.renew(owner, lease).await?, view: 0 })
        }))
    }

    fn leave(&self, owner: Incarnation) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(self.change(move |inner| async move { Ok(inner.leave(owner).await?) }))
    }

    fn append(&self, batch: Batch) -> BoxFuture<'_, Vec<CommitOutcome>> {
        Box::pin(async move {
            let commits = batch.commits.len();
            match self.change(move |inner| async move { inner.append(batch).await }).await {
                Ok(outcomes) => outcomes,
                Err(failed @ Failed::CutOff(_)) => {
                    vec![CommitOutcome::Unknown { reason: failed.to_string().into() }; commits]
                }
                Err(failed) => vec![unavailable(failed.to_string()); commits],
            }
        })
    }

    fn confirm<'a>(
        &'a self,
        owner: Incarnation,
        shards: &'a [(ShardId, Epoch)],
    ) -> BoxFuture<'a, Result<Vec<bool>, ReadError>> {
        let shards = shards.to_vec();
        Box::pin(self.carry(move |inner| async move { Ok(inner.confirm(owner, &shards).await?) }))
    }

    fn load<'a>(
        &'a self,
        stream: &'a StreamId,
        events_max: usize,
    ) -> BoxFuture<'a, Result<Loaded, ReadError>> {
        let stream = stream.clone();
        Box::pin(self.carry(move |inner| async move { Ok(inner.load(&stream, events_max).await?) }))
    }

    fn load_many<'a>(
        &'a self,
        streams: &'a [StreamId],
        events_max: usize,
    ) -> BoxFuture<'a, Result<Vec<Loaded>, ReadError>> {
        let streams = streams.to_vec();
        Box::pin(self.carry(move |inner| async move { Ok(inner.load_many(&streams, events_max).await?) }))
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, ReadError>> {
        let stream = stream.clone();
        Box::pin(self.carry(move |inner| async move { Ok(inner.read_stream(&stream, range).await?) }))
    }

    fn read_shard(
        &self,
        shard: ShardId,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, ReadError>> {
        Box::pin(self.carry(move |inner| async move {
            inner.check_shards(&[shard])?;
            Ok(inner.read_shard(shard, after, limit).await?)
        }))
    }

    fn heads(&self) -> BoxFuture<'_, Result<Vec<Seq>, ReadError>> {
        Box::pin(self.carry(|inner| async move { Ok(inner.heads().await?) }))
    }

    fn import(&self, step: ImportStep) -> BoxFuture<'_, Result<(), ImportError>> {
        Box::pin(self.change(move |inner| async move { inner.import(step).await }))
    }

    fn list_streams<'a>(
        &'a self,
        aggregate_type: &'a str,
        after_id: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(StreamId, Version)>, ReadError>> {
        let (name, after) = (aggregate_type.to_owned(), after_id.map(str::to_owned));
        Box::pin(
            self.carry(
                move |inner| async move { Ok(inner.list_streams(&name, after.as_deref(), limit).await?) },
            ),
        )
    }

    fn save_snapshots(
        &self,
        owner: Incarnation,
        snapshots: Vec<SnapshotWrite>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotOutcome>, WriteError>> {
        Box::pin(self.change(move |inner| async move { Ok(inner.save_snapshots(owner, &snapshots).await?) }))
    }

    fn delete_snapshot<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<(), WriteError>> {
        let stream = stream.clone();
        Box::pin(self.change(move |inner| async move { Ok(inner.delete_snapshot(&stream).await?) }))
    }

    fn checkpoint<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Result<Checkpoint, ReadError>> {
        let consumer = consumer.to_owned();
        Box::pin(self.carry(move |inner| async move { Ok(inner.checkpoint(&consumer).await?) }))
    }

    fn save_checkpoint<'a>(
        &'a self,
        consumer: &'a str,
        owner: Incarnation,
        claim: (ShardId, Epoch),
        seq: Seq,
    ) -> BoxFuture<'a, Result<bool, WriteError>> {
        let consumer = consumer.to_owned();
        Box::pin(self.change(move |inner| async move {
            Ok(inner.save_checkpoint(&consumer, owner, claim, seq).await?)
        }))
    }

    fn quarantine(&self, record: QuarantineRecord) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(self.change(move |inner| async move { Ok(inner.quarantine(&record).await?) }))
    }

    fn release<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<bool, WriteError>> {
        let stream = stream.clone();
        Box::pin(self.change(move |inner| async move { Ok(inner.release(&stream).await?) }))
    }

    fn quarantined(&self, limit: usize) -> BoxFuture<'_, Result<Vec<QuarantineRecord>, ReadError>> {
        Box::pin(self.carry(move |inner| async move { Ok(inner.quarantined(limit).await?) }))
    }

    /// Makes a small durable write in a writer lane; read-only it reads instead.
    fn ping(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(self.carry(|inner| async move {
            let answered = if inner.read_only { inner.look().await } else { inner.ping().await };
            Ok(answered?)
        }))
    }

    /// Reads the head of each shard and counts streams and snapshots in their indexes.
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        Box::pin(self.carry(|inner| async move { Ok(inner.stats().await?) }))
    }

    /// Waits for appends under way, and closes the connections.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let closed: Result<(), Failed> = self
                .carry(|inner| async move {
                    inner.lanes.close().await;
                    inner.pool.close().await;
                    Ok(())
                })
                .await;
            if let Err(error) = closed {
                tracing::warn!(%error, "the store was not closed in good order");
            }
        })
    }
}
