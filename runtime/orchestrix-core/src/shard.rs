//! Which shard a stream lives in. The hash is part of the log's format: it never changes.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::stream::{ID_BYTES_MAX, NAME_BYTES_MAX, StreamId};

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
        let parts: [&[u8]; 3] = [aggregate_type.as_bytes(), &[0], id.as_bytes()];
        let mut buffer = [0; NAME_BYTES_MAX + 1 + ID_BYTES_MAX];
        // One short text on the stack is hashed several times faster than a stream of parts.
        let hash = match join(&parts, &mut buffer) {
            Some(text) => xxh3_64(text),
            None => xxh3_64(&parts.concat()),
        };
        ShardId((hash % u64::from(self.0)) as u32)
    }

    /// Returns the shard of a stream.
    pub fn shard_of_stream(self, stream: &StreamId) -> ShardId {
        self.shard_of(&stream.aggregate_type, &stream.id)
    }
}

/// Joins parts in a buffer; `None` when they do not fit.
fn join<'a>(parts: &[&[u8]], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut at = 0;
    for part in parts {
        buffer.get_mut(at..at + part.len())?.copy_from_slice(part);
        at += part.len();
    }
    Some(&buffer[..at])
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
    fn an_id_of_any_length_has_a_shard() {
        let shard = |bytes| ShardCount::DEFAULT.shard_of("account", &"x".repeat(bytes));
        assert_eq!(
            shard(10_000),
            ShardId((xxh3_64(format!("account\0{}", "x".repeat(10_000)).as_bytes()) % 256) as u32)
        );
        assert_eq!(
            shard(255),
            ShardId((xxh3_64(format!("account\0{}", "x".repeat(255)).as_bytes()) % 256) as u32)
        );
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
