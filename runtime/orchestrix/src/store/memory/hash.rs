//! A map by stream that hashes with XXH3: the lookup is on the path of every commit.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use orchestrix_core::StreamId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Something per stream.
pub(super) type StreamMap<T> = HashMap<StreamId, T, BuildHasherDefault<StreamHasher>>;

/// Hashes each part of a [`StreamId`] with the hash of the parts before it as the seed.
#[derive(Default)]
pub(super) struct StreamHasher(u64);

impl Hasher for StreamHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// Skips the byte with which `str` ends: the seeds keep the parts apart already.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault};

    use super::*;

    #[test]
    fn type_and_id_do_not_run_together() {
        let build = BuildHasherDefault::<StreamHasher>::default();
        let hash = |aggregate_type: &'static str, id: &str| build.hash_one(StreamId::new(aggregate_type, id));
        assert_eq!(hash("account", "1"), hash("account", "1"));
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
        assert_ne!(hash("account", "1"), hash("account", "2"));
    }
}
