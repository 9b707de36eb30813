//! `verify`: reads the whole log and looks for what cannot be: holes, doubles, disorder, events in the wrong place.
//!
//! The check itself ([`ShardCheck`]) is a small state machine without I/O: it sees the events of one shard in the order
//! in which the store gives them.

use std::collections::HashMap;

use orchestrix_core::store::{ReadError, RecordedEvent};
use orchestrix_core::{Epoch, EventStore, Seq, ShardCount, ShardId, StreamId, Version};
use serde::Serialize;

use super::context::Context;
use super::error::CliError;
use super::progress::bar;

/// Events read in one go.
const PAGE: usize = 1_000;

/// Something that cannot be, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    shard: ShardId,
    seq: Seq,
    stream: Option<String>,
    version: Option<Version>,
    what: String,
}

/// What the whole log looks like.
#[derive(Debug, Default, Serialize)]
struct Report {
    sound: bool,
    shards: u32,
    streams: u64,
    events: u64,
    problems: u64,
    first: Option<Problem>,
}

/// Reads every shard, and tells the first bad place.
pub(super) async fn run(context: &mut Context) -> Result<(), CliError> {
    let store = context.look().await?;
    let shards = store.info().shard_count;
    let bar = bar(&context.out, u64::from(shards.get()), "shards");
    let mut report = Report { shards: shards.get(), ..Report::default() };
    for shard in shards.all() {
        check_shard(store.as_ref(), shard, &mut report).await?;
        bar.set_message(format!("{} events", report.events));
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.sound = report.problems == 0;
    context.out.answer(&report, || text(&report))?;
    if report.sound {
        Ok(())
    } else {
        Err(CliError::Found("the log is not sound; see the first bad place".to_owned()))
    }
}

fn text(report: &Report) -> String {
    let Report { shards, streams, events, problems, .. } = report;
    let counts = format!("{events} events of {streams} streams in {shards} shards");
    match &report.first {
        None => format!("sound: {counts}"),
        Some(first) => {
            let stream = first.stream.as_deref().unwrap_or("-");
            let version = first.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
            format!(
                "NOT SOUND: {problems} problems in {counts}\nfirst: shard {} seq {}, {stream} version {version}: {}",
                first.shard, first.seq, first.what
            )
        }
    }
}

async fn check_shard(store: &dyn EventStore, shard: ShardId, report: &mut Report) -> Result<(), CliError> {
    let mut check = ShardCheck::new(shard, store.info().shard_count);
    loop {
        let page = match store.read_shard(shard, check.seq, PAGE).await {
            Ok(page) => page,
            // A store that notices the damage itself has found the bad place; what is behind it cannot be read.
            Err(ReadError::Corrupt { reason }) => {
                check.note(None, reason);
                break;
            }
            Err(error) => return Err(error.into()),
        };
        for event in &page {
            check.see(event);
        }
        if page.len() < PAGE {
            break;
        }
    }
    report.events += check.events;
    report.streams += check.streams.len() as u64;
    report.problems += check.problems;
    if report.first.is_none() {
        report.first = check.first;
    }
    Ok(())
}

/// What is known of one shard so far.
struct ShardCheck {
    shard: ShardId,
    count: ShardCount,
    /// The highest seq seen.
    seq: Seq,
    epoch: Epoch,
    streams: HashMap<StreamId, Version>,
    events: u64,
    problems: u64,
    first: Option<Problem>,
}

impl ShardCheck {
    fn new(shard: ShardId, count: ShardCount) -> Self {
        Self {
            shard,
            count,
            seq: Seq::ZERO,
            epoch: Epoch::ZERO,
            streams: HashMap::new(),
            events: 0,
            problems: 0,
            first: None,
        }
    }

    fn see(&mut self, event: &RecordedEvent) {
        self.events += 1;
        self.see_place(event);
        self.see_version(event);
        self.seq = self.seq.max(event.seq);
        self.epoch = self.epoch.max(event.epoch);
    }

    fn see_place(&mut self, event: &RecordedEvent) {
        let (expected, own) = (self.seq.next(), self.count.shard_of_stream(&event.stream));
        if event.seq > expected {
            self.note(Some(event), format!("seq {expected} is missing"));
        } else if event.seq < expected {
            self.note(Some(event), format!("seq {} comes again, after {}", event.seq, self.seq));
        }
        if own != self.shard || event.shard != self.shard {
            self.note(Some(event), format!("it belongs into shard {own}"));
        }
        if event.epoch < self.epoch {
            self.note(Some(event), format!("epoch {} follows epoch {}", event.epoch, self.epoch));
        }
    }

    fn see_version(&mut self, event: &RecordedEvent) {
        let last = self.streams.entry(event.stream.clone()).or_default();
        let expected = last.next();
        *last = event.version.max(*last);
        if event.version > expected {
            self.note(Some(event), format!("version {expected} is missing"));
        } else if event.version < expected {
            self.note(Some(event), format!("version {} comes again", event.version));
        }
    }

    fn note(&mut self, event: Option<&RecordedEvent>, what: String) {
        self.problems += 1;
        if self.first.is_none() {
            self.first = Some(Problem {
                shard: self.shard,
                seq: event.map_or(self.seq.next(), |event| event.seq),
                stream: event.map(|event| event.stream.to_string()),
                version: event.map(|event| event.version),
                what,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::{Codec, CommandId, Timestamp};

    use super::*;

    fn event(seq: u64, id: &str, version: u64) -> RecordedEvent {
        RecordedEvent {
            stream: StreamId::new("account", id),
            version: Version::new(version),
            shard: ShardId::new(0),
            seq: Seq::new(seq),
            epoch: Epoch::new(1),
            event_type: "account.opened".into(),
            schema_version: 1,
            codec: Codec::Json,
            command_id: CommandId::fresh(),
            recorded_at: Timestamp::from_micros(0),
            headers: None,
            receipt: None,
            payload: b"{}".to_vec(),
        }
    }

    fn first_problem(events: &[RecordedEvent]) -> Option<String> {
        let mut check = ShardCheck::new(ShardId::new(0), ShardCount::new(1).expect("in range"));
        for event in events {
            check.see(event);
        }
        assert_eq!(check.first.is_some(), check.problems > 0);
        check.first.map(|problem| format!("seq {}: {}", problem.seq, problem.what))
    }

    #[test]
    fn a_sound_shard_has_no_problem() {
        assert_eq!(first_problem(&[event(1, "a", 1), event(2, "b", 1), event(3, "a", 2)]), None);
    }

    #[test]
    fn each_kind_of_damage_is_told_with_its_place() {
        let told =
            |events: &[RecordedEvent], text: &str| assert_eq!(first_problem(events).as_deref(), Some(text));
        told(&[event(1, "a", 1), event(3, "a", 2)], "seq 3: seq 2 is missing");
        told(&[event(2, "a", 1)], "seq 2: seq 1 is missing");
        told(&[event(1, "a", 1), event(1, "b", 1)], "seq 1: seq 1 comes again, after 1");
        told(&[event(1, "a", 1), event(2, "a", 3)], "seq 2: version 2 is missing");
        told(&[event(1, "a", 1), event(2, "a", 1)], "seq 2: version 1 comes again");
        let mut old = event(2, "a", 2);
        old.epoch = Epoch::ZERO;
        told(&[event(1, "a", 1), old], "seq 2: epoch 0 follows epoch 1");
    }

    #[test]
    fn an_event_in_the_wrong_shard_is_told() {
        let count = ShardCount::new(256).expect("in range");
        let own = count.shard_of("account", "a");
        let mut check = ShardCheck::new(ShardId::new((own.get() + 1) % 256), count);
        check.see(&event(1, "a", 1));
        assert!(check.first.expect("is told").what.contains(&format!("shard {own}")));
    }
}
