//! Which shards this run of the node owns, and under which epochs.
//!
//! Each shard has one atomic word that holds what it is (open, sealing, closed) and the *term* that it is in: the epoch
//! with which the node began to own it. An aggregate keeps the term under which it was loaded, so the look before an
//! answer is one load and one comparison, and an aggregate of an earlier term never speaks in a later one.
//!
//! The epoch that writes carry stands beside it. It begins as the term's, and a claim that resolves a doubt raises it
//! without ending the term: nobody else owned the shard in between.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use orchestrix_core::store::Claim;
use orchestrix_core::{Epoch, Incarnation, ShardId};

use crate::error::NotAttempted;

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const SEALING: u64 = 2;

/// The low bits of a word say what the shard is; the others are its term.
const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;

/// What a shard is at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// The node owns it and takes work for it.
    Open {
        /// The epoch with which that began.
        term: Epoch,
    },
    /// The node owns it, takes no new work for it, and finishes what it has.
    Sealing {
        /// The epoch with which the node began to own it.
        term: Epoch,
    },
    /// The node does not own it.
    Closed {
        /// Who is believed to own it.
        owner: Option<Incarnation>,
        /// The newest epoch of the shard that this node has heard of.
        epoch: Epoch,
    },
}

/// One shard.
#[derive(Default)]
struct Shard {
    word: AtomicU64,
    epoch: AtomicU64,
}

/// Who is believed to own a shard that this node does not own.
#[derive(Clone, Copy, Default)]
struct Hint {
    owner: Option<Incarnation>,
    epoch: Epoch,
}

/// What this run of the node owns.
pub(crate) struct Ownership {
    owner: Mutex<Incarnation>,
    shards: Vec<Shard>,
    /// Looked at only where work is refused.
    hints: Mutex<Vec<Hint>>,
    /// Shards that an append found to have another owner, until the keeper takes them up. At most all shards.
    lost: Mutex<Vec<(ShardId, Epoch)>>,
}

impl Ownership {
    /// Begins with every shard closed.
    pub(crate) fn new(owner: Incarnation, shards: usize) -> Self {
        Self {
            owner: Mutex::new(owner),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            hints: Mutex::new(vec![Hint::default(); shards]),
            lost: Mutex::default(),
        }
    }

    /// Returns this run of the node.
    pub(crate) fn owner(&self) -> Incarnation {
        *lock(&self.owner)
    }

    /// Takes note that the node goes on as a new run. Every shard is closed, so nothing of the former one is in flight.
    pub(crate) fn change_owner(&self, owner: Incarnation) {
        *lock(&self.owner) = owner;
    }

    /// Returns the epoch that a write to a shard carries.
    pub(crate) fn epoch(&self, shard: ShardId) -> Epoch {
        Epoch::new(self.shard(shard).epoch.load(Ordering::Acquire))
    }

    /// Takes note of a claim that was made to end a doubt: a term goes on under a higher epoch.
    pub(crate) fn claimed(&self, claim: Claim) {
        self.shard(claim.shard).epoch.fetch_max(claim.epoch.get(), Ordering::AcqRel);
    }

    /// Begins a term: the node owns the shard by this claim and takes work for it.
    pub(crate) fn open(&self, claim: Claim) {
        // The epoch comes first: whoever sees the term sees an epoch of that term.
        self.claimed(claim);
        self.shard(claim.shard).word.store(word(OPEN, claim.epoch), Ordering::Release);
    }

    /// Takes no new work for a shard that is open. What is under way may still be answered.
    pub(crate) fn seal(&self, shard: ShardId) {
        let sealing = |now| (now & STATE_MASK == OPEN).then(|| word(SEALING, term(now)));
        // A shard that is not open has nothing to seal.
        let _ = self.shard(shard).word.fetch_update(Ordering::AcqRel, Ordering::Acquire, sealing);
    }

    /// Ends whatever term the shard is in: from now on nothing is said for it.
    pub(crate) fn close(&self, shard: ShardId) {
        self.shard(shard).word.store(CLOSED, Ordering::Release);
    }

    /// An append of this term was fenced: somebody else owns the shard. Returns whether this is news. What an aggregate
    /// of an earlier term finds out says nothing about a later one.
    pub(crate) fn lose(&self, shard: ShardId, of: Epoch) -> bool {
        let closed = |now| (now & STATE_MASK != CLOSED && term(now) == of).then_some(CLOSED);
        let is_news =
            self.shard(shard).word.fetch_update(Ordering::AcqRel, Ordering::Acquire, closed).is_ok();
        if is_news {
            lock(&self.lost).push((shard, of));
        }
        is_news
    }

    /// Returns the shards that were lost since the last call, with the terms that ended by that.
    pub(crate) fn take_lost(&self) -> Vec<(ShardId, Epoch)> {
        std::mem::take(&mut *lock(&self.lost))
    }

    /// Takes note of who is said to own a shard. What is older than what is known changes nothing.
    pub(crate) fn hint(&self, shard: ShardId, owner: Option<Incarnation>, epoch: Epoch) {
        let hint = &mut lock(&self.hints)[shard.get() as usize];
        if epoch >= hint.epoch {
            *hint = Hint { owner, epoch };
        }
    }

