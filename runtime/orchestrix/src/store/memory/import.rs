//! Imports into memory: the events become commits again, since that is how the log keeps them.

use std::sync::MutexGuard;

use orchestrix_core::Seq;
use orchestrix_core::store::{ImportError, ImportStep, RecordedEvent};

use super::shard::Shard;
use super::{Memory, Refused};
use crate::store::import::{Needs, commits_of, gap};

impl Memory {
    /// Locks every shard in their order, so that what is seen is one moment. Whoever holds several takes them in order.
    pub(super) fn all_shards(&self) -> Result<Vec<MutexGuard<'_, Shard>>, Refused> {
        self.shard_count.all().map(|shard| self.shard(shard)).collect()
    }

    pub(super) fn heads_now(&self) -> Result<Vec<Seq>, Refused> {
        Ok(self.all_shards()?.iter().map(|shard| shard.head()).collect())
    }

    pub(super) fn import_step(&self, step: ImportStep) -> Result<(), ImportError> {
        match step {
            ImportStep::Begin { name } => self.begin_import(name),
            ImportStep::Events(events) => self.import_events(events),
            ImportStep::Finish => self.finish_import(),
        }
    }

    fn begin_import(&self, name: String) -> Result<(), ImportError> {
        let mut shards = self.all_shards()?;
        match shards.iter().find_map(|shard| shard.importing()) {
            Some(other) if *other != name => return Err(ImportError::Another { name: other.to_owned() }),
            Some(_) => return Ok(()),
            None => {}
        }
        if let Some(found) = shards.iter().find_map(|shard| shard.contents()) {
            return Err(ImportError::NotEmpty { found });
        }
        for shard in &mut shards {
            shard.set_importing(Some(name.clone()));
        }
        Ok(())
    }

    fn import_events(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        let needs = Needs::of(&events, self.shard_count)?;
        let mut shards = self.all_shards()?;
        if shards.iter().any(|shard| shard.importing().is_none()) {
            return Err(ImportError::NotBegun);
        }
        for (shard, head) in &needs.heads {
            let found = shards[shard.get() as usize].head();
            if found != *head {
                return Err(ImportError::Gap {
                    shard: *shard,
                    seq: head.next(),
                    reason: format!("the shard ends at seq {found}"),
                });
            }
        }
        for (stream, version) in &needs.versions {
            let found = shards[self.shard_count.shard_of_stream(stream).get() as usize].version(stream);
            let first = events.iter().find(|event| event.stream == *stream).filter(|_| found != *version);
            if let Some(first) = first {
                return Err(gap(first, format!("{stream} is at version {found}")));
            }
        }
        for commit in commits_of(events) {
            shards[commit.shard.get() as usize].import(&commit);
        }
        Ok(())
    }

    fn finish_import(&self) -> Result<(), ImportError> {
        let mut shards = self.all_shards()?;
        if shards.iter().any(|shard| shard.importing().is_none()) {
            return Err(ImportError::NotBegun);
        }
        for shard in &mut shards {
            shard.set_importing(None);
        }
        Ok(())
    }
}

impl From<Refused> for ImportError {
    fn from(refused: Refused) -> Self {
        Self::unavailable(refused)
    }
}
