//! Which shard a stream lives in. The hash is part of the log's format: it never changes.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::StreamId;

/// One part of the log, with one owner at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(u32);

impl ShardId {
    /// Wraps a shard's number, counted from 0.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the shard's number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many shards a log has: 1 to 4,096, set when the database is created and fixed from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardCount(u32);

impl ShardCount {
    /// What a database gets unless told otherwise.
    pub const DEFAULT: Self = Self(256);
    /// The most shards that a log may have.
    pub const MAX: u32 = 4_096;

    /// Checks a number of shards; `None` when it is 0 or over [`ShardCount::MAX`].
    pub const fn new(count: u32) -> Option<Self> {
        if count == 0 || count > Self::MAX { None } else { Some(Self(count)) }
    }

    /// Returns the number of shards.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns every shard, in order.
    pub fn all(self) -> impl Iterator<Item = ShardId> {
        (0..self.0).map(ShardId)
    }

    /// Returns the shard of a stream: XXH3-64 over type, a zero byte and id, modulo the count.
    pub fn shard_of(self, aggregate_type: &str, id: &str) -> ShardId {
        let mut hash = Xxh3::new();
        hash.update(aggregate_type.as_bytes());
        hash.update(&[0]);
        hash.update(id.as_bytes());
        ShardId((hash.digest() % u64::from(self.0)) as u32)
    }

    /// Returns the shard of a stream.
    pub fn shard_of_stream(self, stream: &StreamId) -> ShardId {
        self.shard_of(&stream.aggregate_type, &stream.id)
    }
}

impl Default for ShardCount {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are frozen: a change here would strand every stored stream.
    #[test]
    fn the_hash_never_changes() {
        let count = ShardCount::DEFAULT;
        let shards = ["a-1", "a-2", "zürich", ""].map(|id| count.shard_of("account", id).get());
        assert_eq!(shards, [118, 207, 212, 204]);
    }

    #[test]
    fn type_and_id_do_not_run_together() {
        let count = ShardCount::new(4_096).expect("in range");
        assert_ne!(count.shard_of("ab", "c"), count.shard_of("a", "bc"));
    }

    #[test]
    fn the_count_has_a_range() {
        assert!(ShardCount::new(0).is_none());
        assert!(ShardCount::new(4_097).is_none());
        assert_eq!(ShardCount::new(3).map(|count| count.all().count()), Some(3));
    }
}
