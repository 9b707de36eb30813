//! Traces: spans that leave the process by OpenTelemetry, and the trace context that travels with a command.
//!
//! The feature `otlp` brings the export. Without it everything here is present and does nothing, so that an application
//! is written once; the configuration then refuses `TRACING_ENABLED=true`.
//!
//! | what | how |
//! |---|---|
//! | a request's span continues the caller's trace | [`adopt`] |
//! | a command carries the request's span along | [`carried`], put into its metadata |
//! | a command's span continues what its metadata says | the runtime does that by itself |
//!
//! Spans wait in a bounded queue and are exported in batches by a thread of their own. When the collector does not keep
//! up, spans are dropped; commands never wait for it.

#[cfg(feature = "otlp")]
mod collector;
#[cfg(not(feature = "otlp"))]
#[path = "absent.rs"]
mod export;
#[cfg(feature = "otlp")]
#[path = "otlp.rs"]
mod export;

pub(crate) use export::spans;
pub use export::{Traces, adopt, carried};

/// The export of traces could not be set up. Nothing is exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("traces cannot be exported to {endpoint}: {reason}; correct OTEL_EXPORTER_OTLP_ENDPOINT")]
pub struct TracesError {
    /// Where they should have gone.
    pub endpoint: String,
    /// What is wrong.
    pub reason: String,
}
