//! The shards that this run has, and what to do with each when a view comes.

use std::collections::BTreeMap;

use orchestrix_core::store::{Claim, ShardOwner};
use orchestrix_core::{Epoch, Incarnation, ShardId};

use super::words::Why;
use crate::cluster::placement::Health;

/// What this run has of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) epoch: Epoch,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// It finishes its work, for another run or none.
    Sealing(Option<Incarnation>),
    /// It has finished its work.
    Sealed(Option<Incarnation>),
    /// A release is under way.
    Releasing(Incarnation),
}

/// What to do with a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Claim(Why),
    Seal(Why),
    /// Drop it, and then claim it when it is this run's.
    Fence,
    /// Give it back although it is not open.
    Release(Incarnation),
    /// It was released, by a call whose answer was lost.
    WasReleased(Incarnation),
}

/// What a step depends on beside the row and the holding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    pub(super) me: Incarnation,
    pub(super) draining: bool,
    /// Somebody else takes shards.
    pub(super) others: bool,
    pub(super) owner: Option<Health>,
    pub(super) target: Option<Health>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) shards: BTreeMap<ShardId, Holding>,
}

impl Book {
    pub(super) fn open(&mut self, claims: &[Claim]) {
        for claim in claims {
            self.shards.insert(claim.shard, Holding { epoch: claim.epoch, state: State::Open });
        }
    }

    /// Removes a shard that is held under an epoch; tells whether it was.
    pub(super) fn remove(&mut self, shard: ShardId, epoch: Epoch) -> bool {
        let is_held = self.shards.get(&shard).is_some_and(|holding| holding.epoch == epoch);
        if is_held {
            self.shards.remove(&shard);
        }
        is_held
    }

    /// Shards have finished their work, each under an epoch.
    pub(super) fn on_sealed(&mut self, sealed: &[(ShardId, Epoch)]) {
        for (shard, epoch) in sealed {
            if let Some(holding) = self.shards.get_mut(shard)
                && let State::Sealing(to) = holding.state
                && holding.epoch == *epoch
            {
                holding.state = State::Sealed(to);
            }
        }
    }

    /// A shard that is this run's, and not open, should be another's.
    pub(super) fn hold_for_release(&mut self, shard: ShardId, epoch: Epoch, to: Incarnation) {
        self.shards.insert(shard, Holding { epoch, state: State::Sealed(Some(to)) });
    }

    /// Nobody knows whether a shard was released.
    pub(super) fn was_not_released(&mut self, shard: ShardId, epoch: Epoch) {
        if let Some(holding) = self.shards.get_mut(&shard)
            && let State::Releasing(to) = holding.state
            && holding.epoch == epoch
        {
            holding.state = State::Sealed(Some(to));
        }
    }

    /// Takes those that have finished and that somebody should have; they count as being released from now on.
    pub(super) fn take_sealed(&mut self) -> Vec<(ShardId, Epoch)> {
        let mut taken = Vec::new();
        for (shard, holding) in &mut self.shards {
            if let State::Sealed(Some(to)) = holding.state {
                holding.state = State::Releasing(to);
                taken.push((*shard, holding.epoch));
            }
        }
        taken
    }

    pub(super) fn all_sealed(&self) -> bool {
        self.shards.values().all(|holding| matches!(holding.state, State::Sealed(_)))
    }

    /// Decides about one shard, and notes where it should go.
    pub(super) fn step(&mut self, row: &ShardOwner, given: Circumstances) -> Step {
        let Some(holding) = self.shards.get_mut(&row.shard) else { return step_without(row, given) };
        let is_own = row.owner == Some(given.me);
        if row.epoch < holding.epoch {
            return Step::Nothing;
        }
        if row.epoch > holding.epoch {
            return Step::Fence;
        }
        match (is_own, holding.state) {
            (true, _) => step_with(row, holding, given),
            (false, State::Sealed(Some(to)) | State::Releasing(to)) => Step::WasReleased(to),
            (false, State::Open | State::Sealing(_) | State::Sealed(None)) => Step::Fence,
        }
    }
}

/// The shard is this run's, and the row is as this run knows it.
fn step_with(row: &ShardOwner, holding: &mut Holding, given: Circumstances) -> Step {
    let to = row.target.filter(|target| *target != given.me && given.target == Some(Health::Living));
    let leaves_alone = given.draining && !given.others;
    match (holding.state, to) {
        (State::Open, Some(_)) => {
            holding.state = State::Sealing(to);
            Step::Seal(Why::Moves)
        }
        (State::Open, None) if leaves_alone => {
            holding.state = State::Sealing(None);
            Step::Seal(Why::LeavesAlone)
        }
        (State::Sealing(_), _) => {
            holding.state = State::Sealing(to);
            Step::Nothing
        }
        (State::Sealed(_), Some(_)) => {
            holding.state = State::Sealed(to);
            Step::Nothing
        }
        // A target that cannot take it is replaced by the planner; only then is it known where the shard belongs.
        (State::Sealed(_), None) => {
            holding.state = State::Sealed(None);
            let stays = row.target.is_none_or(|target| target == given.me);
            if stays && !given.draining { Step::Claim(Why::CalledOff) } else { Step::Nothing }
        }
        (State::Open, None) | (State::Releasing(_), _) => Step::Nothing,
    }
}

/// This run has nothing of the shard.
fn step_without(row: &ShardOwner, given: Circumstances) -> Step {
    let is_own = row.owner == Some(given.me);
    let target = row.target.filter(|target| *target != given.me);
    match target.zip(given.target) {
        Some((target, Health::Living)) if is_own => return Step::Release(target),
        _ if given.draining => return Step::Nothing,
        _ if is_own => return Step::Claim(Why::Anew),
        _ => {}
    }
    match (row.target == Some(given.me), given.owner) {
        (true, None) => Step::Claim(Why::Free),
        (true, Some(Health::Gone)) => Step::Claim(Why::OwnerGone),
        (true, Some(Health::Living | Health::Draining | Health::Silent)) | (false, _) => Step::Nothing,
    }
}
