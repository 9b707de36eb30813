//! A store that fails, and what callers of the bank hear: never a wrong answer, and no money made or lost.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header;
use orchestrix::Settings;
use orchestrix::store::Memory;
use orchestrix_core::store::{Batch, Commit, NewEvent};
use orchestrix_core::{Codec, CommandId, EventStore, Incarnation, StreamId, Timestamp, Version};
use orchestrix_testkit::{Fault, FaultControl, Faulty};
use serde_json::json;
use uuid::Uuid;

use crate::http::problem::Kind;
use crate::support::{Answer, TestBank, eventually, node, node_with};

/// A bank with an account `a` that holds 10, and the controls of its store.
async fn breakable(settings: Settings) -> (Arc<TestBank>, FaultControl) {
    let (store, control) = Faulty::new(Arc::new(Memory::new()));
    let store: Arc<dyn EventStore> = store;
    let bank = TestBank::on(node_with(store, settings).await);
    bank.open("a", 10).await;
    (Arc::new(bank), control)
}

/// Deposits 1 into `a` in the background.
fn deposit(bank: &Arc<TestBank>, key: Uuid) -> tokio::task::JoinHandle<Answer> {
    let bank = Arc::clone(bank);
    tokio::spawn(async move { bank.post_as(key, "/accounts/a/deposit", json!({ "amount": 1 })).await })
}

#[tokio::test]
async fn a_full_bank_says_so_and_when_to_come_back() {
    let settings = Settings { commands_in_flight_max: 1, mailbox_commands_max: 1, ..Settings::default() };
    let (bank, control) = breakable(settings).await;
    control.on_next_append(Fault::Hold);
    let held = deposit(&bank, Uuid::now_v7());
    control.wait_for_held(1).await;
    for answer in
        [bank.get("/accounts/a").await, bank.post("/accounts/a/deposit", json!({ "amount": 1 })).await]
    {
        answer.problem(Kind::Overloaded);
        assert_eq!(answer.header(header::RETRY_AFTER), Some("1"));
    }
    control.release_held();
    assert_eq!(held.await.expect("it ends").status, 200);
    assert_eq!(bank.balance("a").await, 11);
}

#[tokio::test]
async fn an_unknown_outcome_is_resolved_by_the_same_key() {
    let settings = Settings { command_timeout: Duration::from_secs(1), ..Settings::default() };
    let (bank, control) = breakable(settings).await;
    control.on_next_append(Fault::Hold);
    let key = Uuid::now_v7();
    let answer = deposit(&bank, key).await.expect("it ends");
    answer.problem(Kind::OutcomeUnknown);
    assert_eq!(answer.json()["command_id"], key.to_string());
    control.release_held();
    let retried = eventually("the outcome", || async {
        let answer = deposit(&bank, key).await.expect("it ends");
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(retried.await.json()["balance"], 11);
    assert_eq!(bank.balance("a").await, 11);
}

#[tokio::test]
async fn an_append_that_failed_is_not_attempted_and_may_be_repeated() {
    let (bank, control) = breakable(Settings::default()).await;
    control.on_next_append(Fault::FailBefore);
    let key = Uuid::now_v7();
    let answer = deposit(&bank, key).await.expect("it ends");
    answer.problem(Kind::StoreUnavailable);
    assert_eq!(answer.header(header::RETRY_AFTER), Some("1"));
    assert_eq!(deposit(&bank, key).await.expect("it ends").json()["balance"], 11);
}

#[tokio::test]
async fn a_lost_acknowledgement_is_found_out_before_the_answer() {
    let (bank, control) = breakable(Settings::default()).await;
    control.on_next_append(Fault::LoseAck);
    let answer = deposit(&bank, Uuid::now_v7()).await.expect("it ends");
    assert_eq!((answer.status.as_u16(), &answer.json()["balance"]), (200, &json!(11)));
}

#[tokio::test]
async fn an_account_with_an_unknown_event_is_quarantined_and_its_neighbours_are_served() {
    let store: Arc<dyn EventStore> = Arc::new(Memory::new());
    poison(store.as_ref(), "p").await;
    let bank = TestBank::on(node(store).await);
    bank.open("a", 10).await;
    for answer in [
        bank.post("/accounts/p/deposit", json!({ "amount": 1 })).await,
        bank.get("/accounts/p").await,
        bank.get("/accounts/p?at_version=1").await,
        bank.get("/accounts/p/events").await,
    ] {
        let detail = answer.problem(Kind::AggregateQuarantined);
        assert!(detail.contains("account/p"), "{detail}");
    }
    assert_eq!(bank.balance("a").await, 10);
}

/// Stores an event that no release of the bank knows.
async fn poison(store: &dyn EventStore, id: &str) {
    let (owner, stream) = (Incarnation::fresh(), StreamId::new("account", id));
    let shard = store.info().shard_count.shard_of_stream(&stream);
    let claims = store.claim(&[shard], owner).await.expect("nobody else has it");
    let event = NewEvent {
        event_type: "account.vanished".into(),
        schema_version: 1,
        codec: Codec::Json,
        payload: b"{}".to_vec(),
    };
    let commit = Commit {
        stream,
        shard,
        epoch: claims[0].epoch,
        expected: Version::ZERO,
        command_id: CommandId::fresh(),
        recorded_at: Timestamp::from_micros(0),
        headers: None,
        receipt: None,
        events: vec![event],
    };
    let outcomes = store.append(Batch { owner, commits: vec![commit] }).await;
    assert!(outcomes[0].is_committed(), "{outcomes:?}");
}

#[tokio::test]
async fn transfers_on_a_store_that_fails_now_and_then_neither_make_nor_lose_money() {
    let (bank, control) = breakable(Settings::default()).await;
    for account in 0..4 {
        bank.open(&format!("a{account}"), 100).await;
    }
    control.randomly(7, 0.2, &[Fault::FailBefore, Fault::LoseAck, Fault::Drop]);
    for transfer in 0..60_u64 {
        let (from, to) = (format!("a{}", transfer % 4), format!("a{}", (transfer + 1 + transfer % 3) % 4));
        let order = json!({ "transfer_id": format!("t{transfer}"), "from": from, "to": to, "amount": transfer % 30 + 1 });
        let key = Uuid::now_v7();
        eventually("the order", || async {
            (bank.post_as(key, "/transfers", order.clone()).await.status == 202).then_some(())
        })
        .await;
    }
    for transfer in 0..60 {
        eventually("the end of a transfer", || async {
            let shown = bank.get(&format!("/transfers/t{transfer}")).await;
            (shown.status == 200 && shown.json()["status"] != "pending").then_some(())
        })
        .await;
    }
    let hits = control.faults_hit();
    assert!(hits.failed_before > 5 && hits.acks_lost + hits.dropped > 5, "the store was too good: {hits:?}");
    control.heal();
    let mut sum = 0;
    for account in 0..4 {
        sum += bank.balance(&format!("a{account}")).await;
    }
    assert_eq!(sum, 400);
}
