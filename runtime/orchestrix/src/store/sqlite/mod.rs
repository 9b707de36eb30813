//! The embedded store: one SQLite file, durable, one process at a time, nothing to install.
//!
//! It keeps every obligation of [`EventStore`], over power cuts too: the write-ahead log is synchronised with each
//! commit (`synchronous=FULL`, read back at every start). Read in this order:
//!
//! 1. `migrations/sqlite/`: the tables, and why they are as they are;
//! 2. `plan`: what a batch would store, decided without the database;
//! 3. `append`, `writer`: how it is carried out, and what is answered when that fails;
//! 4. `tail`, `slices`: what the index of streams gets late, and why nobody notices;
//! 5. `keep`, `read`, `load`, `combine`: the other writes, and the reads beside them;
//! 6. `fold`: how the write-ahead log gets into the database while the writer goes on;
//! 7. `options`, `connect`, `lock`, `migrations`: how a database is opened.
//!
//! Two processes are kept apart twice. A lock file gives the second one a clear error. And each append compares the
//! *generation* of ownership inside its transaction: every claim changes it, so even where the lock did not work, a
//! deposed writer stores nothing.

mod append;
mod combine;
mod connect;
mod error;
mod finish;
mod fold;
mod import;
mod keep;
mod late;
mod load;
mod lock;
mod migrations;
mod options;
mod pack;
mod pages;
mod place;
mod plan;
mod read;
mod readers;
mod rows;
#[cfg(test)]
mod seeks;
mod slices;
mod statements;
mod tail;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrix_core::store::{
    Batch, BoxFuture, Claim, ClaimError, CommitOutcome, EventStore, ImportError, ImportStep, Loaded,
    QuarantineRecord, ReadError, RecordedEvent, SnapshotOutcome, SnapshotWrite, StoreInfo, StoreStats,
    StreamRange, WriteError,
};
use orchestrix_core::{Checkpoint, Epoch, Incarnation, Seq, ShardCount, ShardId, StreamId, Version};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

pub use error::OpenError;
pub use migrations::MigrationStatus;
pub use options::SqliteOptions;

use error::Refused;
use finish::Finishing;
use plan::unavailable;
use readers::Readers;
use writer::Writer;

/// The most events that one append should carry: the largest statement (see [`statements`]).
const BATCH_EVENTS_MAX: usize = statements::ROWS_MAX;

/// Keeps the log in one SQLite file.
///
/// A write that was begun goes to its end, also when its future is dropped. A future that was polled and is then kept
/// without being polled or dropped holds up every other write.
///
/// A clone is a second handle on the same open database. Dropping the last handle without
/// [`close`](EventStore::close) loses nothing; the next start then reads the write-ahead log again.
///
/// ```no_run
/// use orchestrix::store::Sqlite;
/// use orchestrix_core::EventStore;
/// # async fn open() -> Result<(), orchestrix::store::OpenError> {
/// let store = Sqlite::open("data/bank.db").connect().await?;
/// assert!(store.info().durable);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    shard_count: ShardCount,
    readers: Readers,
    /// The one writer; writes queue up for it in the order in which they were first polled.
    writer: Mutex<WriterState>,
    /// Finishes writes whose callers went away.
    runtime: Handle,
}

enum WriterState {
    Open(Box<Writer>),
    ReadOnly,
    Closed,
}

impl Sqlite {
    /// Names a database file; [`SqliteOptions::connect`] opens it.
    pub fn open(path: impl Into<PathBuf>) -> SqliteOptions {
        SqliteOptions::new(path.into())
    }

