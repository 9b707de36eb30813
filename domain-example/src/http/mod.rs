//! The bank over HTTP: routes, limits, and what every request passes on its way in and out.
//!
//! | file | what |
//! |---|---|
//! | `accounts`, `events`, `transfers`, `health` | the handlers, with the shape of what they take and give |
//! | `extract` | what a request must bring |
//! | `problem` | every error as `application/problem+json` |
//! | `openapi` | the document that describes it all, made from the routes |
//! | `server` | connections: bounded, timed, drained |
//! | `starting` | what is answered before the bank is open |
//!
//! A handler turns a request into one call to the node and its answer into a response. It decides nothing about money.

pub(crate) mod accounts;
pub(crate) mod events;
pub(crate) mod extract;
pub(crate) mod health;
pub(crate) mod openapi;
pub(crate) mod problem;
pub(crate) mod server;
pub(crate) mod starting;
pub(crate) mod transfers;

use std::any::Any;
use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, MatchedPath, Request};
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use orchestrix::telemetry::traces;
use orchestrix::{HistoryError, Node};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::{DefaultOnResponse, OnResponse, TraceLayer};
use tracing::{Span, field};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::driver::Driver;
use extract::BodyLimits;
use problem::{Kind, Problem, unavailable};

/// How long a look into the log may take before the answer is 503.
const HISTORY_TIME_MAX: Duration = Duration::from_secs(10);

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Bank {
    /// Where commands and reads go.
    pub(crate) node: Node,
    /// Who carries transfers out.
    pub(crate) driver: Driver,
    /// How much of a request is read.
    pub(crate) body: BodyLimits,
    /// Cancelled when the bank is told to stop; it is not ready from then on.
    pub(crate) leaving: CancellationToken,
}

impl Bank {
    /// Puts a bank together around a running node: not ready from `leaving` on, and without new work from `stop` on.
    pub(crate) fn new(node: Node, leaving: CancellationToken, stop: CancellationToken) -> Self {
        let driver = Driver::new(node.clone(), stop);
        Self { node, driver, body: BodyLimits::default(), leaving }
    }
}

impl FromRef<Bank> for BodyLimits {
    fn from_ref(bank: &Bank) -> Self {
        bank.body
    }
}

/// Returns the routes with their documentation.
pub(crate) fn routes() -> OpenApiRouter<Bank> {
    OpenApiRouter::with_openapi(openapi::Head::openapi())
        .routes(routes!(accounts::open))
        .routes(routes!(accounts::show))
        .routes(routes!(accounts::deposit))
        .routes(routes!(accounts::withdraw))
        .routes(routes!(accounts::close))
        .routes(routes!(events::list))
        .routes(routes!(transfers::request))
        .routes(routes!(transfers::show))
        .routes(routes!(health::healthy))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::describe))
}

/// Returns the whole service.
pub(crate) fn router(bank: Bank) -> Router {
    let (router, _) = routes().split_for_parts();
    guarded(router.fallback(unknown_path).method_not_allowed_fallback(method_not_allowed)).with_state(bank)
}

/// Puts around a router what every request passes: a span, and a net for panics.
pub(crate) fn guarded<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    // What failed is logged where it is turned into a problem, with its detail.
    let spans = TraceLayer::new_for_http().make_span_with(span).on_response(answered).on_failure(());
    router.layer(CatchPanicLayer::custom(panicked)).layer(spans)
}

/// Opens the span of a request, in the caller's trace if it is in one. Its name has the route, not the path: ids do not
/// belong into names.
fn span(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str);
    let span = tracing::debug_span!(
        "request",
        otel.name = format!("{} {route}", request.method()),
        otel.kind = "server",
        http.request.method = %request.method(),
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = field::Empty,
    );
    if let Some(traceparent) = extract::trace_parent(request.headers()) {
        traces::adopt(&span, &traceparent);
    }
    span
}

fn answered(response: &Response, latency: Duration, span: &Span) {
    span.record("http.response.status_code", response.status().as_u16());
    DefaultOnResponse::new().on_response(response, latency, span);
}

async fn unknown_path(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(Kind::UnknownPath, format!("{path} leads nowhere; /openapi.json lists the paths"))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        Kind::MethodNotAllowed,
        format!("{path} has no {method}; the Allow header lists what it has"),
    )
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = words.unwrap_or("without words"), "a handler panicked");
    Problem::new(Kind::Internal, "a bug of the bank; its log has more").into_response()
}

/// Waits for a look into the log, but not for ever.
async fn in_time<T>(look: impl Future<Output = Result<T, HistoryError>>) -> Result<T, Problem> {
    match tokio::time::timeout(HISTORY_TIME_MAX, look).await {
        Ok(seen) => Ok(seen?),
        Err(_) => Err(unavailable(format!("the event store did not answer within {HISTORY_TIME_MAX:?}"))),
    }
}
