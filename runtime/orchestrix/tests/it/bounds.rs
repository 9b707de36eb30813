//! What happens at the bounds: refused quickly, nothing half done, and room again afterwards.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use orchestrix::core::CommandId;
use orchestrix::{Done, Node, NotAttempted, Receipt, SendError, Settings};
use orchestrix_testkit::Fault;

use crate::counter::{Add, AddRefusal, Counter, counter};
use crate::harness::{CounterLog, Lanes, Stage, stage};

type Answer = Result<u64, SendError<AddRefusal>>;

/// Sends commands that stay under way while the store holds its append, and returns how to hear their answers.
async fn occupy(stage: &Stage, names: &[&str]) -> Vec<tokio::task::JoinHandle<Answer>> {
    stage.faults.on_next_append(Fault::Hold);
    let first = send(&stage.node, names[0], 1);
    until(|| stage.faults.faults_hit().held > 0).await;
    let mut under_way = vec![first];
    under_way.extend(names[1..].iter().map(|name| send(&stage.node, name, 1)));
    until(|| stage.node.residency().in_flight == names.len() as u64).await;
    under_way
}

fn send(node: &Node, name: &str, amount: u64) -> tokio::task::JoinHandle<Answer> {
    let to = node.of::<Counter>(counter(name));
    tokio::spawn(async move { to.send(Add::new(amount)).await })
}

/// Waits for something that is bound to happen; the test runner's own limit is the only one.
async fn until(mut happened: impl FnMut() -> bool) {
    while !happened() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn work_over_the_node_s_bound_is_refused_and_accepted_work_is_done() {
    let settings = Settings { commands_in_flight_max: 3, mailbox_commands_max: 3, ..Settings::default() };
    // One lane, so that everything waits behind the append that is held.
    let stage = stage(Lanes::Apart, settings).await;
    let accepted = occupy(&stage, &["a", "b", "c"]).await;
    for _ in 0..100 {
        let refused = stage.node.of::<Counter>(counter("d")).send(Add::new(1)).await.expect_err("no room");
        let SendError::NotAttempted(NotAttempted::Overloaded { limit, retry_after, .. }) = refused else {
            panic!("a caller heard {refused}");
        };
        assert!(limit == 3 && !retry_after.is_zero());
    }
    stage.faults.release_held();
    for answer in accepted {
        assert_eq!(answer.await.expect("no panic").expect("accepted work is done"), 1);
    }
    assert_eq!(stage.node.of::<Counter>(counter("d")).send(Add::new(7)).await.expect("room again"), 7);
    stage.node.shutdown().await;
}

#[tokio::test]
async fn one_aggregate_cannot_take_the_whole_node() {
    let settings = Settings { mailbox_commands_max: 2, ..Settings::default() };
    let stage = stage(Lanes::OnArbiters, settings).await;
    let accepted = occupy(&stage, &["a", "a"]).await;
    let refused =
        stage.node.of::<Counter>(counter("a")).send(Add::new(1)).await.expect_err("its mailbox is full");
    assert!(
        matches!(refused, SendError::NotAttempted(NotAttempted::Overloaded { limit: 2, .. })),
        "{refused}"
    );
    stage.faults.release_held();
    let mut totals = Vec::new();
    for answer in accepted {
        totals.push(answer.await.expect("no panic").expect("accepted work is done"));
    }
    totals.sort_unstable();
    assert_eq!(totals, [1, 2]);
    assert_eq!(stage.node.of::<Counter>(counter("a")).send(Add::new(1)).await.expect("room again"), 3);
}

#[tokio::test]
async fn work_under_way_at_its_deadline_is_unknown_and_a_retry_tells() {
    let stage = stage(Lanes::Apart, Settings::default()).await;
    stage.faults.on_next_append(Fault::Hold);
    let (to, id) = (stage.node.of::<Counter>(counter("a")), CommandId::fresh());
    let unknown = to.send(Add::new(5)).id(id).within(Duration::from_millis(30)).await.expect_err("held");
    assert!(matches!(&unknown, SendError::Unknown(unknown) if unknown.command_id == id), "{unknown}");
    assert_eq!(stage.faults.faults_hit().held, 1, "the append was under way");
    stage.faults.release_held();
    let told = to.send(Add::new(5)).id(id).receipt().await.expect("a retry tells");
    assert_eq!((told.reply, told.duplicate), (5, true));
}

#[tokio::test]
async fn work_whose_deadline_passes_in_the_queue_is_never_done() {
    let stage = stage(Lanes::Apart, Settings { loads_in_flight_max: 1, ..Settings::default() }).await;
    let to = stage.node.of::<Counter>(counter("a"));
    let expired = to.send(Add::new(5)).within(Duration::ZERO).await.expect_err("its time is over");
    assert!(matches!(expired, SendError::NotAttempted(NotAttempted::DeadlineExceeded)), "{expired}");
    stage.barrier().await;
    assert_eq!(to.send(Add::new(1)).await.expect("done"), 1, "the expired command has left no trace");
}

#[tokio::test]
async fn a_dropped_call_that_nobody_looked_at_is_taken_back() {
    let stage = stage(Lanes::OnArbiters, Settings::default()).await;
    let to = stage.node.of::<Counter>(counter("a"));
    let mut taken_back = 0;
    for _ in 0..200 {
        let before = stage.total("a").await.expect("read").0;
        // Polled once, so that it is in the inbox, then dropped at once.
        let mut call = Box::pin(to.send(Add::new(1)).into_future());
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context))).await;
        assert!(polled.is_pending() || polled.is_ready());
        drop(call);
        stage.barrier().await;
        let after = stage.total("a").await.expect("read").0;
        assert!(after == before || after == before + 1, "at most one effect");
        taken_back += u32::from(after == before);
    }
    assert_eq!(
        stage.node.residency().in_flight,
        0,
        "{taken_back} calls were taken back, and every place came back"
    );
}