    /// Returns where the database lies.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    fn assemble(path: PathBuf, shard_count: ShardCount, readers: Readers, writer: Option<Writer>) -> Self {
        let writer = writer.map_or(WriterState::ReadOnly, |writer| WriterState::Open(Box::new(writer)));
        let inner =
            Inner { path, shard_count, readers, writer: Mutex::new(writer), runtime: Handle::current() };
        Self { inner: Arc::new(inner) }
    }

    /// Runs a write when its turn has come. Once begun it ends, also when the caller drops the future.
    fn write<T, F>(&self, work: F) -> Finishing<Result<T, Refused>>
    where
        T: Send + 'static,
        F: for<'w> FnOnce(&'w mut Writer) -> BoxFuture<'w, T> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let whole = async move {
            match &mut *inner.writer.lock().await {
                WriterState::Open(writer) => Ok(work(writer).await),
                WriterState::ReadOnly => Err(Refused::ReadOnly(inner.path.clone())),
                WriterState::Closed => Err(Refused::Closed(inner.path.clone())),
            }
        };
        Finishing::new(whole, self.inner.runtime.clone())
    }

    fn check_shards(&self, shards: impl IntoIterator<Item = ShardId>) -> Result<(), Refused> {
        let count = self.inner.shard_count.get();
        match shards.into_iter().find(|shard| shard.get() >= count) {
            Some(shard) => Err(Refused::NoSuchShard { shard, count }),
            None => Ok(()),
        }
    }

    /// Returns the bytes of the database file and its write-ahead log, where they can be told.
    fn bytes(&self) -> Option<u64> {
        let mut log = self.inner.path.as_os_str().to_owned();
        log.push("-wal");
        let length = |path: &Path| std::fs::metadata(path).map(|file| file.len());
        Some(length(&self.inner.path).ok()? + length(Path::new(&log)).unwrap_or(0))
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("path", &self.inner.path)
            .field("shard_count", &self.inner.shard_count)
            .finish_non_exhaustive()
    }
}

impl EventStore for Sqlite {
    fn info(&self) -> StoreInfo {
        StoreInfo {
            name: "sqlite",
            shard_count: self.inner.shard_count,
            durable: true,
            // One is written while the other gathers; on two cores each then stays with the arbiter that it serves.
            lanes: 2,
            batch_events_max: BATCH_EVENTS_MAX,
            leases: false,
        }
    }

