//! What the runtime tells about itself: metrics, hooks, logs, health.

pub mod exporter;
mod histogram;
mod hooks;
pub mod metrics;

pub use hooks::{AggregateFailure, Hooks, SnapshotEvent};
pub use metrics::{CommandOutcome, Metrics, TypeMetrics};