/// The bound of the node that is flooded, and from how many sides.
const FLOODED: usize = 64;
const SENDERS: usize = 8;

/// Calls that came at once from many sides, by what they heard on the spot.
struct Wave {
    accepted: Vec<(CommandId, Receipt<Add>)>,
    refused: Vec<CommandId>,
}

/// Sends calls from several threads without waiting for any answer, and sorts them by whether they are refused on the
/// spot.
async fn wave(stage: &Stage, calls_each: usize) -> Wave {
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let node = stage.node.clone();
        senders.spawn(async move {
            let mut wave = Wave { accepted: Vec::new(), refused: Vec::new() };
            for number in 0..calls_each {
                let (to, id) = (
                    node.of::<Counter>(counter(&format!("flood-{}", (sender + number) % 20))),
                    CommandId::fresh(),
                );
                let mut receipt = to.send(Add::new(1)).id(id).receipt();
                match poll_fn(|context| Poll::Ready(Pin::new(&mut receipt).poll(context))).await {
                    Poll::Pending => wave.accepted.push((id, receipt)),
                    Poll::Ready(answer) => {
                        assert_overloaded(&answer);
                        wave.refused.push(id);
                    }
                }
            }
            wave
        });
    }
    let waves = senders.join_all().await;
    let mut all = Wave { accepted: Vec::new(), refused: Vec::new() };
    for wave in waves {
        all.accepted.extend(wave.accepted);
        all.refused.extend(wave.refused);
    }
    all
}

fn assert_overloaded(answer: &Result<Done<u64>, SendError<AddRefusal>>) {
    match answer {
        Err(SendError::NotAttempted(NotAttempted::Overloaded { limit, retry_after, .. })) => {
            assert!(*limit == FLOODED && !retry_after.is_zero());
        }
        other => panic!("neither accepted nor refused for want of room: {other:?}"),
    }
}

/// Whatever comes, a node holds as much work as its bound says and no more; the rest hears so at once, although the
/// store says nothing at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_is_refused_on_the_spot_and_what_was_accepted_is_done() {
    let settings =
        Settings { commands_in_flight_max: FLOODED, mailbox_commands_max: FLOODED, ..Settings::default() };
    let stage = stage(Lanes::Apart, settings).await;
    let (mut done, mut refused) = (HashSet::new(), HashSet::new());
    for round in 1..=5 {
        stage.faults.on_next_append(Fault::Hold);
        let first = wave(&stage, 20 * FLOODED / SENDERS).await;
        assert_eq!((first.accepted.len(), first.refused.len()), (FLOODED, 19 * FLOODED), "round {round}");
        stage.faults.wait_for_held(1).await;
        let second = wave(&stage, 20 * FLOODED / SENDERS).await;
        assert_eq!((second.accepted.len(), second.refused.len()), (0, 20 * FLOODED), "round {round}");
        assert_eq!(stage.node.residency().in_flight, FLOODED as u64);
        stage.faults.release_held();
        for (id, receipt) in first.accepted {
            let answer =
                receipt.await.unwrap_or_else(|error| panic!("{id} was accepted and not done: {error}"));
            assert_eq!(answer.command_id, id);
            done.insert(id);
        }
        refused.extend(first.refused.into_iter().chain(second.refused));
        assert_eq!(stage.node.residency().in_flight, 0);
    }
    let mut stored = HashSet::new();
    for number in 0..20 {
        let log = CounterLog::read(&stage.log, &counter(&format!("flood-{number}"))).await;
        stored.extend(log.events.iter().map(|event| event.command_id));
    }
    assert_eq!(stored, done, "what was accepted is stored, and nothing else");
    assert!(stored.is_disjoint(&refused));
    stage.node.shutdown().await;
}
