//! Backups: a log as files of CloudEvents, taken while the service runs, and restored into an empty store.
//!
//! A [`Backup`] reads the heads of all shards at one moment, and then each shard up to its head, part by part.
//! What it holds is the log as it was at that moment: every event that was acknowledged before, no part of a commit,
//! and no effect without its cause. The moment is the beginning of the backup, however long it takes.
//!
//! A directory is a backup when it holds a `manifest.json`: that is written last, after everything else is safe on
//! the disk. What was interrupted before that goes on when it is begun again. [`verify`] reads all of it and compares.
//!
//! A [`Restore`] cuts each shard: at the end, before the first event that was decided after a moment, or after a seq;
//! always between two commits. Each stream and each shard then is a prefix of what it was. Across shards a moment of
//! wall clocks is no cut of causes and effects: an effect that a node with a slow clock decided may stay while its
//! cause goes. Without a moment, a restore has no such exception.
//!
//! Snapshots, checkpoints and quarantines are not part of it: snapshots are made anew from the events, and consumers
//! begin again.
//!
//! Read in this order: `line`, `part`, `manifest`: the format; `take`, `check`: how it is written and verified; `cut` ◇,
//! `restore`: the way back.

mod check;
mod cut;
mod error;
mod files;
mod line;
mod manifest;
mod part;
mod restore;
mod take;

use std::sync::Arc;

pub use check::{Verified, verify};
pub use error::{BackupError, RestoreError};
pub use manifest::{Manifest, Part};
pub use restore::{Restore, Restored};
pub use take::Backup;

/// Hears how far a backup or a restore has come: events done, and events to be done in all.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Tells nobody.
fn silence() -> Progress {
    Arc::new(|_, _| {})
}
