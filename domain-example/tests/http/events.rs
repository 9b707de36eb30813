//! An account's events as CloudEvents.

use axum::body::Body;
use axum::http::{Request, header};
use cloudevents::Event;
use serde_json::json;
use uuid::Uuid;

use crate::http::problem::Kind;
use crate::support::TestBank;

#[tokio::test]
async fn events_are_a_batch_of_cloud_events() {
    let bank = TestBank::start().await;
    bank.open("alice", 0).await;
    let key = Uuid::now_v7();
    let conversation = Uuid::now_v7();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::post("/accounts/alice/deposit")
        .header(header::CONTENT_TYPE, "application/json")
        .header("Idempotency-Key", key.to_string())
        .header("X-Correlation-Id", conversation.to_string())
        .header("traceparent", trace);
    bank.call(request.body(Body::from(r#"{"amount":7}"#)).expect("a request")).await;

    let answer = bank.get("/accounts/alice/events").await;
    assert_eq!(answer.header(header::CONTENT_TYPE), Some("application/cloudevents-batch+json"));
    let parsed: Vec<Event> = serde_json::from_slice(&answer.body).expect("CloudEvents");
    assert_eq!(parsed.len(), 2);

    let deposited = &answer.json()[1];
    for (attribute, value) in [
        ("specversion", json!("1.0")),
        ("id", json!("2")),
        ("source", json!("/account/alice")),
        ("type", json!("account.deposited")),
        ("datacontenttype", json!("application/json")),
        ("data", json!({ "amount": 7 })),
        ("version", json!(2)),
        ("schemaversion", json!(1)),
        ("commandid", json!(key.to_string())),
        ("correlationid", json!(conversation.to_string())),
        ("causationid", json!(key.to_string())),
        ("traceparent", json!(trace)),
    ] {
        assert_eq!(deposited[attribute], value, "{attribute}");
    }
    for number in ["shard", "shardseq", "epoch"] {
        assert!(deposited[number].is_u64(), "{number}: {deposited}");
    }
    assert!(deposited["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{deposited}");
}

#[tokio::test]
async fn pages_lead_to_the_end_without_a_gap() {
    let bank = TestBank::start().await;
    bank.open("a", 0).await;
    for amount in 1..=6 {
        bank.deposit("a", amount).await;
    }
    let (mut path, mut seen) = ("/accounts/a/events?limit=3".to_owned(), Vec::new());
    loop {
        let answer = bank.get(&path).await;
        assert_eq!(answer.status, 200);
        let page = answer.json();
        seen.extend(
            page.as_array().expect("a list").iter().map(|event| event["version"].as_u64().expect("one")),
        );
        let Some(link) = answer.header(header::LINK) else { break };
        let (address, rest) = link.split_once('>').expect("an address");
        assert_eq!(rest, "; rel=\"next\"");
        address[1..].clone_into(&mut path);
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_page_beyond_the_end_is_empty_and_a_stranger_s_is_a_404() {
    let bank = TestBank::start().await;
    bank.open("a", 0).await;
    let beyond = bank.get("/accounts/a/events?from_version=9").await;
    assert_eq!((beyond.status.as_u16(), beyond.json()), (200, json!([])));
    bank.get("/accounts/nobody/events").await.problem(Kind::AccountNotFound);
}

#[tokio::test]
async fn a_page_has_bounds() {
    let bank = TestBank::start().await;
    bank.open("a", 0).await;
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=ten",
        "from_version=0",
        "from_version=99999999999999999999",
    ] {
        let detail = bank.get(&format!("/accounts/a/events?{query}")).await.problem(Kind::InvalidRequest);
        let field = query.split('=').next().expect("a name");
        assert!(detail.starts_with(&format!("{field}: ")), "{detail}");
    }
    bank.get("/accounts/a/events?limit=1000&from_version=1").await.json();
}

#[tokio::test]
async fn a_trace_context_that_makes_no_sense_is_left_out() {
    let bank = TestBank::start().await;
    bank.open("a", 0).await;
    for trace in
        ["00-short-b7ad6b7169203331-01", "hello", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]
    {
        let request = Request::post("/accounts/a/deposit")
            .header(header::CONTENT_TYPE, "application/json")
            .header("traceparent", trace);
        let answer = bank.call(request.body(Body::from(r#"{"amount":7}"#)).expect("a request")).await;
        assert_eq!(answer.status, 200);
    }
    let events = bank.get("/accounts/a/events").await.json();
    assert!(events.as_array().expect("a list").iter().all(|event| event.get("traceparent").is_none()));
}
