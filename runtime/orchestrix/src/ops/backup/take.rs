//! Takes a backup, or goes on with one that was interrupted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrix_core::store::RecordedEvent;
use orchestrix_core::{Clock, EventStore, Seq, ShardId, SystemClock};
use uuid::Uuid;

use super::check::blocking;
use super::error::BackupError;
use super::manifest::{BEGUN, Begun, MANIFEST, Manifest, Part, read_begun, write_begun};
use super::part::{PART_EVENTS, PartName, PartReader, PartWriter};
use super::{Progress, files, silence};

/// Events read from the store in one go.
const PAGE: usize = 2_000;

/// A backup to be taken.
///
/// ```
/// use std::sync::Arc;
/// use orchestrix::ops::backup::{Backup, Restore, verify};
/// use orchestrix::store::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let directory = folder.path().join("monday");
/// let manifest = Backup::new(Arc::new(Memory::new()), &directory).take().await?;
/// assert_eq!(verify(&directory, None).await?.manifest, manifest);
/// let restored = Restore::new(&directory).into(Arc::new(Memory::new())).await?;
/// assert_eq!(restored.events, manifest.events);
/// # Ok(())
/// # }
/// ```
pub struct Backup {
    store: Arc<dyn EventStore>,
    directory: PathBuf,
    cluster: Option<Uuid>,
    part_events: u64,
    progress: Progress,
}

impl Backup {
    /// Describes a backup of a store into a directory, which is made if it is missing.
    pub fn new(store: Arc<dyn EventStore>, directory: impl Into<PathBuf>) -> Self {
        let (directory, progress) = (directory.into(), silence());
        Self { store, directory, cluster: None, part_events: PART_EVENTS, progress }
    }

    /// Says which life of a database it is, where it has a name.
    #[must_use]
    pub fn cluster(mut self, cluster: Uuid) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Sets how many events a file has at most; 50,000 unless told otherwise. Fewer make an interruption cheaper.
    #[must_use]
    pub fn part_events(mut self, events_max: u64) -> Self {
        self.part_events = events_max.max(1);
        self
    }

    /// Sets who hears how far it has come.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Takes it, while the service runs.
    ///
    /// # Errors
    /// [`BackupError`] by cause. What is complete by then stays, and the next attempt goes on with it.
    ///
    /// # Cancel safety
    /// May be dropped at any point, as if it had failed.
    pub async fn take(self) -> Result<Manifest, BackupError> {
        let directory = self.directory.clone();
        // Held to the end.
        let (_lock, begun, found) = blocking(move || look_around(&directory)).await?;
        let begun = match begun {
            Some(begun) => self.go_on(begun)?,
            None => self.begin().await?,
        };
        let events = begun.events();
        let mut done = 0;
        let mut parts = Vec::new();
        for (shard, head) in begun.shard_count.all().zip(begun.heads.clone()) {
            let names = found.iter().filter(|part| part.shard == shard).cloned().collect();
            let complete = self.complete_parts(shard, names).await?;
            let mut last = complete.last().map_or(Seq::ZERO, |part| part.last_seq);
            parts.extend(complete);
            while last < head {
                let part = self.take_part(shard, last, head, (done, events)).await?;
                last = part.last_seq;
                parts.push(part);
            }
            done += head.get();
            (self.progress)(done, events);
        }
        let manifest = Manifest::of(begun, parts, SystemClock.now());
        let (directory, written) = (self.directory.clone(), manifest.clone());
        blocking(move || finish(&directory, &written)).await?;
        Ok(manifest)
    }

    async fn begin(&self) -> Result<Begun, BackupError> {
        let info = self.store.info();
        let started_at = SystemClock.now();
        let heads = self.store.heads().await?;
        let begun = Begun::new(info.name, self.cluster, info.shard_count, started_at, heads);
        let (directory, written) = (self.directory.clone(), begun.clone());
        blocking(move || write_begun(&directory, &written)).await?;
        Ok(begun)
    }

    fn go_on(&self, begun: Begun) -> Result<Begun, BackupError> {
        let info = self.store.info();
        let what = if begun.store != info.name || begun.shard_count != info.shard_count {
            let Begun { store, shard_count, .. } = &begun;
            let (own, count) = (info.name, info.shard_count.get());
            format!("{store} with {} shards, and this is {own} with {count}", shard_count.get())
        } else if begun.cluster != self.cluster {
            let name =
                |cluster: Option<Uuid>| cluster.map_or_else(|| "unnamed".to_owned(), |id| id.to_string());
            format!("life {} of its database, and this is {}", name(begun.cluster), name(self.cluster))
        } else {
            return Ok(begun);
        };
        Err(BackupError::OtherLog { path: self.directory.clone(), what })
    }

    /// Reads the parts of a shard that an earlier attempt has completed. The last event must be the store's own.
    async fn complete_parts(&self, shard: ShardId, names: Vec<PartName>) -> Result<Vec<Part>, BackupError> {
        let directory = self.directory.clone();
        let (parts, last) = blocking(move || sum_parts(&directory, &names)).await?;
        let Some(last) = last else { return Ok(parts) };
        let before = Seq::new(last.seq.get() - 1);
        if self.store.read_shard(shard, before, 1).await?.first() == Some(&last) {
            return Ok(parts);
        }
        let what = format!("seq {} of shard {shard} is another event in this one", last.seq);
        Err(BackupError::OtherLog { path: self.directory.clone(), what })
    }

