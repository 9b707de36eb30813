//! Calls over connections that are there.

use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use orchestrix::cluster::transport::{Depth, TransportOptions};
use orchestrix::cluster::wire::{Call, Notice, Outcome, Request};
use orchestrix::core::{Epoch, ShardId};
use orchestrix::{NotAttempted, Settings};
use tokio::task::JoinSet;

use super::stage::{
    ECHO, HOLD, PANIC, TOO_MUCH, call, call_within, done, end, id_of, options, poll_once, two_ends,
};
use crate::harness::{eventually, in_time};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_arrives_as_it_was_made_and_its_answer_comes_back() {
    let (_here, there, peer) = two_ends().await;
    let asked = call(&[ECHO, 1, 2]);
    assert_eq!(in_time("the call", peer.call(asked.clone())).await, done(vec![ECHO, 1, 2]));
    let came = there.ledger.came().remove(0);
    assert!(came.within <= asked.within, "no more time is left than there was");
    assert!(came.within > Duration::ZERO);
    assert_eq!(Call { within: asked.within, ..came }, asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_arrive_and_need_no_registry() {
    let (_here, there, peer) = two_ends().await;
    let shards = vec![(ShardId::new(1), Epoch::new(2))];
    let notice = Request::Notice(Notice::Released { shards });
    let call = Call { within: Duration::from_secs(50), hops: 0, request: notice.clone() };
    assert_eq!(in_time("the notice", peer.call(call)).await, done(Vec::new()));
    assert_eq!(there.ledger.came()[0].request, notice);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_caller_arrive_in_the_order_in_which_they_were_made() {
    let (_here, there, peer) = two_ends().await;
    let calls: Vec<Call> = (0..2_000).map(|_| call(&[ECHO])).collect();
    let ids: Vec<_> = calls.iter().map(id_of).collect();
    let mut answers = Vec::new();
    // Begun one after the other, awaited later.
    for one in calls {
        let peer = peer.clone();
        let mut answer = Box::pin(async move { peer.call(one).await });
        match poll_once(&mut answer).await {
            // The peer may have been quicker than this very call.
            Poll::Ready(outcome) => assert_eq!(outcome, done(vec![ECHO])),
            Poll::Pending => answers.push(answer),
        }
    }
    for answer in answers {
        assert_eq!(in_time("an answer", answer).await, done(vec![ECHO]));
    }
    let came: Vec<_> = there.ledger.came().iter().map(id_of).collect();
    assert_eq!(came, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_slow_bounds_what_is_sent_to_it() {
    let here = end(options("a")).await;
    let there = end(TransportOptions { calls_max: 4, ..options("a") }).await;
    let peer = here.peer(&there);
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let peer = peer.clone();
        calls.spawn(async move { peer.call(call(&[HOLD])).await });
    }
    eventually("four are under way and the others wait", async || {
        there.ledger.under_way.load(Ordering::SeqCst) == 4 && peer.depth().queued == 96
    })
    .await;
    there.ledger.release();
    for answer in in_time("all answers", calls.join_all()).await {
        assert_eq!(answer, done(vec![HOLD]));
    }
    assert_eq!(there.ledger.under_way_max.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_what_it_took_is_done() {
    let here = end(options("a")).await;
    let there = end(TransportOptions { calls_max: 1, ..options("a") }).await;
    let peer = here.peer(&there);
    let mut calls = JoinSet::new();
    let mut overloaded = 0;
    let ask = async |calls: &mut JoinSet<Outcome>| {
        let mut one = Box::pin({
            let peer = peer.clone();
            async move { peer.call(call(&[HOLD])).await }
        });
        match poll_once(&mut one).await {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => {
                calls.spawn(one);
                None
            }
        }
    };
    for _ in 0..8_300 {
        if let Some(Outcome::NotAttempted(why)) = ask(&mut calls).await {
            assert!(matches!(NotAttempted::from(why), NotAttempted::Overloaded { limit: 8_192, .. }));
            overloaded += 1;
        }
    }
    assert!((100..=108).contains(&overloaded), "{overloaded} of 8300 were over the bound");
    there.ledger.release();
    for answer in in_time("all answers", calls.join_all()).await {
        assert_eq!(answer, done(vec![HOLD]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_after_the_call_was_written_leaves_it_unknown() {
    let (_here, there, peer) = two_ends().await;
    let asked = call_within(&[HOLD], Duration::from_millis(300));
    let id = id_of(&asked);
    let outcome = in_time("the deadline", peer.call(asked)).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    assert_eq!(there.ledger.effects_of(id), 1);
    eventually("the other side gives it up", async || there.ledger.given_up.load(Ordering::SeqCst) == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_ends_the_work_and_gives_its_place_back() {
    let here = end(options("a")).await;
    let there = end(TransportOptions { calls_max: 1, ..options("a") }).await;
    let peer = here.peer(&there);
    let gone = tokio::spawn({
        let peer = peer.clone();
        async move { peer.call(call(&[HOLD])).await }
    });
    eventually("it is under way", async || there.ledger.under_way.load(Ordering::SeqCst) == 1).await;
    gone.abort();
    eventually("it is given up", async || there.ledger.given_up.load(Ordering::SeqCst) == 1).await;
    assert_eq!(in_time("the next call", peer.call(call(&[ECHO]))).await, done(vec![ECHO]));
    assert_eq!(peer.depth(), Depth::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_fails_alone() {
    let (_here, there, peer) = two_ends().await;
    let outcome = peer.call(call(&vec![ECHO; 17 << 20])).await;
    let Outcome::NotAttempted(why) = outcome else { panic!("{outcome:?}") };
    assert_eq!(NotAttempted::from(why).kind(), "unencodable");
    assert!(there.ledger.came().is_empty());
    let large = vec![ECHO; 3 << 20];
    assert_eq!(in_time("a large call", peer.call(call(&large))).await, done(large));
    let outcome = in_time("a large answer", peer.call(call(&[TOO_MUCH]))).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "it was done: {outcome:?}");
    assert_eq!(in_time("the next call", peer.call(call(&[ECHO]))).await, done(vec![ECHO]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_work_panics_takes_no_other_with_it() {
    let (_here, there, peer) = two_ends().await;
    let other = tokio::spawn({
        let peer = peer.clone();
        async move { peer.call(call(&[HOLD])).await }
    });
    eventually("it is under way", async || there.ledger.under_way.load(Ordering::SeqCst) == 1).await;
    let outcome = in_time("the panic", peer.call(call(&[PANIC]))).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    there.ledger.release();
    assert_eq!(in_time("the other", other).await.expect("it ends"), done(vec![HOLD]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_answers_what_it_has_and_takes_nothing_new() {
    let (_here, there, peer) = two_ends().await;
    let held = tokio::spawn({
        let peer = peer.clone();
        async move { peer.call(call(&[HOLD])).await }
    });
    eventually("it is under way", async || there.ledger.under_way.load(Ordering::SeqCst) == 1).await;
    let patience = Settings::default().shutdown_timeout;
    let stopping = there.transport.shutdown(patience);
    let during = async {
        let outcome = peer.call(call(&[ECHO])).await;
        there.ledger.release();
        outcome
    };
    let ((), outcome) = in_time("the shutdown", async { tokio::join!(stopping, during) }).await;
    let Outcome::NotAttempted(why) = outcome else { panic!("{outcome:?}") };
    assert_eq!(NotAttempted::from(why), NotAttempted::ShuttingDown);
    assert_eq!(in_time("what it had", held).await.expect("it ends"), done(vec![HOLD]));
}
