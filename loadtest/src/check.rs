//! The check after every run: replays the whole log and holds the runtime to what it acknowledged.
//!
//! * lost: a command that was acknowledged and is not in the log, or not at the version that its answer told;
//! * duplicated: a command that is in the log more than once, acknowledged or not;
//! * holes: a version missing in a stream, or a seq missing in a shard;
//! * fallen epochs: events of a stream that an earlier owner stored after a later one;
//! * wrong replies: answers that do not fit the state, see [`Record`].

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use orchestrix::core::store::RecordedEvent;
use orchestrix::core::{Aggregate, CommandId, Epoch, EventStore, Seq};
use serde::Serialize;

use crate::driver::{Ack, Record};
use crate::scenario::{Counter, counter_id};

/// How many events one read of the replay asks for.
const PAGE_EVENTS: usize = 8_192;

/// What the check found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Commands that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Acknowledged commands that the log does not have where it should.
    pub(crate) lost: u64,
    /// Commands that the log has more than once, counted once for each time too many.
    pub(crate) duplicated: u64,
    /// Versions and seqs that are missing.
    pub(crate) holes: u64,
    /// Events whose epoch is lower than that of the event before them in their stream.
    pub(crate) fallen_epochs: u64,
    /// Answers that do not fit the state.
    pub(crate) wrong_replies: u64,
    /// Events in the log.
    pub(crate) events: u64,
}

impl Check {
    /// Tells whether everything is as promised.
    pub(crate) fn passed(&self) -> bool {
        self.lost + self.duplicated + self.holes + self.fallen_epochs + self.wrong_replies == 0
    }

    /// Adds the findings of another log.
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.holes += other.holes;
        self.fallen_epochs += other.fallen_epochs;
        self.wrong_replies += other.wrong_replies;
        self.events += other.events;
    }
}

/// Replays the log of a store and compares it with what a run acknowledged.
///
/// # Errors
/// When the log cannot be read; then nothing is known about it.
pub(crate) async fn check(store: &dyn EventStore, mut record: Record) -> anyhow::Result<Check> {
    let mut replay = Replay::default();
    for shard in store.info().shard_count.all() {
        let mut after = Seq::ZERO;
        loop {
            let page = store.read_shard(shard, after, PAGE_EVENTS).await;
            let page = page.with_context(|| format!("the check could not read shard {shard}"))?;
            let Some(last) = page.last() else { break };
            let next = last.seq;
            replay.on_page(after, &page);
            after = next;
        }
    }
    let mut found = replay.compare(&mut record.acks);
    found.wrong_replies = record.wrong_replies;
    Ok(found)
}

/// Replays the log of a store in which a number of commands was acknowledged that nobody has kept.
///
/// # Errors
/// When the log cannot be read; then nothing is known about it.
pub(crate) async fn check_count(store: &dyn EventStore, acknowledged: u64) -> anyhow::Result<Check> {
    let mut found = check(store, Record::new(1)).await?;
    found.acknowledged = acknowledged;
    found.lost = acknowledged.saturating_sub(found.events);
    Ok(found)
}

/// One command as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Logged {
    id: CommandId,
    stream: u32,
    version: u64,
}

/// What is gathered while the log goes by.
#[derive(Debug, Default)]
struct Replay {
    streams: HashMap<Arc<str>, Place>,
    logged: Vec<Logged>,
    events: u64,
    holes: u64,
    fallen_epochs: u64,
}

/// How far the log of one stream went by.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The number that stands for the stream.
    number: u32,
    version: u64,
    epoch: Epoch,
}

impl Replay {
    /// Takes the events of one shard that follow a seq.
    fn on_page(&mut self, after: Seq, page: &[RecordedEvent]) {
        let mut expected = after.next().get();
        for event in page {
            self.holes += event.seq.get().abs_diff(expected);
            expected = event.seq.get() + 1;
            self.events += 1;
            if event.stream.aggregate_type == Counter::TYPE.as_str() {
                self.on_event(event);
            }
        }
    }

    /// Takes one event of the scenario. Each of its commands has exactly one event.
    fn on_event(&mut self, event: &RecordedEvent) {
        let number = self.streams.len() as u32;
        let begin = Place { number, version: 0, epoch: event.epoch };
        let place = self.streams.entry(Arc::clone(&event.stream.id)).or_insert(begin);
        let version = event.version.get();
        self.holes += version.abs_diff(place.version + 1);
        self.fallen_epochs += u64::from(event.epoch < place.epoch);
        (place.version, place.epoch) = (version, event.epoch);
        self.logged.push(Logged { id: event.command_id, stream: place.number, version });
    }

    /// Compares the log with the acknowledgements. Both are sorted by command, so one pass finds everything.
    fn compare(mut self, acks: &mut [Ack]) -> Check {
        acks.sort_unstable();
        self.logged.sort_unstable();
        let duplicated = self.logged.windows(2).filter(|pair| pair[0].id == pair[1].id).count();
        let lost = acks.iter().filter(|ack| !self.has(ack)).count();
        Check {
            acknowledged: acks.len() as u64,
            lost: lost as u64,
            duplicated: duplicated as u64,
            holes: self.holes,
            fallen_epochs: self.fallen_epochs,
            wrong_replies: 0,
            events: self.events,
        }
    }

