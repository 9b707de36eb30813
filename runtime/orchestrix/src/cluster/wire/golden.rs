//! The bytes of every kind of frame as they were when its version was made, and what other bytes come to.

use std::fmt::Write;

use orchestrix_core::{Codec, CommandId, Epoch, Incarnation, Metadata, ShardId, StreamId, Version};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::error::NotAttempted;
use crate::node::Consistency;

fn uuid() -> Uuid {
    Uuid::from_u128(0x017f_22e2_79b0_7cc3_98c4_dc0c_0c07_398f)
}

fn call(request: Request) -> Call {
    Call { within: Duration::from_millis(1_500), hops: 1, request }
}

fn work(task: Task) -> Call {
    let stream = StreamId::new("account", "a-1");
    call(Request::Work(Work { shard: ShardId::new(300), epoch: Some(Epoch::new(7)), stream, task }))
}

fn calls() -> Vec<Call> {
    let command_id = CommandId::from_uuid(uuid());
    let metadata = Metadata { traceparent: Some("00-01-02-03".into()), ..Metadata::default() };
    let event = EventBody {
        event_type: "account.opened".into(),
        schema_version: 2,
        codec: Codec::Json,
        payload: b"{}".to_vec(),
    };
    let (owner, shards) = (Incarnation::from_uuid(uuid()), vec![(ShardId::new(3), Epoch::new(9))]);
    vec![
        work(Task::Command(CommandTask {
            name: "account.deposit".into(),
            command_id,
            fresh: true,
            body: vec![1, 2, 3],
            metadata: metadata.clone(),
        })),
        work(Task::Read(ReadTask {
            consistency: Consistency::Confirmed,
            min_version: Version::new(4),
            fingerprint: 5,
        })),
        work(Task::Save(SaveTask {
            expected: Version::new(2),
            command_id,
            fresh: false,
            events: vec![event],
            metadata,
        })),
        call(Request::Notice(Notice::Leaving)),
        call(Request::Notice(Notice::Moved { owner, address: "h:1".into(), shards: shards.clone() })),
        call(Request::Notice(Notice::Released { shards })),
        call(Request::Notice(Notice::Warm { streams: vec![StreamId::new("account", "a-2")] })),
    ]
}

/// One of each kind; the compiler asks for a new one where a variant is added to `NotAttempted`, see `From`.
fn denials() -> Vec<NotAttempted> {
    let (command_id, stream) = (CommandId::from_uuid(uuid()), StreamId::new("account", "a-1"));
    vec![
        NotAttempted::Overloaded {
            what: "a queue".into(),
            limit: 4,
            retry_after: Duration::from_millis(100),
        },
        NotAttempted::DeadlineExceeded,
        NotAttempted::Unavailable { reason: "why".into() },
        NotAttempted::ShuttingDown,
        NotAttempted::IdReused { command_id, stream: stream.clone() },
        NotAttempted::IdExpired { command_id, stream: stream.clone() },
        NotAttempted::Quarantined { stream, reason: "why".into() },
        NotAttempted::NotRegistered { aggregate_type: "account".into() },
        NotAttempted::InvalidId { problem: "why".into() },
        NotAttempted::Unencodable { reason: "why".into() },
        NotAttempted::UnknownCommand {
            aggregate_type: "account".into(),
            command: "account.close".into(),
            node: "ada".into(),
        },
    ]
}

fn outcomes() -> Vec<Outcome> {
    let done =
        DoneOutcome { body: vec![9, 8], version: Version::new(300), epoch: Epoch::new(7), duplicate: true };
    let owner = Incarnation::from_uuid(uuid());
    let mut outcomes = vec![
        Outcome::Done(done),
        Outcome::Refused { body: vec![4] },
        Outcome::Conflict { expected: Version::new(1), actual: Version::new(2) },
        Outcome::unknown("why"),
        Outcome::Moved { owner, epoch: Epoch::new(8), address: "h:1".into() },
    ];
    outcomes.extend(denials().into_iter().map(Outcome::not_attempted));
    outcomes
}

fn frames() -> Vec<(Frame, BytesMut)> {
    let mut frames = Vec::new();
    let mut add = |frame: Frame, write: &dyn Fn(&mut BytesMut)| {
        let mut bytes = BytesMut::new();
        write(&mut bytes);
        frames.push((frame, bytes));
    };
    for (id, call) in (1..).zip(calls()) {
        let write = |bytes: &mut BytesMut| assert!(put_call(bytes, id, &call).is_ok());
        add(Frame::Call { id, call: Box::new(call.clone()) }, &write);
    }
    for (id, outcome) in (1..).zip(outcomes()) {
        let write = |bytes: &mut BytesMut| assert!(put_answer(bytes, id, &outcome).is_ok());
        add(Frame::Answer { id, outcome: outcome.clone() }, &write);
    }
    add(Frame::Cancel { id: 258 }, &|bytes| put_cancel(bytes, 258));
    add(Frame::Ping { id: 1 }, &|bytes| put_ping(bytes, 1));
    add(Frame::Pong { id: 1 }, &|bytes| put_pong(bytes, 1));
    let hello = Hello {
        version: VERSION,
        version_oldest: VERSION_OLDEST,
        cluster: "bank".into(),
        incarnation: Incarnation::from_uuid(uuid()),
        wants: Some(Incarnation::from_uuid(uuid())),
        node: "ada".into(),
        application_version: "1.2".into(),
        calls_max: 4,
        registry: Registry::default(),
    };
    add(Frame::Hello(Box::new(hello.clone())), &|bytes| assert!(put_hello(bytes, &hello).is_ok()));
    let why = Unwelcome::OtherCluster { ours: "bank".into(), theirs: "shop".into() };
    add(Frame::Unwelcome(why.clone()), &|bytes| assert!(put_unwelcome(bytes, &why).is_ok()));
    frames
}

