//! A bounded memory of what was used last, in two halves: when the newer one is full, the older one is forgotten.
//!
//! It forgets in constant time and keeps at least the last half of its bound, which is all that its users need:
//! a stream that it forgot is looked up again.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::mem;

/// Remembers between half of its bound and all of it.
#[derive(Debug)]
pub(crate) struct Recent<K, V, S = RandomState> {
    newer: HashMap<K, V, S>,
    older: HashMap<K, V, S>,
    half: usize,
}

impl<K: Eq + Hash + Clone, V: Copy, S: BuildHasher + Default> Recent<K, V, S> {
    /// Makes an empty memory for up to `bound` keys, at least two.
    pub(crate) fn new(bound: usize) -> Self {
        Self { newer: HashMap::default(), older: HashMap::default(), half: (bound / 2).max(1) }
    }

    /// Returns what is remembered of a key, which then counts as used.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.newer.get(key) {
            return Some(*value);
        }
        let (key, value) = self.older.remove_entry(key)?;
        self.put(key, value);
        Some(value)
    }

    /// Remembers a value in place of an older one.
    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.newer.len() >= self.half && !self.newer.contains_key(&key) {
            self.older = mem::take(&mut self.newer);
        }
        self.newer.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_remembered() {
        let mut recent = Recent::<_, _>::new(8);
        for key in 0..100 {
            recent.put(key, key);
        }
        let remembered: Vec<i32> = (0..100).filter_map(|key| recent.get(&key)).collect();
        assert!(remembered.ends_with(&[96, 97, 98, 99]), "at least the last half: {remembered:?}");
        assert!(remembered.len() <= 8, "never more than the bound: {remembered:?}");
    }

    #[test]
    fn a_key_in_use_is_never_forgotten() {
        let mut recent = Recent::<_, _>::new(8);
        recent.put(1_000, 1);
        for key in 0..100 {
            recent.put(key, 0);
            assert_eq!(recent.get(&1_000), Some(1), "after {key}");
        }
    }

    #[test]
    fn a_newer_value_replaces_an_older_one() {
        let mut recent = Recent::<_, _>::new(4);
        for (key, value) in [("a", 1), ("b", 1), ("c", 1), ("a", 2)] {
            recent.put(key, value);
        }
        assert_eq!(recent.get(&"a"), Some(2));
    }
}
