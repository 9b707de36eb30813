//! The export of spans by OTLP over HTTP, and the trace context in the form of the W3C.

use std::time::Duration;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::TracesError;
use super::collector::{Collector, EXPORT_TIME_MAX};

/// How long a stop waits for the last spans to leave.
const FINISH_TIME_MAX: Duration = Duration::from_secs(5);

/// The header, and the key in a carrier, of the W3C's trace context.
const TRACEPARENT: &str = "traceparent";

/// An export of traces. Spans of a dropped one are lost that were not exported yet; see [`Traces::finish`].
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Begins to export to a collector: `endpoint` is the whole address, for instance `http://localhost:4318/v1/traces`.
    /// It must be called inside a tokio runtime, which carries the requests. The collector need not be there yet.
    ///
    /// The SDK's own variables apply, for instance `OTEL_TRACES_SAMPLER`; by default every trace is exported that its
    /// caller does not exclude.
    ///
    /// # Errors
    /// [`TracesError`] when the address is none, or outside of a tokio runtime.
    pub fn start(endpoint: &str, service: &'static str) -> Result<Self, TracesError> {
        let wrong = |reason: String| TracesError { endpoint: endpoint.to_owned(), reason };
        let handle = Handle::try_current().map_err(|error| wrong(error.to_string()))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(endpoint, handle))
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIME_MAX)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let resource = Resource::builder_empty().with_service_name(service).build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider })
    }

    /// Exports what is waiting, for at most five seconds, and ends.
    ///
    /// # Cancel safety
    /// A dropped call goes on in the background.
    pub async fn finish(self) {
        // It blocks until the exporting thread has ended, which needs this runtime.
        let finished =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FINISH_TIME_MAX));
        match finished.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces were not exported"),
            Err(error) => tracing::warn!(%error, "the export of traces did not end in order"),
        }
    }
}

/// Returns the layer that turns spans into traces. Spans of single commands are at the level `debug`; the level of the
/// log has no say here. Warnings and errors become events of the span that they happened in.
pub(crate) fn spans<S>(traces: &Traces) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let wanted = filter_fn(|metadata| {
        let finest = if metadata.is_span() { Level::DEBUG } else { Level::WARN };
        *metadata.level() <= finest
    });
    tracing_opentelemetry::layer()
        .with_tracer(traces.provider.tracer("orchestrix"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(wanted.with_max_level_hint(LevelFilter::DEBUG))
}

/// Makes a span continue a trace that came from elsewhere, in the form of the W3C's `traceparent`. A text that is no
/// trace context is ignored, and so is everything while no traces are exported.
pub fn adopt(span: &Span, traceparent: &str) {
    if span.is_disabled() {
        return;
    }
    let parent = TraceContextPropagator::new().extract(&Carrier(traceparent.into()));
    if parent.span().span_context().is_valid() {
        // It fails where no traces are exported, and then there is nothing to continue.
        let _ = span.set_parent(parent);
    }
}

/// Returns the trace context of the current span, to travel with a command in its metadata; `None` while no traces are
/// exported or outside of any span.
pub fn carried() -> Option<Box<str>> {
    let context = Span::current().context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut carrier = Carrier(String::new());
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    (!carrier.0.is_empty()).then(|| carrier.0.into())
}

/// The one header that is carried; the `tracestate` of other vendors is not.
struct Carrier(String);

impl Extractor for Carrier {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(&*self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

impl Injector for Carrier {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = value;
        }
    }
}
