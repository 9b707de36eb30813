//! How far a reader of the log has come: one seq per shard.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::shard::ShardId;
use crate::version::Seq;

/// A vector of shard -> seq: everything up to and including these places has been seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Checkpoint(BTreeMap<ShardId, Seq>);

impl Checkpoint {
    /// Returns the last seq seen of a shard; [`Seq::ZERO`] when none was.
    pub fn seq(&self, shard: ShardId) -> Seq {
        self.0.get(&shard).copied().unwrap_or_default()
    }

    /// Moves a shard forward; a step back is ignored, so that an old acknowledgement cannot undo a newer one.
    pub fn advance(&mut self, shard: ShardId, seq: Seq) {
        let place = self.0.entry(shard).or_default();
        *place = seq.max(*place);
    }

    /// Returns the shards that have been seen at all, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ShardId, Seq)> {
        self.0.iter().map(|(shard, seq)| (*shard, *seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_never_moves_back() {
        let mut checkpoint = Checkpoint::default();
        checkpoint.advance(ShardId::new(3), Seq::new(9));
        checkpoint.advance(ShardId::new(3), Seq::new(4));
        assert_eq!(checkpoint.seq(ShardId::new(3)), Seq::new(9));
        assert_eq!(checkpoint.seq(ShardId::new(4)), Seq::ZERO);
    }
}
