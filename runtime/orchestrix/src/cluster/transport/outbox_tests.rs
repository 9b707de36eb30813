//! Calls in and out of an outbox, as values.

use std::time::Duration;

use orchestrix_core::{CommandId, Metadata, ShardId, StreamId};

use super::*;
use crate::cluster::wire::{CommandTask, Frame, Request, Task, TypeEntry, Work};

fn call(bytes: usize) -> Call {
    let task = Task::Command(CommandTask {
        name: "account.deposit".into(),
        command_id: CommandId::fresh(),
        fresh: true,
        body: vec![7; bytes],
        metadata: Metadata::default(),
    });
    let (shard, stream) = (ShardId::new(1), StreamId::new("account", "a-1"));
    let request = Request::Work(Work { shard, epoch: None, stream, task });
    Call { within: Duration::from_secs(1), hops: 0, request }
}

fn later() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add("account", TypeEntry { state: 0, commands: ["account.deposit".into()].into() });
    registry
}

fn connected(credits: usize) -> Outbox<u64> {
    let mut outbox = Outbox::new();
    assert!(outbox.connected("ada", &registry(), credits).is_empty());
    outbox
}

/// Pushes a call whose caller is known by a number.
fn push(outbox: &mut Outbox<u64>, caller: u64) -> u64 {
    outbox.push(&call(8), later(), caller).expect("room")
}

fn ids(batch: Option<Bytes>) -> Vec<u64> {
    let Some(batch) = batch else { return Vec::new() };
    let batch = [&[wire::BATCH_VERSION], &batch[..]].concat();
    let id = |frame| match frame {
        Ok(Frame::Call { id, .. } | Frame::Cancel { id } | Frame::Ping { id }) => id,
        other => panic!("{other:?}"),
    };
    Frames::of(batch.into()).expect("a batch").map(id).collect()
}

#[test]
fn what_has_queued_travels_together_in_order() {
    let mut outbox = connected(100);
    let pushed: Vec<u64> = (0..5).map(|caller| push(&mut outbox, caller)).collect();
    assert_eq!(ids(outbox.take(Instant::now())), pushed);
    assert_eq!(outbox.take(Instant::now()), None);
    assert_eq!(outbox.depth(), (0, 5));
}

#[test]
fn a_batch_is_bounded_by_frames_and_by_bytes_and_a_large_call_travels_alone() {
    let mut outbox = connected(10_000);
    for caller in 0..=BATCH_FRAMES_MAX as u64 {
        push(&mut outbox, caller);
    }
    assert_eq!(ids(outbox.take(Instant::now())).len(), BATCH_FRAMES_MAX);
    assert_eq!(ids(outbox.take(Instant::now())).len(), 1);
    for bytes in [8, BATCH_BYTES_MAX, 8] {
        outbox.push(&call(bytes), later(), 1).expect("room");
    }
    let sizes: Vec<usize> =
        std::iter::from_fn(|| outbox.take(Instant::now())).map(|b| ids(Some(b)).len()).collect();
    assert_eq!(sizes, [1, 1, 1]);
}

#[test]
fn the_peer_s_credits_bound_what_is_written_and_answers_give_them_back() {
    let mut outbox = connected(2);
    let pushed: Vec<u64> = (0..4).map(|caller| push(&mut outbox, caller)).collect();
    assert_eq!(ids(outbox.take(Instant::now())), pushed[..2]);
    assert_eq!(outbox.take(Instant::now()), None, "the credits are used up");
    assert_eq!(outbox.answered(pushed[1]), Some(1));
    assert_eq!(ids(outbox.take(Instant::now())), pushed[2..3]);
    assert_eq!(outbox.answered(99), None, "nobody asked that");
}

#[test]
fn nothing_is_written_without_a_connection() {
    let mut outbox = Outbox::new();
    let id = push(&mut outbox, 1);
    assert_eq!(outbox.take(Instant::now()), None);
    outbox.connected("ada", &registry(), 8);
    assert_eq!(ids(outbox.take(Instant::now())), [id]);
}

#[test]
fn a_full_queue_refuses_by_number_and_by_bytes() {
    let mut outbox = Outbox::new();
    for caller in 0..CALLS_WAITING_MAX as u64 {
        push(&mut outbox, caller);
    }
    let error = outbox.push(&call(8), later(), 0).expect_err("it is full");
    assert!(matches!(error, NotAttempted::Overloaded { limit: CALLS_WAITING_MAX, .. }), "{error}");
    let mut outbox = Outbox::new();
    outbox.push(&call(BYTES_WAITING_MAX), later(), 0).expect("one may be larger");
    let error = outbox.push(&call(8), later(), 0).expect_err("it is full");
    assert!(matches!(error, NotAttempted::Overloaded { limit: BYTES_WAITING_MAX, .. }), "{error}");
}

