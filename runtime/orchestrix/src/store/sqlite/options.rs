//! How a database is opened: the settings that people choose, and those that durability and speed rest on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrix_core::{Clock, ShardCount, SystemClock};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use super::Sqlite;
use super::error::OpenError;
use super::lock::LockFile;
use super::migrations::{self, MigrationStatus};
use super::read::Readers;
use super::writer::Writer;

/// The first version of SQLite without the fault in the reset of the write-ahead log.
const LIBRARY_MIN: [u32; 3] = [3, 51, 3];

/// What a new database gets: enough for every core of one machine, few enough that a batch touches few ends of the
/// log (see `docs/decisions/0009-sqlite-layout.md`).
const SHARDS: ShardCount = ShardCount::new(16).expect("sixteen is in range");

const PAGE_BYTES: u32 = 4_096;

/// How far the write-ahead log grows before it is folded into the database. Pages that are written again and again
/// are folded once: with 64 MiB that is worth a quarter of the throughput of 4 MiB.
const WAL_BYTES: u32 = 64 << 20;

/// What the writer keeps of the database in memory, above all the index of the streams. It comes on top of what the
/// resident aggregates take, so it stays well below their bound.
const WRITER_CACHE_BYTES: u32 = 64 << 20;

/// What each reader keeps in memory.
const READER_CACHE_BYTES: u32 = 16 << 20;

