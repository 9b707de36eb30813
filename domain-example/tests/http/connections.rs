//! Many connections, and what happens at their bound.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::files::raise_limit;
use crate::http::extract::BodyLimits;
use crate::http::server::ConnectionLimits;
use crate::wire::{Served, closed, read_reply, request};

/// Silent connections in the test of many; each is two files here, one at either end.
const SILENT: usize = 3_000;

#[tokio::test]
async fn thousands_of_silent_connections_keep_nobody_out() {
    let files = raise_limit();
    assert!(files > 2 * SILENT, "this test needs more open files than {files}: raise `ulimit -Hn` to 8192");
    let limits = ConnectionLimits { connections_max: 1_000, ..ConnectionLimits::default() };
    let bank = Served::start(limits, BodyLimits::default()).await;
    let mut silent = Vec::with_capacity(SILENT);
    for number in 0..SILENT {
        let mut stream = bank.connect().await;
        if number % 2 == 0 {
            stream.write_all(b"POST /accounts HTTP/1.1\r\n").await.expect("it is taken");
        }
        silent.push(stream);
        if number % 500 == 499 {
            bank.still_serves().await;
        }
    }
    // The oldest had to go, and whoever came last may still speak.
    closed(&mut silent[0]).await;
    let mut last = silent.pop().expect("there are many");
    last.write_all(request("/accounts/a/deposit", "{\"amount\":1}").as_bytes()).await.expect("it is taken");
    assert_eq!(read_reply(&mut last).await.expect("an answer").status, 200);
    bank.still_serves().await;
}

#[tokio::test]
async fn at_the_bound_a_newcomer_waits_for_those_being_served() {
    let limits = ConnectionLimits { connections_max: 2, ..ConnectionLimits::default() };
    let body = BodyLimits { time_max: Duration::from_millis(400), ..BodyLimits::default() };
    let bank = Served::start(limits, body).await;
    let (mut first, mut second) = (begun(&bank).await, begun(&bank).await);
    // Both seats are taken by requests whose bodies are awaited, so this one is answered when the first ends.
    let third = tokio::spawn(deposit(bank.connect().await));
    for slow in [&mut first, &mut second] {
        assert_eq!(read_reply(slow).await.expect("an answer").status, 408);
    }
    assert_eq!(third.await.expect("it ends"), 200);
    bank.still_serves().await;
}

/// Begins a request and leaves its body open.
async fn begun(bank: &Served) -> TcpStream {
    let mut stream = bank.connect().await;
    let whole = request("/accounts/a/deposit", "{\"amount\":1}");
    let head = whole.replace("Content-Length", "Expect: 100-continue\r\nContent-Length");
    stream.write_all(&head.as_bytes()[..head.len() - 3]).await.expect("it is taken");
    // The interim answer shows that the request is being served.
    let mut interim = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut interim).await.expect("100 Continue");
    stream
}

async fn deposit(mut stream: TcpStream) -> u16 {
    stream.write_all(request("/accounts/a/deposit", "{\"amount\":1}").as_bytes()).await.expect("it is taken");
    read_reply(&mut stream).await.expect("an answer").status
}

#[tokio::test]
async fn a_stop_answers_what_was_begun_and_takes_nothing_new() {
    let bank = Served::start(ConnectionLimits::default(), BodyLimits::default()).await;
    let mut silent = bank.connect().await;
    let mut under_way = begun(&bank).await;
    bank.stop.cancel();
    closed(&mut silent).await;
    under_way.write_all(b":1}").await.expect("it is taken");
    assert_eq!(read_reply(&mut under_way).await.expect("an answer").status, 200);
    let Served { address, task, .. } = bank;
    tokio::time::timeout(Duration::from_secs(30), task).await.expect("it ends").expect("without a panic");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
