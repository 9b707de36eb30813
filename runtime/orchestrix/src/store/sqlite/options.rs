//! How a database is opened: the settings that people choose, and the steps of a start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrix_core::{Clock, ShardCount, SystemClock};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::Sqlite;
use super::connect;
use super::error::OpenError;
use super::lock::LockFile;
use super::migrations::{self, MigrationStatus};
use super::readers::Readers;
use super::tail::{GENERATION_EVENTS, Tail};
use super::writer::Writer;

/// What a new database gets: enough for every core of one machine, few enough that a batch touches few ends of the
/// log (see `docs/decisions/0009-sqlite-layout.md`).
const SHARDS: ShardCount = ShardCount::new(16).expect("sixteen is in range");

/// How long a connection waits for a lock of another process, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The most connections that read: each is a thread with a cache.
const READERS_MAX: usize = 256;

/// Where a database lies and how to open it. Made by [`Sqlite::open`].
///
/// ```no_run
/// use orchestrix::store::Sqlite;
/// # async fn open() -> Result<(), orchestrix::store::OpenError> {
/// let store = Sqlite::open("data/bank.db").readers(4).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    pub(super) path: PathBuf,
    shards: Option<ShardCount>,
    readers: Option<usize>,
    auto_migrate: bool,
    read_only: bool,
    bytes_max: Option<u64>,
    timeout: Option<Duration>,
    generation_events: usize,
}

