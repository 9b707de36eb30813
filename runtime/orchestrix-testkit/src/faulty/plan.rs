//! Which call gets which fault: a decision without time, tasks or I/O. [`FaultControl`](super::FaultControl) carries
//! it out.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// What happens to one append: to every commit of its batch alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is stored; the answer is `Unavailable`.
    FailBefore,
    /// The append is carried out after this delay and answered truly.
    Delay(Duration),
    /// The append waits for [`release_held`](super::FaultControl::release_held); then it is carried out and answered
    /// truly.
    Hold,
    /// The append is carried out; the answer is `Unknown`.
    LoseAck,
    /// The answer is `Unknown` at once; the append is carried out later: after this delay, or when
    /// [`release_late`](super::FaultControl::release_late) is called. A claim that comes first must stop it.
    CommitLate {
        /// How much later; `None` waits for the call.
        after: Option<Duration>,
    },
    /// Nothing is stored, and never will be; the answer is `Unknown` all the same.
    Drop,
    /// Nothing is stored; the answer is a `Conflict` that does not know the stream's version.
    Conflict,
    /// Nothing is stored; the store panics, as one with a bug would.
    Panic,
}

/// A group of calls other than appends, for faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `claim`.
    Claim,
    /// `join`, `renew` and `leave`.
    Lease,
    /// `view`.
    View,
    /// `set_targets` and `drain`.
    Plan,
    /// `release_shards`.
    Release,
    /// `confirm`.
    Confirm,
    /// `load` and `load_many`.
    Load,
    /// `read_stream`, `read_shard`, `heads`, `list_streams` and `stats`.
    Read,
    /// `import`.
    Import,
    /// `save_snapshots` and `delete_snapshot`.
    Snapshot,
    /// `checkpoint` and `save_checkpoint`.
    Checkpoint,
    /// `quarantine`, `release` and `quarantined`.
    Quarantine,
    /// `ping`.
    Ping,
}

/// How many faults have hit a call, by kind. An append of an empty batch is never hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Appends failed by [`Fault::FailBefore`], or because the store was down.
    pub failed_before: u64,
    /// Appends slowed by [`Fault::Delay`].
    pub delayed: u64,
    /// Appends stopped by [`Fault::Hold`].
    pub held: u64,
    /// Answers lost by [`Fault::LoseAck`].
    pub acks_lost: u64,
    /// Appends put off by [`Fault::CommitLate`].
    pub put_off: u64,
    /// Commits that were put off and then stored.
    pub late_commits_stored: u64,
    /// Commits that were put off and then refused, by the fence or by a conflict.
    pub late_commits_refused: u64,
    /// Appends lost by [`Fault::Drop`].
    pub dropped: u64,
    /// Appends that ended in [`Fault::Panic`].
    pub panics: u64,
    /// Appends refused by [`Fault::Conflict`].
    pub conflicts: u64,
    /// Other calls that failed.
    pub calls_failed: u64,
    /// Other calls that were slowed or held, and then answered truly.
    pub calls_late: u64,
}

impl FaultCounts {
    /// Returns how many appends were hit by any fault.
    pub fn appends(&self) -> u64 {
        let answered_wrongly =
            self.failed_before + self.acks_lost + self.put_off + self.dropped + self.conflicts;
        answered_wrongly + self.delayed + self.held
    }

    fn count(&mut self, fault: Fault) {
        let counter = match fault {
            Fault::FailBefore => &mut self.failed_before,
            Fault::Delay(_) => &mut self.delayed,
            Fault::Hold => &mut self.held,
            Fault::LoseAck => &mut self.acks_lost,
            Fault::CommitLate { .. } => &mut self.put_off,
            Fault::Drop => &mut self.dropped,
            Fault::Conflict => &mut self.conflicts,
            Fault::Panic => &mut self.panics,
        };
        *counter += 1;
    }
}

/// What becomes of one call other than an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Through,
    FailBefore,
    FailAfter,
    Delay(Duration),
    Hold,
}

/// The faults that are to come, and the count of those that came.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) down: bool,
    pub(super) appends: u64,
    pub(super) hits: FaultCounts,
    pub(super) numbered: HashMap<u64, Fault>,
    pub(super) script: VecDeque<Option<Fault>>,
    pub(super) random: Option<Random>,
    pub(super) failing: HashMap<Operation, (Call, u64)>,
}