#[test]
fn callers_who_have_gone_leave_room_for_others_while_there_is_no_connection() {
    let mut outbox = Outbox::new();
    let kept = push(&mut outbox, 1);
    for caller in 0..3 * CALLS_WAITING_MAX as u64 {
        let id = push(&mut outbox, caller);
        assert_eq!(outbox.give_up(id), GaveUp::NotSent);
    }
    assert!(outbox.depth().0 <= SWEEP_MIN + 2, "{:?}", outbox.depth());
    outbox.connected("ada", &registry(), 8);
    assert_eq!(ids(outbox.take(Instant::now())), [kept]);
    assert_eq!(outbox.gone, 0);
}

#[test]
fn a_call_that_is_too_large_is_refused_and_leaves_no_trace() {
    let mut outbox = connected(8);
    let error = outbox.push(&call(wire::FRAME_BYTES_MAX), later(), 0).expect_err("too large");
    assert_eq!(error.kind(), "unencodable");
    let id = push(&mut outbox, 1);
    assert_eq!(ids(outbox.take(Instant::now())), [id]);
}

#[test]
fn who_gives_up_before_the_call_is_written_has_certainly_not_attempted_it() {
    let mut outbox = connected(8);
    let pushed: Vec<u64> = (0..3).map(|caller| push(&mut outbox, caller)).collect();
    assert_eq!(outbox.give_up(pushed[1]), GaveUp::NotSent);
    assert_eq!(ids(outbox.take(Instant::now())), [pushed[0], pushed[2]]);
    assert_eq!(outbox.depth(), (0, 2));
}

#[test]
fn who_gives_up_after_the_call_was_written_does_not_know_and_the_peer_is_told() {
    let mut outbox = connected(1);
    let (first, second) = (push(&mut outbox, 1), push(&mut outbox, 2));
    assert_eq!(ids(outbox.take(Instant::now())), [first]);
    assert_eq!(outbox.give_up(first), GaveUp::Sent);
    assert_eq!(ids(outbox.take(Instant::now())), [first], "that is the cancel");
    assert_eq!(outbox.take(Instant::now()), None, "its credit comes back with its answer");
    assert_eq!(outbox.answered(first), None);
    assert_eq!(ids(outbox.take(Instant::now())), [second]);
    assert_eq!(outbox.give_up(first), GaveUp::Answered);
}

#[test]
fn a_call_whose_time_is_over_is_never_written_and_the_others_carry_what_is_left() {
    let mut outbox = connected(8);
    let now = Instant::now();
    outbox.push(&call(8), now, 1).expect("room");
    let second = outbox.push(&call(8), now + Duration::from_secs(9), 2).expect("room");
    let batch = outbox.take(now + Duration::from_secs(2)).expect("one is left");
    let frame = read_back(&batch).expect("a call");
    assert_eq!(frame.within, Duration::from_secs(7));
    assert_eq!(ids(Some(batch)), [second]);
}

#[test]
fn the_end_of_a_connection_leaves_the_written_unknown_and_the_queued_waiting() {
    let mut outbox = connected(1);
    let (_, second) = (push(&mut outbox, 1), push(&mut outbox, 2));
    assert!(outbox.take(Instant::now()).is_some());
    assert_eq!(outbox.disconnected(), [1]);
    assert_eq!(outbox.take(Instant::now()), None, "there is no connection");
    outbox.connected("ada", &registry(), 1);
    assert_eq!(ids(outbox.take(Instant::now())), [second]);
    assert_eq!(outbox.give_back(), [0; 0]);
}

#[test]
fn what_is_given_back_is_never_written() {
    let mut outbox = connected(1);
    let first = push(&mut outbox, 1);
    assert!(outbox.take(Instant::now()).is_some());
    push(&mut outbox, 2);
    assert_eq!(outbox.give_back(), [2], "the first is on its way");
    assert_eq!(outbox.answered(first), Some(1));
    assert_eq!(outbox.take(Instant::now()), None);
}

#[test]
fn what_the_peer_does_not_know_is_given_back_when_it_says_so() {
    let mut outbox = Outbox::new();
    push(&mut outbox, 1);
    let refused = outbox.connected("ada", &Registry::default(), 8);
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].0, refused[0].1.kind()), (1, "not_registered"));
    assert_eq!(outbox.take(Instant::now()), None);
}

#[test]
fn an_outbox_that_was_used_and_emptied_keeps_nothing() {
    let mut outbox = connected(4);
    for caller in 0..1_000 {
        let id = push(&mut outbox, caller);
        match caller % 4 {
            0 => assert_eq!(outbox.give_up(id), GaveUp::NotSent),
            1 => {
                assert!(outbox.take(Instant::now()).is_some());
                assert_eq!(outbox.give_up(id), GaveUp::Sent);
                assert_eq!(outbox.answered(id), None);
            }
            2 => {
                while outbox.take(Instant::now()).is_some() {}
                assert_eq!(outbox.answered(id), Some(caller));
            }
            _ => {
                outbox.disconnected();
                outbox.give_back();
                outbox.connected("ada", &registry(), 4);
            }
        }
    }
    while outbox.take(Instant::now()).is_some() {}
    assert_eq!((outbox.depth(), outbox.waiting.len(), outbox.frames.len()), ((0, 0), 0, 0));
}
