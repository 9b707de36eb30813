//! Restores a backup into an empty store, or goes on with a restore that was interrupted.
//!
//! The whole backup is verified first. The store is marked with a name that says which backup it is and where it is cut,
//! so that only the same restore goes on with it, and nobody can use it until it is finished.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use orchestrix_core::store::{ImportStep, RecordedEvent};
use orchestrix_core::{EventStore, Seq, ShardId, Timestamp};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::check::{blocking, verify_each};
use super::cut::{Cut, Wanted};
use super::error::{BackupError, RestoreError};
use super::files::checksum;
use super::manifest::{Manifest, path_of};
use super::part::PartReader;
use super::{Progress, silence};

/// Events that are sent to the store in one step, and the bytes of their payloads after which a step ends earlier.
const STEP_EVENTS: usize = 2_048;
const STEP_BYTES: usize = 4 << 20;

/// Steps that wait for the store while the next ones are read: one is sent, one is ready.
const STEPS_READY: usize = 1;

/// Shards that are restored side by side, where the store can take them.
const WORKERS_MAX: usize = 4;

/// A backup to be restored.
pub struct Restore {
    directory: PathBuf,
    until: Option<Timestamp>,
    position: BTreeMap<ShardId, Seq>,
    progress: Progress,
}

/// What a restore has brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The backup.
    pub backup: Uuid,
    /// How many events the store has now.
    pub events: u64,
    /// How many of them were there already, from an attempt before.
    pub found: u64,
    /// How many events of the backup were not wanted.
    pub left_out: u64,
    /// Where each shard ends.
    pub heads: Vec<Seq>,
}

/// What is to be done.
struct Plan {
    directory: PathBuf,
    manifest: Manifest,
    ends: Vec<Seq>,
}

impl Restore {
    /// Describes the restore of a whole backup.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), until: None, position: BTreeMap::new(), progress: silence() }
    }

    /// Leaves out, in each shard, the first event that was decided after this moment and everything behind it.
    #[must_use]
    pub fn until(mut self, moment: Timestamp) -> Self {
        self.until = Some(moment);
        self
    }

    /// Leaves out what comes after a seq of a shard. A commit that goes on behind it is left out as a whole.
    #[must_use]
    pub fn position(mut self, shard: ShardId, last: Seq) -> Self {
        self.position.insert(shard, last);
        self
    }

    /// Sets who hears how far it has come.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Verifies the backup and stores its events.
    ///
    /// The store must be empty, or hold the beginning of the very same restore. When this returns, the store has a new
    /// life: nodes of the old one are fenced.
    ///
    /// # Errors
    /// [`RestoreError`] by cause. What was stored by then stays, and the next attempt goes on with it.
    ///
    /// # Cancel safety
    /// May be dropped at any point, as if it had failed.
    pub async fn into(self, store: Arc<dyn EventStore>) -> Result<Restored, RestoreError> {
        let plan = Arc::new(self.plan(store.as_ref()).await?);
        store.import(ImportStep::Begin { name: plan.name() }).await?;
        let found = store.heads().await?;
        plan.check_own(store.as_ref(), &found).await?;
        plan.store_missing(&store, &found, &self.progress).await?;
        let heads = store.heads().await?;
        plan.check_complete(&heads)?;
        store.import(ImportStep::Finish).await?;
        let sum = |heads: &[Seq]| heads.iter().map(|head| head.get()).sum::<u64>();
        let events = sum(&heads);
        let left_out = plan.manifest.events - events;
        Ok(Restored { backup: plan.manifest.backup, events, found: sum(&found), left_out, heads })
    }

    /// Verifies the backup and finds out where to cut it.
    async fn plan(&self, store: &dyn EventStore) -> Result<Plan, RestoreError> {
        let (directory, progress) = (self.directory.clone(), Arc::clone(&self.progress));
        let manifest = Manifest::load(&directory).await?;
        let (own, count) = (store.info().shard_count, manifest.shard_count);
        if own != count {
            return Err(RestoreError::ShardCount { store: own.get(), backup: count.get() });
        }
        for (shard, seq) in &self.position {
            let head = manifest.heads.get(shard.get() as usize).copied().unwrap_or_default();
            if *seq > head {
                let (seq, head) = (seq.get(), head.get());
                return Err(RestoreError::Position { shard: *shard, seq, head });
            }
        }
        let wanted = |shard| Wanted { until: self.until, last: self.position.get(&shard).copied() };
        let cuts: Vec<Cut> = count.all().map(|shard| Cut::new(wanted(shard))).collect();
        let read = directory.clone();
        let (verified, cuts) = blocking(move || verify_and_cut(&read, &progress, cuts)).await?;
        let ends = cuts.into_iter().map(Cut::end).collect();
        Ok(Plan { directory, manifest: verified, ends })
    }
}

fn verify_and_cut(
    directory: &Path,
    progress: &Progress,
    mut cuts: Vec<Cut>,
) -> Result<(Manifest, Vec<Cut>), BackupError> {
    let verified = verify_each(directory, progress, |event| cuts[event.shard.get() as usize].see(event))?;
    Ok((verified.manifest, cuts))
}

impl Plan {
    /// Names the restore: another backup or another cut has another name.
    fn name(&self) -> String {
        let ends: Vec<String> = self.ends.iter().map(ToString::to_string).collect();
        format!("backup {} cut {}", self.manifest.backup, checksum(ends.join(" ").as_bytes()))
    }

