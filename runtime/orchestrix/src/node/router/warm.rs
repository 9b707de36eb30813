//! Which aggregates should be in memory as soon as their shards come here: what their owners said they use.

use std::collections::HashMap;

use orchestrix_core::{ShardId, StreamId};

use crate::aggregate::WARM_MAX;

/// Lists that are kept for shards on their way here. More than that are not on their way at once, unless a cluster of
/// thousands of shards begins.
const LISTS_MAX: usize = 1_024;

/// Lists of aggregates by shard, until the shards are opened. What is over the bounds is loaded when it is used.
#[derive(Default)]
pub(super) struct WarmLists(HashMap<ShardId, Vec<StreamId>>);

impl WarmLists {
    /// Keeps an aggregate of a shard.
    pub(super) fn keep(&mut self, shard: ShardId, stream: StreamId) {
        if self.0.len() >= LISTS_MAX && !self.0.contains_key(&shard) {
            return;
        }
        let list = self.0.entry(shard).or_default();
        if list.len() < WARM_MAX {
            list.push(stream);
        }
    }

    /// Takes what was kept for shards that were opened.
    pub(super) fn take(&mut self, opened: &[ShardId]) -> Vec<StreamId> {
        opened.iter().filter_map(|shard| self.0.remove(shard)).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(number: usize) -> StreamId {
        StreamId::new("counter", number.to_string())
    }

    #[test]
    fn what_was_kept_for_a_shard_is_taken_once() {
        let mut lists = WarmLists::default();
        let (one, two) = (ShardId::new(1), ShardId::new(2));
        lists.keep(one, stream(1));
        lists.keep(one, stream(2));
        lists.keep(two, stream(3));
        assert_eq!(lists.take(&[one]), [stream(1), stream(2)]);
        assert_eq!(lists.take(&[one, two]), [stream(3)]);
    }

    #[test]
    fn lists_that_come_again_and_again_do_not_grow() {
        let mut lists = WarmLists::default();
        (0..3 * WARM_MAX).for_each(|number| lists.keep(ShardId::new(0), stream(number)));
        (0..3 * LISTS_MAX).for_each(|shard| lists.keep(ShardId::new(shard as u32), stream(shard)));
        assert_eq!(lists.0.len(), LISTS_MAX);
        assert_eq!(lists.take(&[ShardId::new(0)]).len(), WARM_MAX);
    }
}
