//! The runs and their shards while a plan is made.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use orchestrix_core::Incarnation;

use super::{Cause, Health, HealthOf, Move, Piece, Place, Seat, health_of, is_serving, place, weight};

/// A run that takes shards, and those that it should have.
struct Chair {
    run: Incarnation,
    capacity: i128,
    /// What it has over its share, in costs times the capacity of all, so that nothing is rounded.
    excess: i128,
    laid: Vec<usize>,
}

/// A shard with its place at the table; `None` when it stays where it is without one.
struct Laid {
    piece: Piece,
    chair: Option<usize>,
    cause: Cause,
}

pub(super) struct Table {
    chairs: Vec<Chair>,
    laid: Vec<Laid>,
    homeless: Vec<usize>,
    /// The capacity of all.
    capacity: i128,
    /// The costs of all shards that have a place or need one.
    cost: i128,
}

impl Table {
    pub(super) fn new(seats: &[Seat], pieces: &[Piece], health: &HealthOf) -> Self {
        let mut living: Vec<_> = seats.iter().filter(|seat| seat.health == Health::Living).collect();
        living.sort_unstable_by_key(|seat| seat.run);
        let chair = |seat: &&Seat| Chair {
            run: seat.run,
            capacity: i128::from(seat.capacity),
            excess: 0,
            laid: Vec::new(),
        };
        let chairs: Vec<_> = living.iter().map(chair).collect();
        let capacity = chairs.iter().map(|chair| chair.capacity).sum();
        let mut table = Self { chairs, laid: Vec::new(), homeless: Vec::new(), capacity, cost: 0 };
        let mut pieces = pieces.to_vec();
        pieces.sort_unstable_by_key(|piece| piece.shard);
        for piece in pieces {
            // Even an idle shard is one to open and to close.
            table.lay(Piece { cost: piece.cost.max(1), ..piece }, health);
        }
        for chair in &mut table.chairs {
            chair.excess -= table.cost * chair.capacity;
        }
        table
    }

    /// Tells whether nobody takes shards.
    pub(super) fn is_empty(&self) -> bool {
        self.chairs.is_empty()
    }

    fn lay(&mut self, piece: Piece, health: &HealthOf) {
        let index = self.laid.len();
        let (chair, cause) = match place(&piece, health) {
            Place::At(run, cause) => (self.chairs.binary_search_by_key(&run, |chair| chair.run).ok(), cause),
            Place::Pinned => (None, Cause::Balance),
            Place::Homeless(cause) => {
                self.homeless.push(index);
                self.cost += i128::from(piece.cost);
                (None, cause)
            }
        };
        self.laid.push(Laid { piece, chair: None, cause });
        if let Some(chair) = chair {
            self.cost += i128::from(piece.cost);
            self.seat(index, chair);
        }
    }

    fn seat(&mut self, index: usize, chair: usize) {
        self.laid[index].chair = Some(chair);
        self.chairs[chair].excess += i128::from(self.laid[index].piece.cost) * self.capacity;
        self.chairs[chair].laid.push(index);
    }

    fn unseat(&mut self, index: usize) {
        if let Some(chair) = self.laid[index].chair.take() {
            self.chairs[chair].excess -= i128::from(self.laid[index].piece.cost) * self.capacity;
            self.chairs[chair].laid.retain(|other| *other != index);
        }
    }

    /// Gives each shard without a place to whoever is furthest below its share, the costly ones first.
    pub(super) fn house_the_homeless(&mut self) {
        let mut homeless = std::mem::take(&mut self.homeless);
        homeless.sort_by_key(|index| Reverse(self.laid[*index].piece.cost));
        for index in homeless {
            let piece = self.laid[index].piece;
            let taker = (0..self.chairs.len()).min_by_key(|chair| {
                let Chair { run, excess, .. } = self.chairs[*chair];
                let did_not_come = piece.is_late && piece.target == Some(run);
                (did_not_come, excess, Reverse(weight(run, piece.shard)))
            });
            if let Some(taker) = taker {
                self.seat(index, taker);
            }
        }
    }

