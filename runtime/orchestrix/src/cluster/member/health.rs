//! Who lives, as far as one observer may say.
//!
//! While the database is away nobody's lease is renewed. So when it is back, a lease that has ended says nothing about
//! its holder until everybody had the time to renew: a lease's length, counted from when this observer itself got its
//! first answer. Until then such a run is silent, not gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrix_core::store::{ClusterView, ShardOwner};
use orchestrix_core::{Epoch, Incarnation, ShardId};

use crate::cluster::boottime::BootTime;
use crate::cluster::placement::Health;

/// What part of a lease may pass without an answer before the observer begins to count anew. Everybody renews three
/// times in a lease, so the leases of runs that are well outlive a gap of half of one.
const GAPS: u32 = 2;

/// What one observer has seen of the database and of the others.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    lease: Duration,
    answered: Option<BootTime>,
    well_since: Option<BootTime>,
    /// Runs whose processes are proved to be gone, as long as the view has them.
    gone: BTreeSet<Incarnation>,
    /// Since when a shard that nobody serves has waited for one target.
    waiting: BTreeMap<ShardId, (Epoch, Incarnation, BootTime)>,
}

impl Observer {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, answered: None, well_since: None, gone: BTreeSet::new(), waiting: BTreeMap::new() }
    }

    /// The database has answered.
    pub(super) fn on_answer(&mut self, now: BootTime) {
        let gap = self.answered.map(|answered| answered.until(now));
        if gap.is_none_or(|gap| gap > self.lease / GAPS) {
            self.well_since = Some(now);
        }
        self.answered = Some(now);
    }

    pub(super) fn on_gone(&mut self, run: Incarnation) {
        self.gone.insert(run);
    }

    /// Takes in a view: forgets those who are not in it, and notes which shards wait for whom.
    pub(super) fn on_view(&mut self, view: &ClusterView, now: BootTime) {
        self.gone.retain(|run| view.member(*run).is_some());
        let waiting = view.shards.iter().filter_map(|row| {
            let target = row.target.filter(|target| row.owner != Some(*target))?;
            if row.owner.is_some_and(|owner| self.is_serving(view, owner, now)) {
                return None;
            }
            let before =
                self.waiting.get(&row.shard).filter(|before| (before.0, before.1) == (row.epoch, target));
            Some((row.shard, (row.epoch, target, before.map_or(now, |before| before.2))))
        });
        self.waiting = waiting.collect();
    }

    /// Says what may be expected of a run.
    pub(super) fn health(&self, view: &ClusterView, run: Incarnation, now: BootTime) -> Health {
        let Some(member) = view.member(run) else { return Health::Gone };
        if member.deposed || self.gone.contains(&run) {
            return Health::Gone;
        }
        match (member.is_alive(), member.draining) {
            (true, false) => Health::Living,
            (true, true) => Health::Draining,
            (false, _) if self.has_watched_since(self.well_since, now) => Health::Gone,
            (false, _) => Health::Silent,
        }
    }

    fn is_serving(&self, view: &ClusterView, run: Incarnation, now: BootTime) -> bool {
        matches!(self.health(view, run, now), Health::Living | Health::Draining)
    }

    /// Tells whether a shard has waited for its target for a lease, with a database that was well.
    pub(super) fn is_late(&self, row: &ShardOwner, now: BootTime) -> bool {
        let since = self.waiting.get(&row.shard).map(|(_, _, since)| *since);
        self.has_watched_since(since.max(self.well_since), now) && since.is_some()
    }

    fn has_watched_since(&self, since: Option<BootTime>, now: BootTime) -> bool {
        since.is_some_and(|since| since.until(now) >= self.lease)
    }
}
