//! What a backup says about itself: at its beginning, and when it is complete.

use std::path::{Path, PathBuf};

use orchestrix_core::{Seq, ShardCount, ShardId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::check::blocking;
use super::error::BackupError;
use super::files::{read_sealed, write_sealed};

/// The format that this program writes and reads.
const FORMAT: u32 = 1;

/// What is written last, and makes a directory a backup.
pub(super) const MANIFEST: &str = "manifest.json";

/// What is written first, and lets an interrupted backup go on.
pub(super) const BEGUN: &str = "begun.json";

/// What was known when a backup began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) format: u32,
    pub(super) backup: Uuid,
    pub(super) store: String,
    pub(super) cluster: Option<Uuid>,
    pub(super) shard_count: ShardCount,
    pub(super) started_at: Timestamp,
    pub(super) heads: Vec<Seq>,
}

impl Begun {
    pub(super) fn new(
        store: &str,
        cluster: Option<Uuid>,
        shard_count: ShardCount,
        started_at: Timestamp,
        heads: Vec<Seq>,
    ) -> Self {
        let (backup, store) = (Uuid::now_v7(), store.to_owned());
        Self { format: FORMAT, backup, store, cluster, shard_count, started_at, heads }
    }

    /// Returns how many events the backup will have.
    pub(super) fn events(&self) -> u64 {
        self.heads.iter().map(|head| head.get()).sum()
    }
}

/// What a complete backup says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// Names the backup.
    pub backup: Uuid,
    /// The kind of store that the events come from.
    pub store: String,
    /// The life of the database that they come from, where it has a name.
    pub cluster: Option<Uuid>,
    /// How many shards the log has.
    pub shard_count: ShardCount,
    /// When the heads were read: the backup is the log of this moment, by the clock of the machine that took it.
    pub started_at: Timestamp,
    /// When it was complete.
    pub ended_at: Timestamp,
    /// The last seq of each shard.
    pub heads: Vec<Seq>,
    /// How many events there are.
    pub events: u64,
    /// The files, in the order of their events.
    pub parts: Vec<Part>,
}

/// A file with events of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the directory.
    pub file: String,
    /// The shard.
    pub shard: ShardId,
    /// The first event's place.
    pub first_seq: Seq,
    /// The last event's place; every seq between the two is there.
    pub last_seq: Seq,
    /// Its size.
    pub bytes: u64,
    /// Its checksum: XXH3 of 128 bits, in hexadecimal.
    pub xxh3: String,
}

impl Manifest {
    pub(super) fn of(begun: Begun, parts: Vec<Part>, ended_at: Timestamp) -> Self {
        let events = begun.events();
        let Begun { format, backup, store, cluster, shard_count, started_at, heads } = begun;
        Self { format, backup, store, cluster, shard_count, started_at, ended_at, heads, events, parts }
    }

    /// Reads what a complete backup says about itself, and nothing else of it.
    ///
    /// # Errors
    /// [`BackupError`] when there is no complete backup, or the manifest is damaged.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn load(directory: &Path) -> Result<Self, BackupError> {
        let directory = directory.to_owned();
        blocking(move || Self::read(&directory)).await
    }

    /// Reads the manifest of a complete backup.
    pub(super) fn read(directory: &Path) -> Result<Self, BackupError> {
        let path = directory.join(MANIFEST);
        let manifest: Option<Self> = read_known(&path)?;
        let manifest = manifest.ok_or_else(|| BackupError::NoManifest { path: directory.to_owned() })?;
        let fits = manifest.heads.len() == manifest.shard_count.get() as usize;
        if fits {
            Ok(manifest)
        } else {
            Err(BackupError::damaged(&path, "its heads are not those of its shards"))
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), BackupError> {
        write_sealed(directory, MANIFEST, self)
    }

    /// Returns the files of a shard in order.
    pub(super) fn parts_of(&self, shard: ShardId) -> Vec<Part> {
        self.parts.iter().filter(|part| part.shard == shard).cloned().collect()
    }
}

/// Reads what was known when a backup began, if one did.
pub(super) fn read_begun(directory: &Path) -> Result<Option<Begun>, BackupError> {
    read_known(&directory.join(BEGUN))
}

pub(super) fn write_begun(directory: &Path, begun: &Begun) -> Result<(), BackupError> {
    write_sealed(directory, BEGUN, begun)
}

/// Reads a document of a format that is known: one of a newer format is told from a damaged one.
fn read_known<T: Serialize + for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, BackupError> {
    let read = read_sealed(path);
    if let Err(BackupError::Damaged { .. }) = &read
        && let Some(found) = newer_format(path)
    {
        return Err(BackupError::Newer { path: path.to_owned(), found, known: FORMAT });
    }
    read
}

fn newer_format(path: &Path) -> Option<u32> {
    let document: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let format = u32::try_from(document.get("format")?.as_u64()?).ok()?;
    (format > FORMAT).then_some(format)
}

/// Returns where a part lies.
pub(super) fn path_of(directory: &Path, part: &Part) -> PathBuf {
    directory.join(&part.file)
}
