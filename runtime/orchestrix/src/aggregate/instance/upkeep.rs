//! What follows from more being durable: snapshots that pay, and the weight that the residency is told.

use std::time::Duration;

use orchestrix_core::{Aggregate, SnapshotPolicy};

use super::Instance;
use crate::aggregate::recovery::{Recovered, guarded};
use crate::aggregate::snapshotter::{self, Taken, ToSave};

/// What every resident aggregate weighs besides its state: actor, directory and residency entries.
/// Measured with `loadtest footprint`.
const OVERHEAD_BYTES: usize = 2_048;

/// A snapshot on passivation pays when this many events would have to be replayed otherwise.
const PASSIVATION_EVENTS_MIN: u64 = 16;

/// A remembered command, in bytes: its entry and a short reply.
const REMEMBERED_BYTES: usize = 72;

/// An aggregate is weighed again when this many bytes were applied to it, or a quarter of its weight if that is more.
const WEIGH_BYTES_MIN: usize = 4 << 10;

/// Above this size a snapshot also waits until as many bytes of events have come, so that snapshots at most double
/// what is written.
const LARGE_SNAPSHOT_BYTES: u64 = 16 << 10;

/// What has happened since the last snapshot.
#[derive(Default)]
pub(super) struct Progress {
    events: u64,
    bytes: u64,
    replay_time: Duration,
    last_bytes: u64,
    /// A snapshot that waits for its version to be durable.
    waiting: Option<Box<Taken>>,
}

impl Progress {
    /// Begins where a recovery has ended.
    pub(super) fn since<A>(recovered: &Recovered<A>) -> Self {
        Self {
            events: recovered.replayed,
            bytes: recovered.replayed_bytes,
            replay_time: recovered.took,
            last_bytes: recovered.snapshot_bytes,
            waiting: None,
        }
    }
}

impl<A: Aggregate> Instance<A> {
    /// Takes note of events that were applied, with one command that is remembered.
    pub(super) fn grow(&mut self, events: u64, bytes: u64) {
        self.progress.events += events;
        self.progress.bytes += bytes;
        self.unweighed += bytes as usize + REMEMBERED_BYTES;
    }

    /// Hands a last snapshot over if it pays.
    pub(super) fn snapshot_before_leaving(&mut self) {
        if self.policy_is_on() && self.progress.events >= PASSIVATION_EVENTS_MIN {
            self.take_snapshot();
            self.send_snapshot();
        }
    }

    /// More became durable: snapshots and weight follow.
    pub(super) fn after_durable(&mut self) {
        if self.is_snapshot_due() {
            self.take_snapshot();
        }
        let durable = self.life.durable();
        if self.progress.waiting.as_ref().is_some_and(|taken| taken.version <= durable) {
            self.send_snapshot();
        }
        if self.unweighed >= WEIGH_BYTES_MIN.max(self.weight / 4) {
            self.weigh();
        }
    }

    fn policy(&self) -> SnapshotPolicy {
        A::snapshot_policy().unwrap_or(self.local.shared.settings.snapshots)
    }

    fn policy_is_on(&self) -> bool {
        !self.policy().is_off()
    }

    fn is_snapshot_due(&self) -> bool {
        let progress = &self.progress;
        let large = progress.last_bytes > LARGE_SNAPSHOT_BYTES && progress.bytes < progress.last_bytes;
        progress.waiting.is_none()
            && !large
            && self.life.is_running()
            && self.policy().is_due(progress.events, progress.bytes, progress.replay_time)
    }

    /// Encodes the state as it is now, ahead of the store; it is saved when its version is durable.
    fn take_snapshot(&mut self) {
        let now = self.local.shared.clock.now();
        match snapshotter::take(
            &self.stream,
            self.place.shard,
            self.life.head(),
            &self.state,
            &self.memory,
            now,
        ) {
            Ok(taken) => {
                let last_bytes = taken.bytes.len() as u64;
                self.progress =
                    Progress { last_bytes, waiting: Some(Box::new(taken)), ..Progress::default() };
            }
            Err(error) => {
                self.progress = Progress::default();
                self.telemetry.aggregate_error(&self.stream, "snapshot", &error.to_string(), None);
            }
        }
    }

    /// Hands the snapshot over; when the queue is full it is dropped, since a snapshot can be taken again.
    fn send_snapshot(&mut self) {
        if let Some(taken) = self.progress.waiting.take()
            && self.local.shared.snapshots.try_send(ToSave::Snapshot(*taken)).is_err()
        {
            self.telemetry.snapshot_dropped();
        }
    }

    /// Tells the residency how much memory this aggregate takes, when that has changed by more than a quarter.
    pub(super) fn weigh(&mut self) {
        self.unweighed = 0;
        // A state whose encoder panics has no snapshot either; its own size is a fair weight for it.
        let encoded = guarded(|| orchestrix_core::codec::bincode::size_of(&self.state)).unwrap_or_default();
        let state = size_of::<A>() + encoded;
        let weight = OVERHEAD_BYTES + state + self.memory.weight_bytes();
        if weight.abs_diff(self.weight) * 4 > self.weight {
            self.weight = weight;
            self.local.shared.residents.weigh(self.place.slot, weight);
        }
    }
}
