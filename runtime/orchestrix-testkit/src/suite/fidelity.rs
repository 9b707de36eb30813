//! What went in comes out, byte for byte, also after a reopen.

use std::sync::Arc;

use orchestrix_core::store::{Commit, NewEvent, Receipt};
use orchestrix_core::{Codec, CommandId, Metadata, StreamId, Timestamp};

use super::bench::{Bench, Writer, committed, event, recorded, stream};

/// Stores commits and compares each with what two ways of reading give, before and after a reopen.
async fn come_back(bench: Bench, writer: Writer, commits: Vec<Commit>) {
    let outcomes = writer.append(commits.clone()).await;
    drop(writer);
    let stored: Vec<_> = commits
        .iter()
        .zip(&outcomes)
        .map(|(commit, outcome)| (commit, recorded(commit, committed(outcome))))
        .collect();
    let check = async |bench: &Bench| {
        for (commit, events) in &stored {
            assert_eq!(bench.read(&commit.stream).await, *events, "{}", commit.stream);
            let shard = bench.read_shard(commit.shard).await;
            let found: Vec<_> = shard.into_iter().filter(|event| event.stream == commit.stream).collect();
            assert_eq!(found, *events, "{} in its shard", commit.stream);
        }
    };
    check(&bench).await;
    check(&bench.reopen().await).await;
}

/// Every field comes back.
pub async fn every_field_comes_back(bench: Bench) {
    let events = vec![
        event(r#"{"amount":1}"#),
        NewEvent {
            event_type: "suite.other-name_2".into(),
            schema_version: 7,
            codec: Codec::Bincode,
            payload: vec![1, 2],
        },
        NewEvent { event_type: format!("made.at-run-time.{}", 3).into(), ..event("null") },
    ];
    let writer = bench.writer().await;
    let commit = writer.commit_of(&stream("a"), 0, events);
    come_back(bench, writer, vec![commit]).await;
}

/// Every byte of a payload comes back, and a payload of none.
pub async fn every_byte_of_a_payload_comes_back(bench: Bench) {
    let all: Vec<u8> = (0..=255).collect();
    let events =
        vec![event(all.clone()), event(Vec::new()), event([all.clone(), all].concat()), event("\u{1f980}")];
    let writer = bench.writer().await;
    let commit = writer.commit_of(&stream("a"), 0, events);
    come_back(bench, writer, vec![commit]).await;
}

/// A payload of a mebibyte comes back, next to a small one.
pub async fn a_payload_of_a_mebibyte_comes_back(bench: Bench) {
    let large: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let writer = bench.writer().await;
    let commit = writer.commit_of(&stream("a"), 0, vec![event(large), event("{}")]);
    come_back(bench, writer, vec![commit]).await;
}

/// Ids come back and do not run together: by case, by blanks, by Unicode form, by quotes, by length, by type.
pub async fn ids_come_back_and_do_not_run_together(bench: Bench) {
    let writer = bench.writer().await;
    let longest = ["x".repeat(255), format!("{}y", "x".repeat(254)), "\u{fc}".repeat(127)];
    let strange = [
        "a",
        "A",
        " a",
        "a ",
        "a'--",
        "a\"",
        "%",
        "_",
        "a/b",
        "\\",
        "\u{e4}",
        "a\u{308}",
        "\u{1f980}",
        "{}",
        "null",
        "0",
        "00",
    ];
    let mut names: Vec<_> =
        strange.into_iter().chain(longest.iter().map(String::as_str)).map(stream).collect();
    names.push(StreamId::new("suite.other", "a"));
    names.push(StreamId::new("t".repeat(128), "a"));
    let commits = names.iter().map(|name| writer.commit(name, 0, 2)).collect();
    come_back(bench, writer, commits).await;
}

/// Headers come back with each event, a receipt with the commit's last event only.
pub async fn headers_and_receipts_come_back(bench: Bench) {
    let metadata = Metadata { traceparent: Some("00-4bf92f35-01".into()), ..Metadata::default() };
    let headers = metadata.encode().expect("encodes").expect("is not empty");
    let receipt = Receipt { fingerprint: u64::MAX, reply: "{\"balance\":\"\u{20ac}\"}".into() }.encode();
    let writer = bench.writer().await;
    let mut commits = Vec::new();
    for (id, headers, receipt) in [
        ("neither", None, None),
        ("headers", Some(headers.clone()), None),
        ("receipt", None, Some(receipt.clone())),
        ("both", Some(headers), Some(receipt)),
    ] {
        let plain = writer.commit_of(&stream(id), 0, vec![event("1"), event("2"), event("3")]);
        commits.push(Commit { headers: headers.map(Arc::from), receipt, ..plain });
    }
    come_back(bench, writer, commits).await;
}

/// The ends of every range come back: schema versions, moments, command ids.
pub async fn the_ends_of_every_range_come_back(bench: Bench) {
    let writer = bench.writer().await;
    let long_ago = Timestamp::from_micros(-62_135_596_800_000_000);
    let far_off = Timestamp::from_micros(253_402_300_799_999_999);
    let ends = [
        (0, long_ago, uuid::Uuid::nil()),
        (u16::MAX, far_off, uuid::Uuid::max()),
        (1, Timestamp::from_micros(-1), uuid::Uuid::from_u128(1)),
    ];
    let make = |(number, (schema_version, recorded_at, id)): (usize, (u16, Timestamp, uuid::Uuid))| {
        let name = stream(&format!("a-{number}"));
        let plain = writer.commit_of(&name, 0, vec![NewEvent { schema_version, ..event("{}") }]);
        Commit { recorded_at, command_id: CommandId::from_uuid(id), ..plain }
    };
    let commits = ends.into_iter().enumerate().map(make).collect();
    come_back(bench, writer, commits).await;
}