    /// Tells whether a command's event is where its acknowledgement says.
    fn has(&self, ack: &Ack) -> bool {
        let id = counter_id(ack.aggregate as usize);
        let Some(place) = self.streams.get(id.as_str()) else { return false };
        let promised = Logged { id: ack.id, stream: place.number, version: u64::from(ack.version) };
        self.logged.binary_search(&promised).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use orchestrix::core::{Codec, ShardId, StreamId, Timestamp, Version};
    use uuid::Uuid;

    use super::*;

    fn id(command: u128) -> CommandId {
        CommandId::from_uuid(Uuid::from_u128(command))
    }

    fn event(aggregate: usize, version: u64, seq: u64, command: u128) -> RecordedEvent {
        RecordedEvent {
            stream: StreamId::new(Counter::TYPE.as_str(), counter_id(aggregate).as_str()),
            version: Version::new(version),
            shard: ShardId::new(0),
            seq: Seq::new(seq),
            epoch: Epoch::new(1),
            event_type: "loadtest.added".into(),
            schema_version: 1,
            codec: Codec::Json,
            command_id: id(command),
            recorded_at: Timestamp::from_micros(0),
            headers: None,
            receipt: None,
            payload: Vec::new(),
        }
    }

    fn ack(aggregate: u32, version: u32, command: u128) -> Ack {
        Ack { id: id(command), aggregate, version }
    }

    fn compare(log: &[RecordedEvent], acks: &[Ack]) -> Check {
        let mut replay = Replay::default();
        replay.on_page(Seq::ZERO, log);
        replay.compare(&mut acks.to_vec())
    }

    fn log() -> Vec<RecordedEvent> {
        vec![event(0, 1, 1, 10), event(1, 1, 2, 11), event(0, 2, 3, 12)]
    }

    #[test]
    fn a_whole_log_passes() {
        let found = compare(&log(), &[ack(0, 1, 10), ack(1, 1, 11), ack(0, 2, 12)]);
        assert_eq!(found, Check { acknowledged: 3, events: 3, ..Check::default() });
        assert!(found.passed());
    }

    #[test]
    fn an_event_without_acknowledgement_is_allowed() {
        assert!(compare(&log(), &[ack(1, 1, 11)]).passed());
    }

    #[test]
    fn an_acknowledged_command_that_is_missing_is_lost() {
        let found = compare(&log(), &[ack(0, 3, 99)]);
        assert_eq!((found.lost, found.duplicated, found.holes), (1, 0, 0));
        assert!(!found.passed());
    }

    #[test]
    fn a_command_at_another_place_than_acknowledged_is_lost() {
        assert_eq!(compare(&log(), &[ack(0, 2, 10)]).lost, 1, "another version");
        assert_eq!(compare(&log(), &[ack(1, 1, 10)]).lost, 1, "another aggregate");
        assert_eq!(compare(&log(), &[ack(7, 1, 10)]).lost, 1, "an aggregate without events");
    }

    #[test]
    fn a_command_that_was_applied_twice_is_duplicated() {
        let mut log = log();
        log.push(event(0, 3, 4, 10));
        log.push(event(1, 2, 5, 10));
        let found = compare(&log, &[ack(0, 1, 10)]);
        assert_eq!((found.duplicated, found.lost), (2, 0));
        assert!(!found.passed());
    }

    #[test]
    fn missing_versions_and_seqs_are_holes() {
        let found = compare(&[event(0, 1, 1, 10), event(0, 3, 2, 11)], &[]);
        assert_eq!(found.holes, 1, "version 2 is missing");
        let found = compare(&[event(0, 1, 1, 10), event(0, 2, 4, 11)], &[]);
        assert_eq!(found.holes, 2, "seqs 2 and 3 are missing");
        assert!(!found.passed());
    }

    #[test]
    fn an_event_of_an_earlier_owner_after_one_of_a_later_one_is_found() {
        let of_epoch = |epoch, event| RecordedEvent { epoch: Epoch::new(epoch), ..event };
        let log = |last| {
            vec![
                of_epoch(1, event(0, 1, 1, 10)),
                of_epoch(3, event(0, 2, 2, 11)),
                of_epoch(last, event(0, 3, 3, 12)),
            ]
        };
        assert!(compare(&log(3), &[]).passed());
        let found = compare(&log(2), &[]);
        assert_eq!((found.fallen_epochs, found.holes), (1, 0));
        assert!(!found.passed());
    }

    #[test]
    fn pages_of_a_shard_follow_each_other() {
        let mut replay = Replay::default();
        let log = log();
        replay.on_page(Seq::ZERO, &log[..2]);
        replay.on_page(Seq::new(2), &log[2..]);
        assert!(replay.compare(&mut []).passed());
    }
}
