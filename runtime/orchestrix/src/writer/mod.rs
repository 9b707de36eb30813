//! The writer: commits of many aggregates become batches, one append at a time per lane.
//!
//! | file | what |
//! |---|---|
//! | `batch` ◇ | which of the waiting commits travel together |
//! | `lane` | carries batches to the store and tells everybody what became of theirs |
//! | `ownership` | which shards the node owns, and under which epochs |
//! | `resolve` | finds out what became of a commit whose outcome the store did not know |
//!
//! Promises: commits of one stream are appended in the order in which they were queued; nobody hears *done* before
//! the store said so; an unknown outcome is resolved before the lane appends anything else.

mod batch;
mod lane;
mod ownership;
mod resolve;

use orchestrix_core::store::{Commit, CommitOutcome};
use orchestrix_core::{Epoch, ShardId, Version};

pub(crate) use lane::{Lane, Limits, Tell, TellArbiters};
pub(crate) use ownership::Ownership;
pub use ownership::ShardState;

use crate::aggregate::Slot;
use crate::error::NotAttempted;

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
    pub(crate) fn to_not_attempted(&self, shard: ShardId) -> NotAttempted {
        match self {
            Self::Conflict => {
                NotAttempted::unavailable("the state that the command was decided on did not become durable")
            }
            // The store says that the shard has another owner, and not which.
            Self::Fenced => NotAttempted::NotOwner { shard, owner: None, epoch: Epoch::ZERO },
            Self::Unavailable(reason) => NotAttempted::Unavailable { reason: std::sync::Arc::clone(reason) },
        }
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
