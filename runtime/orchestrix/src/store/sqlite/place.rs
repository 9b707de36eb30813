//! Where an event lies in the table of events: shard and seq in one number.

use orchestrix_core::{Seq, ShardId};

/// How many bits a seq has. A shard takes 10^12 events; twelve bits for the shard are enough for 4,096.
const SEQ_BITS: u32 = 40;

/// The last seq that a shard can hold.
pub(super) const SEQ_MAX: u64 = (1 << SEQ_BITS) - 1;

/// Returns the row of an event: those of a shard lie side by side, in their order.
pub(super) fn position(shard: ShardId, seq: Seq) -> i64 {
    (i64::from(shard.get()) << SEQ_BITS) | seq.get().min(SEQ_MAX) as i64
}

/// Returns the shard and the seq of a row.
pub(super) fn shard_and_seq(position: i64) -> (ShardId, Seq) {
    let seq = position as u64 & SEQ_MAX;
    (ShardId::new((position >> SEQ_BITS) as u32), Seq::new(seq))
}

/// Turns a limit into what SQLite takes.
pub(super) fn limit(events_max: usize) -> i64 {
    i64::try_from(events_max).unwrap_or(i64::MAX)
}

/// Turns a version, an epoch or a seq into what SQLite takes; what is over its range is over every stored number.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_its_shard_and_its_seq() {
        for (shard, seq) in [(0, 1), (4_095, SEQ_MAX), (7, 12)] {
            let (shard, seq) = (ShardId::new(shard), Seq::new(seq));
            assert_eq!(shard_and_seq(position(shard, seq)), (shard, seq));
        }
    }

    #[test]
    fn the_last_row_of_a_shard_comes_before_the_first_of_the_next() {
        assert!(position(ShardId::new(3), Seq::new(u64::MAX)) < position(ShardId::new(4), Seq::ZERO));
    }
}