    /// Moves shards from whoever is furthest over its share to whoever is furthest below, until nobody is off it by a
    /// shard or more. Each step has an end that is off its share, so no step is in vain.
    pub(super) fn balance(&mut self, tolerance_percent: u32) {
        if !self.chairs.iter().any(|chair| self.is_out_of_tolerance(chair, tolerance_percent)) {
            return;
        }
        // Every step moves a shard that none has moved before.
        for _ in 0..self.laid.len() {
            let Some((index, taker)) = self.step() else { return };
            self.unseat(index);
            self.seat(index, taker);
            self.laid[index].cause = Cause::Balance;
        }
    }

    fn is_out_of_tolerance(&self, chair: &Chair, tolerance_percent: u32) -> bool {
        let share = self.cost * chair.capacity;
        self.is_off(chair) && chair.excess.abs() * 100 > share * i128::from(tolerance_percent)
    }

    /// Tells whether somebody is off its share by what a shard costs on average.
    fn is_off(&self, chair: &Chair) -> bool {
        chair.excess.abs() * self.laid.len() as i128 >= self.cost * self.capacity
    }

    fn step(&self) -> Option<(usize, usize)> {
        let taker = (0..self.chairs.len()).min_by_key(|chair| self.chairs[*chair].excess)?;
        let mut givers: Vec<_> = (0..self.chairs.len()).collect();
        givers.sort_by_key(|chair| Reverse(self.chairs[*chair].excess));
        givers.into_iter().find_map(|giver| Some((self.gift(giver, taker)?, taker)))
    }

    /// Chooses the shard that brings two runs closest together; among equals the one that the taker weighs most for.
    fn gift(&self, giver: usize, taker: usize) -> Option<usize> {
        let (giver, taker) = (&self.chairs[giver], &self.chairs[taker]);
        let gap = giver.excess - taker.excess;
        let has_too_much = giver.excess > 0 && self.is_off(giver);
        let has_too_little = taker.excess < 0 && self.is_off(taker);
        if !has_too_much && !has_too_little {
            return None;
        }
        let costs = |index: &usize| i128::from(self.laid[*index].piece.cost) * self.capacity;
        // A shard that is on its way already goes there first.
        let is_there = |index: &usize| self.laid[*index].piece.owner == Some(giver.run);
        giver.laid.iter().copied().filter(is_there).filter(|index| costs(index) < gap).min_by_key(|index| {
            let shard = self.laid[*index].piece.shard;
            ((gap - 2 * costs(index)).abs(), Reverse(weight(taker.run, shard)), shard)
        })
    }

    pub(super) fn moves(&self, health: &HealthOf, wave_max: usize) -> Vec<Move> {
        let mut on_the_move = self.on_the_move(health);
        let mut moves = Vec::new();
        for Laid { piece, chair, cause } in &self.laid {
            let Some(target) = chair.map(|chair| self.chairs[chair].run) else { continue };
            if piece.target.or(piece.owner) == Some(target) {
                continue;
            }
            let serving = piece.owner.filter(|owner| *owner != target && is_serving(health, *owner));
            if let Some(owner) = serving {
                let moving = on_the_move.entry(owner).or_default();
                if *moving >= wave_max {
                    continue;
                }
                *moving += 1;
            }
            moves.push(Move { shard: piece.shard, target, cause: *cause });
        }
        moves
    }

    /// Counts the shards of each serving owner that have somewhere to go.
    fn on_the_move(&self, health: &HealthOf) -> BTreeMap<Incarnation, usize> {
        let mut counts = BTreeMap::new();
        for Laid { piece, .. } in &self.laid {
            if let (Some(owner), Some(target)) = (piece.owner, piece.target)
                && owner != target
                && is_serving(health, owner)
                && health_of(health, target) == Health::Living
            {
                *counts.entry(owner).or_default() += 1;
            }
        }
        counts
    }
}
