//! Transfers: carried out after the answer, once, also when the bank was stopped in the middle.

use std::sync::Arc;

use domain_example::account::{Deposit, Withdraw};
use domain_example::transfer::{RequestTransfer, ReturnMoney, TransferEvent};
use domain_example::{Account, AccountId, Amount, Transfer, TransferId};
use orchestrix::store::Memory;
use orchestrix::{Node, Settings};
use orchestrix_core::{AggregateId, CommandId, EventStore, Timestamp, Version};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::driver::order::{Step, step_id};
use crate::http::problem::Kind;
use crate::support::{TestBank, eventually, node, node_with};

/// Waits until a transfer has ended and returns it.
async fn ended(bank: &TestBank, id: &str) -> Value {
    eventually("the end of the transfer", || async {
        let shown = bank.get(&format!("/transfers/{id}")).await.json();
        (shown["status"] != "pending").then_some(shown)
    })
    .await
}

/// Waits for the end without asking for the transfer over HTTP, which would drive it.
async fn ended_by_itself(node: &Node, id: &str) -> TransferEvent {
    let transfer = node.of::<Transfer>(transfer_id(id));
    eventually("the end of the transfer", || async {
        let past = transfer.history(Version::new(1), 9).await.expect("the store answers");
        let last = past.into_iter().next_back().and_then(|event| event.events.into_iter().next_back());
        last.filter(|event| matches!(event, TransferEvent::Completed | TransferEvent::Refused { .. }))
    })
    .await
}

fn transfer_id(id: &str) -> TransferId {
    TransferId::from_key(id).expect("an id")
}

fn account_id(id: &str) -> AccountId {
    AccountId::from_key(id).expect("an id")
}

fn amount(amount: u64) -> Amount {
    Amount::new(amount).expect("an amount")
}

#[tokio::test]
async fn a_transfer_moves_money_after_it_was_accepted() {
    let bank = TestBank::start().await;
    bank.open("a", 100).await;
    bank.open("b", 1).await;
    let answer = bank.post("/transfers", json!({ "from": "a", "to": "b", "amount": 30 })).await;
    assert_eq!(answer.status, 202);
    let body = answer.json();
    assert_eq!((&body["status"], &body["amount"]), (&json!("pending"), &json!(30)));
    let id = body["transfer_id"].as_str().expect("an id");
    assert_eq!(answer.header("location"), Some(&*format!("/transfers/{id}")));

    let shown = ended(&bank, id).await;
    let wanted = json!({ "transfer_id": id, "status": "completed", "from": "a", "to": "b", "amount": 30 });
    assert_eq!(shown, wanted);
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (70, 31));
}

#[tokio::test]
async fn a_transfer_that_cannot_be_is_refused_and_moves_nothing() {
    let bank = TestBank::start().await;
    bank.open("a", 10).await;
    bank.open("b", 0).await;
    bank.open_in("dollars", "USD", 0).await;
    for (id, to, amount, reason) in [
        ("poor", "b", 11, "a: the balance is 10, and 11 is needed"),
        ("lost", "nobody", 1, "nobody: the account does not exist"),
        ("odd", "dollars", 1, "a keeps EUR and dollars keeps USD"),
    ] {
        bank.post("/transfers", json!({ "transfer_id": id, "from": "a", "to": to, "amount": amount })).await;
        let shown = ended(&bank, id).await;
        assert_eq!((&shown["status"], &shown["reason"]), (&json!("refused"), &json!(reason)));
    }
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (10, 0));
}

#[tokio::test]
async fn money_that_cannot_arrive_comes_back() {
    let bank = TestBank::start().await;
    bank.open("a", 10).await;
    bank.open("gone", 0).await;
    bank.post_text("/accounts/gone/close", "").await;
    bank.post("/transfers", json!({ "transfer_id": "t", "from": "a", "to": "gone", "amount": 4 })).await;
    let shown = ended(&bank, "t").await;
    assert_eq!(
        (&shown["status"], &shown["reason"]),
        (&json!("refused"), &json!("gone: the account is closed"))
    );
    assert_eq!(bank.balance("a").await, 10);
    let events = bank.get("/accounts/a/events").await.json();
    let types: Vec<_> =
        events.as_array().expect("a list").iter().map(|event| event["type"].clone()).collect();
    assert_eq!(
        types[2..],
        [json!("account.withdrawn"), json!("account.deposited")],
        "it was away in between"
    );
}

