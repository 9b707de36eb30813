//! What the runtime tells about itself: metrics, hooks, logs, health.

mod hooks;

pub use hooks::{AggregateFailure, Hooks, SnapshotEvent};
