//! What a resident aggregate does next. A decision file: no clock, no channel, no `.await`.
//!
//! ```text
//!            recovered                     panic, lost commit
//! Loading ───────────────► Running ─────────────────────────────► Draining
//!    ▲  │                   │   │                                    │
//!    │  │ cannot be loaded  │   │ nothing to do, told to leave       │ nothing in flight
//!    │  └──────► Ended ◄────┘   │ or fenced                          │
//!    └──────────────────────────┴────────────────────────────────────┘ (reload)
//! ```
//!
//! `head` is the version of the state in memory, which runs ahead; `durable` is what the store has. Between them lie
//! the commits in flight. Invariants: `durable <= head`; in `Ended` nothing is decided any more; from `Draining` no
//! commit leaves, so what is in flight only becomes less.

use std::sync::Arc;

use orchestrix_core::Version;

use crate::error::NotAttempted;
use crate::writer::{Loss, Settlement};

/// Where an aggregate is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Its events are being read. Work waits.
    Loading,
    /// It decides.
    Running,
    /// Its state is worthless; it waits for the commits in flight, then loads again. Work waits.
    Draining,
    /// It answers what is left with this, and goes.
    Ended(Ending),
}

/// Why an aggregate is not resident any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was not used, or memory was short.
    Passivated,
    /// Its shard has another owner.
    Fenced,
    /// Its code or its events make it fail.
    Quarantined(Arc<str>),
    /// It could not be loaded now; a later attempt may work.
    Unavailable(Arc<str>),
}

/// What to do with work that arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Decide it now.
    Decide,
    /// Keep it until the state is back.
    Park,
    /// Answer it with this.
    Refuse(Ending),
}

/// What to do after an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Stay,
    /// Read the events again.
    Load,
    /// Answer what is left and go.
    End,
}

/// The life of one resident aggregate.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: Phase,
    head: Version,
    durable: Version,
    in_flight: u32,
}

impl Lifecycle {
    /// Begins with nothing loaded.
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Loading, head: Version::ZERO, durable: Version::ZERO, in_flight: 0 }
    }

    /// Returns the version of the state in memory.
    pub(crate) fn head(&self) -> Version {
        self.head
    }

    /// Returns the version up to which the store has everything.
    pub(crate) fn durable(&self) -> Version {
        self.durable
    }

    /// Tells whether it decides.
    pub(crate) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Returns why it ended, if it did.
    pub(crate) fn ending(&self) -> Option<&Ending> {
        match &self.phase {
            Phase::Ended(ending) => Some(ending),
            _ => None,
        }
    }

    /// Decides what to do with work that arrives.
    pub(crate) fn on_work(&self) -> Admission {
        match &self.phase {
            Phase::Running => Admission::Decide,
            Phase::Loading | Phase::Draining => Admission::Park,
            Phase::Ended(ending) => Admission::Refuse(ending.clone()),
        }
    }

    /// The state was rebuilt up to a version. Whoever was fenced meanwhile stays ended: what was read may be old.
    pub(crate) fn on_recovered(&mut self, version: Version) -> Next {
        if matches!(self.phase, Phase::Ended(_)) {
            return Next::End;
        }
        debug_assert_eq!(self.phase, Phase::Loading, "only a load recovers");
        self.phase = Phase::Running;
        self.head = version;
        self.durable = version;
        Next::Stay
    }

    /// The state could not be rebuilt.
    pub(crate) fn on_recovery_failed(&mut self, ending: Ending) -> Next {
        self.become_ended(ending)
    }

    /// Events were applied and their commit was queued.
    pub(crate) fn on_appended(&mut self, events: u64) {
        debug_assert!(self.is_running(), "only a running aggregate appends");
        self.head = self.head.plus(events);
        self.in_flight += 1;
    }

    /// A commit that was just counted could not be queued: the state in memory will never be durable.
    pub(crate) fn on_not_queued(&mut self, why: Arc<str>) {
        self.in_flight -= 1;
        self.become_ended(Ending::Unavailable(why));
    }

    /// Commits were answered by the lane.
    pub(crate) fn on_settled(&mut self, settlement: &Settlement) -> Next {
        self.in_flight = self.in_flight.saturating_sub(settlement.answered);
        if let Some(durable) = settlement.durable {
            self.durable = durable.max(self.durable);
        }
        match settlement.loss {
            Some(Loss::Fenced) => self.become_ended(Ending::Fenced),
            Some(_) => self.become_draining(),
            None => self.after_less_in_flight(),
        }
    }

    /// User code panicked: the state cannot be trusted.
    pub(crate) fn on_panic(&mut self) -> Next {
        self.become_draining()
    }

    /// User code panicked again on the same input, or on the aggregate's own events.
    pub(crate) fn on_poisoned(&mut self, reason: Arc<str>) -> Next {
        self.become_ended(Ending::Quarantined(reason))
    }

    /// The node lost the shard. Commits in flight are still waited for.
    pub(crate) fn on_fenced(&mut self) -> Next {
        self.become_ended(Ending::Fenced)
    }

    /// It should leave memory. It stays while it has anything to do; whoever asks may ask again.
    pub(crate) fn on_passivate(&mut self, idle: bool) -> Next {
        if idle && self.is_running() && self.in_flight == 0 {
            return self.become_ended(Ending::Passivated);
        }
        Next::Stay
    }

    fn become_draining(&mut self) -> Next {
        if matches!(self.phase, Phase::Ended(_)) {
            return Next::End;
        }
        self.phase = Phase::Draining;
        self.after_less_in_flight()
    }

    fn become_ended(&mut self, ending: Ending) -> Next {
        if !matches!(self.phase, Phase::Ended(_)) {
            self.phase = Phase::Ended(ending);
        }
        Next::End
    }

    fn after_less_in_flight(&mut self) -> Next {
        match self.phase {
            Phase::Draining if self.in_flight == 0 => {
                self.phase = Phase::Loading;
                Next::Load
            }
            Phase::Ended(_) => Next::End,
            _ => Next::Stay,
        }
    }
}

