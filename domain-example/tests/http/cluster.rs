//! Several banks on one database, as processes: any of them takes any request, and one that stops is not missed.

use std::time::Duration;

use orchestrix_testkit::postgres::PostgresServer;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;
use tokio::task::JoinHandle;

use crate::process::{connect, exit_code, signal, started_as};
use crate::support::eventually;
use crate::wire::{read_reply, request};

/// Accounts of a story: enough that each of two nodes owns some of them.
const ACCOUNTS: usize = 24;

/// A bank in a cluster.
struct Member {
    child: Child,
    address: String,
    log: JoinHandle<String>,
}

impl Member {
    async fn join(database: &str, name: &str, more: &[(&str, &str)]) -> Self {
        let variables = [
            ("DATABASE_URL", database),
            ("NODE_ADDR", "127.0.0.1:0"),
            ("NODE_NAME", name),
            ("SHARD_COUNT", "16"),
        ];
        let (child, address, log) = started_as(&[&variables[..], more].concat()).await;
        Self { child, address, log }
    }

    /// Sends a request on a connection of its own.
    async fn ask(&self, request: &str) -> (u16, Value) {
        let mut stream = connect(&self.address).await;
        stream.write_all(request.as_bytes()).await.expect("it is taken");
        let reply = read_reply(&mut stream).await.expect("an answer");
        (reply.status, serde_json::from_str(&reply.body).expect("JSON"))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: bank\r\n\r\n")).await
    }

