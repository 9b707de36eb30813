//! What the bank tells whoever runs it.

use axum::http::header;
use orchestrix::store::Memory;
use orchestrix_core::EventStore;

use crate::support::{TestBank, node};

#[tokio::test]
async fn a_bank_whose_store_answers_is_healthy_alive_and_ready() {
    let bank = TestBank::start().await;
    let health = bank.get("/health").await;
    assert_eq!(health.status, 200);
    let body = health.json();
    assert_eq!((body["status"].as_str(), body["event_store"].as_str()), (Some("healthy"), Some("connected")));
    assert!(body["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{body}");
    for path in ["/live", "/ready"] {
        assert_eq!(bank.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_store_that_is_down_makes_it_unhealthy_and_not_ready_but_alive() {
    let store: std::sync::Arc<dyn EventStore> = std::sync::Arc::new(Memory::new());
    let bank = TestBank::on(node(std::sync::Arc::clone(&store)).await);
    store.close().await;
    let health = bank.get("/health").await;
    assert_eq!(health.status, 503);
    let body = health.json();
    assert_eq!(
        (body["status"].as_str(), body["event_store"].as_str()),
        (Some("unhealthy"), Some("disconnected"))
    );
    assert!(body["error"].is_string(), "{body}");
    assert_eq!(bank.get("/ready").await.status, 503);
    assert_eq!(bank.get("/live").await.status, 200);
}

#[tokio::test]
async fn a_bank_that_stops_is_not_ready() {
    let bank = TestBank::start().await;
    bank.bank.leaving.cancel();
    assert_eq!(bank.get("/ready").await.status, 503);
    assert_eq!(bank.get("/live").await.status, 200);
}

#[tokio::test]
async fn metrics_are_a_page_of_text() {
    orchestrix::telemetry::exporter::install().expect("no other recorder in this process");
    let bank = TestBank::start().await;
    bank.open("a", 1).await;
    let page = bank.get("/metrics").await;
    assert_eq!(page.status, 200);
    assert!(page.header(header::CONTENT_TYPE).is_some_and(|text| text.starts_with("text/plain")));
    let text = String::from_utf8(page.body.to_vec()).expect("UTF-8");
    assert!(text.contains("orchestrix_events_stored_total{aggregate_type=\"account\"}"), "{text}");
}
