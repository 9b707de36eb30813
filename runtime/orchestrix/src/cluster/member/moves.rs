//! The calls that move shards, one of a kind at a time.

use std::collections::BTreeSet;

use orchestrix_core::store::{Claim, PlanOutcome};

use super::book::State;
use super::{BootTime, Effect, Membership, Phase, Plain};

impl Membership {
    pub(super) fn on_targets(&mut self, outcome: Option<PlanOutcome>, now: BootTime) {
        let concerned = self.under_way.plan.take().unwrap_or_default();
        match outcome {
            Some(PlanOutcome::Set { .. }) => {
                self.hint(concerned);
                self.look_by(now);
            }
            Some(PlanOutcome::Stale) => self.look_by(now),
            Some(PlanOutcome::Busy) | None => self.look_by(now.plus(self.soon())),
        }
    }

    pub(super) fn on_claimed(&mut self, claims: Option<Vec<Claim>>, now: BootTime) {
        self.under_way.claim.clear();
        // A view that came meanwhile may have asked for the same shards.
        self.wanted.clear();
        let Some(claims) = claims else { return self.look_by(now.plus(self.soon())) };
        self.observer.on_answer(now);
        self.book.open(&claims);
        self.effects.push(Effect::Open(claims));
        self.not_before = now;
        self.look_by(now);
    }

    pub(super) fn on_released(&mut self, released: Option<Vec<bool>>, now: BootTime) {
        let asked = std::mem::take(&mut self.under_way.release);
        let Some(released) = released else {
            for (shard, epoch) in asked {
                self.book.was_not_released(shard, epoch);
            }
            return self.look_by(now.plus(self.soon()));
        };
        self.observer.on_answer(now);
        let mut takers = BTreeSet::new();
        for ((shard, epoch), is_released) in asked.into_iter().zip(released) {
            let state = self.book.shards.get(&shard).map(|holding| holding.state);
            // What could not be released is not this run's at that epoch; the next view says what it is.
            if self.book.remove(shard, epoch)
                && is_released
                && let Some(State::Releasing(to)) = state
            {
                takers.insert(to);
            }
        }
        self.not_before = now;
        self.hint(takers);
        self.look_by(now);
    }

    /// Starts the calls that are due.
    pub(super) fn go_on(&mut self, now: BootTime) {
        match self.phase {
            Phase::Joining if self.join_at <= now && self.under_way.plain.insert(Plain::Join) => {
                self.effects.push(Effect::Join { former: self.former });
            }
            Phase::Serving => self.go_on_serving(now),
            Phase::Leaving if self.renew_at <= now && self.under_way.plain.insert(Plain::Leave) => {
                self.effects.push(Effect::Leave);
            }
            Phase::Joining | Phase::Leaving | Phase::Fencing | Phase::Left => {}
        }
    }

    fn go_on_serving(&mut self, now: BootTime) {
        if self.may_leave(now) {
            self.phase = Phase::Leaving;
            self.renew_at = now;
            return self.go_on(now);
        }
        if self.renew_at <= now && self.under_way.plain.insert(Plain::Renew) {
            self.effects.push(Effect::Renew { draining: self.draining });
        }
        if self.look_at.is_some_and(|at| at <= now) && self.under_way.plain.insert(Plain::Look) {
            (self.look_at, self.looked) = (None, now);
            self.effects.push(Effect::Look);
        }
        if self.holds(now) {
            self.claim_and_release();
        }
    }

    fn claim_and_release(&mut self) {
        if self.under_way.claim.is_empty() && !self.wanted.is_empty() {
            self.under_way.claim = self.wanted.keys().copied().collect();
            self.effects.push(Effect::Claim(std::mem::take(&mut self.wanted).into_iter().collect()));
        }
        if self.under_way.release.is_empty() {
            let sealed = self.book.take_sealed();
            if !sealed.is_empty() {
                self.under_way.release.clone_from(&sealed);
                self.effects.push(Effect::Release(sealed));
            }
        }
    }

    /// A run that drains leaves when it owns nothing, or when it has finished everything and nobody is there to take it.
    fn may_leave(&self, now: BootTime) -> bool {
        let Some(view) = self.view().filter(|_| self.draining) else { return false };
        let is_idle = self.under_way.claim.is_empty() && self.under_way.release.is_empty();
        let is_known = view.member(self.me).is_some_and(|member| member.draining);
        let owns_nothing = view.shards.iter().all(|row| row.owner != Some(self.me));
        is_idle && is_known && self.book.all_sealed() && (owns_nothing || !self.has_takers(view, now))
    }
}
