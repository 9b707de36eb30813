//! The settings of a connection that durability and speed rest on, and the checks that they hold.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

use super::error::OpenError;

/// The first version of SQLite without the fault in the reset of the write-ahead log.
const LIBRARY_MIN: [u32; 3] = [3, 51, 3];

/// Smaller and larger pages were no faster.
const PAGE_BYTES: u32 = 4_096;

/// How far the write-ahead log grows before it is folded into the database. Pages that are written again and again
/// are folded once: 16 MiB appended at two thirds of the rate of 64 MiB, and 256 MiB no faster. At twice that length
/// SQLite itself folds it in a commit.
const WAL_BYTES: u32 = 64 << 20;

/// The same in pages.
pub(super) const WAL_PAGES: u32 = WAL_BYTES / PAGE_BYTES;

/// What the writer keeps of the database in memory. More is slower: after a batch that split a page, SQLite walks the
/// whole cache (256 MiB took 25-35 µs for each event of a batch of 256, 16 MiB 17-21 µs). What does not fit comes from
/// the system's cache of the file.
const WRITER_CACHE_BYTES: u32 = 32 << 20;

/// What each reader keeps in memory. It is dropped with each commit of the writer, so little is enough.
const READER_CACHE_BYTES: u32 = 4 << 20;

/// How much of the file a reader sees through the system's cache, without a call and a copy for each page: the most
/// that SQLite maps. It makes loads two to three times as fast while the writer writes.
const READER_MAP_BYTES: u32 = 0x7fff_0000;

fn connection(path: &Path, busy_timeout: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(busy_timeout)
        .foreign_keys(false)
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging()
}

/// The writer's settings. `fullfsync` matters on macOS alone, where a plain sync stops in the drive's cache.
pub(super) fn writer(path: &Path, busy_timeout: Duration) -> SqliteConnectOptions {
    connection(path, busy_timeout)
        .create_if_missing(true)
        .page_size(PAGE_BYTES)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("fullfsync", "ON")
        .pragma("checkpoint_fullfsync", "ON")
        .pragma("cache_size", kibibytes(WRITER_CACHE_BYTES))
        .pragma("wal_autocheckpoint", (2 * WAL_PAGES).to_string())
        .pragma("journal_size_limit", (2 * WAL_BYTES).to_string())
}

/// A reader's settings.
pub(super) fn reader(path: &Path, busy_timeout: Duration) -> SqliteConnectOptions {
    connection(path, busy_timeout)
        .read_only(true)
        .pragma("query_only", "ON")
        .pragma("cache_size", kibibytes(READER_CACHE_BYTES))
        .pragma("mmap_size", READER_MAP_BYTES.to_string())
}

/// A database that ends with its connection.
pub(super) async fn in_memory(path: &Path) -> Result<SqliteConnection, OpenError> {
    let opened = SqliteConnectOptions::new().in_memory(true).connect().await;
    opened.map_err(|error| OpenError::from_driver(path, error))
}

/// Opens a connection and checks the library behind it.
pub(super) async fn open(path: &Path, options: &SqliteConnectOptions) -> Result<SqliteConnection, OpenError> {
    let driver = |error| OpenError::from_driver(path, error);
    let mut connection = options.connect().await.map_err(driver)?;
    let version = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await;
    let found: String = version.map_err(driver)?;
    if is_new_enough(&found) {
        return Ok(connection);
    }
    Err(OpenError::LibraryTooOld { found, needed: LIBRARY_MIN.map(|part| part.to_string()).join(".") })
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let parts: [u32; 3] = std::array::from_fn(|_| parts.next().unwrap_or(0));
    parts >= LIBRARY_MIN
}

/// Reads the settings back that durability rests on.
pub(super) async fn check_durable(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let driver = |error| OpenError::from_driver(path, error);
    let journal = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await;
    let journal: String = journal.map_err(driver)?;
    let synchronous = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await;
    let synchronous: i64 = synchronous.map_err(driver)?;
    let weak =
        |setting, found, needed| OpenError::NotDurable { path: path.to_owned(), setting, found, needed };
    if !journal.eq_ignore_ascii_case("wal") {
        return Err(weak("journal_mode", journal, "wal"));
    }
    // 2 is FULL, 3 is EXTRA, which is no weaker.
    if synchronous < 2 {
        return Err(weak("synchronous", synchronous.to_string(), "2 (FULL)"));
    }
    Ok(())
}

/// Bounds the database file.
pub(super) async fn bound_bytes(
    path: &Path,
    connection: &mut SqliteConnection,
    bytes_max: u64,
) -> Result<(), OpenError> {
    let pages = (bytes_max / u64::from(PAGE_BYTES)).clamp(1, u64::from(u32::MAX - 1));
    let bounded = connection.execute(AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).await;
    bounded.map(|_| ()).map_err(|error| OpenError::from_driver(path, error))
}

/// SQLite takes a cache size in pages, or in KiB as a negative number.
fn kibibytes(bytes: u32) -> String {
    format!("-{}", bytes / 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_setting_that_weakens_durability_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("bank.db");
        let mut connection = open(&path, &writer(&path, Duration::ZERO)).await.expect("it opens");
        check_durable(&path, &mut connection).await.expect("as it was opened");
        connection.execute("PRAGMA synchronous = NORMAL").await.expect("sets");
        let error = check_durable(&path, &mut connection).await.expect_err("a power cut may lose commits");
        assert!(matches!(&error, OpenError::NotDurable { setting: "synchronous", .. }), "{error}");
        // A database in memory has no write-ahead log.
        let mut connection = in_memory(&path).await.expect("it opens");
        let error = check_durable(&path, &mut connection).await.expect_err("it has no log");
        assert!(matches!(&error, OpenError::NotDurable { setting: "journal_mode", .. }), "{error}");
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
