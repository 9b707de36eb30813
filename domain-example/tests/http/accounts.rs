//! Accounts: what commands do, what a retry does, what reading shows.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::problem::Kind;
use crate::support::TestBank;

#[tokio::test]
async fn an_account_is_opened_used_and_closed() {
    let bank = TestBank::start().await;
    let body = json!({ "account_id": "alice", "owner": "Alice Archer", "currency": "EUR" });
    let opened = bank.post("/accounts", body).await;
    assert_eq!(opened.status, 201);
    assert_eq!(opened.header("location"), Some("/accounts/alice"));
    let command_id = opened.json()["command_id"].as_str().expect("an id").to_owned();
    let wanted = json!({ "account_id": "alice", "version": 1, "balance": 0, "command_id": command_id });
    assert_eq!(opened.json(), wanted);
    assert_eq!(opened.header("idempotency-key"), Some(&*command_id));

    let deposited = bank.post("/accounts/alice/deposit", json!({ "amount": 100 })).await;
    assert_eq!((deposited.status.as_u16(), &deposited.json()["balance"]), (200, &json!(100)));
    let withdrawn = bank.post("/accounts/alice/withdraw", json!({ "amount": 100 })).await;
    assert_eq!((withdrawn.status.as_u16(), &withdrawn.json()["version"]), (200, &json!(3)));
    let closed = bank.post_text("/accounts/alice/close", "").await;
    assert_eq!(closed.status, 200);

    let shown = bank.get("/accounts/alice").await.json();
    let wanted = json!({
        "account_id": "alice", "owner": "Alice Archer", "currency": "EUR", "balance": 0,
        "status": "closed", "version": 4,
    });
    assert_eq!(shown, wanted);
}

#[tokio::test]
async fn closing_takes_no_body_or_an_empty_object() {
    let bank = TestBank::start().await;
    for id in ["a", "b"] {
        bank.open(id, 0).await;
    }
    let bare = Request::post("/accounts/a/close").body(Body::empty()).expect("a request");
    assert_eq!(bank.call(bare).await.status, 200);
    assert_eq!(bank.post("/accounts/b/close", json!({})).await.status, 200);
    let detail = bank.post("/accounts/b/close", json!({ "force": true })).await.problem(Kind::InvalidRequest);
    assert_eq!(detail, "force: is not known here; leave the body empty");
}

#[tokio::test]
async fn the_domain_s_refusals_have_names_of_their_own() {
    let bank = TestBank::start().await;
    bank.open("a", 5).await;
    let body = json!({ "account_id": "a", "owner": "Eve", "currency": "EUR" });
    bank.post("/accounts", body).await.problem(Kind::AccountExists);
    let detail =
        bank.post("/accounts/a/withdraw", json!({ "amount": 6 })).await.problem(Kind::InsufficientFunds);
    assert_eq!(detail, "account a: the balance is 5, and 6 is needed");
    bank.post_text("/accounts/a/close", "").await.problem(Kind::AccountNotEmpty);
    bank.post("/accounts/nobody/deposit", json!({ "amount": 1 })).await.problem(Kind::AccountNotFound);
    bank.post("/accounts/a/withdraw", json!({ "amount": 5 })).await;
    bank.post_text("/accounts/a/close", "").await;
    bank.post("/accounts/a/deposit", json!({ "amount": 1 })).await.problem(Kind::AccountClosed);
}

#[tokio::test]
async fn an_account_holds_no_more_than_every_reader_of_json_can_count() {
    let bank = TestBank::start().await;
    bank.open("rich", 0).await;
    for _ in 0..9 {
        bank.deposit("rich", 1_000_000_000_000_000).await;
    }
    let answer = bank.post("/accounts/rich/deposit", json!({ "amount": 10_u64.pow(15) })).await;
    answer.problem(Kind::BalanceTooLarge);
    assert_eq!(bank.balance("rich").await, 9_000_000_000_000_000);
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_has_no_second_effect() {
    let bank = TestBank::start().await;
    bank.open("a", 0).await;
    let key = Uuid::now_v7();
    let first = bank.post_as(key, "/accounts/a/deposit", json!({ "amount": 7 })).await;
    bank.deposit("a", 1).await;
    let second = bank.post_as(key, "/accounts/a/deposit", json!({ "amount": 7 })).await;
    assert_eq!((second.status, second.json()), (first.status, first.json()));
    assert_eq!(first.json()["command_id"], key.to_string());
    assert_eq!(bank.balance("a").await, 8);
}

#[tokio::test]
async fn a_key_of_any_version_makes_a_retry_harmless() {
    let bank = TestBank::start().await;
    bank.open("a", 0).await;
    let key = Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
    for _ in 0..3 {
        bank.post_as(key, "/accounts/a/deposit", json!({ "amount": 7 })).await;
    }
    assert_eq!(bank.balance("a").await, 7);
}

#[tokio::test]
async fn an_account_without_an_id_gets_the_same_one_on_a_retry() {
    let bank = TestBank::start().await;
    let key = Uuid::now_v7();
    let body = json!({ "owner": "Ada", "currency": "EUR" });
    let first = bank.post_as(key, "/accounts", body.clone()).await;
    let second = bank.post_as(key, "/accounts", body.clone()).await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 201));
    assert_eq!(first.json(), second.json());
    let other = bank.post("/accounts", body).await.json();
    assert_ne!(other["account_id"], first.json()["account_id"]);
}

