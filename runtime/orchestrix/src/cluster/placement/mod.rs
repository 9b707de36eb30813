//! Which run should own which shard. A decision file: the same view gives the same plan, whoever asks and in whatever
//! order the rows come.
//!
//! Sticky: a shard stays where it is, or where it is going, as long as that run may have it. What nobody can keep goes to
//! whoever is furthest below its share. Only when somebody is off its share by more than the tolerance do shards move for
//! the sake of balance, and then no more of them than it takes until everybody is within one shard of its share.
//!
//! Among equals the rendezvous order decides (Thaler and Ravishankar, "Using name-based mappings to increase hit rates",
//! 1998): the weight of a run for a shard is XXH3-64 of the run's sixteen bytes, seeded with the shard's number.

mod table;

use std::collections::BTreeMap;
use std::fmt;

use orchestrix_core::{Incarnation, ShardId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use table::Table;

/// How far a plan goes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How many shards of one living owner may be on the move; those of a run that is gone all move at once, since
    /// nobody serves them meanwhile.
    pub(crate) wave_max: usize,
    /// By how much of its share a run may be off it before shards move for balance.
    pub(crate) tolerance_percent: u32,
}

/// What the planner may expect of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It takes shards.
    Living,
    /// It serves what it has, and wants to be rid of it.
    Draining,
    /// Its lease has ended, and nobody knows yet whether it is gone: it keeps what it has, and gets nothing.
    Silent,
    /// It serves nothing any more.
    Gone,
}

/// A run as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) run: Incarnation,
    pub(crate) health: Health,
    /// Its share against that of the others; not 0.
    pub(crate) capacity: u32,
}

/// A shard as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) shard: ShardId,
    /// A run without a seat counts as gone.
    pub(crate) owner: Option<Incarnation>,
    pub(crate) target: Option<Incarnation>,
    /// The target had time enough to come, and did not.
    pub(crate) is_late: bool,
    /// What it costs to own it, against the others.
    pub(crate) cost: u64,
}

/// A new target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) shard: ShardId,
    /// The owner itself where an earlier move is called off.
    pub(crate) target: Incarnation,
    pub(crate) cause: Cause,
}

/// Why a shard gets another target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    Unowned,
    OwnerGone,
    OwnerDrains,
    TargetGone,
    TargetSilent,
    TargetDrains,
    TargetLate,
    Balance,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unowned => "nobody owns it",
            Self::OwnerGone => "its owner is gone",
            Self::OwnerDrains => "its owner is being drained",
            Self::TargetGone => "the run that should have it is gone",
            Self::TargetSilent => "the lease of the run that should have it has ended",
            Self::TargetDrains => "the run that should have it is being drained",
            Self::TargetLate => "the run that should have it did not come for it",
            Self::Balance => "its owner has more than its share",
        })
    }
}

/// Returns the targets that should change, in the order of the shards.
pub(crate) fn plan(seats: &[Seat], pieces: &[Piece], limits: Limits) -> Vec<Move> {
    let health = seats.iter().map(|seat| (seat.run, seat.health)).collect();
    let mut table = Table::new(seats, pieces, &health);
    if table.is_empty() {
        return Vec::new();
    }
    table.house_the_homeless();
    // Whoever may come back in a moment brings its share back with it.
    if seats.iter().all(|seat| seat.health != Health::Silent) {
        table.balance(limits.tolerance_percent);
    }
    table.moves(&health, limits.wave_max)
}

type HealthOf = BTreeMap<Incarnation, Health>;

fn health_of(health: &HealthOf, run: Incarnation) -> Health {
    health.get(&run).copied().unwrap_or(Health::Gone)
}

/// Where a shard is before anything moves.
enum Place {
    At(Incarnation, Cause),
    Pinned,
    Homeless(Cause),
}

fn place(piece: &Piece, health: &HealthOf) -> Place {
    let mut trouble = None;
    if let Some(target) = piece.target.filter(|target| piece.owner != Some(*target)) {
        trouble = match health_of(health, target) {
            Health::Living if !piece.is_late => return Place::At(target, Cause::Balance),
            Health::Living => Some(Cause::TargetLate),
            Health::Draining => Some(Cause::TargetDrains),
            Health::Silent => Some(Cause::TargetSilent),
            Health::Gone => Some(Cause::TargetGone),
        };
    }
    let Some(owner) = piece.owner else { return Place::Homeless(trouble.unwrap_or(Cause::Unowned)) };
    match health_of(health, owner) {
        Health::Living => Place::At(owner, trouble.unwrap_or(Cause::Balance)),
        Health::Draining => Place::Homeless(Cause::OwnerDrains),
        Health::Silent => Place::Pinned,
        Health::Gone => Place::Homeless(trouble.unwrap_or(Cause::OwnerGone)),
    }
}

fn is_serving(health: &HealthOf, run: Incarnation) -> bool {
    matches!(health_of(health, run), Health::Living | Health::Draining)
}

/// How much a run weighs for a shard; the heaviest one has it, where nothing else decides.
fn weight(run: Incarnation, shard: ShardId) -> u64 {
    xxh3_64_with_seed(run.as_uuid().as_bytes(), u64::from(shard.get()))
}

#[cfg(test)]
mod tests;
