//! Verification: every byte is as it was written, and the events are a log without a hole.

use std::path::Path;

use orchestrix_core::store::RecordedEvent;
use orchestrix_core::{Seq, ShardId};
use serde::Serialize;

use super::error::BackupError;
use super::manifest::{Manifest, Part, path_of};
use super::part::PartReader;
use super::{Progress, silence};
use crate::ops::shard_check::ShardCheck;

/// What a sound backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// What it says about itself.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// How many streams its events belong to.
    pub streams: u64,
}

/// Reads a whole backup and compares it with its manifest: sizes and checksums of the files, the form of each line, holes,
/// doubles and disorder among the events.
///
/// # Errors
/// [`BackupError`] about the first thing that is wrong, with the file and the line.
///
/// # Cancel safety
/// May be dropped at any point; nothing is changed.
pub async fn verify(directory: &Path, progress: Option<Progress>) -> Result<Verified, BackupError> {
    let (directory, progress) = (directory.to_owned(), progress.unwrap_or_else(silence));
    blocking(move || verify_each(&directory, &progress, |_| {})).await
}

/// Runs work on files apart from the tasks of the runtime.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(cut) => match cut.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that ends cancels such work, and then nobody waits for it.
            Err(cut) => panic!("{cut}"),
        },
    }
}

/// Verifies, and shows each event on the way.
pub(super) fn verify_each(
    directory: &Path,
    progress: &Progress,
    mut see: impl FnMut(&RecordedEvent),
) -> Result<Verified, BackupError> {
    let manifest = Manifest::read(directory)?;
    let (mut streams, mut events) = (0, 0);
    for (shard, head) in manifest.shard_count.all().zip(&manifest.heads) {
        let mut check = ShardCheck::new(shard, manifest.shard_count);
        for part in manifest.parts_of(shard) {
            read_part(directory, &part, |event| {
                check.see(event);
                see(event);
                events += 1;
                if events % 10_000 == 0 {
                    progress(events, manifest.events);
                }
                check.first.is_none()
            })?;
            if let Some(problem) = check.first {
                let what = format!("seq {}: {}", problem.seq, problem.what);
                return Err(BackupError::damaged(&path_of(directory, &part), what));
            }
        }
        reaches(directory, shard, check.seq, *head)?;
        streams += check.streams.len() as u64;
    }
    progress(events, manifest.events);
    Ok(Verified { manifest, streams })
}

fn reaches(directory: &Path, shard: ShardId, seq: Seq, head: Seq) -> Result<(), BackupError> {
    if seq == head {
        return Ok(());
    }
    Err(BackupError::damaged(directory, format!("shard {shard} ends at seq {seq} and should end at {head}")))
}

/// Reads one part to its end, unless `see` wants no more, and compares it with what the manifest says about it.
fn read_part(
    directory: &Path,
    part: &Part,
    mut see: impl FnMut(&RecordedEvent) -> bool,
) -> Result<(), BackupError> {
    let path = path_of(directory, part);
    let mut reader = PartReader::open(&path)?;
    while let Some(event) = reader.next()? {
        if !see(&event) {
            return Ok(());
        }
    }
    let (bytes, xxh3) = reader.sum();
    if bytes != part.bytes {
        let what = format!("it has {bytes} bytes and should have {}", part.bytes);
        return Err(BackupError::damaged(&path, what));
    }
    if xxh3 != part.xxh3 {
        return Err(BackupError::damaged(&path, "its checksum does not match"));
    }
    Ok(())
}