    /// Claims shards. A database has one process, so none is ever [`Held`](ClaimError::Held) by another.
    fn claim<'a>(
        &'a self,
        shards: &'a [ShardId],
        owner: Incarnation,
    ) -> BoxFuture<'a, Result<Vec<Claim>, ClaimError>> {
        Box::pin(async move {
            self.check_shards(shards.iter().copied())?;
            let wanted = shards.to_vec();
            let claimed =
                self.write(move |writer| Box::pin(async move { writer.claim(&wanted, owner).await }));
            Ok(claimed.await?.map_err(Refused::from)?)
        })
    }

    fn append(&self, batch: Batch) -> BoxFuture<'_, Vec<CommitOutcome>> {
        let commits = batch.commits.len();
        let appended = self.write(move |writer| Box::pin(writer.append(batch)));
        Box::pin(async move {
            match appended.await {
                Ok(outcomes) => outcomes,
                Err(refused) => vec![unavailable(refused.to_string()); commits],
            }
        })
    }

    fn confirm<'a>(
        &'a self,
        owner: Incarnation,
        shards: &'a [(ShardId, Epoch)],
    ) -> BoxFuture<'a, Result<Vec<bool>, ReadError>> {
        Box::pin(self.inner.readers.confirm(owner, shards))
    }

    fn load<'a>(
        &'a self,
        stream: &'a StreamId,
        events_max: usize,
    ) -> BoxFuture<'a, Result<Loaded, ReadError>> {
        Box::pin(self.inner.readers.load(stream, events_max))
    }

    fn load_many<'a>(
        &'a self,
        streams: &'a [StreamId],
        events_max: usize,
    ) -> BoxFuture<'a, Result<Vec<Loaded>, ReadError>> {
        Box::pin(self.inner.readers.load_many(streams, events_max))
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, ReadError>> {
        Box::pin(self.inner.readers.read_stream(stream, range))
    }

    fn read_shard(
        &self,
        shard: ShardId,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, ReadError>> {
        Box::pin(async move {
            self.check_shards([shard])?;
            self.inner.readers.read_shard(shard, after, limit).await
        })
    }

    fn heads(&self) -> BoxFuture<'_, Result<Vec<Seq>, ReadError>> {
        Box::pin(self.inner.readers.heads())
    }

    fn import(&self, step: ImportStep) -> BoxFuture<'_, Result<(), ImportError>> {
        let taken = self.write(move |writer| Box::pin(writer.import(step)));
        Box::pin(async move { taken.await? })
    }

    fn list_streams<'a>(
        &'a self,
        aggregate_type: &'a str,
        after_id: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(StreamId, Version)>, ReadError>> {
        Box::pin(self.inner.readers.list_streams(aggregate_type, after_id, limit))
    }

    fn save_snapshots(
        &self,
        owner: Incarnation,
        snapshots: Vec<SnapshotWrite>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotOutcome>, WriteError>> {
        let saved = self.write(move |writer| Box::pin(writer.save_snapshots(owner, snapshots)));
        Box::pin(async move { Ok(saved.await?.map_err(Refused::from)?) })
    }

    fn delete_snapshot<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<(), WriteError>> {
        let stream = stream.clone();
        let deleted =
            self.write(move |writer| Box::pin(async move { writer.delete_snapshot(&stream).await }));
        Box::pin(async move { Ok(deleted.await?.map_err(Refused::from)?) })
    }

    fn checkpoint<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Result<Checkpoint, ReadError>> {
        Box::pin(self.inner.readers.checkpoint(consumer))
    }

    fn save_checkpoint<'a>(
        &'a self,
        consumer: &'a str,
        owner: Incarnation,
        claim: (ShardId, Epoch),
        seq: Seq,
    ) -> BoxFuture<'a, Result<bool, WriteError>> {
        let consumer = consumer.to_owned();
        let saved = self.write(move |writer| {
            Box::pin(async move { writer.save_checkpoint(&consumer, owner, claim, seq).await })
        });
        Box::pin(async move { Ok(saved.await?.map_err(Refused::from)?) })
    }

    fn quarantine(&self, record: QuarantineRecord) -> BoxFuture<'_, Result<(), WriteError>> {
        let marked = self.write(move |writer| Box::pin(async move { writer.quarantine(&record).await }));
        Box::pin(async move { Ok(marked.await?.map_err(Refused::from)?) })
    }

    fn release<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, Result<bool, WriteError>> {
        let stream = stream.clone();
        let released = self.write(move |writer| Box::pin(async move { writer.release(&stream).await }));
        Box::pin(async move { Ok(released.await?.map_err(Refused::from)?) })
    }

    fn quarantined(&self, limit: usize) -> BoxFuture<'_, Result<Vec<QuarantineRecord>, ReadError>> {
        Box::pin(self.inner.readers.quarantined(limit))
    }

    /// Makes a small durable write on the writer's connection; read-only it reads instead.
    fn ping(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        let pinged = self.write(|writer| Box::pin(writer.ping()));
        Box::pin(async move {
            match pinged.await {
                Ok(written) => Ok(written.map_err(Refused::from)?),
                Err(Refused::ReadOnly(_)) => self.inner.readers.checkpoint("").await.map(|_| ()),
                Err(refused) => Err(refused.into()),
            }
        })
    }

    /// Counts events by the ends of their shards, and streams by walking an index, about 5 ms for each million.
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        Box::pin(self.inner.readers.stats(self.bytes()))
    }

    /// Waits for the write under way, folds the write-ahead log into the database and lets go of the lock.
    fn close(&self) -> BoxFuture<'_, ()> {
        let inner = Arc::clone(&self.inner);
        let closing = async move {
            let mut state = inner.writer.lock().await;
            inner.readers.close().await;
            if let WriterState::Open(writer) = std::mem::replace(&mut *state, WriterState::Closed) {
                writer.close().await;
            }
        };
        Box::pin(Finishing::new(closing, self.inner.runtime.clone()))
    }
}
