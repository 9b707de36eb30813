//! Good requests with some bytes changed, as on bad lines and by bad clients: whatever becomes of them, the answer is no
//! 5xx, and the next client is served.

use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::http::extract::BodyLimits;
use crate::http::server::ConnectionLimits;
use crate::wire::{Served, read_reply, request};

/// Changes some bytes of a request in ways that happen on bad lines and in bad clients.
fn garble(bytes: &mut Vec<u8>, chance: &mut impl FnMut(usize) -> usize) {
    const ODD: &[u8] = b"\0\r\n \t:;,/?#%&=+-{}[]\"'\\0919eE.~\x7f\x80\xff";
    for _ in 0..=chance(3) {
        if bytes.len() < 2 {
            return;
        }
        let place = chance(bytes.len());
        match chance(6) {
            0 => bytes[place] = ODD[chance(ODD.len())],
            1 => bytes.insert(place, ODD[chance(ODD.len())]),
            2 => drop(bytes.remove(place)),
            3 => bytes[place] ^= 1 << chance(8),
            4 => bytes.truncate(place.max(1)),
            _ => {
                let end = (place + 1 + chance(40)).min(bytes.len());
                let piece = bytes[place..end].to_vec();
                bytes.splice(place..place, piece);
            }
        }
    }
}

#[tokio::test]
async fn garbled_requests_to_every_route_never_get_a_5xx() {
    let bank = Served::start(ConnectionLimits::default(), BodyLimits::default()).await;
    let seed = Uuid::now_v7().as_u128() as u64;
    println!("seed {seed}");
    let mut state = seed;
    let mut chance = |sides: usize| {
        // A linear congruential generator (Knuth's MMIX); its upper bits are the better ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % sides
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: bank\r\n\r\n");
    let whole = [
        request("/accounts", r#"{"account_id":"b","owner":"Bo","currency":"EUR"}"#),
        request("/accounts/a/deposit", r#"{"amount":1}"#),
        request("/accounts/a/withdraw", r#"{"amount":1}"#),
        request("/accounts/b/close", ""),
        request("/transfers", r#"{"transfer_id":"t","from":"a","to":"b","amount":1}"#),
        get("/accounts/a?consistency=confirmed"),
        get("/accounts/a?at_version=1"),
        get("/accounts/a?at_time=2026-01-01T00:00:00Z"),
        get("/accounts/a/events?from_version=1&limit=2"),
        get("/transfers/t"),
        get("/health"),
        get("/ready"),
        get("/openapi.json"),
    ];
    let (mut refused, mut silent) = (0, 0);
    for round in 0..1_500 {
        let mut bytes = whole[round % whole.len()].clone().into_bytes();
        garble(&mut bytes, &mut chance);
        let mut stream = bank.connect().await;
        // The bank may have answered and closed before it has read everything.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let reply = read_reply(&mut stream).await;
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        match reply.map(|reply| reply.status) {
            None => silent += 1,
            Some(status) => {
                assert!((200..500).contains(&status), "round {round} of seed {seed}: {status} for {shown:?}");
                refused += u32::from(status >= 400);
            }
        }
    }
    assert!(refused > 300, "too little was garbled to prove anything: {refused} refused, {silent} silent");
    bank.still_serves().await;
}
