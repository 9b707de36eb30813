//! What the runs that share a store see of each other: who is there, who owns which shard, and who should.
//!
//! The store is the truth, and nobody is told of a change: whoever renews a lease learns a number, the version of the
//! view, and reads the view again when it is another one. A message that is lost changes nothing for longer than that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::node::NodeRecord;
use crate::shard::ShardId;
use crate::version::{Epoch, Incarnation};

/// A run that joined and has not left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it said about itself.
    pub node: NodeRecord,
    /// How long its lease lasts yet, by the store's clock; zero when it has ended.
    pub lease_left: Duration,
    /// Whether it is giving its shards away and takes no others.
    pub draining: bool,
    /// Whether somebody took over a shard of it, because its lease had ended.
    pub deposed: bool,
    /// What it last said about its load, in a measure of its own.
    pub load: u64,
}

impl Member {
    /// Returns the run.
    pub fn incarnation(&self) -> Incarnation {
        self.node.incarnation
    }

    /// Tells whether it holds its lease, so that nobody may take what it owns.
    pub fn is_alive(&self) -> bool {
        !self.deposed && !self.lease_left.is_zero()
    }
}

/// Who owns a shard, and who should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardOwner {
    /// The shard.
    pub shard: ShardId,
    /// The run that owns it; `None` when it was never claimed, or was released. The run may have left.
    pub owner: Option<Incarnation>,
    /// The epoch of the last claim.
    pub epoch: Epoch,
    /// The run that should own it; `None` when it may stay where it is.
    pub target: Option<Incarnation>,
}

/// The runs and the shards of a store, all of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Another number for another view. It grows; leases and loads change without it.
    pub version: u64,
    /// The runs that joined and have not left, in the order of their incarnations.
    pub members: Vec<Member>,
    /// All shards, in their order.
    pub shards: Vec<ShardOwner>,
}

impl ClusterView {
    /// Returns a run, if it is a member.
    pub fn member(&self, run: Incarnation) -> Option<&Member> {
        self.members.binary_search_by_key(&run, Member::incarnation).ok().map(|at| &self.members[at])
    }
}

/// What a run says about itself with each renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its load, in whatever measure all runs share.
    pub load: u64,
    /// Whether it is giving its shards away. A run that said so once, or was marked by somebody else, stays so.
    pub draining: bool,
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// Whether the lease was extended; `false` when somebody has taken over, or the run is not known.
    pub holds: bool,
    /// The version of the view.
    pub view: u64,
}

/// Where a shard should go, decided about one owner of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The shard.
    pub shard: ShardId,
    /// The owner in the view that the decision was made from.
    pub owner: Option<Incarnation>,
    /// The epoch in that view.
    pub epoch: Epoch,
    /// The run that should own it. Where it is the owner, the shard may stay where it is.
    pub target: Incarnation,
}

/// What came of setting targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlanOutcome {
    /// They are set, except those of shards whose owner or epoch is another one.
    Set {
        /// The version of the view as the planner leaves it.
        view: u64,
    },
    /// Another planner is at work. Nothing was changed.
    Busy,
    /// The view has changed since, or the planner holds no lease. Nothing was changed.
    Stale,
}