impl SqliteOptions {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            shards: None,
            readers: None,
            auto_migrate: true,
            read_only: false,
            bytes_max: None,
            timeout: None,
            generation_events: GENERATION_EVENTS,
        }
    }

    /// Sets how many shards a new database gets; 16 unless told otherwise.
    ///
    /// An existing database keeps its number: asking for another one is an error when it is opened.
    pub fn shards(mut self, count: ShardCount) -> Self {
        self.shards = Some(count);
        self
    }

    /// Sets how many connections read beside the writer, 1 to 256; as many as there are cores unless told otherwise.
    pub fn readers(mut self, count: usize) -> Self {
        self.readers = Some(count);
        self
    }

    /// Sets whether pending migrations are applied when the database is opened; on unless told otherwise. When off,
    /// a database that needs one is refused with [`OpenError::Pending`].
    pub fn auto_migrate(mut self, on: bool) -> Self {
        self.auto_migrate = on;
        self
    }

    /// Opens the database beside a running process: takes no lock, claims nothing, and answers every write with
    /// `Unavailable`.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Sets how long a read waits for a free reader, 30 s unless told otherwise, and how long a connection waits for
    /// the lock of another process such as a backup, 5 s unless told otherwise.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Sets how many events gather before they go into the index of streams together, at least 1; 16,384 unless told
    /// otherwise. About twice as many are kept in memory, at some 40 bytes each, and read again at a start after a
    /// crash, which takes about a microsecond each. More make appends cheaper when there are many streams.
    pub fn index_after(mut self, events: usize) -> Self {
        self.generation_events = events;
        self
    }

    /// Bounds the size of the database file in bytes; appends beyond it are `Unavailable`. Without a bound the disk
    /// is the bound. The write-ahead log beside the file takes up to 128 MiB more, in long transactions for longer.
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = Some(bytes);
        self
    }

    /// Opens the database; creates it, and its directory, when there is none.
    ///
    /// # Errors
    /// [`OpenError`] by cause; nothing of the log was changed.
    ///
    /// # Cancel safety
    /// May be dropped at any point; migrations that were applied stay applied.
    pub async fn connect(self) -> Result<Sqlite, OpenError> {
        self.connect_with(&SystemClock).await
    }

    /// As [`connect`](Self::connect), with the clock that dates a new database and its lock.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// As for [`connect`](Self::connect).
    pub async fn connect_with(self, clock: &dyn Clock) -> Result<Sqlite, OpenError> {
        if self.read_only {
            let mut connection = self.open_existing().await?;
            self.refuse_pending(&mut connection).await?;
            let shard_count = self.shard_count(&mut connection).await?;
            let readers = self.open_readers(self.tail(shard_count), true).await?;
            return Ok(Sqlite::assemble(self.path, shard_count, readers, None));
        }
        let (mut connection, lock) = self.open_writer(clock).await?;
        if self.auto_migrate {
            migrations::apply(&self.path, &mut connection).await?;
        } else {
            self.refuse_pending(&mut connection).await?;
        }
        self.create_log(&mut connection, clock).await?;
        let shard_count = self.shard_count(&mut connection).await?;
        let tail = self.tail(shard_count);
        let readers = self.open_readers(Arc::clone(&tail), false).await?;
        let options = connect::writer(&self.path, self.busy_timeout());
        let writer = Writer::start(connection, options, lock, tail).await;
        let writer = writer.map_err(|error| self.driver(error))?;
        Ok(Sqlite::assemble(self.path, shard_count, readers, Some(writer)))
    }

    /// Lists every migration that this program knows, and whether the database has it. A database that does not
    /// exist has none. Works beside a running process.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be read, or was migrated by a newer program or with other texts.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, OpenError> {
        let mut connection = if self.path.exists() {
            self.open_existing().await?
        } else {
            connect::in_memory(&self.path).await?
        };
        migrations::status(&self.path, &mut connection).await
    }

    /// Applies pending migrations and returns those that were pending.
    ///
    /// # Errors
    /// [`OpenError::Held`] while a process runs on the database; else as for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// May be dropped at any point; each migration is applied or not.
    pub async fn migrate(&self) -> Result<Vec<MigrationStatus>, OpenError> {
        let (mut connection, _lock) = self.open_writer(&SystemClock).await?;
        let pending = self.pending(&mut connection).await?;
        migrations::apply(&self.path, &mut connection).await?;
        self.create_log(&mut connection, &SystemClock).await?;
        connection.close().await.map_err(|error| self.driver(error))?;
        Ok(pending)
    }

    /// Applies pending migrations in one transaction, rolls it back, and returns those that are pending: tells
    /// whether they would work on this very data.
    ///
    /// # Errors
    /// As for [`migrate`](Self::migrate).
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn migrate_dry_run(&self) -> Result<Vec<MigrationStatus>, OpenError> {
        if !self.path.exists() {
            let mut connection = connect::in_memory(&self.path).await?;
            migrations::rehearse(&self.path, &mut connection).await?;
            return self.pending(&mut connection).await;
        }
        let (mut connection, _lock) = self.open_writer(&SystemClock).await?;
        migrations::rehearse(&self.path, &mut connection).await?;
        self.pending(&mut connection).await
    }

    fn driver(&self, error: sqlx::Error) -> OpenError {
        OpenError::from_driver(&self.path, error)
    }

    async fn pending(&self, connection: &mut SqliteConnection) -> Result<Vec<MigrationStatus>, OpenError> {
        let status = migrations::status(&self.path, connection).await?;
        Ok(status.into_iter().filter(|step| !step.applied).collect())
    }

    async fn refuse_pending(&self, connection: &mut SqliteConnection) -> Result<(), OpenError> {
        let pending = self.pending(connection).await?;
        match pending.first() {
            None => Ok(()),
            Some(first) => Err(OpenError::Pending {
                path: self.path.clone(),
                pending: pending.len(),
                first: first.description.clone(),
            }),
        }
    }

    fn busy_timeout(&self) -> Duration {
        self.timeout.unwrap_or(BUSY_TIMEOUT)
    }

    /// Takes the lock and opens the writing connection, with every setting checked.
    async fn open_writer(&self, clock: &dyn Clock) -> Result<(SqliteConnection, LockFile), OpenError> {
        create_directory(&self.path)?;
        let lock = LockFile::take(&self.path, clock)?;
        let mut connection =
            connect::open(&self.path, &connect::writer(&self.path, self.busy_timeout())).await?;
        connect::check_durable(&self.path, &mut connection).await?;
        if let Some(bytes_max) = self.bytes_max {
            connect::bound_bytes(&self.path, &mut connection, bytes_max).await?;
        }
        Ok((connection, lock))
    }

    async fn open_existing(&self) -> Result<SqliteConnection, OpenError> {
        if !self.path.exists() {
            return Err(OpenError::Missing { path: self.path.clone() });
        }
        connect::open(&self.path, &connect::reader(&self.path, self.busy_timeout())).await
    }

    /// Opens a migrated database the way the writer does.
    #[cfg(test)]
    pub(super) async fn open_for_tests(&self) -> SqliteConnection {
        let (mut connection, _lock) = self.open_writer(&SystemClock).await.expect("it opens");
        migrations::apply(&self.path, &mut connection).await.expect("it migrates");
        connection
    }

    fn tail(&self, shards: ShardCount) -> Arc<Mutex<Tail>> {
        Arc::new(Mutex::new(Tail::new(shards.get() as usize, self.generation_events)))
    }

    async fn open_readers(&self, tail: Arc<Mutex<Tail>>, follows: bool) -> Result<Readers, OpenError> {
        let cores = || std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let count = self.readers.unwrap_or_else(cores).clamp(1, READERS_MAX);
        let options = connect::reader(&self.path, self.busy_timeout());
        Readers::open(options, count as u32, tail, follows).await.map_err(|error| self.driver(error))
    }

    /// Writes the one row of the log and the rows of its shards, when the database is new.
    async fn create_log(
        &self,
        connection: &mut SqliteConnection,
        clock: &dyn Clock,
    ) -> Result<(), OpenError> {
        let count = self.shards.unwrap_or(SHARDS).get();
        let text = format!(
            "BEGIN IMMEDIATE; \
             INSERT OR IGNORE INTO log (one, shard_count, created_at) VALUES (1, {count}, {}); \
             WITH RECURSIVE numbers(shard) AS \
             (SELECT 0 UNION ALL SELECT shard + 1 FROM numbers WHERE shard + 1 < (SELECT shard_count FROM log)) \
             INSERT INTO shards (shard) SELECT shard FROM numbers WHERE NOT EXISTS (SELECT 1 FROM shards); \
             COMMIT",
            clock.now().as_micros()
        );
        connection.execute(AssertSqlSafe(text)).await.map_err(|error| self.driver(error))?;
        Ok(())
    }

    /// Reads the number of shards and compares it with what was asked for.
    async fn shard_count(&self, connection: &mut SqliteConnection) -> Result<ShardCount, OpenError> {
        let text = "SELECT shard_count, (SELECT count(*) FROM shards) FROM log";
        let found: Option<(i64, i64)> =
            sqlx::query_as(text).fetch_optional(connection).await.map_err(|error| self.driver(error))?;
        let corrupt = |reason: String| OpenError::Corrupt { path: self.path.clone(), reason };
        let (count, rows) = found.ok_or_else(|| corrupt("the table `log` is empty".to_owned()))?;
        let stored = u32::try_from(count).ok().and_then(ShardCount::new).filter(|_| count == rows);
        let stored = stored.ok_or_else(|| corrupt(format!("it says {count} shards and has {rows}")))?;
        match self.shards {
            Some(wanted) if wanted != stored => Err(OpenError::shard_count(&self.path, stored, wanted)),
            _ => Ok(stored),
        }
    }
}

fn create_directory(path: &Path) -> Result<(), OpenError> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => std::fs::create_dir_all(directory)
            .map_err(|source| OpenError::Directory { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}
