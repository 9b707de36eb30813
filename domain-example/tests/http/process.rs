//! The process itself: how it starts, what it says, how it stops.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::wire::{read_reply, request};

/// Nothing here takes this long; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// The bank as a process of its own, killed with its handle.
pub(crate) fn bank(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
    command.env_clear().envs(variables.iter().copied()).kill_on_drop(true);
    // A file `.env` of whoever runs the tests must not reach into them.
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a bank on the in-memory store and returns it with its address.
async fn started() -> (Child, String) {
    started_with("EVENT_STORE_TYPE", "inmemory").await
}

/// Starts a bank with a variable and returns it with its address.
async fn started_with(name: &str, value: &str) -> (Child, String) {
    let (child, address, _) = started_as(&[(name, value)]).await;
    (child, address)
}

/// Starts a bank with variables and returns it with its address, as the log says it, and with the whole log.
pub(crate) async fn started_as(variables: &[(&str, &str)]) -> (Child, String, JoinHandle<String>) {
    let mut command = bank(variables);
    let mut child = command.env("HTTP_ADDR", "127.0.0.1:0").spawn().expect("it starts");
    let log = child.stderr.take().expect("a pipe");
    let (mut lines, mut log) = (BufReader::new(log).lines(), String::new());
    let address = tokio::time::timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.expect("UTF-8").expect("the bank ended before it was open");
            log = format!("{log}{line}\n");
            if let Some((_, rest)) = line.split_once("the bank is open at http://") {
                return rest.split('/').next().expect("an address").to_owned();
            }
        }
    });
    let address = address.await.expect("it opens");
    // Somebody has to read on, or the pipe fills up.
    let log = tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            log = log + &line + "\n";
        }
        log
    });
    (child, address, log)
}

pub(crate) async fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address).await.expect("it listens")
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
    kill_process(id, signal).expect("the signal is sent");
}

pub(crate) async fn exit_code(child: &mut Child) -> Option<i32> {
    tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends").expect("its status").code()
}

#[tokio::test]
async fn a_signal_stops_it_with_exit_code_0() {
    for kind in [Signal::TERM, Signal::INT] {
        let (mut child, address) = started().await;
        let mut stream = connect(&address).await;
        let body = r#"{"account_id":"a","owner":"Ada","currency":"EUR"}"#;
        stream.write_all(request("/accounts", body).as_bytes()).await.expect("it is taken");
        assert_eq!(read_reply(&mut stream).await.expect("an answer").status, 201);
        signal(&child, kind);
        assert_eq!(exit_code(&mut child).await, Some(0), "{kind:?}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (mut child, address) = started().await;
    let mut stream = connect(&address).await;
    let head = "POST /accounts HTTP/1.1\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("it is taken");
    stream.read_exact(&mut [0; 25]).await.expect("100 Continue: the request is being served");
    signal(&child, Signal::TERM);
    // The first signal has been taken when nobody listens any more; the request keeps the process alive.
    while TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    signal(&child, Signal::TERM);
    assert_eq!(exit_code(&mut child).await, Some(130));
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("sqlite://{}", folder.path().join("bank.db").display());
    let (mut child, address) = started_with("DATABASE_URL", &url).await;
    let mut stream = connect(&address).await;
    let open = request("/accounts", r#"{"account_id":"a","owner":"Ada","currency":"EUR"}"#);
    let deposit = request("/accounts/a/deposit", r#"{"amount":7}"#);
    for (request, status) in [(open, 201), (deposit, 200)] {
        stream.write_all(request.as_bytes()).await.expect("it is taken");
        assert_eq!(read_reply(&mut stream).await.expect("an answer").status, status);
    }
    child.kill().await.expect("it is killed");
    let (_child, address) = started_with("DATABASE_URL", &url).await;
    let mut stream = connect(&address).await;
    stream.write_all(b"GET /accounts/a HTTP/1.1\r\nHost: bank\r\n\r\n").await.expect("it is taken");
    let shown = read_reply(&mut stream).await.expect("an answer");
    assert!(shown.body.contains(r#""balance":7"#), "{shown:?}");
}

/// Runs a bank that should not start; returns its exit code and what it said.
async fn refused(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let output = bank(variables).args(arguments).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("it ends").expect("it ran");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn what_is_wrong_with_the_start_is_named() {
    let (code, words) = refused(&[("EVENT_STORE_TYPE", "mysql")], &[]).await;
    assert!(code == Some(2) && words.contains("EVENT_STORE_TYPE") && words.contains("inmemory"), "{words}");
    let (code, words) = refused(&[("HTTP_ADDR", "localhost")], &[]).await;
    assert!(code == Some(2) && words.contains("HTTP_ADDR"), "{words}");
    let (code, words) = refused(&[], &["srve"]).await;
    assert!(code == Some(2) && words.contains("srve"), "{words}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_the_remedy() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, words) =
        refused(&[("EVENT_STORE_TYPE", "inmemory"), ("HTTP_ADDR", &address)], &["serve"]).await;
    assert!(code == Some(1) && words.contains(&address) && words.contains("set HTTP_ADDR"), "{words}");
}