    async fn open(&self, account: usize) -> u16 {
        let body = format!(r#"{{"account_id":"a-{account}","owner":"Ada","currency":"EUR"}}"#);
        self.ask(&request("/accounts", &body)).await.0
    }

    /// Deposits 1 under a key that follows from the numbers.
    async fn deposit(&self, account: usize, number: usize) -> (u16, Value) {
        let key = format!("{account:08x}-0000-4000-8000-{number:012x}");
        let body = r#"{"amount":1}"#;
        let head = format!(
            "POST /accounts/a-{account}/deposit HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\nIdempotency-Key: {key}"
        );
        self.ask(&format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await
    }

    async fn balance(&self, account: usize) -> Option<u64> {
        self.get(&format!("/accounts/a-{account}")).await.1["balance"].as_u64()
    }

    async fn shards(&self) -> u64 {
        self.get("/health").await.1["cluster"]["shards_owned"].as_u64().expect("a number")
    }

    /// Stops it in order, and returns what it logged.
    async fn stop(mut self) -> String {
        signal(&self.child, Signal::TERM);
        assert_eq!(exit_code(&mut self.child).await, Some(0));
        self.log.await.expect("the log is read")
    }
}

/// Two banks that have divided the shards between them.
async fn pair(server: &PostgresServer, more: &[(&str, &str)]) -> (Member, Member) {
    let url = server.url("postgres");
    let ada = Member::join(&url, "ada", more).await;
    let bob = Member::join(&url, "bob", more).await;
    eventually("an even division of the shards", || async {
        let (ada, bob) = (ada.shards().await, bob.shards().await);
        // The planner lets a small difference be.
        (ada + bob == 16 && ada.min(bob) >= 6).then_some(())
    })
    .await;
    (ada, bob)
}

#[tokio::test]
async fn either_bank_answers_and_a_retry_at_the_other_one_has_one_effect() {
    let server = PostgresServer::start().unwrap_or_else(|error| panic!("{error}"));
    let (ada, bob) = pair(&server, &[]).await;
    for account in 0..ACCOUNTS {
        assert_eq!(ada.open(account).await, 201);
        let (status, first) = ada.deposit(account, 1).await;
        assert_eq!(status, 200, "{first}");
        assert_eq!(bob.deposit(account, 1).await, (200, first));
        assert_eq!(bob.deposit(account, 2).await.0, 200);
        assert_eq!((ada.balance(account).await, bob.balance(account).await), (Some(2), Some(2)));
        assert_eq!(bob.open(account).await, 409, "both know it");
    }
    let (status, health) = bob.get("/health").await;
    assert_eq!((status, &health["cluster"]["name"]), (200, &Value::from("bob")), "{health}");
    assert!(health["cluster"]["incarnation"].is_string(), "{health}");
    ada.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_bank_that_is_told_to_stop_hands_everything_over_and_no_request_fails() {
    let server = PostgresServer::start().unwrap_or_else(|error| panic!("{error}"));
    let (ada, bob) = pair(&server, &[]).await;
    for account in 0..ACCOUNTS {
        assert_eq!(ada.open(account).await, 201);
        assert_eq!(ada.deposit(account, 0).await.0, 200);
    }
    let stopping = tokio::spawn(ada.stop());
    let mut during = 0;
    let mut number = 0;
    // Every account once after the end, too.
    let mut after = 0;
    while after < ACCOUNTS {
        let account = number % ACCOUNTS;
        after += usize::from(stopping.is_finished());
        during += usize::from(!stopping.is_finished());
        let (status, answer) = bob.deposit(account, 1 + number).await;
        assert_eq!(status, 200, "{answer}");
        number += 1;
    }
    let log = stopping.await.expect("it stops");
    assert!(log.contains("given its shards away and left the cluster"), "{log}");
    assert!(during >= 5, "only {during} deposits hit the hand-over");
    assert_eq!(bob.shards().await, 16);
    let mut sum = 0;
    for account in 0..ACCOUNTS {
        sum += bob.balance(account).await.expect("a balance");
    }
    assert_eq!(sum, (ACCOUNTS + number) as u64);
    bob.stop().await;
}

#[tokio::test]
async fn a_bank_is_not_ready_before_it_takes_no_more_requests() {
    let server = PostgresServer::start().unwrap_or_else(|error| panic!("{error}"));
    let (mut ada, bob) = pair(&server, &[("SHUTDOWN_NOTICE", "3")]).await;
    assert_eq!(ada.open(1).await, 201);
    assert_eq!(ada.get("/ready").await.0, 200);
    signal(&ada.child, Signal::TERM);
    eventually("a bank that is not ready", || async { (ada.get("/ready").await.0 == 503).then_some(()) })
        .await;
    assert_eq!((ada.deposit(1, 1).await.0, ada.balance(1).await), (200, Some(1)), "it still serves");
    assert_eq!(exit_code(&mut ada.child).await, Some(0));
    assert_eq!(bob.balance(1).await, Some(1));
}

#[tokio::test]
async fn a_bank_that_is_killed_is_replaced_and_what_it_answered_is_kept() {
    let server = PostgresServer::start().unwrap_or_else(|error| panic!("{error}"));
    let (mut ada, bob) = pair(&server, &[("NODE_LEASE_SECONDS", "2")]).await;
    for account in 0..ACCOUNTS {
        assert_eq!(ada.open(account).await, 201);
        assert_eq!(ada.deposit(account, 1).await.0, 200);
    }
    ada.child.kill().await.expect("it is killed");
    for account in 0..ACCOUNTS {
        eventually("the same answer from the other one", || async {
            (bob.deposit(account, 1).await.0 == 200).then_some(())
        })
        .await;
        assert_eq!(bob.balance(account).await, Some(1), "its answer was kept, and the retry did nothing");
    }
    assert_eq!(bob.shards().await, 16);
}

#[tokio::test]
async fn a_store_that_cannot_be_shared_makes_no_cluster() {
    let mut bank = crate::process::bank(&[("EVENT_STORE_TYPE", "inmemory"), ("NODE_ADDR", "127.0.0.1:0")]);
    let output = tokio::time::timeout(Duration::from_mins(1), bank.output());
    let output = output.await.expect("it ends").expect("it ran");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && words.contains("set DATABASE_URL=postgres://"), "{words}");
}
