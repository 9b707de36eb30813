//! What every arbiter of a node shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use orchestrix_core::{Clock, Epoch, EventStore, ShardCount, ShardId};
use tokio::sync::{Semaphore, mpsc};

use super::dedup::Window;
use super::gate::Withheld;
use super::job::{Deliver, Envelope};
use super::residency::Residents;
use super::snapshotter::ToSave;
use crate::cluster::{Confirms, Silence, Standing};
use crate::error::NotAttempted;
use crate::node::{Past, Seen};
use crate::settings::Settings;
use crate::telemetry::Telemetry;
use crate::writer::{Append, Ownership};

/// The parts of a node that its aggregates use. It holds no way to reach the arbiters, so that a node that is
/// dropped without a shutdown comes apart.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) past: Past,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shards: ShardCount,
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) lanes: Vec<mpsc::Sender<Append>>,
    pub(crate) snapshots: mpsc::Sender<ToSave>,
    pub(crate) residents: Residents,
    pub(crate) loads: Arc<Semaphore>,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Whether the node may answer for its shards.
    pub(crate) standing: Standing,
    pub(crate) confirms: Confirms,
    pub(crate) in_flight: Arc<InFlight>,
    /// The registered types by their places: their names, and how one of theirs is brought into memory.
    pub(crate) kinds: Vec<(&'static str, Wake)>,
}

/// Makes a job that brings an aggregate into memory.
pub(crate) type Wake = fn(Envelope<Result<Seen<()>, NotAttempted>>) -> Box<dyn Deliver>;

impl Shared {
    /// Returns the lane that carries a shard's commits.
    pub(crate) fn lane(&self, shard: ShardId) -> &mpsc::Sender<Append> {
        &self.lanes[shard.get() as usize % self.lanes.len()]
    }

    /// Says, after an answer was computed, whether this node still speaks for an aggregate that was loaded in this term.
    /// That is two loads and a look at the clock.
    pub(crate) fn may_speak(&self, shard: ShardId, term: Epoch) -> Result<(), Withheld> {
        // The lease first: a term that has not ended by the second look was in force at the first one too.
        let under_lease = self.standing.check();
        if !self.ownership.speaks(shard, term) {
            return Err(Withheld::NotOurs(self.ownership.not_owner(shard)));
        }
        under_lease.map_err(|silence| match silence {
            Silence::Lapsed => Withheld::Lapsed(silence.into()),
            Silence::Lost => Withheld::NotOurs(silence.into()),
        })
    }

    /// Returns how much an aggregate remembers of its commands.
    pub(crate) fn window(&self) -> Window {
        Window { commands_max: self.settings.dedup_commands_max, age_max: self.settings.dedup_age_max }
    }
}

/// Counts work that was accepted and not yet answered, and refuses what is over the bound.
#[derive(Debug)]
pub(crate) struct InFlight {
    now: AtomicUsize,
    max: usize,
}

/// What callers who hit the bound are told to wait: a little more than a batch takes on a busy disk.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(100);

impl InFlight {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { now: AtomicUsize::new(0), max })
    }

    /// Takes a place, given back when the permit is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Permit, NotAttempted> {
        if self.now.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.now.fetch_sub(1, Ordering::Relaxed);
            let what = "the node's commands in flight".into();
            return Err(NotAttempted::Overloaded { what, limit: self.max, retry_after: RETRY_AFTER });
        }
        Ok(Permit(Arc::clone(self)))
    }

    /// Returns how much is in flight.
    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::Acquire)
    }
}

/// A place among the work in flight.
#[derive(Debug)]
pub(crate) struct Permit(Arc<InFlight>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_over_the_bound_is_refused_and_places_come_back() {
        let in_flight = InFlight::new(2);
        let first = in_flight.enter().expect("room");
        let _second = in_flight.enter().expect("room");
        assert!(matches!(in_flight.enter(), Err(NotAttempted::Overloaded { limit: 2, .. })));
        drop(first);
        assert!(in_flight.enter().is_ok());
        assert_eq!(in_flight.now(), 1);
    }
}
