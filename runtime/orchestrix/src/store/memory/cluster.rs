//! What touches shards and members together, at a store that nodes share. Shards are locked in their order, then the
//! members: each operation is of one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::MutexGuard;
use std::time::Duration;

use orchestrix_core::store::{Claim, ClaimError, ClusterView, NodeRecord, PlanOutcome, Target};
use orchestrix_core::{Epoch, Incarnation, ShardId};
use tokio::time::Instant;

use super::members::Members;
use super::shard::Shard;
use super::{Memory, Refused};

/// Some of the shards, locked.
type Locked<'a> = BTreeMap<ShardId, MutexGuard<'a, Shard>>;

impl Memory {
    /// Locks shards in their order, each once.
    fn locked(&self, shards: impl IntoIterator<Item = ShardId>) -> Result<Locked<'_>, Refused> {
        let shards: BTreeSet<ShardId> = shards.into_iter().collect();
        shards.into_iter().map(|shard| Ok((shard, self.shard(shard)?))).collect()
    }

    pub(super) fn join_now(&self, node: NodeRecord, lease: Duration) -> Result<(), Refused> {
        let shards = self.all_shards()?;
        let mut members = self.members()?;
        let now = Instant::now();
        members.clear_leftovers(now, |run| shards.iter().any(|shard| shard.owner() == Some(run)));
        members.join(node, lease, now);
        Ok(())
    }

    /// Takes shards over, all of them or none.
    pub(super) fn claim_shared(
        &self,
        shards: &[ShardId],
        owner: Incarnation,
    ) -> Result<Vec<Claim>, ClaimError> {
        let mut locked = self.locked(shards.iter().copied())?;
        let mut members = self.members()?;
        if let Some(import) = locked.values().find_map(|shard| shard.importing()) {
            return Err(Refused::Importing(import.clone()).into());
        }
        let former = former_owners(&locked, owner);
        check_free(&former, &members)?;
        for run in former.values() {
            members.depose(*run);
        }
        if !locked.is_empty() {
            members.change();
        }
        let claim = |shard: &ShardId| {
            let shard = locked.get_mut(shard).expect("every shard asked for is locked");
            Ok(shard.claim(owner)?)
        };
        shards.iter().map(claim).collect()
    }

    pub(super) fn view_now(&self) -> Result<ClusterView, Refused> {
        let shards = self.all_shards()?;
        let members = self.members()?;
        Ok(ClusterView {
            version: members.version(),
            members: members.all(Instant::now()),
            shards: shards.iter().map(|shard| shard.ownership()).collect(),
        })
    }

    /// Sets targets. The locks let one planner in after the other, so none is ever told that another one is at work.
    pub(super) fn set_targets_now(
        &self,
        planner: Incarnation,
        view: u64,
        targets: &[Target],
    ) -> Result<PlanOutcome, Refused> {
        let mut locked = self.locked(targets.iter().map(|target| target.shard))?;
        let mut members = self.members()?;
        if members.version() != view || members.holder(planner, Instant::now()).is_none() {
            return Ok(PlanOutcome::Stale);
        }
        let mut changed = false;
        for target in targets {
            let shard = locked.get_mut(&target.shard).expect("every shard of a target is locked");
            changed |= shard.set_target(target);
        }
        if changed {
            members.change();
        }
        Ok(PlanOutcome::Set { view: members.version() })
    }

    pub(super) fn release_shards_now(
        &self,
        owner: Incarnation,
        shards: &[(ShardId, Epoch)],
    ) -> Result<Vec<bool>, Refused> {
        let mut locked = self.locked(shards.iter().map(|(shard, _)| *shard))?;
        let mut members = self.members()?;
        let give_back = |(shard, epoch): &(ShardId, Epoch)| {
            locked.get_mut(shard).expect("every shard asked for is locked").give_back(owner, *epoch)
        };
        let released: Vec<bool> = shards.iter().map(give_back).collect();
        if released.contains(&true) {
            members.change();
        }
        Ok(released)
    }
}

/// Returns who else owns each of the shards.
fn former_owners(locked: &Locked<'_>, owner: Incarnation) -> BTreeMap<ShardId, Incarnation> {
    let other = |(id, shard): (&ShardId, &MutexGuard<'_, Shard>)| {
        Some((*id, shard.owner().filter(|former| *former != owner)?))
    };
    locked.iter().filter_map(other).collect()
}

/// Says which shard is held, the first one, and by whom.
fn check_free(former: &BTreeMap<ShardId, Incarnation>, members: &Members) -> Result<(), ClaimError> {
    let now = Instant::now();
    let held = former.iter().find_map(|(shard, run)| Some((*shard, *run, members.holder(*run, now)?)));
    match held {
        None => Ok(()),
        Some((shard, run, name)) => Err(ClaimError::Held { shard, holder: format!("{name} (run {run})") }),
    }
}
