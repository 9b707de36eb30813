//! A bank to talk to, and answers to look at.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use orchestrix::store::Memory;
use orchestrix::{IntoStore, Node, Orchestrix, Settings};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use crate::http::Bank;
use crate::http::problem::Kind;

/// A bank in this process.
pub(crate) struct TestBank {
    pub(crate) bank: Bank,
    router: Router,
}

impl TestBank {
    /// Starts one on an in-memory store of its own.
    pub(crate) async fn start() -> Self {
        Self::on(node(Memory::new()).await)
    }

    /// Puts one around a node.
    pub(crate) fn on(node: Node) -> Self {
        let stop = CancellationToken::new();
        Self::of(Bank::new(node, stop.clone(), stop))
    }

    pub(crate) fn of(bank: Bank) -> Self {
        let router = crate::http::router(bank.clone());
        Self { bank, router }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.post_text(path, &body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: &str) -> Answer {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        self.call(request.body(Body::from(body.to_owned())).expect("a request")).await
    }

    pub(crate) async fn post_as(&self, key: Uuid, path: &str, body: Value) -> Answer {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", key.to_string());
        self.call(request.body(Body::from(body.to_string())).expect("a request")).await
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("the router never fails");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a whole body");
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Opens an account in euros and pays something in.
    pub(crate) async fn open(&self, id: &str, balance: u64) {
        self.open_in(id, "EUR", balance).await;
    }

    pub(crate) async fn open_in(&self, id: &str, currency: &str, balance: u64) {
        let body = serde_json::json!({ "account_id": id, "owner": "Ada", "currency": currency });
        assert_eq!(self.post("/accounts", body).await.status, 201);
        if balance > 0 {
            self.deposit(id, balance).await;
        }
    }

    pub(crate) async fn deposit(&self, id: &str, amount: u64) -> Answer {
        let answer =
            self.post(&format!("/accounts/{id}/deposit"), serde_json::json!({ "amount": amount })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    pub(crate) async fn balance(&self, id: &str) -> u64 {
        self.get(&format!("/accounts/{id}")).await.json()["balance"].as_u64().expect("a number")
    }
}

/// Starts a node with the bank's aggregates.
pub(crate) async fn node(store: impl IntoStore) -> Node {
    node_with(store, Settings::default()).await
}

/// Starts a node with the bank's aggregates and settings of its own.
pub(crate) async fn node_with(store: impl IntoStore, settings: Settings) -> Node {
    let builder = Orchestrix::builder().store(store).settings(settings);
    let builder = builder.aggregate::<domain_example::Account>().aggregate::<domain_example::Transfer>();
    builder.start().await.expect("the node starts")
}

/// What the bank answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub(crate) fn header(&self, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a text"))
    }

    /// Checks that the answer is the problem of a kind, in every part that the contract names; returns its detail.
    #[track_caller]
    pub(crate) fn problem(&self, kind: Kind) -> String {
        let (slug, status, title, outcome) = kind.row();
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header(header::CONTENT_TYPE), Some("application/problem+json"));
        let document = self.json();
        assert_eq!(document["type"].as_str().and_then(|text| text.rsplit('/').next()), Some(slug));
        assert_eq!(document["title"], title);
        assert_eq!(document["status"], status.as_u16());
        assert_eq!(document["outcome"], serde_json::to_value(outcome).expect("a word"));
        let detail = document["detail"].as_str().expect("a detail");
        assert!(detail.len() < 1_000, "a detail of {} bytes", detail.len());
        detail.to_owned()
    }
}

/// Asks again and again until something holds, for as long as a machine may reasonably be busy.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    for _ in 0..2_000 {
        if let Some(seen) = ask().await {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} did not happen")
}
