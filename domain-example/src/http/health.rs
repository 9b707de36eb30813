//! For whoever runs the bank: is it healthy, alive, ready; what does it count.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrix::telemetry::exporter;
use orchestrix::telemetry::health::{self, ClusterHealth, Health, PING_TIMEOUT, ResidentHealth, StoreHealth};
use orchestrix_core::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Bank;
use super::problem::{Kind, Problem};

/// What `GET /health` answers.
#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
pub(crate) struct HealthAnswer {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    /// `connected` or `disconnected`: whether the store answered within its time.
    event_store: &'static str,
    /// When it was asked.
    #[schema(value_type = String, format = "date-time")]
    timestamp: Timestamp,
    /// What is wrong, when something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// `starting`, `running`, `draining`, `suspended`, `fenced` or `stopped`.
    node: &'static str,
    /// In a cluster: the node's name, its run, where it listens for others, and how many shards it owns.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    cluster: Option<ClusterHealth>,
    /// The store's name, whether it is durable, and how long it took to answer.
    #[schema(value_type = Object)]
    store: StoreHealth,
    /// What is in memory.
    #[schema(value_type = Object)]
    resident: ResidentHealth,
}

impl From<Health> for HealthAnswer {
    fn from(health: Health) -> Self {
        let Health { status, event_store, timestamp, error, node, cluster, store, resident } = health;
        Self { status, event_store, timestamp, error, node, cluster, store, resident }
    }
}

/// What `GET /live` and `GET /ready` answer.
#[derive(Serialize, ToSchema)]
#[schema(as = Probe)]
pub(crate) struct ProbeAnswer {
    /// `alive` or `stopped`; `ready` or `not ready`.
    #[schema(example = "ready")]
    status: &'static str,
}

/// Asks the store for a sign of life, with a time limit.
#[utoipa::path(
    get, path = "/health", tag = "operations",
    responses(
        (status = 200, description = "The store answers", body = HealthAnswer),
        (status = 503, description = "The store does not answer, or the node has lost it", body = HealthAnswer)
    )
)]
pub(crate) async fn healthy(State(bank): State<Bank>) -> Response {
    let health = health::check(&bank.node, PING_TIMEOUT).await;
    let status = if health.is_healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(HealthAnswer::from(health))).into_response()
}

/// Tells whether the process does its work at all. A 503 means that a restart helps.
#[utoipa::path(
    get, path = "/live", tag = "operations",
    responses(
        (status = 200, description = "Leave it alone", body = ProbeAnswer),
        (status = 503, description = "Restart it", body = ProbeAnswer)
    )
)]
pub(crate) async fn live(State(bank): State<Bank>) -> Response {
    if health::live(&bank.node) {
        probe(StatusCode::OK, "alive")
    } else {
        probe(StatusCode::SERVICE_UNAVAILABLE, "stopped")
    }
}

/// Tells whether requests should come here now. It says no from the moment that a shutdown begins.
#[utoipa::path(
    get, path = "/ready", tag = "operations",
    responses(
        (status = 200, description = "Send requests", body = ProbeAnswer),
        (status = 503, description = "Send them elsewhere", body = ProbeAnswer)
    )
)]
pub(crate) async fn ready(State(bank): State<Bank>) -> Response {
    if !bank.leaving.is_cancelled() && health::ready(&bank.node, PING_TIMEOUT).await {
        probe(StatusCode::OK, "ready")
    } else {
        probe(StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}

pub(super) fn probe(status: StatusCode, word: &'static str) -> Response {
    (status, Json(ProbeAnswer { status: word })).into_response()
}

/// Shows what the bank counts, in the Prometheus text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses(
        (status = 200, description = "The metrics", content_type = "text/plain", body = String),
        (status = 404, description = "Metrics are off", content_type = "application/problem+json",
         body = super::problem::Document)
    )
)]
pub(crate) async fn metrics() -> Response {
    let Some(page) = exporter::render() else {
        let detail = "metrics are off; start the bank with METRICS_ENABLED=true";
        return Problem::new(Kind::UnknownPath, detail).into_response();
    };
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}