    /// Returns the term of a shard that takes work.
    pub(crate) fn open_term(&self, shard: ShardId) -> Option<Epoch> {
        let now = self.shard(shard).word.load(Ordering::Acquire);
        (now & STATE_MASK == OPEN).then(|| term(now))
    }

    /// Tells whether an aggregate that was loaded in this term may speak for its shard.
    pub(crate) fn speaks(&self, shard: ShardId, of: Epoch) -> bool {
        let now = self.shard(shard).word.load(Ordering::Acquire);
        now & STATE_MASK != CLOSED && term(now) == of
    }

    /// Returns what a shard is.
    pub(crate) fn state(&self, shard: ShardId) -> ShardState {
        let now = self.shard(shard).word.load(Ordering::Acquire);
        match now & STATE_MASK {
            OPEN => ShardState::Open { term: term(now) },
            SEALING => ShardState::Sealing { term: term(now) },
            _ => {
                let Hint { owner, epoch } = lock(&self.hints)[shard.get() as usize];
                ShardState::Closed { owner, epoch: epoch.max(self.epoch(shard)) }
            }
        }
    }

    /// Says to a caller that the node does not take work for a shard, and who may.
    pub(crate) fn not_owner(&self, shard: ShardId) -> NotAttempted {
        match self.state(shard) {
            // Its next owner is not known before it is released.
            ShardState::Open { term } | ShardState::Sealing { term } => {
                NotAttempted::NotOwner { shard, owner: None, epoch: term }
            }
            ShardState::Closed { owner, epoch } => NotAttempted::NotOwner { shard, owner, epoch },
        }
    }

    fn shard(&self, shard: ShardId) -> &Shard {
        &self.shards[shard.get() as usize]
    }
}

fn word(state: u64, term: Epoch) -> u64 {
    term.get() << STATE_BITS | state
}

fn term(word: u64) -> Epoch {
    Epoch::new(word >> STATE_BITS)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use orchestrix_core::Seq;

    use super::*;

    const ONE: ShardId = ShardId::new(1);

    fn ownership() -> Ownership {
        Ownership::new(Incarnation::fresh(), 2)
    }

    fn claim(epoch: u64) -> Claim {
        Claim { shard: ONE, epoch: Epoch::new(epoch), head: Seq::ZERO }
    }

    fn epoch(number: u64) -> Epoch {
        Epoch::new(number)
    }

    #[test]
    fn a_shard_begins_closed_and_its_neighbour_is_not_opened_with_it() {
        let ownership = ownership();
        ownership.open(claim(3));
        assert_eq!(ownership.open_term(ONE), Some(epoch(3)));
        assert_eq!(ownership.open_term(ShardId::new(0)), None);
        assert!(!ownership.speaks(ShardId::new(0), Epoch::ZERO), "nobody speaks for what was never owned");
    }

    #[test]
    fn what_is_sealing_takes_no_work_and_still_answers() {
        let ownership = ownership();
        ownership.open(claim(3));
        ownership.seal(ONE);
        assert_eq!(ownership.state(ONE), ShardState::Sealing { term: epoch(3) });
        assert_eq!(ownership.open_term(ONE), None);
        assert!(ownership.speaks(ONE, epoch(3)));
        ownership.close(ONE);
        ownership.seal(ONE);
        assert!(!ownership.speaks(ONE, epoch(3)), "what is closed is not sealed");
    }

    #[test]
    fn an_earlier_term_does_not_speak_in_a_later_one() {
        let ownership = ownership();
        ownership.open(claim(3));
        ownership.close(ONE);
        ownership.open(claim(5));
        assert!(!ownership.speaks(ONE, epoch(3)));
        assert!(ownership.speaks(ONE, epoch(5)));
        assert!(!ownership.lose(ONE, epoch(3)), "nor does its loss end the later one");
        assert!(ownership.speaks(ONE, epoch(5)));
    }

    #[test]
    fn a_claim_that_ends_a_doubt_goes_on_with_the_term() {
        let ownership = ownership();
        ownership.open(claim(3));
        ownership.claimed(claim(4));
        assert_eq!((ownership.epoch(ONE), ownership.open_term(ONE)), (epoch(4), Some(epoch(3))));
        assert!(ownership.speaks(ONE, epoch(3)));
    }

    #[test]
    fn a_shard_that_was_lost_is_told_once() {
        let ownership = ownership();
        ownership.open(claim(3));
        assert!(ownership.lose(ONE, epoch(3)));
        assert!(!ownership.lose(ONE, epoch(3)));
        assert!(!ownership.speaks(ONE, epoch(3)));
        assert_eq!((ownership.take_lost(), ownership.take_lost()), (vec![(ONE, epoch(3))], vec![]));
    }

    #[test]
    fn the_newest_hint_is_given() {
        let (ownership, owner) = (ownership(), Incarnation::fresh());
        ownership.open(claim(3));
        ownership.close(ONE);
        ownership.hint(ONE, Some(owner), epoch(4));
        ownership.hint(ONE, None, epoch(2));
        let told = NotAttempted::NotOwner { shard: ONE, owner: Some(owner), epoch: epoch(4) };
        assert_eq!(ownership.not_owner(ONE), told);
    }
}
