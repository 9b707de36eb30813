//! The drill of `docs/operations/backup.md`: backup, loss, restore, verification, service. Executed as it is written.

use std::path::Path;

use orchestrix_testkit::postgres::PostgresServer;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;

use crate::process::{bank, connect, exit_code, signal, started_as};
use crate::wire::{read_reply, request};

/// Runs one of the bank's commands and returns what it printed.
async fn run(variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let output = bank(variables).args(arguments).output().await.expect("it ran");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {words}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Asks the bank for something.
async fn ask(address: &str, request: &str) -> (u16, String) {
    let mut stream = connect(address).await;
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let reply = read_reply(&mut stream).await.expect("an answer");
    (reply.status, reply.body)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bank\r\n\r\n")
}

/// Opens accounts and moves money between them.
async fn business(address: &str) {
    for id in 0..5 {
        let body = format!(r#"{{"account_id":"a-{id}","owner":"Ada","currency":"EUR"}}"#);
        assert_eq!(ask(address, &request("/accounts", &body)).await.0, 201);
        for amount in 1..=20 {
            let deposit = request(&format!("/accounts/a-{id}/deposit"), &format!(r#"{{"amount":{amount}}}"#));
            assert_eq!(ask(address, &deposit).await.0, 200);
        }
    }
}

/// The state of every account, as the bank tells it, in one text.
async fn state(address: &str) -> String {
    let mut state = String::new();
    for id in 0..5 {
        let (status, body) = ask(address, &get(&format!("/accounts/a-{id}"))).await;
        assert_eq!(status, 200, "{body}");
        state += &body;
    }
    state
}

/// The drill on the database that the variables name; `lose` destroys it and leaves an empty one.
async fn drill(variables: &[(&str, &str)], folder: &Path, lose: impl AsyncFnOnce()) {
    let directory = folder.join("monday").display().to_string();
    let (mut service, address, _) = started_as(variables).await;
    business(&address).await;
    // While the service runs.
    run(variables, &["backup", &directory]).await;
    let before = state(&address).await;
    signal(&service, Signal::TERM);
    assert_eq!(exit_code(&mut service).await, Some(0));
    lose().await;
    run(variables, &["backup", "--verify", &directory]).await;
    let restored = run(variables, &["restore", &directory]).await;
    assert!(restored.contains("restored 105 events") && restored.contains("; 0 were left out"), "{restored}");
    assert!(run(variables, &["verify"]).await.starts_with("sound: 105 events of 5 streams"));
    let (mut service, address, _) = started_as(variables).await;
    let (status, health) = ask(&address, &get("/health")).await;
    assert_eq!(status, 200, "{health}");
    assert_eq!(state(&address).await, before);
    // It goes on where it was.
    let deposit = ask(&address, &request("/accounts/a-0/deposit", r#"{"amount":1}"#)).await;
    assert!(deposit.0 == 200 && deposit.1.contains(r#""version":22"#), "{deposit:?}");
    signal(&service, Signal::TERM);
    assert_eq!(exit_code(&mut service).await, Some(0));
}

#[tokio::test]
async fn the_drill_ends_well_on_sqlite() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("data/bank.db");
    let url = format!("sqlite://{}", file.display());
    let lose = async || std::fs::remove_dir_all(folder.path().join("data")).expect("it is destroyed");
    drill(&[("DATABASE_URL", &url)], folder.path(), lose).await;
}

#[tokio::test]
async fn the_drill_ends_well_on_postgres() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = PostgresServer::start().unwrap_or_else(|error| panic!("{error}"));
    let url = first.url("postgres");
    // The whole schema is lost; the empty database is as a new one.
    let lose = async || {
        use sqlx::{ConnectOptions as _, Executor as _};
        let options: sqlx::postgres::PgConnectOptions = url.parse().expect("the server's own URL");
        let mut hand = options.connect().await.expect("PostgreSQL lets the tests in");
        hand.execute("DROP SCHEMA orchestrix CASCADE").await.expect("it is destroyed");
    };
    drill(&[("DATABASE_URL", &url)], folder.path(), lose).await;
}
