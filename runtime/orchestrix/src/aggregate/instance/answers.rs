//! How answers leave: when what they saw is durable, and while the node speaks for the aggregate.

use orchestrix_core::{Aggregate, Epoch, Version};

use super::{Instance, Place};
use crate::aggregate::gate::Withheld;
use crate::aggregate::job::{Deliver, Ran};
use crate::aggregate::lifecycle::Ending;
use crate::error::NotAttempted;

impl<A: Aggregate> Instance<A> {
    /// Returns the epoch under which an answer is given. It is read before the look whether the node speaks in the term
    /// of this aggregate, so it is of that term where the answer leaves.
    pub(crate) fn epoch(&self) -> Epoch {
        self.local.shared.ownership.epoch(self.place.shard)
    }

    /// Answers once everything that the state contains is durable.
    pub(crate) fn hold(&mut self, output: impl FnOnce(Result<(), Withheld>) + 'static) -> Ran<A> {
        self.hold_until(self.life.head(), output)
    }

    /// Looks, after an answer was computed, whether this node still speaks for the aggregate.
    fn may_speak(&self) -> Result<(), Withheld> {
        let Place { shard, term, .. } = self.place;
        self.local.shared.may_speak(shard, term)
    }

    /// Lets out what has become durable and returns how many answers left.
    pub(super) fn release(&mut self, durable: Version) -> u32 {
        if self.gate.has_due(durable) { self.gate.release(durable, &self.may_speak()) } else { 0 }
    }

    /// Refuses a job for what the memory of commands says, once that is durable: the command that an id was used for
    /// may vanish yet.
    pub(crate) fn hold_refusal(&mut self, job: Box<impl Deliver + 'static>, why: NotAttempted) -> Ran<A> {
        self.hold(move |end| job.refuse(end.err().map_or(why, NotAttempted::from)))
    }

    /// Answers once a version is durable. Answers leave in order, so this one does not overtake an earlier one.
    pub(crate) fn hold_until(
        &mut self,
        needs: Version,
        output: impl FnOnce(Result<(), Withheld>) + 'static,
    ) -> Ran<A> {
        if needs <= self.life.durable() {
            output(self.may_speak());
            return Ran::Answered;
        }
        self.gate.hold(self.life.head(), Box::new(output));
        Ran::Held
    }

    /// Says why work is not looked at any more.
    pub(super) fn told_of(&self, ending: &Ending) -> NotAttempted {
        let fenced = || self.local.shared.ownership.not_owner(self.place.shard);
        ending.to_not_attempted(&self.stream, fenced)
    }

    /// Answers everything that still waits, because the aggregate ends.
    pub(crate) fn refuse_all(&mut self) {
        let Some(ending) = self.life.ending() else { return };
        let why = self.told_of(ending);
        let jobs = self.suspect.take().into_iter().chain(self.parked.drain(..));
        let refused = jobs.map(|job| job.refuse(why.clone())).count() as u32;
        let failed = self.gate.fail(&Withheld::Undecided(why));
        self.answered(refused + failed);
    }
}
