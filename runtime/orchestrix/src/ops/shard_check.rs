//! What the events of a shard must look like, one after the other: a state machine without I/O.
//!
//! It sees the events of one shard in the order in which they lie, and remembers the first that cannot be.

use std::collections::HashMap;

use orchestrix_core::store::RecordedEvent;
use orchestrix_core::{Epoch, Seq, ShardCount, ShardId, StreamId, Version};
use serde::Serialize;

/// Something that cannot be, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    pub(crate) shard: ShardId,
    pub(crate) seq: Seq,
    pub(crate) stream: Option<String>,
    pub(crate) version: Option<Version>,
    pub(crate) what: String,
}

/// What is known of one shard so far.
pub(crate) struct ShardCheck {
    shard: ShardId,
    count: ShardCount,
    /// The highest seq seen.
    pub(crate) seq: Seq,
    epoch: Epoch,
    pub(crate) streams: HashMap<StreamId, Version>,
    pub(crate) events: u64,
    pub(crate) problems: u64,
    pub(crate) first: Option<Problem>,
}

impl ShardCheck {
    /// Begins before the first event of a shard.
    pub(crate) fn new(shard: ShardId, count: ShardCount) -> Self {
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

    /// Looks at the next event.
    pub(crate) fn see(&mut self, event: &RecordedEvent) {
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

    /// Takes note of something that cannot be.
    pub(crate) fn note(&mut self, event: Option<&RecordedEvent>, what: String) {
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
