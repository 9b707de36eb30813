//! What a run of the simulator met: a fault that hits nothing proves nothing.

use std::collections::BTreeMap;

/// Something worth counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    /// A command was done and its caller heard of it.
    Done,
    /// A strong read was answered.
    Seen,
    /// The reply to a command that was known already.
    Repeated,
    /// A node was paused with an append in flight.
    PausedInFlight,
    /// A node crashed with an append in flight.
    CrashedInFlight,
    /// Node and database were parted with an append in flight.
    PartedInFlight,
    /// The database crashed with an append in flight.
    DatabaseInFlight,
    /// Nobody knew what became of an append.
    InDoubt,
    /// An append of a former owner or epoch was refused.
    Fenced,
    /// An append arrived after its run had lost the shard to another one.
    Zombie,
    /// A claim or a release waited for an append.
    Waited,
    /// An answer was held back, since the lease had ended or the shard was gone.
    Withheld,
    /// A run learned that another one had taken over.
    Deposed,
    /// A shard was claimed from a run that was gone.
    TakenOver,
    /// A shard was sealed, released and claimed elsewhere.
    HandedOver,
    /// A claim was carried out after its caller had given it up, or twice.
    LateClaim,
    /// A message between nodes, or between node and database, was lost.
    Lost,
    /// The same, and it came twice.
    Doubled,
    /// The same, and it came seconds late.
    Late,
    /// A node was drained and left.
    Drained,
    /// A command was sent on by one node to another.
    Forwarded,
}

/// How often each was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(pub(super) BTreeMap<Fact, u64>);

impl Facts {
    pub(super) fn count(&mut self, fact: Fact) {
        *self.0.entry(fact).or_default() += 1;
    }

    pub(super) fn of(&self, fact: Fact) -> u64 {
        self.0.get(&fact).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, more: &Self) {
        for (fact, count) in &more.0 {
            *self.0.entry(*fact).or_default() += count;
        }
    }
}