impl Ending {
    /// Says it to a caller whose work was not looked at; `fenced` says who owns the shard.
    pub(crate) fn to_not_attempted(
        &self,
        stream: &orchestrix_core::StreamId,
        fenced: impl FnOnce() -> NotAttempted,
    ) -> NotAttempted {
        match self {
            Self::Passivated => NotAttempted::unavailable("the aggregate left memory"),
            Self::Fenced => fenced(),
            Self::Unavailable(reason) => NotAttempted::Unavailable { reason: Arc::clone(reason) },
            Self::Quarantined(reason) => {
                NotAttempted::Quarantined { stream: stream.clone(), reason: Arc::clone(reason) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Slot;

    fn running(version: u64) -> Lifecycle {
        let mut life = Lifecycle::new();
        life.on_recovered(Version::new(version));
        life
    }

    fn settled(answered: u32, durable: Option<u64>, loss: Option<Loss>) -> Settlement {
        Settlement { slot: Slot::default(), answered, durable: durable.map(Version::new), loss }
    }

    #[test]
    fn work_waits_while_the_events_are_read() {
        let mut life = Lifecycle::new();
        assert_eq!(life.on_work(), Admission::Park);
        life.on_recovered(Version::new(3));
        assert_eq!(
            (life.on_work(), life.head(), life.durable()),
            (Admission::Decide, Version::new(3), Version::new(3))
        );
    }

    #[test]
    fn the_head_runs_ahead_of_what_is_durable() {
        let mut life = running(3);
        life.on_appended(2);
        life.on_appended(1);
        assert_eq!((life.head().get(), life.durable().get()), (6, 3));
        assert_eq!(life.on_settled(&settled(1, Some(5), None)), Next::Stay);
        assert_eq!((life.head().get(), life.durable().get()), (6, 5));
    }

    #[test]
    fn a_lost_commit_loads_again_once_nothing_is_in_flight() {
        let mut life = running(3);
        life.on_appended(1);
        life.on_appended(1);
        assert_eq!(life.on_settled(&settled(1, None, Some(Loss::Conflict))), Next::Stay);
        assert_eq!(life.on_work(), Admission::Park);
        assert_eq!(life.on_settled(&settled(1, None, Some(Loss::Conflict))), Next::Load);
        life.on_recovered(Version::new(3));
        assert_eq!(life.head(), life.durable());
    }

    #[test]
    fn a_panic_waits_for_the_commits_in_flight() {
        let mut life = running(3);
        life.on_appended(1);
        assert_eq!(life.on_panic(), Next::Stay);
        assert_eq!(life.on_settled(&settled(1, Some(4), None)), Next::Load);
        let mut idle = running(3);
        assert_eq!(idle.on_panic(), Next::Load);
    }

    #[test]
    fn a_fenced_aggregate_ends_and_stays_ended() {
        let mut life = running(3);
        life.on_appended(1);
        life.on_appended(1);
        assert_eq!(life.on_settled(&settled(1, None, Some(Loss::Fenced))), Next::End);
        assert_eq!(life.on_work(), Admission::Refuse(Ending::Fenced));
        assert_eq!(life.on_settled(&settled(1, None, Some(Loss::Conflict))), Next::End, "it still has to go");
        assert_eq!(life.ending(), Some(&Ending::Fenced));
    }

    #[test]
    fn what_was_read_while_the_shard_was_lost_is_not_used() {
        let mut life = Lifecycle::new();
        assert_eq!(life.on_fenced(), Next::End);
        assert_eq!(life.on_recovered(Version::new(3)), Next::End);
        assert_eq!(life.on_work(), Admission::Refuse(Ending::Fenced));
        assert_eq!(life.on_recovery_failed(Ending::Unavailable("too late".into())), Next::End);
        assert_eq!(life.ending(), Some(&Ending::Fenced));
    }

    #[test]
    fn it_leaves_memory_only_when_idle() {
        let mut life = running(3);
        life.on_appended(1);
        assert_eq!(life.on_passivate(true), Next::Stay);
        life.on_settled(&settled(1, Some(4), None));
        assert_eq!(life.on_passivate(false), Next::Stay);
        assert_eq!(life.on_passivate(true), Next::End);
    }

    #[test]
    fn poison_wins_over_draining() {
        let mut life = running(3);
        assert_eq!(life.on_poisoned("again".into()), Next::End);
        assert_eq!(life.on_panic(), Next::End);
        assert_eq!(life.ending(), Some(&Ending::Quarantined("again".into())));
    }
}