#[tokio::test]
async fn a_key_belongs_to_one_command_and_one_body() {
    let bank = TestBank::start().await;
    bank.open("a", 10).await;
    let key = Uuid::now_v7();
    bank.post_as(key, "/accounts/a/deposit", json!({ "amount": 7 })).await;
    for (path, amount) in [("/accounts/a/deposit", 8), ("/accounts/a/withdraw", 7)] {
        let answer = bank.post_as(key, path, json!({ "amount": amount })).await;
        answer.problem(Kind::IdempotencyKeyReused);
        assert_eq!(answer.json()["command_id"], key.to_string());
    }
    assert_eq!(bank.balance("a").await, 17);
}

#[tokio::test]
async fn a_key_older_than_the_window_is_refused_not_run_again() {
    let bank = TestBank::start().await;
    bank.open("a", 0).await;
    let key: Uuid = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().expect("a UUID of 2022");
    let answer = bank.post_as(key, "/accounts/a/deposit", json!({ "amount": 7 })).await;
    answer.problem(Kind::CommandExpired);
    assert_eq!(bank.balance("a").await, 0);
}

#[tokio::test]
async fn a_refused_command_may_succeed_with_the_same_key_later() {
    let bank = TestBank::start().await;
    bank.open("a", 1).await;
    let key = Uuid::now_v7();
    bank.post_as(key, "/accounts/a/withdraw", json!({ "amount": 2 })).await.problem(Kind::InsufficientFunds);
    bank.deposit("a", 1).await;
    assert_eq!(bank.post_as(key, "/accounts/a/withdraw", json!({ "amount": 2 })).await.status, 200);
}

#[tokio::test]
async fn the_past_is_shown_by_version_and_by_time() {
    let bank = TestBank::start().await;
    bank.open("a", 10).await;
    bank.deposit("a", 5).await;
    let events = bank.get("/accounts/a/events").await.json();
    let time = |index: usize| events[index]["time"].as_str().expect("a time").to_owned();

    let at = bank.get("/accounts/a?at_version=2").await.json();
    assert_eq!((&at["balance"], &at["version"]), (&json!(10), &json!(2)));
    let at = bank.get(&format!("/accounts/a?at_time={}", time(2))).await.json();
    assert_eq!((&at["balance"], &at["version"]), (&json!(15), &json!(3)));
    let later = bank.get("/accounts/a?at_time=2999-01-01T00:00:00%2B01:00").await.json();
    assert_eq!(later["balance"], 15);

    bank.get("/accounts/a?at_time=2001-01-01T00:00:00Z").await.problem(Kind::AccountNotFound);
    let detail = bank.get("/accounts/a?at_version=4").await.problem(Kind::VersionNotFound);
    assert!(detail.contains("is at version 3"), "{detail}");
    bank.get("/accounts/nobody?at_version=1").await.problem(Kind::AccountNotFound);
}

#[tokio::test]
async fn every_consistency_shows_the_account() {
    let bank = TestBank::start().await;
    bank.open("a", 10).await;
    for query in ["", "?consistency=leased", "?consistency=confirmed", "?consistency=local"] {
        assert_eq!(bank.get(&format!("/accounts/a{query}")).await.json()["balance"], 10, "{query}");
    }
}

#[tokio::test]
async fn a_read_can_ask_for_what_was_just_written() {
    let bank = TestBank::start().await;
    bank.open("a", 10).await;
    let version = bank.deposit("a", 5).await.json()["version"].as_u64().expect("a version");
    for consistency in ["leased", "confirmed", "local"] {
        let path = format!("/accounts/a?consistency={consistency}&min_version=");
        let seen = bank.get(&format!("{path}{version}")).await.json();
        assert_eq!((&seen["balance"], &seen["version"]), (&json!(15), &json!(version)), "{consistency}");
        bank.get(&format!("{path}{}", version + 1)).await.problem(Kind::VersionNotFound);
    }
}

#[tokio::test]
async fn a_bad_query_is_named() {
    let bank = TestBank::start().await;
    bank.open("a", 10).await;
    for (query, start) in [
        ("consistency=eventual", "consistency: is unknown"),
        ("at_version=0", "at_version: is \"0\"; give an integer from 1"),
        ("min_version=0", "min_version: is \"0\"; give an integer from 1"),
        ("min_version=1&at_version=1", "at_version: excludes the other parameters"),
        ("at_version=-1", "at_version: is \"-1\""),
        ("at_version=1.0", "at_version: is \"1.0\""),
        ("at_version=99999999999999999999", "at_version: is \"999"),
        ("at_version=", "at_version: is \"\""),
        ("at_version=%zz", "at_version: is \"%zz\""),
        ("at_time=yesterday", "at_time: is no RFC 3339 time"),
        ("at_time=2026-01-31T12:00:00+01:00", "at_time: is no RFC 3339 time"),
        ("at_version=1&at_version=2", "at_version: is given twice"),
        ("at_version=1&at_time=2026-01-31T12:00:00Z", "at_version: excludes the other parameters"),
        ("at_time=2026-01-31T12:00:00Z&consistency=local", "at_time: excludes the other parameters"),
        (
            "version=1",
            "version: is not known here; the fields are consistency, min_version, at_version, at_time",
        ),
        ("%ff=1", "\u{fffd}: is not known here"),
    ] {
        let detail = bank.get(&format!("/accounts/a?{query}")).await.problem(Kind::InvalidRequest);
        assert!(detail.starts_with(start), "{query}: {detail}");
    }
}

#[tokio::test]
async fn a_read_of_an_account_that_is_not_there_is_a_404() {
    let bank = TestBank::start().await;
    let detail = bank.get("/accounts/nobody").await.problem(Kind::AccountNotFound);
    assert!(detail.contains("nobody"), "{detail}");
    assert_eq!(bank.get("/accounts/nobody").await.json().get("command_id"), None::<&Value>);
}
