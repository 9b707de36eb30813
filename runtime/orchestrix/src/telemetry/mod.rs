//! What the runtime tells about itself: metrics, hooks, logs, traces, health.

mod cluster;
pub mod exporter;
pub mod health;
mod histogram;
mod hook_set;
mod hooks;
pub mod logging;
pub mod metrics;
pub mod traces;
mod watch;

pub use cluster::{ClaimReason, ClusterMetrics, FenceReason, RemoteOutcome};
pub use health::Health;
pub use hook_set::{HookSet, on_aggregate_error};
pub use hooks::{AggregateFailure, Hooks, SnapshotEvent};
pub use metrics::{CommandOutcome, Metrics, TypeMetrics};

pub(crate) use metrics::ReplicaMetrics;
pub(crate) use watch::{EventNames, Telemetry, TypeTelemetry};
