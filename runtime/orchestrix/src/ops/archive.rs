//! The archive of a log on PostgreSQL: old events move aside, slice by slice, while the service runs.
//!
//! An event is moved when it is older than asked for, when a snapshot of its stream holds it, when every consumer that
//! has a checkpoint has seen it, and never when it is the first or the last of its stream. Reads find it all the same (see
//! `store/postgres/archive.rs`), so nothing rests on these conditions but speed: nobody needs what was moved for an
//! activation or a subscription.
//!
//! The memory of command ids goes with the snapshot: it holds those of the events before it, as far as they are still
//! remembered. So a retry of a command whose events were moved gets its first reply.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrix_core::store::{ReadError, WriteError};
use orchestrix_core::{EventStore as _, ShardId, Timestamp};
use serde::Serialize;

use super::backup::Progress;
use crate::aggregate::check_snapshot;
use crate::store::{Covered, Postgres, SliceState};

/// Snapshots looked at in one go.
const PAGE: usize = 256;

/// Streams that are gathered before their shards' slices are moved: it bounds the memory of a run.
const STREAMS_MAX: usize = 32_768;

/// The most events of a slice, unless told otherwise: some hundred milliseconds in which a claim of the shard waits.
const SLICE_EVENTS: u32 = 5_000;

/// Old events to be moved.
pub struct Archive {
    store: Postgres,
    slice_events: u32,
    progress: Progress,
}

/// What was moved into the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Archived {
    /// Events that were moved.
    pub events: u64,
    /// In so many slices.
    pub slices: u64,
    /// Streams whose snapshots were looked at.
    pub streams: u64,
    /// Of them, those whose snapshot is damaged: their events stay.
    pub damaged_snapshots: u64,
}

/// What came back from the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unarchived {
    /// Events that came back.
    pub events: u64,
    /// In so many slices.
    pub slices: u64,
}

/// How the archive was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ArchiveState {
    /// Events in the archive.
    pub events: u64,
    /// In so many slices.
    pub slices: u64,
    /// What is not as it was put there, in words.
    pub problems: Vec<String>,
}

impl Archive {
    /// Works on the archive of a store.
    pub fn new(store: Postgres) -> Self {
        Self { store, slice_events: SLICE_EVENTS, progress: Arc::new(|_, _| {}) }
    }

    /// Sets how many events are moved in one transaction at most, 1 to 100,000; 5,000 unless told otherwise.
    #[must_use]
    pub fn slice_events(mut self, events_max: u32) -> Self {
        self.slice_events = events_max.clamp(1, 100_000);
        self
    }

    /// Sets who hears how many events were moved; how many there will be in all is not known, and told as 0.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Moves every event that may be moved and was decided before this moment.
    ///
    /// # Errors
    /// [`WriteError`] when the server does not answer or does not allow it. What was moved by then stays in the archive.
    ///
    /// # Cancel safety
    /// May be dropped at any point, as if it had failed.
    pub async fn older_than(self, moment: Timestamp) -> Result<Archived, WriteError> {
        let mut archived = Archived::default();
        let mut by_shard: BTreeMap<ShardId, Vec<Covered>> = BTreeMap::new();
        let mut gathered = 0;
        let mut last: Option<Covered> = None;
        loop {
            let page = self.store.archive_candidates(last.as_ref(), moment, PAGE).await.map_err(as_write)?;
            let is_last = page.len() < PAGE;
            last = page.last().map(|candidate| candidate.covered.clone());
            for candidate in page {
                archived.streams += 1;
                if check_snapshot(&candidate.stream, candidate.version, &candidate.bytes).is_err() {
                    archived.damaged_snapshots += 1;
                    continue;
                }
                let shard = self.store.info().shard_count.shard_of_stream(&candidate.stream);
                by_shard.entry(shard).or_default().push(candidate.covered);
                gathered += 1;
            }
            if is_last || gathered >= STREAMS_MAX {
                self.move_gathered(std::mem::take(&mut by_shard), moment, &mut archived).await?;
                gathered = 0;
            }
            if is_last {
                return Ok(archived);
            }
        }
    }

    async fn move_gathered(
        &self,
        by_shard: BTreeMap<ShardId, Vec<Covered>>,
        moment: Timestamp,
        archived: &mut Archived,
    ) -> Result<(), WriteError> {
        for (shard, covered) in by_shard {
            loop {
                let moved =
                    self.store.archive_slice(shard, moment, self.slice_events, covered.clone()).await?;
                let Some(slice) = moved else { break };
                archived.events += slice.events;
                archived.slices += 1;
                (self.progress)(archived.events, 0);
                if slice.events < u64::from(self.slice_events) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Moves everything back, the newest slices first.
    ///
    /// # Errors
    /// [`WriteError`] when the server does not answer or refuses a slice that is not what was put there. What came back
    /// by then stays in the log.
    ///
    /// # Cancel safety
    /// May be dropped at any point, as if it had failed.
    pub async fn restore(self) -> Result<Unarchived, WriteError> {
        let mut restored = Unarchived::default();
        let slices = self.store.archive_slices().await.map_err(as_write)?;
        let all = slices.iter().map(|slice| slice.events).sum();
        for slice in slices {
            restored.events += self.store.restore_slice(slice.slice).await?;
            restored.slices += 1;
            (self.progress)(restored.events, all);
        }
        Ok(restored)
    }

    /// Compares every slice with what was put there.
    ///
    /// # Errors
    /// [`ReadError`] when the server does not answer.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn verify(self) -> Result<ArchiveState, ReadError> {
        let mut state = ArchiveState::default();
        let slices = self.store.archive_slices().await?;
        let all = slices.iter().map(|slice| slice.events).sum();
        for slice in slices {
            let problem = match self.store.verify_slice(slice.slice).await? {
                SliceState::Sound => None,
                SliceState::Gone => continue,
                SliceState::Different { events } if events != slice.events => {
                    Some(format!("it has {events} events and should have {}", slice.events))
                }
                SliceState::Different { .. } => {
                    Some("its events are not those that were put there".to_owned())
                }
                SliceState::Double => Some("some of its events are in the log as well".to_owned()),
            };
            let place = format!("slice {} of shard {}", slice.slice, slice.shard);
            state.problems.extend(problem.map(|problem| format!("{place}: {problem}")));
            state.events += slice.events;
            state.slices += 1;
            (self.progress)(state.events, all);
        }
        let strays = self.store.archive_strays().await?;
        if strays > 0 {
            state.problems.push(format!("it has events of {strays} slices that it does not know"));
        }
        Ok(state)
    }
}

/// A read that a write begins with: nothing was changed yet.
fn as_write(error: ReadError) -> WriteError {
    WriteError::unavailable(error)
}