#[tokio::test]
async fn the_same_order_twice_moves_money_once() {
    let bank = TestBank::start().await;
    bank.open("a", 100).await;
    bank.open("b", 0).await;
    let key = Uuid::now_v7();
    let order = json!({ "from": "a", "to": "b", "amount": 30 });
    let first = bank.post_as(key, "/transfers", order.clone()).await;
    let id = first.json()["transfer_id"].as_str().expect("an id").to_owned();
    ended(&bank, &id).await;
    let second = bank.post_as(key, "/transfers", order).await;
    assert_eq!((second.status, second.json()), (first.status, first.json()));
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (70, 30));
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_refused_at_once() {
    let bank = TestBank::start().await;
    bank.open("a", 100).await;
    let order = |body: Value| bank.post("/transfers", body);
    let same = order(json!({ "from": "a", "to": "a", "amount": 1 })).await.problem(Kind::InvalidRequest);
    assert!(same.starts_with("to: "), "{same}");
    let zero = order(json!({ "from": "a", "to": "b", "amount": 0 })).await.problem(Kind::InvalidRequest);
    assert!(zero.starts_with("amount: "), "{zero}");
    let id = order(json!({ "from": "a", "to": "b c", "amount": 1 })).await.problem(Kind::InvalidRequest);
    assert!(id.starts_with("to: account id must have"), "{id}");
    let missing = order(json!({ "to": "b", "amount": 1 })).await.problem(Kind::InvalidRequest);
    assert!(missing.starts_with("from: is missing"), "{missing}");
}

#[tokio::test]
async fn a_transfer_s_id_is_taken_once() {
    let bank = TestBank::start().await;
    bank.open("a", 10).await;
    bank.open("b", 0).await;
    let order = json!({ "transfer_id": "t", "from": "a", "to": "b", "amount": 1 });
    bank.post("/transfers", order.clone()).await;
    bank.post("/transfers", order).await.problem(Kind::TransferExists);
    ended(&bank, "t").await;
    assert_eq!(bank.balance("b").await, 1);
    bank.get("/transfers/other").await.problem(Kind::TransferNotFound);
    let detail = bank.get("/transfers/a%20b").await.problem(Kind::InvalidRequest);
    assert!(detail.starts_with("transfer_id: "), "{detail}");
}

#[tokio::test]
async fn its_steps_belong_to_the_conversation_of_the_order() {
    let bank = TestBank::start().await;
    bank.open("a", 10).await;
    bank.open("b", 0).await;
    let key = Uuid::now_v7();
    let order = json!({ "transfer_id": "t", "from": "a", "to": "b", "amount": 1 });
    bank.post_as(key, "/transfers", order).await;
    ended(&bank, "t").await;
    for (account, index) in [("a", 2), ("b", 1)] {
        let event = bank.get(&format!("/accounts/{account}/events")).await.json()[index].clone();
        assert_eq!((&event["correlationid"], &event["causationid"]), (&json!(key), &json!(key)), "{account}");
        assert_ne!(event["commandid"], json!(key));
    }
}

/// How far an earlier run came before it stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum StoppedAfter {
    Request,
    Withdrawal,
    Deposit,
    Return,
    Refund,
}

/// Leaves a transfer of 4 from `a` to `b` behind as a run would that stopped somewhere.
async fn leave_behind(node: &Node, stopped: StoppedAfter) {
    let transfer = node.of::<Transfer>(transfer_id("t"));
    let (from, to) = (account_id("a"), account_id("b"));
    let request = RequestTransfer { from: from.clone(), to: to.clone(), amount: amount(4) };
    transfer.send(request).await.expect("it is requested");
    let id = |step, at| step_id(&transfer_id("t"), step, at);
    if stopped == StoppedAfter::Request {
        return;
    }
    let account = node.of::<Account>(from);
    let withdraw = account.send(Withdraw { amount: amount(4) }).id(id(Step::Withdraw, last_time(node).await));
    withdraw.await.expect("there is enough");
    match stopped {
        StoppedAfter::Request | StoppedAfter::Withdrawal => return,
        StoppedAfter::Deposit => {
            let deposit = node.of::<Account>(to).send(Deposit { amount: amount(4) });
            deposit.id(id(Step::Deposit, last_time(node).await)).await.expect("it is open");
            return;
        }
        StoppedAfter::Return | StoppedAfter::Refund => {
            transfer.send(ReturnMoney { reason: "b: closed".to_owned() }).await.expect("it is pending");
        }
    }
    if stopped == StoppedAfter::Refund {
        let refund = account.send(Deposit { amount: amount(4) }).id(id(Step::Refund, last_time(node).await));
        refund.await.expect("it is open");
    }
}