/// How long a connection waits for a lock of another process, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a read waits for a free reader.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

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
        }
    }

    /// Sets how many shards a new database gets; 16 unless told otherwise.
    ///
    /// An existing database keeps its number: asking for another one is an error when it is opened.
    pub fn shards(mut self, count: ShardCount) -> Self {
        self.shards = Some(count);
        self
    }

    /// Sets how many connections read beside the writer, at least 1; as many as there are cores unless told otherwise.
    pub fn readers(mut self, count: usize) -> Self {
        self.readers = Some(count.max(1));
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

    /// Bounds the size of the database file in bytes; appends beyond it are `Unavailable`. Without a bound the disk
    /// is the bound. The write-ahead log beside the file takes up to 64 MiB more, in long transactions for longer.
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
            let readers = self.readers_pool().await?;
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
        let readers = self.readers_pool().await?;
        let writer = Writer::start(connection, self.writer_options(), lock).await;
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
            let in_memory = SqliteConnectOptions::new().in_memory(true).connect().await;
            in_memory.map_err(|error| self.driver(error))?
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
            let in_memory = SqliteConnectOptions::new().in_memory(true).connect().await;
            let mut connection = in_memory.map_err(|error| self.driver(error))?;
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

    /// Takes the lock and opens the writing connection, with every setting checked.
    async fn open_writer(&self, clock: &dyn Clock) -> Result<(SqliteConnection, LockFile), OpenError> {
        create_directory(&self.path)?;
        let lock = LockFile::take(&self.path, clock)?;
        let opened = self.writer_options().connect().await;
        let mut connection = opened.map_err(|error| self.driver(error))?;
        check_library(&mut connection).await.map_err(|error| error.at(&self.path))?;
        self.check_durable(&mut connection).await?;
        self.bound_size(&mut connection).await.map_err(|error| self.driver(error))?;
        Ok((connection, lock))
    }

    async fn open_existing(&self) -> Result<SqliteConnection, OpenError> {
        if !self.path.exists() {
            return Err(OpenError::Missing { path: self.path.clone() });
        }
        let mut connection = self.reader_options().connect().await.map_err(|error| self.driver(error))?;
        check_library(&mut connection).await.map_err(|error| error.at(&self.path))?;
        Ok(connection)
    }

    /// Opens a migrated database the way the writer does.
    #[cfg(test)]
    pub(super) async fn open_for_tests(&self) -> SqliteConnection {
        let (mut connection, _lock) = self.open_writer(&SystemClock).await.expect("it opens");
        migrations::apply(&self.path, &mut connection).await.expect("it migrates");
        connection
    }

    fn base_options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .busy_timeout(self.timeout.unwrap_or(BUSY_TIMEOUT))
            .foreign_keys(false)
            .pragma("temp_store", "MEMORY")
            .disable_statement_logging()
    }

    /// The writer's settings. `fullfsync` matters on macOS alone, where a plain sync stops in the drive's cache.
    fn writer_options(&self) -> SqliteConnectOptions {
        self.base_options()
            .create_if_missing(true)
            .page_size(PAGE_BYTES)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("fullfsync", "ON")
            .pragma("checkpoint_fullfsync", "ON")
            .pragma("cache_size", kibibytes(WRITER_CACHE_BYTES))
            .pragma("wal_autocheckpoint", (WAL_BYTES / PAGE_BYTES).to_string())
            .pragma("journal_size_limit", (2 * WAL_BYTES).to_string())
    }

    fn reader_options(&self) -> SqliteConnectOptions {
        self.base_options()
            .read_only(true)
            .row_buffer_size(256)
            .pragma("query_only", "ON")
            .pragma("cache_size", kibibytes(READER_CACHE_BYTES))
    }

    async fn readers_pool(&self) -> Result<Readers, OpenError> {
        let cores = || std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let count = self.readers.unwrap_or_else(cores) as u32;
        let pool = SqlitePoolOptions::new()
            .max_connections(count)
            .min_connections(count)
            .acquire_timeout(self.timeout.unwrap_or(ACQUIRE_TIMEOUT))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(self.reader_options())
            .await;
        Ok(Readers { pool: pool.map_err(|error| self.driver(error))? })
    }

    /// Reads the settings back that durability rests on.
    async fn check_durable(&self, connection: &mut SqliteConnection) -> Result<(), OpenError> {
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.driver(error))?;
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.driver(error))?;
        let weak = |setting, found, needed| OpenError::NotDurable {
            path: self.path.clone(),
            setting,
            found,
            needed,
        };
        if !journal.eq_ignore_ascii_case("wal") {
            return Err(weak("journal_mode", journal, "wal"));
        }
        // 2 is FULL, 3 is EXTRA, which is no weaker.
        if synchronous < 2 {
            return Err(weak("synchronous", synchronous.to_string(), "2 (FULL)"));
        }
        Ok(())
    }

    async fn bound_size(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if let Some(bytes) = self.bytes_max {
            let pages = (bytes / u64::from(PAGE_BYTES)).clamp(1, u64::from(u32::MAX - 1));
            connection.execute(AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).await?;
        }
        Ok(())
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

/// SQLite takes a cache size in pages, or in KiB as a negative number.
fn kibibytes(bytes: u32) -> String {
    format!("-{}", bytes / 1_024)
}

enum LibraryError {
    TooOld(String),
    Driver(sqlx::Error),
}

impl LibraryError {
    fn at(self, path: &Path) -> OpenError {
        match self {
            Self::TooOld(found) => {
                OpenError::LibraryTooOld { found, needed: LIBRARY_MIN.map(|part| part.to_string()).join(".") }
            }
            Self::Driver(error) => OpenError::from_driver(path, error),
        }
    }
}

async fn check_library(connection: &mut SqliteConnection) -> Result<(), LibraryError> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(connection)
        .await
        .map_err(LibraryError::Driver)?;
    if is_new_enough(&found) { Ok(()) } else { Err(LibraryError::TooOld(found)) }
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let parts: [u32; 3] = std::array::from_fn(|_| parts.next().unwrap_or(0));
    parts >= LIBRARY_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_setting_that_weakens_durability_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = SqliteOptions::new(directory.path().join("bank.db"));
        let mut connection = options.open_for_tests().await;
        options.check_durable(&mut connection).await.expect("as it was opened");
        connection.execute("PRAGMA synchronous = NORMAL").await.expect("sets");
        let error = options.check_durable(&mut connection).await.expect_err("a power cut may lose commits");
        assert!(matches!(&error, OpenError::NotDurable { setting: "synchronous", .. }), "{error}");
    }

    #[test]
    fn versions_compare_by_number() {
        for new in ["3.51.3", "3.51.10", "3.100.0", "4.0"] {
            assert!(is_new_enough(new), "{new}");
        }
        for old in ["3.51.2", "3.9.9", "3.51", "2.99.99", "unknown"] {
            assert!(!is_new_enough(old), "{old}");
        }
    }
}
