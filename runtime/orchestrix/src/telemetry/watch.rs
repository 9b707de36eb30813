//! What the runtime's own code calls when something happens: metrics, hooks and logs in one place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrix_core::store::NewEvent;
use orchestrix_core::{CommandId, Name, SnapshotDefect, StreamId, Version};

use super::hook_set::HookSet;
use super::hooks::{AggregateFailure, Hooks, SnapshotEvent};
use super::metrics::{Metrics, TypeMetrics};

/// The node's eyes.
pub(crate) struct Telemetry {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hooks: Arc<HookSet>,
    types: Vec<Arc<TypeTelemetry>>,
}

/// The eyes on one kind of aggregate.
pub(crate) struct TypeTelemetry {
    name: &'static str,
    node: Arc<Metrics>,
    pub(crate) metrics: TypeMetrics,
    hooks: Arc<HookSet>,
}

/// The names of a commit's events, kept only when a hook wants them.
pub(crate) type EventNames = Option<Box<[Name]>>;

impl Telemetry {
    pub(crate) fn new(metrics: Arc<Metrics>, hooks: Arc<HookSet>, types: &[&'static str]) -> Self {
        let types = types
            .iter()
            .map(|name| {
                let (node, hooks) = (Arc::clone(&metrics), Arc::clone(&hooks));
                Arc::new(TypeTelemetry { name, metrics: metrics.for_type(name), node, hooks })
            })
            .collect();
        Self { metrics, hooks, types }
    }

    /// Returns the eyes on the kind of aggregate that was registered at a place.
    pub(crate) fn of(&self, type_index: usize) -> &Arc<TypeTelemetry> {
        &self.types[type_index]
    }

    fn named(&self, aggregate_type: &str) -> Option<&TypeTelemetry> {
        self.types.iter().find(|one| one.name == aggregate_type).map(Arc::as_ref)
    }

    /// Counts a failure by its kind.
    pub(crate) fn error(&self, kind: &str) {
        self.metrics.error(kind);
    }

    /// Keeps the names of events that a hook will want to hear.
    pub(crate) fn names(&self, events: &[NewEvent]) -> EventNames {
        if self.hooks.is_empty() {
            None
        } else {
            Some(events.iter().map(|event| event.event_type.clone()).collect())
        }
    }

    /// An append was answered.
    pub(crate) fn appended(&self, commits: usize, events: u64, started: Instant) {
        self.metrics.batch_commits.record(commits as f64);
        self.metrics.batch_events.record(events as f64);
        self.metrics.commit_latency.record(started.elapsed().as_secs_f64());
    }

    /// A commit is durable.
    pub(crate) fn stored(&self, stream: &StreamId, before: Version, last: Version, names: &EventNames) {
        if let Some(one) = self.named(&stream.aggregate_type) {
            one.metrics.events_stored.increment(last.get() - before.get());
        }
        for (name, place) in names.iter().flat_map(|names| names.iter()).zip(1..) {
            self.hooks.on_event_stored(stream, before.plus(place), name);
        }
    }

    /// A snapshot is stored.
    pub(crate) fn snapshot_saved(&self, stream: &StreamId, version: Version, bytes: usize) {
        if let Some(one) = self.named(&stream.aggregate_type) {
            one.metrics.snapshots_saved.increment(1);
        }
        self.hooks.on_snapshot_saved(&SnapshotEvent { stream, version, bytes });
    }
}

impl TypeTelemetry {
    /// Events were read.
    pub(crate) fn loaded(&self, stream: &StreamId, events: u64, took: Duration) {
        self.metrics.loaded(events, took);
        self.hooks.on_event_loaded(stream, events, took);
    }

    /// Events were applied to rebuild a state.
    pub(crate) fn replayed(&self, stream: &StreamId, events: u64, took: Duration) {
        self.metrics.replayed(events, took);
        self.hooks.on_event_replayed(stream, events, took);
    }

    /// An aggregate is resident, without the help of a snapshot; `existed` if it had events.
    pub(crate) fn activated(&self, existed: bool) {
        self.metrics.activations.increment(1);
        if existed {
            self.metrics.snapshot_misses.increment(1);
        }
    }

    /// An aggregate is resident, from a snapshot.
    pub(crate) fn snapshot_loaded(&self, stream: &StreamId, version: Version, bytes: usize) {
        self.metrics.activations.increment(1);
        self.metrics.snapshot_hits.increment(1);
        self.hooks.on_snapshot_loaded(&SnapshotEvent { stream, version, bytes });
    }

    /// A stored snapshot was of no use.
    pub(crate) fn snapshot_defect(&self, stream: &StreamId, defect: SnapshotDefect) {
        tracing::warn!(%stream, %defect, "a snapshot was passed over; the events are replayed");
        self.metrics.snapshot_defect(defect);
    }

    /// A snapshot was dropped because too many waited.
    pub(crate) fn snapshot_dropped(&self) {
        self.node.error("snapshot");
    }

    /// An aggregate left memory.
    pub(crate) fn passivated(&self) {
        self.metrics.passivations.increment(1);
    }

    /// An aggregate was put in quarantine.
    pub(crate) fn quarantined(&self) {
        self.metrics.quarantines.increment(1);
    }

    /// Something went wrong with one aggregate.
    pub(crate) fn aggregate_error(
        &self,
        stream: &StreamId,
        kind: &'static str,
        message: &str,
        command_id: Option<CommandId>,
    ) {
        tracing::error!(%stream, kind, message, "an aggregate failed");
        self.node.error(kind);
        self.hooks.on_aggregate_error(&AggregateFailure { stream, kind, message, command_id });
    }
}
