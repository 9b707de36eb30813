//! The writer: commits of many aggregates become batches, one append at a time per lane.
//!
//! | file | what |
//! |---|---|
//! | `batch` ◇ | which of the waiting commits travel together |
//! | `lane` | carries batches to the store and tells everybody what became of theirs |
//! | `resolve` | finds out what became of a commit whose outcome the store did not know |
//!
//! Promises: commits of one stream are appended in the order in which they were queued; nobody hears *done* before
//! the store said so; an unknown outcome is resolved before the lane appends anything else.

mod batch;
mod lane;
mod resolve;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use orchestrix_core::store::{Claim, Commit, CommitOutcome};
use orchestrix_core::{Epoch, Incarnation, ShardId, Version};

pub(crate) use lane::{Lane, Limits, Tell, TellArbiters};

use crate::aggregate::Slot;

/// One commit in a lane's queue, with everybody who waits for it.
pub(crate) struct Append {
    /// What to append; the lane stamps the epoch.
    pub(crate) commit: Commit,
    /// The resident aggregate that decided it.
    pub(crate) slot: Slot,
    /// The caller's answer, held back.
    pub(crate) pending: Box<dyn Pending>,
}

/// An answer that waits for its commit.
pub(crate) trait Pending: Send {
    /// Gives the answer.
    fn settle(self: Box<Self>, fate: &Fate);
}

/// What became of a commit, as far as the runtime is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is durable under this epoch.
    Durable(Epoch),
    /// It is not stored and never will be.
    Lost(Loss),
}

/// Why a commit is certainly not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Someone else appended to the stream, or the commit was built on one that was lost.
    Conflict,
    /// The shard has another owner.
    Fenced,
    /// The store could not take it.
    Unavailable(std::sync::Arc<str>),
}

impl Loss {
    /// Returns the kind as a label.
    fn kind(&self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Fenced => "fenced",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// Says it to a caller.
    pub(crate) fn to_not_attempted(&self) -> crate::NotAttempted {
        crate::NotAttempted::unavailable(match self {
            Self::Conflict => "the state that the command was decided on did not become durable".into(),
            Self::Fenced => "the shard has another owner".into(),
            Self::Unavailable(reason) => std::sync::Arc::clone(reason),
        })
    }
}

/// What a lane tells an aggregate about its commits of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settlement {
    /// The aggregate.
    pub(crate) slot: Slot,
    /// How many of its commits were answered.
    pub(crate) answered: u32,
    /// The version up to which it is durable now, if that moved.
    pub(crate) durable: Option<Version>,
    /// Why the first commit that was lost was lost, if one was.
    pub(crate) loss: Option<Loss>,
}

/// Which shards this run of the node owns, and at which epochs.
pub(crate) struct Ownership {
    owner: Mutex<Incarnation>,
    epochs: Vec<AtomicU64>,
}

impl Ownership {
    pub(crate) fn new(owner: Incarnation, shards: usize) -> Self {
        Self { owner: Mutex::new(owner), epochs: (0..shards).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Returns this run of the node.
    pub(crate) fn owner(&self) -> Incarnation {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that the node has claimed its shards as a new run. Nothing that was decided before is in flight.
    pub(crate) fn change_owner(&self, owner: Incarnation, claims: &[Claim]) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = owner;
        for claim in claims {
            self.claimed(*claim);
        }
    }

    /// Returns the epoch under which a shard is owned.
    pub(crate) fn epoch(&self, shard: ShardId) -> Epoch {
        Epoch::new(self.epochs[shard.get() as usize].load(Ordering::Acquire))
    }

    /// Takes note of a claim.
    pub(crate) fn claimed(&self, claim: Claim) {
        self.epochs[claim.shard.get() as usize].store(claim.epoch.get(), Ordering::Release);
    }
}

impl Fate {
    /// Reads a store's outcome; `None` when the store does not know.
    fn from_outcome(outcome: &CommitOutcome, epoch: Epoch) -> Option<Self> {
        Some(match outcome {
            CommitOutcome::Committed { .. } => Self::Durable(epoch),
            CommitOutcome::Conflict { .. } => Self::Lost(Loss::Conflict),
            CommitOutcome::Fenced => Self::Lost(Loss::Fenced),
            CommitOutcome::Unavailable { reason } => {
                Self::Lost(Loss::Unavailable(std::sync::Arc::clone(reason)))
            }
            CommitOutcome::Unknown { .. } => return None,
        })
    }
}
