//! Why a database could not be opened or migrated, and why a call did not reach it. Nothing of the log was changed
//! in any of these cases.

use std::path::PathBuf;

use orchestrix_core::store::{ClaimError, ReadError, WriteError};
use orchestrix_core::{ShardCount, ShardId};
use sqlx::migrate::MigrateError;

/// A database could not be opened or migrated. Each message names the database and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another store in this one, has the database open. Handling: stop it, or open read-only.
    #[error(
        "{path} is held by {holder}; only one process at a time may write: stop it, or open the database read-only \
         (the lock is {lock} and ends with its holder, so removing the file helps nobody)"
    )]
    Held {
        /// The database.
        path: PathBuf,
        /// The lock file beside it.
        lock: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// There is no such database and the store was opened read-only. Handling: check the path.
    #[error("{path} does not exist, and a read-only store creates nothing; check the path")]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// The directory of the database cannot be made. Handling: check the path and its owner.
    #[error("the directory of {path} cannot be created: {source}; check the path and who may write there")]
    Directory {
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database or its lock file cannot be written. Handling: give the user of the process the right to.
    #[error(
        "{path} cannot be opened for writing: {reason}; check who may write to the file and its directory"
    )]
    NotWritable {
        /// The database.
        path: PathBuf,
        /// What the system or SQLite said.
        reason: String,
    },
    /// SQLite is older than the store needs. Handling: build with the bundled library.
    #[error(
        "SQLite {found} is too old: {needed} is the first without a fault that can corrupt a write-ahead log; build \
         with the bundled library"
    )]
    LibraryTooOld {
        /// The version in use.
        found: String,
        /// The oldest version that will do.
        needed: String,
    },
    /// A setting that durability rests on did not hold. Handling: find out who changed it.
    #[error(
        "{path} is not durable: {setting} is {found} and not {needed}; the file system may not support it"
    )]
    NotDurable {
        /// The database.
        path: PathBuf,
        /// The setting.
        setting: &'static str,
        /// What it reads back as.
        found: String,
        /// What it must be.
        needed: &'static str,
    },
    /// The schema is older than this program and may not be migrated here. Handling: run `migrate`.
    #[error(
        "{path} has {pending} pending migrations, the first is {first:?}; run `migrate` or set AUTO_MIGRATE=true"
    )]
    Pending {
        /// The database.
        path: PathBuf,
        /// How many migrations are missing.
        pending: usize,
        /// The description of the first one.
        first: String,
    },
    /// The schema was made by a newer program. Handling: run that program.
    #[error(
        "{path} has migration {version}, which this program does not know; run the newer program that made it"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The version that is unknown.
        version: i64,
    },
    /// An applied migration is not the one that this program carries. Handling: restore it; it must never change.
    #[error(
        "{path} was migrated with another text of migration {version}; a migration never changes once it was applied"
    )]
    Changed {
        /// The database.
        path: PathBuf,
        /// The version whose text differs.
        version: i64,
    },
    /// A migration failed and was rolled back. Handling: see the source.
    #[error("{path} could not be migrated: {source}")]
    Migration {
        /// The database.
        path: PathBuf,
        /// What SQLite said, and on which migration.
        source: Box<MigrateError>,
    },
    /// The database was made with another number of shards. Handling: ask for that number, or for none.
    #[error(
        "{path} was created with {stored} shards and is opened with {wanted}; the number is fixed when a database is \
         created: ask for {stored}, or for none"
    )]
    ShardCount {
        /// The database.
        path: PathBuf,
        /// What the database has.
        stored: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// The file is no SQLite database, is damaged, or holds something else. Handling: restore a backup.
    #[error("{path} is damaged or no database of this store: {reason}; restore a backup or check the path")]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// An option is out of its range. Handling: correct it.
    #[error("{option} is {value}; allowed is {allowed}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What it was set to.
        value: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// SQLite failed in another way. Handling: see the source.
    #[error("{path} could not be opened: {source}")]
    Driver {
        /// The database.
        path: PathBuf,
        /// What the driver said.
        source: Box<sqlx::Error>,
    },
}

/// The primary result codes of SQLite that the store tells apart, from <https://www.sqlite.org/rescode.html>.
pub(super) mod code {
    pub(crate) const BUSY: i32 = 5;
    pub(crate) const LOCKED: i32 = 6;
    pub(crate) const READONLY: i32 = 8;
    pub(crate) const CORRUPT: i32 = 11;
    pub(crate) const FULL: i32 = 13;
    pub(crate) const CANTOPEN: i32 = 14;
    pub(crate) const TOOBIG: i32 = 18;
    pub(crate) const CONSTRAINT: i32 = 19;
    pub(crate) const NOTADB: i32 = 26;
}

/// Returns the primary result code of a driver's error, if SQLite gave one.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

impl OpenError {
    /// Finds the cause behind a driver's error.
    pub(super) fn from_driver(path: &std::path::Path, error: sqlx::Error) -> Self {
        let path = path.to_owned();
        match primary_code(&error) {
            Some(code::CORRUPT | code::NOTADB) => Self::Corrupt { path, reason: error.to_string() },
            // What was read is not what a writer of this store puts there.
            None if matches!(error, sqlx::Error::Decode(_)) => {
                Self::Corrupt { path, reason: error.to_string() }
            }
            Some(code::CANTOPEN | code::READONLY) => Self::NotWritable { path, reason: error.to_string() },
            _ => Self::Driver { path, source: Box::new(error) },
        }
    }

    /// Finds the cause behind a failed migration.
    pub(super) fn from_migrate(path: &std::path::Path, error: MigrateError) -> Self {
        let path = path.to_owned();
        match error {
            MigrateError::VersionMissing(version) => Self::Newer { path, version },
            MigrateError::VersionMismatch(version) => Self::Changed { path, version },
            MigrateError::Execute(error) => Self::from_driver(&path, error),
            other => Self::Migration { path, source: Box::new(other) },
        }
    }

    pub(super) fn shard_count(path: &std::path::Path, stored: ShardCount, wanted: ShardCount) -> Self {
        Self::ShardCount { path: path.to_owned(), stored: stored.get(), wanted: wanted.get() }
    }
}

/// Why a write did not reach the database. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the database {0} is closed")]
    Closed(PathBuf),
    #[error("the database {0} was opened read-only")]
    ReadOnly(PathBuf),
    #[error("there is no shard {shard}; the log has {count}, counted from 0")]
    NoSuchShard { shard: ShardId, count: u32 },
    #[error(transparent)]
    Driver(#[from] sqlx::Error),
}

impl From<Refused> for WriteError {
    fn from(refused: Refused) -> Self {
        Self::unavailable(refused)
    }
}

impl From<Refused> for ClaimError {
    fn from(refused: Refused) -> Self {
        Self::unavailable(refused)
    }
}

impl From<Refused> for ReadError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Driver(error) => super::read::read_error(error),
            other => Self::unavailable(other),
        }
    }
}