impl Plan {
    /// Takes the fault of the next append. Numbers go before the script, the script before chance.
    pub(super) fn next_append(&mut self, commits: usize) -> Option<Fault> {
        if commits == 0 {
            return None;
        }
        self.appends += 1;
        let fault = if self.down { Some(Fault::FailBefore) } else { self.planned() };
        if let Some(fault) = fault {
            self.hits.count(fault);
        }
        fault
    }

    fn planned(&mut self) -> Option<Fault> {
        if let Some(fault) = self.numbered.remove(&self.appends) {
            return Some(fault);
        }
        if let Some(step) = self.script.pop_front() {
            return step;
        }
        self.random.as_mut().and_then(Random::draw)
    }

    /// Takes the fate of the next call of this kind.
    pub(super) fn next_call(&mut self, operation: Operation) -> Call {
        let call = if self.down { Call::FailBefore } else { self.planned_call(operation) };
        match call {
            Call::Through => {}
            Call::FailBefore | Call::FailAfter => self.hits.calls_failed += 1,
            Call::Delay(_) | Call::Hold => self.hits.calls_late += 1,
        }
        call
    }

    fn planned_call(&mut self, operation: Operation) -> Call {
        match self.failing.get_mut(&operation) {
            Some((call, left)) if *left > 0 => {
                *left = if *left == u64::MAX { *left } else { *left - 1 };
                *call
            }
            _ => Call::Through,
        }
    }

    /// Forgets the faults that have not come yet; the counts stay.
    pub(super) fn heal(&mut self) {
        *self = Self { appends: self.appends, hits: self.hits, ..Self::default() };
    }
}

/// Faults by chance, from a seed: the same seed gives the same faults to the same sequence of appends.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
    share: f64,
    faults: Vec<Fault>,
}

impl Random {
    pub(super) fn new(seed: u64, share: f64, faults: &[Fault]) -> Self {
        assert!((0.0..=1.0).contains(&share), "the share of faulty appends is between 0 and 1, not {share}");
        assert!(!faults.is_empty(), "name at least one fault to draw from");
        Self { state: seed, share, faults: faults.to_vec() }
    }

    fn draw(&mut self) -> Option<Fault> {
        let hit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let pick = self.next() as usize % self.faults.len();
        (hit < self.share).then(|| self.faults[pick])
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_before_the_script_and_the_script_before_chance() {
        let mut plan = Plan { random: Some(Random::new(1, 1.0, &[Fault::Drop])), ..Plan::default() };
        plan.numbered.insert(2, Fault::Conflict);
        plan.script.extend([Some(Fault::Hold), None]);
        let faults: Vec<_> = (0..4).map(|_| plan.next_append(1)).collect();
        assert_eq!(faults, [Some(Fault::Hold), Some(Fault::Conflict), None, Some(Fault::Drop)]);
        assert_eq!(plan.hits.appends(), 3);
    }

    #[test]
    fn an_empty_batch_is_not_counted() {
        let mut plan = Plan { down: true, ..Plan::default() };
        assert_eq!(plan.next_append(0), None);
        assert_eq!(plan.appends, 0);
    }

    #[test]
    fn chance_keeps_its_share_and_its_seed() {
        let draw = |seed| {
            let mut random = Random::new(seed, 0.25, &[Fault::Drop, Fault::LoseAck]);
            (0..4_000).filter_map(|_| random.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((900..1_100).contains(&draw(7).len()), "a quarter of 4,000, give or take");
    }

    #[test]
    fn a_call_fails_as_often_as_asked() {
        let mut plan = Plan::default();
        plan.failing.insert(Operation::Load, (Call::FailBefore, 2));
        let calls: Vec<_> = (0..3).map(|_| plan.next_call(Operation::Load)).collect();
        assert_eq!(calls, [Call::FailBefore, Call::FailBefore, Call::Through]);
        assert_eq!(plan.next_call(Operation::Claim), Call::Through);
        assert_eq!(plan.hits.calls_failed, 2);
        plan.failing.insert(Operation::View, (Call::Hold, 1));
        assert_eq!(
            (plan.next_call(Operation::View), plan.next_call(Operation::View)),
            (Call::Hold, Call::Through)
        );
        assert_eq!((plan.hits.calls_failed, plan.hits.calls_late), (2, 1));
    }
}