    /// Writes the part after a seq. The next page is read while one is written.
    async fn take_part(
        &self,
        shard: ShardId,
        after: Seq,
        head: Seq,
        (done, events): (u64, u64),
    ) -> Result<Part, BackupError> {
        let directory = self.directory.clone();
        let mut writer = blocking(move || PartWriter::create(&directory, shard, after.next())).await?;
        let mut last = after;
        let mut page = self.page(shard, last, head).await?;
        loop {
            last = page.last().map_or(last, |event| event.seq);
            let events_max = self.part_events;
            let write = blocking(move || write_page(writer, &page, events_max));
            let (written, next) = tokio::join!(write, self.page(shard, last, head));
            let Written { writer: open, is_full, last: reached } = written?;
            writer = open;
            (self.progress)(done + reached.get(), events);
            if is_full || reached == head {
                return blocking(move || writer.complete()).await;
            }
            page = next?;
        }
    }

    /// Reads the next events up to the head.
    async fn page(&self, shard: ShardId, after: Seq, head: Seq) -> Result<Vec<RecordedEvent>, BackupError> {
        let wanted = PAGE.min((head.get() - after.get()) as usize);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let page = self.store.read_shard(shard, after, wanted).await?;
        let mut expected = after;
        for event in &page {
            expected = expected.next();
            if event.seq != expected {
                let what = format!("seq {expected} of shard {shard} is missing; run `verify`");
                return Err(BackupError::Unsound { what });
            }
        }
        if page.is_empty() {
            let what = format!("shard {shard} ends at seq {after} and ended at {head} before; run `verify`");
            return Err(BackupError::Unsound { what });
        }
        Ok(page)
    }
}

/// A part after a page.
struct Written {
    writer: PartWriter,
    is_full: bool,
    /// The last event that is in it; the rest of the page begins the next part.
    last: Seq,
}

fn write_page(
    mut writer: PartWriter,
    page: &[RecordedEvent],
    events_max: u64,
) -> Result<Written, BackupError> {
    let mut last = Seq::ZERO;
    for event in page {
        writer.add(event)?;
        last = event.seq;
        if writer.is_full(events_max) {
            return Ok(Written { writer, is_full: true, last });
        }
    }
    Ok(Written { writer, is_full: false, last })
}

/// Finds out what is in the directory: the beginning of a backup, and its complete parts.
fn look_around(directory: &Path) -> Result<(File, Option<Begun>, Vec<PartName>), BackupError> {
    let failed = |error| BackupError::file(directory, error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    let lock = files::lock(directory)?;
    let occupied = |what: String| BackupError::Occupied { path: directory.to_owned(), what };
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == MANIFEST {
            return Err(occupied("holds a complete backup".to_owned()));
        }
        match PartName::parse(&name) {
            Some(part) => parts.push(part),
            None if files::is_unfinished(&name) => std::fs::remove_file(entry.path()).map_err(failed)?,
            None if name == BEGUN => {}
            None => return Err(occupied(format!("holds {name}, which belongs to no backup"))),
        }
    }
    parts.sort_unstable();
    let begun = read_begun(directory)?;
    if begun.is_none() && !parts.is_empty() {
        return Err(occupied(format!("holds parts of a backup without its {BEGUN}")));
    }
    Ok((lock, begun, parts))
}

/// Reads complete parts of a shard again: their names say what they must add up to.
fn sum_parts(
    directory: &Path,
    names: &[PartName],
) -> Result<(Vec<Part>, Option<RecordedEvent>), BackupError> {
    let (mut parts, mut last): (Vec<Part>, Option<RecordedEvent>) = (Vec::new(), None);
    for name in names {
        let file = name.to_string();
        let path = directory.join(&file);
        let mut last_seq = parts.last().map_or(Seq::ZERO, |part| part.last_seq);
        let mut reader = PartReader::open(&path)?;
        while let Some(event) = reader.next()? {
            last_seq = last_seq.next();
            if event.seq != last_seq || event.shard != name.shard {
                let what = format!("seq {last_seq} of shard {} is missing", name.shard);
                return Err(BackupError::damaged(&path, what));
            }
            last = Some(event);
        }
        let (bytes, xxh3) = reader.sum();
        if xxh3 != name.xxh3 {
            return Err(BackupError::damaged(&path, "its checksum is not the one in its name"));
        }
        let PartName { shard, first_seq, .. } = *name;
        parts.push(Part { file, shard, first_seq, last_seq, bytes, xxh3 });
    }
    Ok((parts, last))
}

fn finish(directory: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    manifest.write(directory)?;
    // The manifest says all of it; what is left behind by a crash just here is of no consequence.
    let begun = directory.join(BEGUN);
    std::fs::remove_file(&begun).map_err(|error| BackupError::file(&begun, error))
}
