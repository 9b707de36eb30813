//! Input that no client should send. Each is answered with 4xx or with the end of its connection, and the next
//! well-behaved client is served as if nothing had been.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http::extract::BodyLimits;
use crate::http::server::ConnectionLimits;
use crate::wire::{Served, closed, read_reply, request, short};

async fn served() -> Served {
    // Some of the input below is the start of a head, which is waited for: not for as long as a person may need.
    let head_time_max = Duration::from_secs(1);
    let limits = ConnectionLimits { head_time_max, ..ConnectionLimits::default() };
    Served::start(limits, BodyLimits::default()).await
}

#[tokio::test]
async fn bytes_that_are_no_http_end_with_their_connection() {
    let bank = served().await;
    let long = "x".repeat(100_000);
    let many = "X-Many: 1\r\n".repeat(200);
    for bytes in [
        b"\0\x01\x02\xff\xfe\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /health HTTP/9.9\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /he\0alth HTTP/1.1\r\n\r\n".to_vec(),
        b"GET /health HTTP/1.1\r\nno colon\r\n\r\n".to_vec(),
        b"GET /health HTTP/1.1\r\nX: a\0b\r\n\r\n".to_vec(),
        b"GET /health HTTP/1.1\r\n : empty\r\n\r\n".to_vec(),
        format!("GET /{long} HTTP/1.1\r\n\r\n").into_bytes(),
        format!("GET /health HTTP/1.1\r\nX: {long}\r\n\r\n").into_bytes(),
        format!("GET /health HTTP/1.1\r\n{many}\r\n").into_bytes(),
        format!("{long} / HTTP/1.1\r\n\r\n").into_bytes(),
    ] {
        let reply = bank.send(&bytes).await;
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert!(
            reply.as_ref().is_none_or(|reply| (400..500).contains(&reply.status)),
            "{start:?}: {reply:?}"
        );
        bank.still_serves().await;
    }
}

