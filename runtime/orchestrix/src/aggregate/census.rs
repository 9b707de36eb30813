//! How many aggregates of each shard are resident on an arbiter, and who waits until there are none.

use orchestrix_core::{ShardCount, ShardId};
use tokio::sync::oneshot;

/// Some of an arbiter's shards.
pub(crate) enum ShardSet {
    /// Every one.
    All,
    /// These, by their numbers.
    These(Vec<ShardId>),
}

impl ShardSet {
    /// Takes the shards of a list.
    pub(crate) fn these(shards: &[ShardId]) -> Self {
        let mut sorted = shards.to_vec();
        sorted.sort_unstable();
        Self::These(sorted)
    }

    /// Tells whether a shard is one of them.
    pub(crate) fn contain(&self, shard: ShardId) -> bool {
        match self {
            Self::All => true,
            Self::These(sorted) => sorted.binary_search(&shard).is_ok(),
        }
    }
}

/// The count of residents by shard.
pub(crate) struct Census {
    residents: Vec<u32>,
    /// Several may wait at once: a shutdown may begin while shards are sealed or fenced.
    waiting: Vec<(ShardSet, oneshot::Sender<()>)>,
}

impl Census {
    pub(crate) fn new(shards: ShardCount) -> Self {
        Self { residents: vec![0; shards.get() as usize], waiting: Vec::new() }
    }

    /// An aggregate of a shard came into memory.
    pub(crate) fn came(&mut self, shard: ShardId) {
        self.residents[shard.get() as usize] += 1;
    }

    /// An aggregate of a shard has gone. Whoever waited for the last one is told.
    pub(crate) fn went(&mut self, shard: ShardId) {
        let residents = &mut self.residents[shard.get() as usize];
        *residents -= 1;
        if *residents == 0 && !self.waiting.is_empty() {
            self.tell();
        }
    }

    /// Says so when none of these shards has a resident, at once if that is so now.
    pub(crate) fn wait_for_none(&mut self, shards: ShardSet, gone: oneshot::Sender<()>) {
        self.waiting.push((shards, gone));
        self.tell();
    }

    fn tell(&mut self) {
        let residents = &self.residents;
        for (_, gone) in self.waiting.extract_if(.., |(shards, _)| has_none(residents, shards)) {
            // Whoever asked may have stopped waiting.
            let _ = gone.send(());
        }
    }
}

fn has_none(residents: &[u32], shards: &ShardSet) -> bool {
    match shards {
        ShardSet::All => residents.iter().all(|residents| *residents == 0),
        ShardSet::These(shards) => shards.iter().all(|shard| residents[shard.get() as usize] == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ShardId = ShardId::new(1);
    const TWO: ShardId = ShardId::new(2);

    fn census(residents: &[ShardId]) -> Census {
        let mut census = Census::new(ShardCount::new(4).expect("in range"));
        for shard in residents {
            census.came(*shard);
        }
        census
    }

    fn wait_for_none(census: &mut Census, shards: ShardSet) -> impl FnMut() -> bool + use<> {
        let (gone, mut wait) = oneshot::channel();
        census.wait_for_none(shards, gone);
        move || wait.try_recv().is_ok()
    }

    #[test]
    fn shards_without_residents_are_not_waited_for() {
        let mut census = census(&[ONE]);
        assert!(wait_for_none(&mut census, ShardSet::these(&[TWO]))());
        assert!(!wait_for_none(&mut census, ShardSet::these(&[TWO, ONE]))());
    }

    #[test]
    fn the_last_resident_of_the_last_shard_is_waited_for() {
        let mut census = census(&[ONE, ONE, TWO, ShardId::new(3)]);
        let mut are_gone = wait_for_none(&mut census, ShardSet::these(&[TWO, ONE]));
        census.went(ONE);
        census.went(TWO);
        assert!(!are_gone());
        census.went(ONE);
        assert!(are_gone(), "the neighbour stays");
    }

    #[test]
    fn a_second_wait_does_not_end_the_first() {
        let mut census = census(&[ONE, TWO]);
        let mut of_one = wait_for_none(&mut census, ShardSet::these(&[ONE]));
        let mut of_all = wait_for_none(&mut census, ShardSet::All);
        let mut again = wait_for_none(&mut census, ShardSet::these(&[ONE]));
        assert!(!of_one() && !of_all() && !again());
        census.went(ONE);
        assert!(of_one() && again() && !of_all());
        census.went(TWO);
        assert!(of_all());
    }
}