fn batch(frames: &[u8]) -> Bytes {
    [&[BATCH_VERSION], frames].concat().into()
}

fn read(bytes: Bytes) -> Result<Vec<Frame>, FrameError> {
    Frames::of(bytes)?.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes whatever is written");
        text
    })
}

#[test]
fn every_frame_survives_the_wire_alone_and_in_a_batch() {
    let mut all = BytesMut::new();
    for (frame, bytes) in frames() {
        assert_eq!(read(batch(&bytes)), Ok(vec![frame]));
        all.extend_from_slice(&bytes);
    }
    let expected: Vec<Frame> = frames().into_iter().map(|(frame, _)| frame).collect();
    assert_eq!(read(batch(&all)), Ok(expected));
}

#[test]
fn every_reason_not_to_attempt_reads_the_same_on_the_other_side() {
    for why in denials() {
        let Outcome::NotAttempted(denial) = Outcome::not_attempted(why.clone()) else { panic!("{why}") };
        assert_eq!(NotAttempted::from(denial), why);
    }
}

#[test]
fn the_bytes_of_version_1_never_change() {
    let written: Vec<String> = frames().into_iter().map(|(_, bytes)| hex(&bytes)).collect();
    let golden: Vec<&str> = include_str!("golden.hex").lines().collect();
    assert_eq!(written, golden, "a change on the wire is a new version of frames");
}

#[test]
fn an_unknown_version_and_an_unknown_kind_are_named() {
    let error = read(Bytes::from_static(&[9, 0])).expect_err("no such version");
    assert_eq!(error.to_string(), "frames of version 9 are not understood; 1 is");
    let mut bytes = BytesMut::new();
    put_bare(&mut bytes, 77, 1);
    assert_eq!(read(batch(&bytes)), Err(FrameError::UnknownKind { found: 77 }));
    assert_eq!(read(Bytes::new()), Err(FrameError::CutOff));
}

#[test]
fn a_call_that_does_not_decode_leaves_the_frames_after_it_readable() {
    let mut bytes = BytesMut::new();
    put_call(&mut bytes, 5, &calls()[0]).expect("encodes");
    let last = bytes.len() - 1;
    bytes.truncate(last);
    bytes[..LENGTH_BYTES].copy_from_slice(&((last - LENGTH_BYTES) as u32).to_le_bytes());
    put_ping(&mut bytes, 6);
    let read: Vec<_> = Frames::of(batch(&bytes)).expect("a batch").collect();
    assert_eq!(read[0].as_ref().expect_err("it is cut").faulty_call(), Some(5));
    assert_eq!(read[1], Ok(Frame::Ping { id: 6 }));
}

#[test]
fn a_length_that_lies_is_an_error_and_no_allocation() {
    let mut bytes = BytesMut::new();
    put_answer(&mut bytes, 1, &Outcome::Refused { body: vec![0; 4] }).expect("encodes");
    // The length of the body, as bincode writes a number of eight bytes.
    let at = HEAD_BYTES + 1;
    let mut lying = bytes[..at].to_vec();
    lying.push(253);
    lying.extend_from_slice(&u64::MAX.to_le_bytes());
    let length = (lying.len() - LENGTH_BYTES) as u32;
    lying[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    assert!(matches!(read(batch(&lying)), Err(FrameError::Payload { kind: ANSWER, .. })));
    let too_large = u32::MAX.to_le_bytes();
    assert_eq!(read(batch(&too_large)), Err(FrameError::TooLarge { bytes: u32::MAX as usize }));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_written() {
    let mut bytes = BytesMut::from(&b"before"[..]);
    let outcome = Outcome::Refused { body: vec![0; FRAME_BYTES_MAX] };
    assert!(matches!(put_answer(&mut bytes, 1, &outcome), Err(FrameError::TooLarge { .. })));
    assert_eq!(&bytes[..], b"before");
}

#[test]
fn the_time_that_is_left_can_be_written_anew() {
    let mut bytes = BytesMut::new();
    put_call(&mut bytes, 1, &calls()[3]).expect("encodes");
    set_time_left(&mut bytes, Duration::from_micros(9));
    let read_back = read(batch(&bytes)).expect("a call");
    let [Frame::Call { call, .. }] = &read_back[..] else { panic!("{read_back:?}") };
    assert_eq!(call.within, Duration::from_micros(9));
    set_time_left(&mut bytes, Duration::MAX);
    assert!(read(batch(&bytes)).is_ok());
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_answer_and_no_panic() {
    for (_, good) in frames() {
        for cut in 0..good.len() {
            assert!(cut == 0 || read(batch(&good[..cut])).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[at / 8] ^= 1 << (at % 8);
            // It may well read as something else; that it is read at all is what counts.
            let _ = read(batch(&bad));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = read(bytes.into());
    }

    #[test]
    fn any_payload_of_any_kind_is_read_without_a_panic(
        kind in 0_u8..9,
        payload in proptest::collection::vec(any::<u8>(), 0..128),
    ) {
        let mut bytes = BytesMut::new();
        put(&mut bytes, kind, 1, |bytes| {
            bytes.extend_from_slice(&payload);
            Ok(())
        })
        .expect("it is small");
        let _ = read(batch(&bytes));
    }
}
