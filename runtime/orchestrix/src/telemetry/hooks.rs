//! Observability hooks: called by the runtime itself, and harmless when they panic.

use std::time::Duration;

use orchestrix_core::{CommandId, Name, StreamId, Version};

/// A snapshot that was saved or loaded.
#[derive(Clone, Debug)]
pub struct SnapshotEvent<'a> {
    /// Whose it is.
    pub stream: &'a StreamId,
    /// The version of the state in it.
    pub version: Version,
    /// Its size with its header.
    pub bytes: usize,
}

/// Something went wrong with one aggregate.
#[derive(Clone, Debug)]
pub struct AggregateFailure<'a> {
    /// The aggregate.
    pub stream: &'a StreamId,
    /// A word of a closed set, the same as the label `kind` of `orchestrix_errors_total`.
    pub kind: &'static str,
    /// What happened, for a person.
    pub message: &'a str,
    /// The command that was being handled, if it was one.
    pub command_id: Option<CommandId>,
}

/// Called by the runtime on the thread where things happen: keep it short. A panic in a hook is caught and counted.
#[expect(unused_variables, reason = "the defaults do nothing")]
pub trait Hooks: Send + Sync + 'static {
    /// An event is durable.
    fn on_event_stored(&self, stream: &StreamId, version: Version, event_type: &Name) {}
    /// Events were read from the store to activate an aggregate or to look at its past.
    fn on_event_loaded(&self, stream: &StreamId, events: u64, took: Duration) {}
    /// Events were applied to rebuild a state.
    fn on_event_replayed(&self, stream: &StreamId, events: u64, took: Duration) {}
    /// A snapshot is stored.
    fn on_snapshot_saved(&self, snapshot: &SnapshotEvent<'_>) {}
    /// A snapshot was used by an activation.
    fn on_snapshot_loaded(&self, snapshot: &SnapshotEvent<'_>) {}
    /// Something went wrong with one aggregate.
    fn on_aggregate_error(&self, failure: &AggregateFailure<'_>) {}
}
