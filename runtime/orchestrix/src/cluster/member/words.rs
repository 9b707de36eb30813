//! What a membership hears, and what it wants done.

use std::fmt;

use orchestrix_core::store::{Claim, ClusterView, PlanOutcome, Renewed, Target};
use orchestrix_core::{Epoch, Incarnation, ShardId};

use crate::cluster::boottime::BootTime;
use crate::cluster::placement::Cause;

/// Something that a membership hears.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The time has come that [`Membership::wake`](super::Membership::wake) named.
    Tick,
    /// What came of a call of the store, which was sent at a time for a run.
    Answer { run: Incarnation, sent: BootTime, answer: Answer },
    /// Shards have finished their work under an epoch, and everybody has left memory.
    Sealed(Vec<(ShardId, Epoch)>),
    /// After [`Effect::FenceAll`]: nobody is left in memory, and this would be the next run.
    Fenced { next: Incarnation },
    /// An append under an epoch did not get through.
    Lost { shard: ShardId, epoch: Epoch, loss: Loss },
    /// A peer says that something has changed: a hint.
    Look,
    /// The connection to a peer broke: a hint, which decides nothing.
    PeerLost(Incarnation),
    /// The process of a run is proved to be gone.
    Gone(Incarnation),
    /// This run should give its shards away and leave.
    Drain,
}

/// How an append was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The store refused it: the shard has another owner or another epoch.
    Fenced,
    /// Nobody knows whether it is stored. Only a claim or a release of the shard ends that doubt.
    #[cfg_attr(not(test), expect(dead_code, reason = "a lane ends its doubts by itself, with a claim of its own"))]
    InDoubt,
}

/// What came of a call of the store; `None` and `false` when there was no answer, so that nobody knows.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Joined(bool),
    Renewed(Option<Renewed>),
    View(Option<ClusterView>),
    Targets(Option<PlanOutcome>),
    Claimed(Option<Vec<Claim>>),
    /// Which of the shards of the call were released, in its order.
    Released(Option<Vec<bool>>),
    Left(bool),
}

/// Something to be done. Effects are carried out in their order, shard by shard; of each kind of call one is under way,
/// and each is answered by one [`Input::Answer`], in whatever time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Let the former run of this node leave, if there is one, then join.
    Join { former: Option<Incarnation> },
    /// Renew the lease, with word of whether this run is draining.
    Renew { draining: bool },
    /// Read the view.
    Look,
    /// Set targets by compare-and-set on a version of the view.
    SetTargets { view: u64, moves: Vec<(Target, Cause)> },
    /// Claim shards.
    Claim(Vec<(ShardId, Why)>),
    /// Take work of these shards, under these epochs.
    Open(Vec<Claim>),
    /// Take no more work of these shards, finish what there is, and say [`Input::Sealed`].
    Seal(Vec<(ShardId, Epoch, Why)>),
    /// Give shards back by compare-and-set on the epoch.
    Release(Vec<(ShardId, Epoch)>),
    /// Say nothing more for these shards and drop what is in memory.
    Fence(Vec<(ShardId, Why)>),
    /// The same for all shards, then say [`Input::Fenced`].
    FenceAll(Why),
    /// The lease is believed in until then.
    Extend(BootTime),
    /// The view is another one: routes follow it.
    Publish,
    /// Tell these runs to look.
    Hint(Vec<Incarnation>),
    /// Leave: nothing is held any more.
    Leave,
}

/// Why ownership changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// A claim: nobody owns the shard.
    Free,
    /// A claim: the owner has left, or its lease has ended, or its process is gone.
    OwnerGone,
    /// A claim: the store says that the shard is this run's, which does not have it open.
    Anew,
    /// A claim: the shard was sealed, and should not move any more.
    CalledOff,
    /// A seal: another run should have the shard.
    Moves,
    /// A seal: this run leaves, and nobody is there to take the shard.
    LeavesAlone,
    /// A fence: an append was refused.
    AppendFenced,
    /// A fence: nobody knows whether an append is stored.
    AppendInDoubt,
    /// A fence: the store has another epoch or another owner.
    Passed,
    /// A fence of everything: somebody took over, since the lease of this run had ended.
    Deposed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "nobody owns it",
            Self::OwnerGone => "its owner has left or is gone, or its lease has ended",
            Self::Anew => "it belongs to this run, which does not have it open",
            Self::CalledOff => "it was sealed, and should not move any more",
            Self::Moves => "another run should have it",
            Self::LeavesAlone => "this run leaves, and no other one is there to take it",
            Self::AppendFenced => "an append was refused",
            Self::AppendInDoubt => "nobody knows whether an append is stored",
            Self::Passed => "the store has another epoch or another owner",
            Self::Deposed => "another run took over, since the lease of this one had ended",
        })
    }
}
