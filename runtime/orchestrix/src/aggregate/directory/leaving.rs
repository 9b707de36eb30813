//! How aggregates are sent out of memory: one, those of some shards, or all of them.
//!
//! Those of some shards are found by a look at every entry of the arbiter. An entry is 24 bytes in one row, so half a
//! million residents are 12 MB, which a core reads in a few milliseconds; shards move in waves, each wave looks once, and
//! what the aggregates then do costs far more. A list for each shard would cost every aggregate memory for as long as it
//! is resident.

use std::any::Any;

use orchestrix_core::ShardId;
use tokio::sync::oneshot;

use super::{Local, Resident, Slot};
use crate::aggregate::census::ShardSet;

impl Local {
    /// Sends those out of memory that the residency has given up.
    pub(crate) fn passivate_evicted(&self) {
        for slot in self.shared.residents.take_evicted(self.index) {
            if let Some(resident) = self.at(slot) {
                resident.leave();
            }
        }
    }

    /// Sends one aggregate out of memory, if it is resident.
    pub(crate) fn passivate(&self, type_index: usize, find: &dyn Fn(&dyn Any) -> Option<Slot>) {
        let slot = find(&*self.tables.borrow()[type_index]);
        if let Some(resident) = slot.and_then(|slot| self.at(slot)) {
            resident.leave();
        }
    }

    /// Sends everybody out of memory and says so when the last one has gone.
    pub(crate) fn drain(&self, drained: oneshot::Sender<()>) {
        self.stopping.set(true);
        self.send_away(ShardSet::All, drained, |resident| resident.leave());
    }

    /// Sends the aggregates of shards that take no more work out of memory, each when it has finished what it has, and
    /// says so when the last one has gone.
    pub(crate) fn seal(&self, shards: &[ShardId], sealed: oneshot::Sender<()>) {
        self.send_away(ShardSet::these(shards), sealed, |resident| resident.leave());
    }

    /// Sends the aggregates of shards that are lost out of memory at once, and says so when the last one has gone.
    pub(crate) fn fence(&self, shards: &[ShardId], gone: oneshot::Sender<()>) {
        self.send_away(ShardSet::these(shards), gone, |resident| resident.fence());
    }

    fn send_away(&self, shards: ShardSet, gone: oneshot::Sender<()>, go: impl Fn(&dyn Resident)) {
        for entry in &*self.entries.borrow() {
            if let Some(resident) = &entry.resident
                && shards.contain(entry.shard)
            {
                go(&**resident);
            }
        }
        self.census.borrow_mut().wait_for_none(shards, gone);
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use crate::aggregate::directory::Entry;

    #[test]
    fn the_shard_takes_no_room_of_its_own_in_an_entry() {
        assert_eq!(size_of::<Entry>(), 24);
    }
}