    fn shards(&self) -> impl Iterator<Item = (ShardId, Seq)> {
        self.manifest.shard_count.all().zip(self.ends.iter().copied())
    }

    /// Compares what is there with the backup: the last event of each shard.
    async fn check_own(&self, store: &dyn EventStore, found: &[Seq]) -> Result<(), RestoreError> {
        for ((shard, end), head) in self.shards().zip(found) {
            let Some(before) = head.get().checked_sub(1).map(Seq::new) else { continue };
            let not_ours = |what: String| RestoreError::NotOurs { shard, what };
            if *head > end {
                return Err(not_ours(format!("it has {head} events, more than the {end} to come")));
            }
            let stored = store.read_shard(shard, before, 1).await?;
            let mut reader = self.reader(shard, before);
            let own = blocking(move || reader.next()).await?;
            if own.is_none() || stored.first() != own.as_ref() {
                return Err(not_ours(format!("seq {head} is another event")));
            }
        }
        Ok(())
    }

    fn reader(&self, shard: ShardId, after: Seq) -> ShardReader {
        let parts = self.manifest.parts_of(shard).into_iter().filter(|part| part.last_seq > after);
        let paths = parts.map(|part| path_of(&self.directory, &part)).collect();
        ShardReader { paths, open: None, after }
    }

    /// Stores what the store does not have yet, several shards side by side.
    async fn store_missing(
        self: &Arc<Self>,
        store: &Arc<dyn EventStore>,
        found: &[Seq],
        progress: &Progress,
    ) -> Result<(), RestoreError> {
        let todo: VecDeque<(ShardId, Seq, Seq)> =
            self.shards().zip(found).map(|((shard, end), head)| (shard, *head, end)).collect();
        let total = self.ends.iter().map(|end| end.get()).sum();
        let done = Arc::new(AtomicU64::new(found.iter().map(|head| head.get()).sum()));
        let todo = Arc::new(Mutex::new(todo));
        let mut workers: JoinSet<Result<(), RestoreError>> = JoinSet::new();
        for _ in 0..store.info().lanes.clamp(1, WORKERS_MAX) {
            let (plan, store, todo) = (Arc::clone(self), Arc::clone(store), Arc::clone(&todo));
            let (done, progress) = (Arc::clone(&done), Arc::clone(progress));
            workers.spawn(async move {
                let told = |events: u64| progress(done.fetch_add(events, Ordering::Relaxed) + events, total);
                let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some((shard, head, end)) = next() {
                    plan.store_shard(store.as_ref(), (shard, head, end), &told).await?;
                }
                Ok(())
            });
        }
        while let Some(ended) = workers.join_next().await {
            match ended {
                Ok(stored) => stored?,
                Err(cut) => match cut.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(cut) => panic!("nobody cancels a worker: {cut}"),
                },
            }
        }
        Ok(())
    }

    /// Stores the events of a shard after its head up to its end; the next step is read while one is stored.
    async fn store_shard(
        &self,
        store: &dyn EventStore,
        (shard, head, end): (ShardId, Seq, Seq),
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RestoreError> {
        let mut reader = self.reader(shard, head);
        let (ready, steps) = mpsc::channel(STEPS_READY);
        let reading = blocking(move || {
            while let Some(step) = reader.step(end)? {
                if ready.blocking_send(step).is_err() {
                    break;
                }
            }
            Ok::<_, BackupError>(())
        });
        let storing = async move {
            // Dropped at the end of this block: a reader whose steps nobody takes any more is told so.
            let mut steps = steps;
            while let Some(step) = steps.recv().await {
                let events = step.len() as u64;
                store.import(ImportStep::Events(step)).await?;
                told(events);
            }
            Ok::<_, RestoreError>(())
        };
        let (read, stored) = tokio::join!(reading, storing);
        stored?;
        Ok(read?)
    }

    fn check_complete(&self, heads: &[Seq]) -> Result<(), RestoreError> {
        let wrong = self.shards().zip(heads).find(|((_, end), head)| end != *head);
        match wrong {
            None => Ok(()),
            Some(((shard, end), head)) => {
                Err(RestoreError::NotOurs { shard, what: format!("it ends at {head} and not at {end}") })
            }
        }
    }
}

/// Reads the events of a shard after a seq, part by part.
struct ShardReader {
    paths: VecDeque<PathBuf>,
    open: Option<PartReader>,
    after: Seq,
}

impl ShardReader {
    fn next(&mut self) -> Result<Option<RecordedEvent>, BackupError> {
        loop {
            let reader = match &mut self.open {
                Some(reader) => reader,
                None => match self.paths.pop_front() {
                    Some(path) => self.open.insert(PartReader::open(&path)?),
                    None => return Ok(None),
                },
            };
            match reader.next()? {
                Some(event) if event.seq > self.after => return Ok(Some(event)),
                Some(_) => {}
                None => self.open = None,
            }
        }
    }

    /// Reads what goes to the store in one step; `None` behind the end.
    fn step(&mut self, end: Seq) -> Result<Option<Vec<RecordedEvent>>, BackupError> {
        let (mut step, mut bytes) = (Vec::new(), 0);
        while self.after < end && step.len() < STEP_EVENTS && bytes < STEP_BYTES {
            let Some(event) = self.next()? else { break };
            self.after = event.seq;
            bytes += event.payload.len();
            step.push(event);
        }
        Ok(if step.is_empty() { None } else { Some(step) })
    }
}