/// Returns the time of the transfer's last event.
async fn last_time(node: &Node) -> Timestamp {
    let past = node.of::<Transfer>(transfer_id("t")).history(Version::new(1), 9).await.expect("it answers");
    past.last().expect("it was requested").recorded.recorded_at
}

#[tokio::test]
async fn a_start_ends_what_an_earlier_run_left_wherever_it_stopped() {
    use StoppedAfter::{Deposit, Refund, Request, Return, Withdrawal};
    for (stopped, balances) in
        [(Request, (6, 4)), (Withdrawal, (6, 4)), (Deposit, (6, 4)), (Return, (10, 0)), (Refund, (10, 0))]
    {
        let store: Arc<dyn EventStore> = Arc::new(Memory::new());
        let earlier = TestBank::on(node(Arc::clone(&store)).await);
        earlier.open("a", 10).await;
        earlier.open("b", 0).await;
        leave_behind(&earlier.bank.node, stopped).await;
        earlier.bank.leaving.cancel();
        earlier.bank.driver.finish().await;

        let later = TestBank::on(node(store).await);
        later.bank.driver.resume();
        let event = ended_by_itself(&later.bank.node, "t").await;
        assert_eq!(event == TransferEvent::Completed, balances.1 == 4, "{stopped:?}: {event:?}");
        assert_eq!((later.balance("a").await, later.balance("b").await), balances, "{stopped:?}");
    }
}

#[tokio::test]
async fn looking_at_a_transfer_that_was_left_behind_ends_it() {
    let bank = TestBank::start().await;
    bank.open("a", 10).await;
    bank.open("b", 0).await;
    leave_behind(&bank.bank.node, StoppedAfter::Withdrawal).await;
    assert_eq!(bank.get("/transfers/t").await.json()["status"], "pending");
    assert_eq!(ended(&bank, "t").await["status"], "completed");
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (6, 4));
}

/// Starts a node whose aggregates remember eight commands.
async fn forgetful_node() -> Node {
    node_with(Memory::new(), Settings { dedup_commands_max: 8, ..Settings::default() }).await
}

/// Makes the account forget what it remembers of its commands. A key that was made in the same millisecond as one that
/// was forgotten counts as forgotten, too, so each deposit waits for a millisecond of its own.
async fn forget(bank: &TestBank) {
    for _ in 0..20 {
        let last = CommandId::fresh().made_at();
        while CommandId::fresh().made_at() <= last {
            tokio::task::yield_now().await;
        }
        bank.deposit("a", 1).await;
    }
}

#[tokio::test]
async fn a_step_that_its_account_has_forgotten_is_found_in_the_log() {
    let bank = TestBank::on(forgetful_node().await);
    bank.open("a", 10).await;
    bank.open("b", 0).await;
    leave_behind(&bank.bank.node, StoppedAfter::Withdrawal).await;
    forget(&bank).await;
    assert_eq!(ended(&bank, "t").await["status"], "completed");
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (26, 4));
}

#[tokio::test]
async fn a_step_that_its_account_cannot_be_sure_about_does_not_happen() {
    let bank = TestBank::on(forgetful_node().await);
    bank.open("a", 10).await;
    bank.open("b", 0).await;
    leave_behind(&bank.bank.node, StoppedAfter::Request).await;
    forget(&bank).await;
    let shown = ended(&bank, "t").await;
    assert_eq!(shown["status"], "refused", "{shown}");
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (30, 0));
}

#[tokio::test]
async fn many_transfers_at_once_neither_make_nor_lose_money() {
    let bank = TestBank::start().await;
    for account in 0..8 {
        bank.open(&format!("a{account}"), 50).await;
    }
    for transfer in 0..200_u64 {
        let (from, to) = (transfer % 8, (transfer * 3 + 1) % 8);
        let to = if from == to { (to + 1) % 8 } else { to };
        let order = json!({
            "transfer_id": format!("t{transfer}"), "from": format!("a{from}"), "to": format!("a{to}"),
            "amount": transfer % 40 + 1,
        });
        assert_eq!(bank.post("/transfers", order).await.status, 202);
    }
    for transfer in 0..200 {
        ended(&bank, &format!("t{transfer}")).await;
    }
    let mut sum = 0;
    for account in 0..8 {
        sum += bank.balance(&format!("a{account}")).await;
    }
    assert_eq!(sum, 400);
}

#[tokio::test]
async fn a_bank_that_stops_takes_no_orders() {
    let bank = TestBank::start().await;
    bank.bank.leaving.cancel();
    let answer = bank.post("/transfers", json!({ "from": "a", "to": "b", "amount": 1 })).await;
    answer.problem(Kind::StoreUnavailable);
}
