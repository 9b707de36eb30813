//! Nodes that must not talk to each other, and others that must not talk to nodes.

use std::time::Duration;

use orchestrix::NotAttempted;
use orchestrix::cluster::transport::{Peer, Transport, TransportOptions};
use orchestrix::cluster::wire::{Outcome, Registry, TypeEntry};
use orchestrix::core::Incarnation;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::stage::{ECHO, call, call_within, done, end, options, two_ends};
use crate::harness::{eventually, in_time};

/// Calls, and returns why that was not attempted.
pub async fn refused(peer: &Peer) -> NotAttempted {
    match in_time("the refusal", peer.call(call(&[ECHO]))).await {
        Outcome::NotAttempted(why) => why.into(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_refused_by_name() {
    let (here, there) = (end(options("a")).await, end(options("b")).await);
    let why = refused(&here.peer(&there)).await.to_string();
    assert!(why.contains("it belongs to cluster \"a\", not to \"b\""), "{why}");
    assert!(there.ledger.came().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_run_than_the_one_asked_for_is_refused_by_name() {
    let (here, there) = (end(options("a")).await, end(options("a")).await);
    let before = Incarnation::fresh();
    let peer = here.transport.peer(before, &there.transport.address().to_string());
    let why = refused(&peer).await.to_string();
    assert!(why.contains(&format!("the run {before} is not here; {} is", there.incarnation)), "{why}");
    assert!(there.ledger.came().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_the_other_release_does_not_know_is_never_sent() {
    let here = end(options("a")).await;
    let there =
        end(TransportOptions { registry: Registry::default(), node: "old".into(), ..options("a") }).await;
    let peer = here.peer(&there);
    let expected = NotAttempted::NotRegistered { aggregate_type: "thing".into() };
    assert_eq!(refused(&peer).await, expected, "it waited for the connection");
    eventually("they know each other", async || peer.hello().is_some()).await;
    assert_eq!(refused(&peer).await, expected, "it is known now");
    let mut known = Registry::default();
    known.add("thing", TypeEntry::default());
    let there = end(TransportOptions { registry: known, node: "old".into(), ..options("a") }).await;
    let why = refused(&here.peer(&there)).await;
    assert_eq!(why.to_string(), "node old does not know the command \"thing.do\" of \"thing\"");
    assert!(there.ledger.came().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_nobody_listens_at_fails_calls_at_once() {
    let here = end(options("a")).await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let peer = here.transport.peer(Incarnation::fresh(), &free.to_string());
    assert_eq!(refused(&peer).await.kind(), "unavailable");
    assert_eq!(refused(&peer).await.kind(), "unavailable", "and so it stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_a_silent_peer_until_its_deadline_and_was_then_never_sent() {
    let here = end(options("a")).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let peer = here.transport.peer(Incarnation::fresh(), &silent.local_addr().expect("bound").to_string());
    let outcome = in_time("the deadline", peer.call(call_within(&[ECHO], Duration::from_millis(200)))).await;
    let Outcome::NotAttempted(why) = outcome else { panic!("{outcome:?}") };
    assert_eq!(NotAttempted::from(why), NotAttempted::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_ends_its_own_connection_and_nothing_else() {
    let (_here, there, peer) = two_ends().await;
    let noise = vec![0xff; 100_000];
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        &[0; 4_096],
        &noise,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"",
    ];
    for bytes in garbage {
        let mut socket = TcpStream::connect(there.transport.address()).await.expect("it accepts");
        // The other side may have closed before everything was written.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut rest = Vec::new();
        let _ = in_time("it is closed", socket.read_to_end(&mut rest)).await;
        assert_eq!(in_time("a call", peer.call(call(&[ECHO]))).await, done(vec![ECHO]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_beyond_this_machine_must_be_allowed_by_name() {
    let everywhere = TransportOptions { listen: ([0, 0, 0, 0], 0).into(), ..options("a") };
    let serve = super::stage::Ledger::new();
    let bound = Transport::bind(everywhere.clone(), serve.clone()).await;
    let error = bound.expect_err("others could read along").to_string();
    assert!(error.contains("plain text must be allowed by name"), "{error}");
    let allowed = TransportOptions { plaintext_allowed: true, ..everywhere };
    assert!(Transport::bind(allowed, serve).await.is_ok());
    let here = end(options("a")).await;
    // An address of documentation, which nobody has; it must not even be asked.
    let peer = here.transport.peer(Incarnation::fresh(), "192.0.2.1:7000");
    let why = refused(&peer).await.to_string();
    assert!(why.contains("192.0.2.1:7000 is another machine, and no certificates are given"), "{why}");
}
