//! Every way to ask wrongly, and the document that says so.

use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::routing::get;
use serde_json::json;
use tower::ServiceExt;
use uuid::Uuid;

use crate::http::problem::Kind;
use crate::support::TestBank;

const MAX: u64 = 1_000_000_000_000_000;

#[tokio::test]
async fn an_amount_that_is_none_is_named_with_its_rule() {
    let bank = TestBank::start().await;
    bank.open("a", 5).await;
    for amount in [
        "0",
        "-1",
        "1.5",
        "1e3",
        "\"10\"",
        "null",
        "true",
        "[]",
        "{}",
        "[1]",
        "1000000000000001",
        "9223372036854775808",
        "18446744073709551616",
        "1e999999",
        "-0",
    ] {
        for action in ["deposit", "withdraw"] {
            let body = format!("{{\"amount\":{amount}}}");
            let answer = bank.post_text(&format!("/accounts/a/{action}"), &body).await;
            let detail = answer.problem(Kind::InvalidRequest);
            let names = detail.starts_with("amount: ") && detail.contains("1 to 1000000000000000");
            // A number that no double can hold is not even JSON to the parser.
            assert!(names || amount == "1e999999", "{amount}: {detail}");
        }
    }
    assert_eq!(bank.balance("a").await, 5);
    for amount in [1, MAX] {
        assert_eq!(bank.post("/accounts/a/deposit", json!({ "amount": amount })).await.status, 200);
    }
}

