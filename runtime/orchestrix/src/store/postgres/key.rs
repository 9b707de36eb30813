//! The key of a stream in the indexes: 128 bits over its type and id. It is part of the log's format.

use orchestrix_core::StreamId;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Names a stream in 16 bytes. Two streams share one by an accident of one in 10^20 for 10^9 streams; the names are
/// compared beside it everywhere, so that such an accident would keep the second stream from being created, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StreamKey(pub(super) u128);

impl StreamKey {
    /// Hashes type, a zero byte and id, from a seed that is a secret of the database: nobody can look for ids that collide.
    pub(super) fn of(stream: &StreamId, seed: u64) -> Self {
        let (name, id) = (stream.aggregate_type.as_bytes(), stream.id.as_bytes());
        let length = name.len() + 1 + id.len();
        let mut short = [0; 384];
        match short.get_mut(..length) {
            Some(text) => {
                text[..name.len()].copy_from_slice(name);
                text[name.len() + 1..].copy_from_slice(id);
                Self(xxh3_128_with_seed(text, seed))
            }
            None => Self(xxh3_128_with_seed(&[name, &[0], id].concat(), seed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str, id: &str, seed: u64) -> u128 {
        StreamKey::of(&StreamId::new(name, id), seed).0
    }

    /// The numbers are frozen: a change here would strand every stored stream.
    #[test]
    fn the_key_never_changes() {
        assert_eq!(key("account", "a-1", 7), xxh3_128_with_seed(b"account\0a-1", 7));
        assert_eq!(format!("{:032x}", key("account", "a-1", 7)), "111405463ca895aa3bda44036b98f9b2");
        assert_eq!(format!("{:032x}", key("account", "zürich", 0)), "872bdfe2a11480aeeb69b712860637b4");
    }

    #[test]
    fn type_id_and_seed_tell_keys_apart() {
        assert_ne!(key("ab", "c", 0), key("a", "bc", 0));
        assert_ne!(key("a", "b", 0), key("a", "b", 1));
    }

    #[test]
    fn a_long_id_has_a_key() {
        let id = "x".repeat(1_000);
        assert_eq!(key("a", &id, 3), xxh3_128_with_seed(format!("a\0{id}").as_bytes(), 3));
    }
}
