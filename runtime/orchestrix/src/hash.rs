//! The hash of the maps on the path of a command: XXH3 under a seed of the process.
//!
//! Ids come from outside, so the seed must not be known there: otherwise somebody could choose ids that all fall into
//! one place. It is drawn once, by the standard library's own source of chance. Nothing that is stored depends on it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Makes the hashers of a map whose keys are ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdHash {
    seed: u64,
}

impl Default for IdHash {
    fn default() -> Self {
        static SEED: OnceLock<u64> = OnceLock::new();
        Self { seed: *SEED.get_or_init(|| RandomState::new().hash_one(0_u8)) }
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.seed)
    }
}

/// Hashes each part of a key with the hash of the parts before it as the seed.
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
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
    use orchestrix_core::StreamId;

    use super::*;

    #[test]
    fn type_and_id_do_not_run_together() {
        let hash = |aggregate_type: &'static str, id: &str| {
            IdHash::default().hash_one(StreamId::new(aggregate_type, id))
        };
        assert_eq!(hash("account", "1"), hash("account", "1"));
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
        assert_ne!(hash("account", "1"), hash("account", "2"));
    }
}
