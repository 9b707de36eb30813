//! Connections that break with calls on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestrix::cluster::transport::{Depth, Peer, TransportOptions};
use orchestrix::cluster::wire::Outcome;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::relay::Relay;
use super::stage::{ECHO, End, HOLD, YIELD, call, done, end, id_of, options};
use crate::harness::{Dice, eventually, fresh_seed, in_time};

/// Two ends with a relay between them.
async fn relayed() -> (End, End, Relay, Peer) {
    let here = end(options("a")).await;
    let there = end(TransportOptions { calls_max: 64, ..options("a") }).await;
    let relay = Relay::to(there.transport.address()).await;
    let peer = here.transport.peer(there.incarnation, &relay.address.to_string());
    (here, there, relay, peer)
}

/// What callers were told, and whether it was true.
#[derive(Default)]
struct Tally {
    done: AtomicU64,
    not_attempted: AtomicU64,
    unknown: AtomicU64,
    /// Unknown, and it had taken effect.
    unknown_and_done: AtomicU64,
}

impl Tally {
    /// Checks one answer against what took effect. It is called after everything has ended.
    fn check(&self, outcome: &Outcome, effects: u32) {
        assert!(effects <= 1, "it took effect {effects} times");
        let count = match outcome {
            Outcome::Done(_) => {
                assert_eq!(effects, 1, "it was done");
                &self.done
            }
            Outcome::NotAttempted(why) => {
                assert_eq!(effects, 0, "it was said not to be attempted: {why:?}");
                &self.not_attempted
            }
            Outcome::Unknown { .. } => {
                self.unknown_and_done.fetch_add(u64::from(effects), Ordering::Relaxed);
                &self.unknown
            }
            other => panic!("{other:?}"),
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_at_any_moment_leave_every_answer_true() {
    let (_here, there, relay, peer) = relayed().await;
    let mut dice = Dice(fresh_seed("breaking connections"));
    let stop = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..96 {
        let (peer, stop, mut dice) = (peer.clone(), Arc::clone(&stop), Dice(dice.roll(u64::MAX)));
        callers.spawn(async move {
            let mut told = Vec::new();
            while stop.load(Ordering::Relaxed) == 0 {
                let one = call(&[YIELD, dice.roll(200) as u8, 7, 7, 7]);
                let id = id_of(&one);
                told.push((id, peer.call(one).await));
                // A call that is refused at once never waits, and others need their turn.
                tokio::task::yield_now().await;
            }
            told
        });
    }
    // A cut counts only when bytes have passed since the last one.
    let mut hits = 0;
    let mut passed = 0;
    for round in 0..120 {
        let target = relay.bytes() + 2_000 + dice.roll(20_000);
        eventually("bytes pass", async || relay.bytes() >= target).await;
        hits += u64::from(peer.depth().written > 0 && relay.bytes() > passed);
        passed = relay.bytes();
        relay.cut();
        if round % 10 == 9 {
            relay.refuse(true);
            tokio::time::sleep(Duration::from_millis(dice.roll(80))).await;
            relay.refuse(false);
        }
    }
    stop.store(1, Ordering::Relaxed);
    let tally = Tally::default();
    for told in in_time("all callers", callers.join_all()).await {
        for (id, outcome) in &told {
            tally.check(outcome, there.ledger.effects_of(*id));
        }
    }
    let [done, not_attempted, unknown, unknown_and_done] =
        [&tally.done, &tally.not_attempted, &tally.unknown, &tally.unknown_and_done]
            .map(|count| count.load(Ordering::Relaxed));
    println!(
        "cuts in flight {hits}: {done} done, {not_attempted} not attempted, {unknown} unknown ({unknown_and_done} done)"
    );
    assert!(hits >= 60, "only {hits} cuts hit calls in flight");
    assert!(done >= 1_000 && unknown >= 100 && unknown_and_done >= 10 && not_attempted >= 10);
    assert_eq!(peer.depth(), Depth::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_unknown_and_what_waited_is_done_after_a_break() {
    let here = end(options("a")).await;
    let there = end(TransportOptions { calls_max: 1, ..options("a") }).await;
    let relay = Relay::to(there.transport.address()).await;
    let peer = here.transport.peer(there.incarnation, &relay.address.to_string());
    let ask = |body: u8| {
        let peer = peer.clone();
        tokio::spawn(async move { peer.call(call(&[body])).await })
    };
    let written = ask(HOLD);
    eventually("it is under way", async || there.ledger.under_way.load(Ordering::SeqCst) == 1).await;
    let waiting = ask(ECHO);
    eventually("the other one waits", async || peer.depth().queued == 1).await;
    relay.cut();
    let outcome = in_time("the first", written).await.expect("it ends");
    assert!(matches!(&outcome, Outcome::Unknown { reason } if reason.contains("broke before the answer")));
    assert_eq!(in_time("the second", waiting).await.expect("it ends"), done(vec![ECHO]));
    eventually("there is a hint", async || !here.ledger.lost().is_empty()).await;
    assert_eq!(here.ledger.lost()[0].incarnation, there.incarnation);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_falls_silent_is_given_up_long_before_the_deadline() {
    let (here, there, relay, peer) = relayed().await;
    assert_eq!(in_time("a call", peer.call(call(&[ECHO]))).await, done(vec![ECHO]));
    relay.hold(true);
    let outcome = in_time("the silence", peer.call(call(&[ECHO]))).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    let is_lost = async || here.ledger.lost().iter().any(|lost| lost.reason.contains("no sign of life"));
    eventually("the hint says why", is_lost).await;
    relay.hold(false);
    assert_eq!(in_time("the next", peer.call(call(&[ECHO]))).await, done(vec![ECHO]));
    drop(there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_work_stays_by_its_signs_of_life() {
    let (here, _there, relay, peer) = relayed().await;
    eventually("it is connected", async || peer.hello().is_some() && relay.connections() == 2).await;
    let before = relay.bytes();
    // Longer than a silence may last.
    tokio::time::sleep(Duration::from_millis(4_200)).await;
    assert!(relay.bytes() > before, "signs of life have passed");
    assert_eq!((relay.connections(), here.ledger.lost()), (2, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_leave_nothing_behind() {
    let (_here, _there, relay, peer) = relayed().await;
    let round = async || {
        let connections = relay.connections();
        relay.cut();
        eventually("both lanes are back", async || relay.connections() >= connections + 2).await;
        let outcome = in_time("a call", peer.call(call(&[ECHO]))).await;
        assert!(matches!(outcome, Outcome::Done(_) | Outcome::Unknown { .. }), "{outcome:?}");
    };
    for _ in 0..5 {
        round().await;
    }
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let mut before = usize::MAX;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        before = before.min(tasks());
    }
    for _ in 0..40 {
        round().await;
    }
    eventually("no more tasks than before", async || tasks() <= before + 2).await;
    assert_eq!(peer.depth(), Depth::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_forgotten_is_told_no_more_and_its_callers_know_what_they_can() {
    let (here, there, _relay, peer) = relayed().await;
    let written = tokio::spawn({
        let peer = peer.clone();
        async move { peer.call(call(&[HOLD])).await }
    });
    eventually("it is under way", async || there.ledger.under_way.load(Ordering::SeqCst) == 1).await;
    here.transport.forget(there.incarnation);
    let outcome = in_time("the first", written).await.expect("it ends");
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    let outcome = in_time("the next", peer.call(call(&[ECHO]))).await;
    assert!(matches!(outcome, Outcome::NotAttempted(_)), "{outcome:?}");
    eventually("the other side notices", async || there.ledger.given_up.load(Ordering::SeqCst) == 1).await;
}
