//! The bank behind a real socket on loopback, and a client without manners.

use std::net::SocketAddr;
use std::time::Duration;

use orchestrix::store::Memory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http::Bank;
use crate::http::extract::BodyLimits;
use crate::http::server::{ConnectionLimits, serve};
use crate::support::node;

/// Nothing in these tests takes this long; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A bank that listens.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Served {
    /// Starts a bank with an account `a`.
    pub(crate) async fn start(connections: ConnectionLimits, body: BodyLimits) -> Self {
        let stop = CancellationToken::new();
        let bank = Bank { body, ..Bank::new(node(Memory::new()).await, stop.clone(), stop.clone()) };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(serve(listener, crate::http::router(bank), connections, stop.clone()));
        let served = Self { address, stop, task };
        let opened = served.post("/accounts", r#"{"account_id":"a","owner":"Ada","currency":"EUR"}"#).await;
        assert_eq!(opened.status, 201);
        served
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the bank listens")
    }

    /// Sends bytes on a connection of their own; `None` when it was closed without an answer.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Option<Reply> {
        let mut stream = self.connect().await;
        // The bank may answer and close before it has read everything; the answer counts.
        let _ = stream.write_all(bytes).await;
        read_reply(&mut stream).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Reply {
        self.send(request(path, body).as_bytes()).await.expect("an answer")
    }

    /// Checks that a well-behaved client is served.
    #[track_caller]
    pub(crate) fn still_serves(&self) -> impl Future<Output = ()> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            let reply = self.post("/accounts/a/deposit", r#"{"amount":1}"#).await;
            assert_eq!(reply.status, 200, "after {caller}");
        }
    }
}

/// Returns a request for a path with a JSON body.
pub(crate) fn request(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Reads one answer; `None` when the connection ends before it.
pub(crate) async fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
    tokio::time::timeout(PATIENCE, read_one(stream)).await.expect("an answer or the end of the connection")
}

async fn read_one(stream: &mut TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(bytes).expect("a head is text");
    let status = head.split(' ').nth(1)?.parse().expect("a status");
    if status == 100 {
        return Box::pin(read_one(stream)).await;
    }
    let length = head.to_lowercase().split("content-length: ").nth(1).map_or(0, |rest| {
        rest.split("\r\n").next().and_then(|number| number.parse().ok()).expect("a length")
    });
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Reply { status, head, body: String::from_utf8(body).expect("a body is text") })
}

/// Waits until the bank closes a connection.
pub(crate) async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is closed");
}

/// Limits with times short enough for a test.
pub(crate) fn short() -> (ConnectionLimits, BodyLimits) {
    let head_time_max = Duration::from_secs(1);
    let connections = ConnectionLimits { head_time_max, ..ConnectionLimits::default() };
    (connections, BodyLimits { time_max: Duration::from_secs(1), ..BodyLimits::default() })
}