#[tokio::test]
async fn a_body_that_is_no_object_with_these_fields_is_named() {
    let bank = TestBank::start().await;
    bank.open("a", 5).await;
    let deep = format!("{{\"amount\":{}1{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_key = format!("{}1{}", "{\"amount\":".repeat(500), "}".repeat(500));
    let long_name = format!("{{\"{}\":1}}", "n".repeat(50_000));
    for (body, start) in [
        ("", "body: is no JSON object"),
        ("   ", "body: is no JSON object"),
        ("[100]", "body: is no JSON object; the fields are amount"),
        ("100", "body: is no JSON object"),
        ("null", "body: is no JSON object"),
        ("{", "body: is no valid JSON"),
        ("{\"amount\":1", "body: is no valid JSON"),
        ("{\"amount\":1,}", "body: is no valid JSON"),
        ("{'amount':1}", "body: is no valid JSON"),
        ("{\"amount\":NaN}", "body: is no valid JSON"),
        ("{\"amount\":01}", "body: is no valid JSON"),
        ("{\"amount\":1} x", "body: goes on after its JSON object"),
        ("{\"amount\":1}{\"amount\":1}", "body: goes on after its JSON object"),
        ("{}", "amount: is missing; give an integer"),
        ("{\"amount\":1,\"amount\":1}", "amount: is given twice"),
        ("{\"amount\":1,\"note\":\"x\"}", "note: is not known here; the fields are amount"),
        ("{\"Amount\":1}", "Amount: is not known here"),
        ("{\"amount\":1,\"a`, expected b\":2}", "a`, expected b: is not known here"),
        (&deep, "amount: invalid type: sequence"),
        (&deep_key, "amount: invalid type: map"),
        (&long_name, "nnnnnnnnnn"),
    ] {
        let detail = bank.post_text("/accounts/a/deposit", body).await.problem(Kind::InvalidRequest);
        assert!(detail.starts_with(start), "{}: {detail}", &body[..body.len().min(60)]);
    }
    assert_eq!(bank.balance("a").await, 5);
}

#[tokio::test]
async fn a_field_of_a_new_account_is_named_with_its_rule() {
    let bank = TestBank::start().await;
    let good = json!({ "account_id": "a", "owner": "Ada", "currency": "EUR" });
    for (field, value, start) in [
        ("account_id", json!("a b"), "account_id: must have 1 to 128 characters"),
        ("account_id", json!("ä"), "account_id: must have"),
        ("account_id", json!("a/b"), "account_id: must have"),
        ("account_id", json!("a\u{0}"), "account_id: has a control character"),
        ("account_id", json!("a".repeat(129)), "account_id: must have"),
        ("account_id", json!("a".repeat(60_000)), "account_id: has 60000 bytes"),
        ("account_id", json!(""), "account_id: is empty"),
        ("account_id", json!(7), "account_id: invalid type: integer `7`"),
        ("owner", json!(""), "owner: is blank"),
        ("owner", json!("x".repeat(201)), "owner: has 201 characters"),
        ("owner", json!("a\nb"), "owner: has a control character"),
        ("owner", json!(["Ada"]), "owner: invalid type: sequence"),
        ("currency", json!("eur"), "currency: is \"eur\"; give three upper-case letters"),
        ("currency", json!("EURO"), "currency: is \"EURO\""),
        ("currency", json!("x".repeat(50_000)), "currency: is \"xxxx"),
        ("currency", json!(null), "currency: invalid type: null"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let detail = bank.post("/accounts", body).await.problem(Kind::InvalidRequest);
        assert!(detail.starts_with(start), "{field}: {detail}");
        assert!(
            detail.contains("give")
                || detail.contains("must")
                || detail.contains("remove")
                || detail.contains("allowed"),
            "no remedy in {detail}"
        );
    }
    assert_eq!(bank.post("/accounts", good).await.status, 201, "none of them opened the account");
}

#[tokio::test]
async fn a_null_id_is_no_id() {
    let bank = TestBank::start().await;
    let body = json!({ "account_id": null, "owner": "Ada", "currency": "EUR" });
    assert_eq!(bank.post("/accounts", body).await.status, 201);
}

#[tokio::test]
async fn an_id_in_a_path_keeps_the_rule() {
    let bank = TestBank::start().await;
    for id in ["a%20b", "%C3%A4", "a%2Fb", "%00", "a.b", "..%2F..%2Fetc", &"a".repeat(129), "%F0%9F%92%B0"] {
        let detail = bank.get(&format!("/accounts/{id}")).await.problem(Kind::InvalidRequest);
        assert!(detail.starts_with("account_id: "), "{id}: {detail}");
    }
    for id in ["%ff", "%C3%28", "a%80"] {
        let detail = bank.get(&format!("/accounts/{id}")).await.problem(Kind::InvalidRequest);
        assert!(detail.starts_with("path: is not UTF-8"), "{id}: {detail}");
    }
    // A percent sign that escapes nothing stands for itself, and no id has one.
    for id in ["%", "%g1", "a%2"] {
        bank.get(&format!("/accounts/{id}")).await.problem(Kind::InvalidRequest);
    }
}

#[tokio::test]
async fn an_unknown_path_is_a_404() {
    let bank = TestBank::start().await;
    for path in [
        "/",
        "/accounts/",
        "/accounts/a/",
        "/accounts/a/b/c",
        "/Accounts/a",
        "//accounts/a",
        "/favicon.ico",
        "/accounts/a/deposit/",
    ] {
        bank.get(path).await.problem(Kind::UnknownPath);
        bank.post(path, json!({})).await.problem(Kind::UnknownPath);
    }
    let long = format!("/{}", "x".repeat(9_000));
    bank.get(&long).await.problem(Kind::UnknownPath);
}

#[tokio::test]
async fn a_wrong_method_is_a_405_that_lists_the_right_ones() {
    let bank = TestBank::start().await;
    for (method, path, allowed) in [
        (Method::DELETE, "/accounts/a", "GET,HEAD"),
        (Method::GET, "/accounts", "POST"),
        (Method::PUT, "/accounts/a/deposit", "POST"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::PATCH, "/transfers/t", "GET,HEAD"),
        (Method::OPTIONS, "/transfers", "POST"),
        (Method::TRACE, "/metrics", "GET,HEAD"),
    ] {
        let request = Request::builder().method(method.clone()).uri(path);
        let answer = bank.call(request.body(Body::empty()).expect("a request")).await;
        answer.problem(Kind::MethodNotAllowed);
        assert_eq!(answer.header(header::ALLOW), Some(allowed), "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_must_say_that_it_is_json() {
    let bank = TestBank::start().await;
    bank.open("a", 0).await;
    let send = |content_type: Option<&'static str>| {
        let mut request = Request::post("/accounts/a/deposit");
        if let Some(value) = content_type {
            request = request.header(header::CONTENT_TYPE, value);
        }
        bank.call(request.body(Body::from(r#"{"amount":1}"#)).expect("a request"))
    };
    for wrong in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonx"),
        Some(""),
    ] {
        send(wrong).await.problem(Kind::UnsupportedMediaType);
    }
    for right in ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=UTF-8"] {
        assert_eq!(send(Some(right)).await.status, 200, "{right}");
    }
    assert_eq!(bank.balance("a").await, 3);
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_announced_or_not() {
    let bank = TestBank::start().await;
    bank.open("a", 0).await;
    let large = format!("{{\"amount\":1{}}}", " ".repeat(64 << 10));
    bank.post_text("/accounts/a/deposit", &large).await.problem(Kind::TooLarge);
    let announced = Request::post("/accounts/a/deposit")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, (64 << 10) + 1);
    bank.call(announced.body(Body::empty()).expect("a request")).await.problem(Kind::TooLarge);
    let just_fits = format!("{{\"amount\":1{}}}", " ".repeat((64 << 10) - 12));
    assert_eq!(just_fits.len(), 64 << 10);
    assert_eq!(bank.post_text("/accounts/a/deposit", &just_fits).await.status, 200);
}

#[tokio::test]
async fn a_key_that_is_no_uuid_is_named() {
    let bank = TestBank::start().await;
    bank.open("a", 0).await;
    for (name, value) in [
        ("Idempotency-Key", "retry-1"),
        ("Idempotency-Key", ""),
        ("Idempotency-Key", "0190a0a0-0000-7000-8000-00000000000g"),
        ("Idempotency-Key", "\u{e9}"),
        ("X-Correlation-Id", "7"),
        ("X-Causation-Id", "7"),
    ] {
        let request = Request::post("/accounts/a/deposit")
            .header(header::CONTENT_TYPE, "application/json")
            .header(name, value.as_bytes());
        let answer = bank.call(request.body(Body::from(r#"{"amount":1}"#)).expect("a request")).await;
        let detail = answer.problem(Kind::InvalidRequest);
        assert!(detail.starts_with(&format!("{name}: is no UUID")), "{detail}");
    }
    let twice = Request::post("/accounts/a/deposit")
        .header(header::CONTENT_TYPE, "application/json")
        .header("Idempotency-Key", Uuid::now_v7().to_string())
        .header("Idempotency-Key", Uuid::now_v7().to_string());
    let answer = bank.call(twice.body(Body::from(r#"{"amount":1}"#)).expect("a request")).await;
    assert!(answer.problem(Kind::InvalidRequest).contains("twice"));
    assert_eq!(bank.balance("a").await, 0);
}

#[tokio::test]
async fn every_problem_of_a_command_carries_its_id() {
    let bank = TestBank::start().await;
    let key = Uuid::now_v7();
    for (path, body, kind) in [
        ("/accounts/a%20b/deposit", json!({ "amount": 1 }), Kind::InvalidRequest),
        ("/accounts/a/deposit", json!({ "amount": 0 }), Kind::InvalidRequest),
        ("/accounts/a/deposit", json!({ "amount": 1 }), Kind::AccountNotFound),
        ("/transfers", json!({ "from": "a", "to": "a", "amount": 1 }), Kind::InvalidRequest),
    ] {
        let answer = bank.post_as(key, path, body).await;
        answer.problem(kind);
        assert_eq!(answer.json()["command_id"], key.to_string(), "{path}");
        assert_eq!(answer.header("idempotency-key"), Some(&*key.to_string()));
    }
}

#[tokio::test]
async fn without_a_key_one_is_made_and_returned_with_a_refusal_too() {
    let bank = TestBank::start().await;
    let answer = bank.post("/accounts/a/deposit", json!({ "amount": 1 })).await;
    answer.problem(Kind::AccountNotFound);
    let id: Uuid = answer.json()["command_id"].as_str().expect("an id").parse().expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_next_request_is_served() {
    let router = axum::Router::new().route("/", get(|| async { panicking() }));
    let router: axum::Router = crate::http::guarded(router);
    for _ in 0..2 {
        let request = Request::get("/").body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("the router never fails");
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}

fn panicking() -> &'static str {
    panic!("on purpose")
}

#[test]
fn every_problem_has_a_row_in_the_manual() {
    let manual = include_str!("../../../docs/operations/http.md");
    for kind in Kind::ALL {
        let (slug, status, ..) = kind.row();
        let row = format!("| `{slug}` | {} |", status.as_u16());
        assert!(manual.contains(&row), "docs/operations/http.md lacks {row}");
    }
    let rows = manual.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, Kind::ALL.len(), "docs/operations/http.md has a row that is no problem");
}

#[tokio::test]
async fn a_store_that_is_down_is_a_503_with_a_hint() {
    use std::sync::Arc;
    let store: Arc<dyn orchestrix_core::EventStore> = Arc::new(orchestrix::store::Memory::new());
    let bank = TestBank::on(crate::support::node(Arc::clone(&store)).await);
    bank.open("a", 1).await;
    store.close().await;
    for answer in [
        bank.post("/accounts/a/deposit", json!({ "amount": 1 })).await,
        bank.get("/accounts/other").await,
        bank.get("/accounts/a/events").await,
        bank.get("/accounts/a?at_version=1").await,
    ] {
        answer.problem(Kind::StoreUnavailable);
        assert_eq!(answer.header(header::RETRY_AFTER), Some("1"));
    }
}