#[tokio::test]
async fn requests_that_lie_about_their_bodies_have_no_effect() {
    let bank = served().await;
    let head = "POST /accounts/a/deposit HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\n";
    for rest in [
        "Content-Length: -1\r\n\r\n{\"amount\":1}",
        "Content-Length: twelve\r\n\r\n{\"amount\":1}",
        "Content-Length: 12\r\nContent-Length: 13\r\n\r\n{\"amount\":1}",
        "Content-Length: 99999999999999999999999\r\n\r\n{\"amount\":1}",
        "Content-Length: 10000000000\r\n\r\n{\"amount\":1}",
        "Content-Length: 10000000000\r\nExpect: 100-continue\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n{\"amount\":1}",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n{\"amount\":1}",
        "Transfer-Encoding: gzip\r\n\r\n{\"amount\":1}",
        "Transfer-Encoding: chunked, identity\r\n\r\n{\"amount\":1}",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{\"amount\":1}",
    ] {
        let reply = bank.send(format!("{head}{rest}").as_bytes()).await;
        assert!(reply.as_ref().is_none_or(|reply| (400..500).contains(&reply.status)), "{rest}: {reply:?}");
        bank.still_serves().await;
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let bank = served().await;
    let nested = "[".repeat(60_000);
    for body in [
        "{\"amount\":-1}",
        "{\"amount\":9223372036854775808}",
        "{\"amount\":1e400}",
        "{\"amount\":\"1\"}",
        "\u{feff}{\"amount\":1}",
        "{\"amount\":1}\0",
        &format!("{{\"amount\":{nested}"),
        &nested,
        &"9".repeat(60_000),
        &format!("{{\"amount\":{}}}", "9".repeat(60_000)),
        &"{\"a\":".repeat(10_000),
    ] {
        let reply = bank.post("/accounts/a/deposit", body).await;
        assert_eq!(reply.status, 400, "{}", &body[..body.len().min(40)]);
        bank.still_serves().await;
    }
    let mut bytes = request("/accounts/a/deposit", "{\"amount\":1,\"xx\":0}").into_bytes();
    let place = bytes.len() - 6;
    bytes[place..place + 2].copy_from_slice(b"\xff\xfe");
    assert_eq!(bank.send(&bytes).await.map(|reply| reply.status), Some(400));
    let huge = bank.post("/accounts/a/deposit", &" ".repeat(1 << 20)).await;
    assert_eq!(huge.status, 413);
    bank.still_serves().await;
}

#[tokio::test]
async fn odd_methods_and_targets_are_answered_without_a_5xx() {
    let bank = served().await;
    for line in [
        "CONNECT example.org:443 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "get /health HTTP/1.1",
        "BREW /accounts/a HTTP/1.1",
        "TRACE /accounts/a HTTP/1.1",
        "GET /accounts/../../etc/passwd HTTP/1.1",
        "GET /accounts/%2e%2e HTTP/1.1",
        "GET /accounts/%00 HTTP/1.1",
        "GET /accounts/a?at_version=%00 HTTP/1.1",
        "GET //health HTTP/1.1",
        "GET http://elsewhere/nothing HTTP/1.1",
    ] {
        let reply = bank.send(format!("{line}\r\nHost: bank\r\n\r\n").as_bytes()).await;
        assert!(reply.as_ref().is_none_or(|reply| (400..500).contains(&reply.status)), "{line}: {reply:?}");
        bank.still_serves().await;
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408() {
    let (connections, body) = short();
    let bank = Served::start(connections, body).await;
    let mut stream = bank.connect().await;
    let whole = request("/accounts/a/deposit", "{\"amount\":1}");
    stream.write_all(&whole.as_bytes()[..whole.len() - 3]).await.expect("it is taken");
    let reply = read_reply(&mut stream).await.expect("an answer");
    assert_eq!(reply.status, 408);
    assert!(
        reply.head.contains("application/problem+json") && reply.body.contains("request-timeout"),
        "{reply:?}"
    );
    closed(&mut stream).await;
    bank.still_serves().await;
}

/// Sends a byte now and then, so that the connection is never silent, until the bank has had enough.
async fn drip(stream: &mut TcpStream, bytes: impl Iterator<Item = u8>) {
    for byte in bytes {
        let answered = async { stream.peek(&mut [0]).await.is_ok() };
        if tokio::time::timeout(Duration::from_millis(20), answered).await.is_ok()
            || stream.write_all(&[byte]).await.is_err()
        {
            return;
        }
    }
    panic!("the bank took everything and said nothing");
}

#[tokio::test]
async fn a_body_that_comes_a_byte_at_a_time_is_a_408() {
    let (connections, body) = short();
    let bank = Served::start(connections, body).await;
    let mut stream = bank.connect().await;
    let head = request("/accounts/a/deposit", "").replace("Content-Length: 0", "Content-Length: 60000");
    stream.write_all(head.as_bytes()).await.expect("it is taken");
    drip(&mut stream, std::iter::repeat_n(b' ', 60_000)).await;
    assert_eq!(read_reply(&mut stream).await.expect("an answer").status, 408);
    bank.still_serves().await;
}

#[tokio::test]
async fn a_head_that_comes_a_byte_at_a_time_ends_with_its_connection() {
    let (connections, body) = short();
    let bank = Served::start(connections, body).await;
    let mut stream = bank.connect().await;
    stream.write_all(b"GET /health HTTP/1.1\r\nX-Slow: ").await.expect("it is taken");
    drip(&mut stream, std::iter::repeat_n(b'x', 60_000)).await;
    closed(&mut stream).await;
    bank.still_serves().await;
}

#[tokio::test]
async fn numbers_and_types_that_do_not_fit_are_a_400_on_every_route() {
    let bank = served().await;
    for value in [
        "-1",
        "9223372036854775808",
        "18446744073709551616",
        "1.5",
        "1e9",
        "\"7\"",
        "null",
        "true",
        "[]",
        "{}",
    ] {
        let order = format!("{{\"from\":\"a\",\"to\":\"b\",\"amount\":{value}}}");
        assert_eq!(bank.post("/transfers", &order).await.status, 400, "{order}");
        if value == "null" || value.starts_with('"') {
            continue;
        }
        for field in ["from", "to", "transfer_id"] {
            let order = r#"{"transfer_id":"t","from":"a","to":"b","amount":1}"#;
            let (name, rest) = (format!("\"{field}\":"), order.split_once(&format!("\"{field}\":\"")));
            let (before, after) = rest.expect("the field is there");
            let (_, after) = after.split_once('"').expect("its text ends");
            let order = format!("{before}{name}{value}{after}");
            assert_eq!(bank.post("/transfers", &order).await.status, 400, "{order}");
        }
    }
    let long = "9".repeat(2_000);
    for value in ["-1", "9223372036854775808", "18446744073709551616", "1.5", "", "%20", "0x1", "%2B1", &long]
    {
        for query in [
            format!("/accounts/a?at_version={value}"),
            format!("/accounts/a/events?from_version={value}"),
            format!("/accounts/a/events?limit={value}"),
            format!("/accounts/a?at_time={value}"),
            format!("/accounts/a?consistency={value}"),
        ] {
            // The largest number that a version can be names one that may come.
            let future = value == "9223372036854775808";
            let reply = bank.send(format!("GET {query} HTTP/1.1\r\nHost: bank\r\n\r\n").as_bytes()).await;
            let status = reply.expect("an answer").status;
            assert!(status == 400 || (future && (200..500).contains(&status)), "{query}: {status}");
        }
    }
    bank.still_serves().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_with_its_connection() {
    let (connections, body) = short();
    let bank = Served::start(connections, body).await;
    for start in ["", "P", "POST /accounts HTTP/1.1\r\nHost: ba"] {
        let mut stream = bank.connect().await;
        stream.write_all(start.as_bytes()).await.expect("it is taken");
        closed(&mut stream).await;
    }
    bank.still_serves().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_more_is_closed() {
    let (connections, body) = short();
    let bank = Served::start(connections, body).await;
    let mut stream = bank.connect().await;
    stream.write_all(request("/accounts/a/deposit", "{\"amount\":1}").as_bytes()).await.expect("it is taken");
    assert_eq!(read_reply(&mut stream).await.expect("an answer").status, 200);
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_closes_its_side_still_gets_its_answer() {
    let bank = served().await;
    let mut stream = bank.connect().await;
    stream.write_all(request("/accounts/a/deposit", "{\"amount\":1}").as_bytes()).await.expect("it is taken");
    stream.shutdown().await.expect("its side closes");
    assert_eq!(read_reply(&mut stream).await.expect("an answer").status, 200);
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_harms_nobody() {
    let bank = served().await;
    let whole = request("/accounts/a/deposit", "{\"amount\":1}");
    for cut in [1, 20, whole.len() - 5, whole.len()] {
        for is_polite in [true, false] {
            let mut stream = bank.connect().await;
            stream.write_all(&whole.as_bytes()[..cut]).await.expect("it is taken");
            if is_polite {
                stream.shutdown().await.expect("its side closes");
            } else {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("it is set");
            }
            drop(stream);
        }
    }
    bank.still_serves().await;
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let bank = served().await;
    let mut stream = bank.connect().await;
    let both =
        request("/accounts/a/deposit", "{\"amount\":1}") + &request("/accounts/a/withdraw", "{\"amount\":9}");
    for _ in 0..50 {
        stream.write_all(both.as_bytes()).await.expect("it is taken");
    }
    for round in 0..50 {
        let statuses = [read_reply(&mut stream).await, read_reply(&mut stream).await]
            .map(|reply| reply.expect("an answer").status);
        assert!(matches!(statuses, [200, 200 | 422]), "round {round}: {statuses:?}");
    }
}
