//! What the bank answers before it is open: a database that starts later, or shards that another node still holds, can
//! take a while, and whoever asks meanwhile should hear that instead of waiting.

use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use orchestrix_core::{Clock, SystemClock};
use serde_json::json;
use tower::ServiceExt;

use super::health::probe;
use super::problem::unavailable;

/// The bank's own routes, from the moment on that there are any.
#[derive(Clone, Default)]
pub(crate) struct Door(Arc<OnceLock<Router>>);

impl Door {
    /// Opens it, once.
    pub(crate) fn open(&self, router: Router) {
        // The only one who opens it is the start, which comes once.
        let _ = self.0.set(router);
    }

    /// Returns what to serve from the first moment on.
    pub(crate) fn router(&self) -> Router {
        let door = self.clone();
        Router::new().fallback(move |request: Request| async move {
            match door.0.get() {
                Some(router) => match router.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
                None => starting(request.uri().path()),
            }
        })
    }
}

/// The process is alive and not ready; everything else is worth another try in a moment.
fn starting(path: &str) -> Response {
    match path {
        "/live" => probe(StatusCode::OK, "alive"),
        "/ready" => probe(StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        "/health" => {
            let answer = json!({
                "status": "unhealthy",
                "event_store": "disconnected",
                "timestamp": SystemClock.now(),
                "error": "the bank is starting: it waits for its event store",
                "node": "starting",
            });
            (StatusCode::SERVICE_UNAVAILABLE, Json(answer)).into_response()
        }
        _ => unavailable("the bank is starting: it waits for its event store").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;

    use super::*;

    async fn ask(door: &Door, path: &str) -> StatusCode {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let Ok(response) = door.router().oneshot(request).await;
        response.status()
    }

    #[tokio::test]
    async fn before_it_is_open_it_is_alive_and_nothing_else() {
        let door = Door::default();
        assert_eq!(ask(&door, "/live").await, StatusCode::OK);
        for path in ["/ready", "/health", "/accounts/ada"] {
            assert_eq!(ask(&door, path).await, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        }
        let serving = door.router();
        door.open(Router::new().route("/accounts/ada", get(|| async { "Ada" })));
        assert_eq!(ask(&door, "/accounts/ada").await, StatusCode::OK);
        let request = Request::builder().uri("/live").body(Body::empty()).expect("a request");
        let Ok(response) = serving.oneshot(request).await;
        assert_eq!(
            response.status(),
            StatusCode::NOT_FOUND,
            "what was served from the start is the bank now"
        );
    }
}
