//! What stands in for the export in a build without the feature `otlp`.

use tracing::{Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Identity;

use super::TracesError;

/// An export of traces, of which a build without the feature `otlp` has none.
#[derive(Debug)]
pub enum Traces {}

impl Traces {
    /// Refuses, since this build has no export.
    ///
    /// # Errors
    /// [`TracesError`] always.
    pub fn start(endpoint: &str, _service: &'static str) -> Result<Self, TracesError> {
        let reason = "this build lacks the feature `otlp`".to_owned();
        Err(TracesError { endpoint: endpoint.to_owned(), reason })
    }

    /// Exports what is waiting, and ends.
    ///
    /// # Cancel safety
    /// There is nothing to cancel.
    #[expect(clippy::unused_async, reason = "it has the shape of the export's")]
    pub async fn finish(self) {
        match self {}
    }
}

#[expect(unreachable_code, reason = "the last line names the type of what never comes")]
pub(crate) fn spans<S: Subscriber>(traces: &Traces) -> impl Layer<S> + use<S> {
    match *traces {}
    Identity::new()
}

/// Makes a span continue a trace; without the feature `otlp`, nothing.
pub fn adopt(_span: &Span, _traceparent: &str) {}

/// Returns the trace context of the current span; without the feature `otlp`, `None`.
pub fn carried() -> Option<Box<str>> {
    None
}
