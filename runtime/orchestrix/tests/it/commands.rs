//! Commands, reads and saves on one node over the memory store.

use orchestrix::core::{CommandId, Version};
use orchestrix::store::Memory;
use orchestrix::{Consistency, Node, NotAttempted, Orchestrix, SaveError, SendError, Settings};

use crate::counter::{Add, AddRefusal, Counter, CounterEvent, Peek, counter};

pub async fn node(store: Memory, settings: Settings) -> Node {
    let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings);
    builder.start().await.expect("the node starts")
}

#[tokio::test]
async fn a_command_is_done_refused_and_read() {
    let node = node(Memory::new(), Settings::default()).await;
    let one = node.of::<Counter>(counter("one"));
    assert_eq!(one.send(Add::new(3)).await.expect("done"), 3);
    let done = one.send(Add::new(4)).receipt().await.expect("done");
    assert_eq!((done.reply, done.version, done.duplicate), (7, Version::new(2), false));
    let refused = one.send(Add { amount: 1, limit: 7 }).await.expect_err("over the limit");
    assert!(matches!(refused, SendError::Refused(AddRefusal::OverLimit { total: 7, limit: 7 })));
    assert_eq!(one.send(Peek {}).await.expect("done"), 7);
    for consistency in [Consistency::Leased, Consistency::Confirmed, Consistency::Local] {
        let seen = one.read_versioned(consistency, |state| state.total).await.expect("read");
        assert_eq!(seen, (7, Version::new(2)));
    }
    node.shutdown().await;
    assert!(matches!(one.send(Add::new(1)).await, Err(SendError::NotAttempted(NotAttempted::ShuttingDown))));
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let store = Memory::new();
    let first = node(store.clone(), Settings::default()).await;
    for _ in 0..250 {
        first.of::<Counter>(counter("one")).send(Add::new(1)).await.expect("done");
    }
    first.shutdown().await;
    // Closing the store of the first node must not close the data of the second.
    let second = node(store, Settings::default()).await;
    let state =
        second.of::<Counter>(counter("one")).read(Consistency::Leased, Counter::clone).await.expect("read");
    assert_eq!(state, Counter { total: 250, events: 250 });
}

#[tokio::test]
async fn a_retry_with_the_same_id_gets_the_first_reply() {
    let node = node(Memory::new(), Settings::default()).await;
    let one = node.of::<Counter>(counter("one"));
    let id = CommandId::fresh();
    let first = one.send(Add::new(3)).id(id).receipt().await.expect("done");
    one.send(Add::new(10)).await.expect("done");
    let again = one.send(Add::new(3)).id(id).receipt().await.expect("done");
    assert_eq!((again.reply, again.version, again.duplicate), (first.reply, first.version, true));
    let other = one.send(Add::new(4)).id(id).await.expect_err("another body");
    assert!(matches!(other, SendError::NotAttempted(NotAttempted::IdReused { .. })));
    assert_eq!(one.read(Consistency::Leased, |state| state.total).await, Ok(13));
}

#[tokio::test]
async fn events_are_saved_at_the_version_expected_only() {
    let node = node(Memory::new(), Settings::default()).await;
    let one = node.of::<Counter>(counter("one"));
    let added = |amount| vec![CounterEvent::Added { amount }, CounterEvent::Added { amount }];
    let saved = one.save(Version::ZERO, added(2)).await.expect("saved");
    assert_eq!(saved.version, Version::new(2));
    let conflict = one.save(Version::ZERO, added(2)).await.expect_err("a conflict");
    assert!(matches!(conflict, SaveError::Conflict { actual, .. } if actual == Version::new(2)));
    assert_eq!(one.send(Add::new(1)).await.expect("done"), 5);
    assert!(one.save(Version::new(3), Vec::new()).await.is_err(), "nothing to save");
}

#[tokio::test]
async fn the_past_can_be_visited_by_version_and_time() {
    let node = node(Memory::new(), Settings::default()).await;
    let one = node.of::<Counter>(counter("one"));
    for amount in 1..=5 {
        one.send(Add::new(amount)).await.expect("done");
    }
    let past = one.load_at_version(Version::new(3)).await.expect("there");
    assert_eq!((past.state.total, past.version), (6, Version::new(3)));
    assert!(one.load_at_version(Version::new(6)).await.is_err());
    let history = one.history(Version::new(2), 2).await.expect("there");
    assert_eq!(history.iter().map(|event| event.recorded.version.get()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(history[0].events, [CounterEvent::Added { amount: 2 }]);
    let time = history[1].recorded.recorded_at;
    assert!(one.load_at_time(time).await.expect("there").state.total >= 6);
}

#[tokio::test]
async fn many_aggregates_are_loaded_in_the_order_of_their_ids() {
    let node = node(Memory::new(), Settings::default()).await;
    let ids: Vec<_> = (0..600).map(|number| counter(&format!("c-{number}"))).collect();
    for (number, id) in (0..).zip(&ids) {
        node.of::<Counter>(id.clone()).send(Add::new(number)).await.expect("done");
    }
    let totals = node.load_many::<Counter, _>(ids, |state| state.total).await;
    let totals: Vec<_> = totals.into_iter().collect::<Result<_, _>>().expect("all are read");
    assert_eq!(totals, (0..600).collect::<Vec<u64>>());
}
