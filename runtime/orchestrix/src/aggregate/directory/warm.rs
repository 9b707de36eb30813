//! Which aggregates of a shard were used last: what its next owner brings into memory before the work comes.

use std::cmp::Reverse;

use orchestrix_core::{ShardId, StreamId};

use super::Local;

/// The aggregates of one shard that are handed over warm at most. With 256 shards these are 65,536 in all, more than a
/// node is busy with within the second to which uses are told apart.
pub(crate) const WARM_MAX: usize = 256;

impl Local {
    /// Returns the aggregates of a shard that are in memory, the ones that were used last first.
    pub(crate) fn warm_list(&self, shard: ShardId) -> Vec<StreamId> {
        let entries = self.entries.borrow();
        let of_shard = entries.iter().filter(|entry| entry.shard == shard);
        let mut residents: Vec<_> = of_shard
            .filter_map(|entry| entry.resident.as_deref())
            .map(|resident| (Reverse(resident.touched()), resident))
            .collect();
        residents.sort_unstable_by_key(|(touched, _)| *touched);
        residents.iter().take(WARM_MAX).map(|(_, resident)| resident.stream()).collect()
    }
}
