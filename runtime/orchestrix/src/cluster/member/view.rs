//! Takes in a view: what this run has against what it should have, and the plan.

use std::collections::BTreeSet;

use orchestrix_core::store::{ClusterView, ShardOwner, Target};
use orchestrix_core::{Epoch, Incarnation, ShardId};

use super::book::{Circumstances, Step};
use super::words::Why;
use super::{BootTime, Effect, Membership, Phase, Plain, Seen};
use crate::cluster::placement::{self, Cause, Health, Piece, Seat};

/// How many times the age of a view that is planned from goes into a lease.
const FRESH: u32 = 4;

/// What a view makes this run do at once.
#[derive(Default)]
struct Todo {
    fence: Vec<(ShardId, Why)>,
    seal: Vec<(ShardId, Epoch, Why)>,
    hint: BTreeSet<Incarnation>,
}

impl Membership {
    pub(super) fn on_view(&mut self, sent: BootTime, view: Option<ClusterView>, now: BootTime) {
        self.under_way.plain.remove(&Plain::Look);
        let Some(view) = view else { return self.look_by(now.plus(self.soon())) };
        self.observer.on_answer(now);
        if self.phase != Phase::Serving {
            return;
        }
        if sent < self.not_before || self.view().is_some_and(|seen| seen.version > view.version) {
            return self.look_by(now);
        }
        if view.member(self.me).is_none_or(|member| member.deposed) {
            return self.become_deposed(now);
        }
        self.observer.on_view(&view, now);
        self.reconcile(&view, now);
        self.look_when_due(&view, now);
        self.seen = Some(Seen { view, sent });
        self.effects.push(Effect::Publish);
        self.plan(now);
    }

    /// Compares the view with what this run has.
    fn reconcile(&mut self, view: &ClusterView, now: BootTime) {
        let mut todo = Todo::default();
        self.wanted.clear();
        let others = self.has_takers(view, now);
        let is_decided = |shard: &ShardId| !self.under_way.claim.contains(shard);
        let rows: Vec<_> = view.shards.iter().filter(|row| is_decided(&row.shard)).collect();
        for row in rows {
            let health = |run| self.observer.health(view, run, now);
            let (owner, target) = (row.owner.map(health), row.target.map(health));
            let (me, draining) = (self.me, self.draining);
            let step = self.book.step(row, Circumstances { me, draining, others, owner, target });
            self.take(row, step, &mut todo);
        }
        self.put(todo);
    }

    fn take(&mut self, row: &ShardOwner, step: Step, todo: &mut Todo) {
        match step {
            Step::Nothing => {}
            Step::Claim(why) => drop(self.wanted.insert(row.shard, why)),
            Step::Seal(why) => todo.seal.push((row.shard, row.epoch, why)),
            Step::Fence => {
                self.book.shards.remove(&row.shard);
                todo.fence.push((row.shard, Why::Passed));
                if row.owner == Some(self.me) && !self.draining {
                    self.wanted.insert(row.shard, Why::Anew);
                }
            }
            Step::Release(to) => self.book.hold_for_release(row.shard, row.epoch, to),
            Step::WasReleased(to) => {
                self.book.shards.remove(&row.shard);
                todo.hint.insert(to);
            }
        }
    }

    pub(super) fn has_takers(&self, view: &ClusterView, now: BootTime) -> bool {
        let takes = |run| run != self.me && self.observer.health(view, run, now) == Health::Living;
        view.members.iter().any(|member| takes(member.incarnation()))
    }

    fn put(&mut self, todo: Todo) {
        if !todo.fence.is_empty() {
            self.effects.push(Effect::Fence(todo.fence));
        }
        if !todo.seal.is_empty() {
            self.effects.push(Effect::Seal(todo.seal));
        }
        self.hint(todo.hint);
    }

    pub(super) fn hint(&mut self, mut runs: BTreeSet<Incarnation>) {
        runs.remove(&self.me);
        if !runs.is_empty() {
            self.effects.push(Effect::Hint(runs.into_iter().collect()));
        }
    }

    /// Looks again when a lease could have ended, and often while something is on its way.
    fn look_when_due(&mut self, view: &ClusterView, now: BootTime) {
        let is_moving = view.shards.iter().any(|row| {
            let serves = |run| self.observer.health(view, run, now) == Health::Living;
            !row.owner.is_some_and(serves) || row.target.is_some_and(|target| row.owner != Some(target))
        });
        if is_moving || now < self.watchful_until || self.draining {
            self.look_by(now.plus(self.soon()));
        }
        let others = view.members.iter().filter(|member| member.incarnation() != self.me);
        if let Some(left) = others.map(|member| member.lease_left).filter(|left| !left.is_zero()).min() {
            self.look_by(now.plus(left));
        }
    }

    /// Plans from a view that has just come, as long as this run holds its lease.
    fn plan(&mut self, now: BootTime) {
        let Some(Seen { view, sent }) = &self.seen else { return };
        let is_fresh = sent.until(now) <= self.lease.length() / FRESH;
        if self.under_way.plan.is_some() || !is_fresh || !self.holds(now) {
            return;
        }
        let moves = self.new_targets(view, now);
        if !moves.is_empty() {
            let concerned = moves.iter().flat_map(|(target, _)| [Some(target.target), target.owner]);
            self.under_way.plan = Some(concerned.flatten().collect());
            self.effects.push(Effect::SetTargets { view: view.version, moves });
        }
    }

    fn new_targets(&self, view: &ClusterView, now: BootTime) -> Vec<(Target, Cause)> {
        let seat = |run| Seat { run, health: self.observer.health(view, run, now), capacity: 1 };
        let piece = |row: &ShardOwner| Piece {
            shard: row.shard,
            owner: row.owner,
            target: row.target,
            is_late: self.observer.is_late(row, now),
            // Until owners report the load of each shard, one is as good as another.
            cost: 1,
        };
        let seats: Vec<_> = view.members.iter().map(|member| seat(member.incarnation())).collect();
        let pieces: Vec<_> = view.shards.iter().map(piece).collect();
        let moves = placement::plan(&seats, &pieces, self.limits).into_iter().filter_map(|made| {
            let at = view.shards.binary_search_by_key(&made.shard, |row| row.shard).ok()?;
            let ShardOwner { shard, owner, epoch, .. } = view.shards[at];
            Some((Target { shard, owner, epoch, target: made.target }, made.cause))
        });
        moves.collect()
    }
}
