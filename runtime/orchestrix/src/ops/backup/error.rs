//! Why a backup or a restore did not come about.

use std::path::{Path, PathBuf};

use orchestrix_core::ShardId;
use orchestrix_core::store::{ImportError, ReadError};

/// A backup could not be taken, or is not what it should be. The store was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The store could not be read. Handling: take the backup again into the same directory; it goes on where it was.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file could not be read or written. Handling: make room or give the right to; take the backup again.
    #[error("{path}: {source}")]
    File {
        /// The file or the directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory holds a complete backup, or something else. Handling: choose another directory.
    #[error("{path} {what}; choose another directory")]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// What is there.
        what: String,
    },
    /// The directory holds the beginning of a backup of another log. Handling: choose another directory.
    #[error("{path} holds the beginning of a backup of another log: {what}; choose another directory")]
    OtherLog {
        /// The directory.
        path: PathBuf,
        /// What tells.
        what: String,
    },
    /// There is no complete backup in the directory. Handling: check the path; take the backup again to complete it.
    #[error(
        "{path} holds no complete backup: it has no manifest.json; check the path, or take the backup again"
    )]
    NoManifest {
        /// The directory.
        path: PathBuf,
    },
    /// The backup was written by a newer program. Handling: use that program.
    #[error("{path} has format {found}; this program reads {known}: use the newer program that wrote it")]
    Newer {
        /// The manifest.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that this program reads.
        known: u32,
    },
    /// The backup is damaged. Handling: use another one; find out what the disk does.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        what: String,
    },
    /// The log itself is not sound. Handling: run `verify` on the store, and restore an older backup.
    #[error("the log is not sound: {what}")]
    Unsound {
        /// What was found, and where.
        what: String,
    },
}

impl BackupError {
    pub(super) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }
}

/// A backup could not be restored. Until it is finished, no node can use the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The backup is not what it should be. Nothing was stored, unless the disk lost it on the way. Handling: by cause.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The store refused it or did not answer. Handling: by cause; after a failure restore again, which goes on where
    /// it was.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The store could not be read. Handling: restore again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store has another number of shards. Nothing was stored. Handling: create it with the number of the backup.
    #[error(
        "the store has {store} shards and the backup {backup}; create the database with SHARD_COUNT={backup}"
    )]
    ShardCount {
        /// What the store has.
        store: u32,
        /// What the backup has.
        backup: u32,
    },
    /// A position names a shard that the backup does not have, or lies behind its end. Nothing was stored. Handling:
    /// correct it.
    #[error("the position {shard}:{seq} is not in the backup, where the shard ends at {head}")]
    Position {
        /// The shard.
        shard: ShardId,
        /// The seq wanted.
        seq: u64,
        /// Where the shard ends.
        head: u64,
    },
    /// The store holds something that is not the beginning of this restore. Handling: use a new database.
    #[error(
        "shard {shard} of the store is not the beginning of this restore: {what}; restore into a new database"
    )]
    NotOurs {
        /// The shard.
        shard: ShardId,
        /// What was found.
        what: String,
    },
}
