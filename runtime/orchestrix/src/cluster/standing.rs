//! Whether this node may answer now. Every answer that rests on what the node believes (a read, a refusal, a repeated
//! reply) looks here after it was computed, and at its shard; an answer whose events were stored needs no look, since the
//! store looked.
//!
//! The lease is the whole node's; which shards it holds under it is told by [`Ownership`](crate::writer::Ownership).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use super::boottime::BootTime;
use crate::error::NotAttempted;
use crate::node::NodeStatus;

const HOLDS: u8 = 0;
const DEPOSED: u8 = 1;
const BROKEN: u8 = 2;

/// Stands for a lease that never ends.
const FOREVER: u64 = u64::MAX;

/// Whether the node holds its shards.
#[derive(Debug)]
pub(crate) struct Standing {
    state: AtomicU8,
    /// The end of the lease, in nanoseconds of [`BootTime`].
    until: AtomicU64,
    has_leases: bool,
    /// Something happened that the store knows more about; the keeper should ask it now.
    asked: AtomicBool,
}

/// Why a node says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Its lease has ended, since the store did not answer in time. Nobody may have taken over.
    Lapsed,
    /// It does not hold its shards any more.
    Lost,
}

impl From<Silence> for NotAttempted {
    fn from(silence: Silence) -> Self {
        Self::unavailable(match silence {
            Silence::Lapsed => "the lease of this node has ended, since the store did not answer in time",
            Silence::Lost => "this node lost its shards to another owner",
        })
    }
}

impl Standing {
    /// Makes one that holds: under a lease until a moment, or for ever at a store without leases.
    pub(crate) fn new(until: Option<BootTime>) -> Self {
        Self {
            state: AtomicU8::new(HOLDS),
            until: AtomicU64::new(until.map_or(FOREVER, BootTime::as_nanos)),
            has_leases: until.is_some(),
            asked: AtomicBool::new(false),
        }
    }

    /// Says that an answer may leave as far as the whole node is concerned, or why not.
    pub(crate) fn check(&self) -> Result<(), Silence> {
        match self.state.load(Ordering::Acquire) {
            HOLDS if self.is_within_lease() => Ok(()),
            HOLDS => Err(Silence::Lapsed),
            _ => Err(Silence::Lost),
        }
    }

    /// Tells whether the node holds single shards under a lease: then the loss of one is that one's.
    pub(crate) fn has_leases(&self) -> bool {
        self.has_leases
    }

    /// Asks the keeper to look at the store now.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Tells whether the keeper was asked to look since it did so last.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Takes note that the keeper looks now.
    pub(crate) fn looking(&self) {
        self.asked.store(false, Ordering::Release);
    }

    /// Returns the node's status as far as its shards decide it.
    pub(crate) fn status(&self) -> NodeStatus {
        match self.state.load(Ordering::Acquire) {
            HOLDS if self.is_within_lease() => NodeStatus::Running,
            HOLDS | DEPOSED => NodeStatus::Suspended,
            _ => NodeStatus::Fenced,
        }
    }

    fn is_within_lease(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == FOREVER || BootTime::now().as_nanos() < until
    }

    /// The lease was extended.
    pub(crate) fn extend(&self, until: BootTime) {
        self.until.fetch_max(until.as_nanos(), Ordering::AcqRel);
    }

    /// Another run took over. At a store with leases the keeper claims anew; elsewhere this is for good. Returns whether
    /// this is news.
    pub(crate) fn depose(&self) -> bool {
        let state = if self.has_leases { DEPOSED } else { BROKEN };
        self.state.compare_exchange(HOLDS, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Something that the node cannot do without has failed for good. Returns whether this is news.
    pub(crate) fn become_broken(&self) -> bool {
        self.state.swap(BROKEN, Ordering::AcqRel) != BROKEN
    }

    /// Tells whether something has failed for good that the node cannot do without.
    #[cfg(feature = "cluster")]
    pub(crate) fn is_broken(&self) -> bool {
        self.state.load(Ordering::Acquire) == BROKEN
    }

    /// Tells whether the keeper has to claim anew.
    pub(crate) fn is_deposed(&self) -> bool {
        self.state.load(Ordering::Acquire) == DEPOSED
    }

    /// The shards were claimed anew under a lease until a moment.
    pub(crate) fn restore(&self, until: BootTime) {
        self.until.store(until.as_nanos(), Ordering::Release);
        // What is broken stays broken.
        let _ = self.state.compare_exchange(DEPOSED, HOLDS, Ordering::AcqRel, Ordering::Acquire);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn in_an_hour() -> BootTime {
        BootTime::now().plus(Duration::from_hours(1))
    }

    #[test]
    fn a_store_without_leases_is_held_until_somebody_takes_it() {
        let standing = Standing::new(None);
        assert_eq!((standing.check(), standing.status()), (Ok(()), NodeStatus::Running));
        assert!(standing.depose());
        assert!(!standing.depose(), "that is no news");
        assert_eq!(standing.status(), NodeStatus::Fenced);
        assert_eq!(standing.check(), Err(Silence::Lost));
    }

    #[test]
    fn nothing_leaves_after_the_lease_until_it_is_extended() {
        let standing = Standing::new(Some(BootTime::from_nanos(1)));
        assert_eq!(standing.status(), NodeStatus::Suspended);
        assert_eq!(standing.check(), Err(Silence::Lapsed));
        standing.extend(in_an_hour());
        assert_eq!(standing.check(), Ok(()));
        standing.extend(BootTime::from_nanos(1));
        assert_eq!(standing.check(), Ok(()), "an answer out of order takes nothing back");
    }

    #[test]
    fn a_deposed_node_answers_again_once_it_has_claimed_anew() {
        let standing = Standing::new(Some(in_an_hour()));
        assert!(standing.depose() && standing.is_deposed());
        assert_eq!(standing.status(), NodeStatus::Suspended);
        standing.restore(in_an_hour());
        assert_eq!(standing.check(), Ok(()));
        assert!(standing.become_broken());
        standing.restore(in_an_hour());
        assert_eq!(standing.status(), NodeStatus::Fenced, "what is broken stays broken");
    }
}
