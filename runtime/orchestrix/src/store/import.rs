//! What the stores share for imports: what a step needs to find in the log, and its events as commits again.

use std::collections::HashMap;

use orchestrix_core::store::{Commit, ImportError, NewEvent, RecordedEvent};
use orchestrix_core::{Seq, ShardCount, ShardId, StreamId, Version};

/// What a step of an import needs to find, and to find nothing after.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The last seq of each shard that it adds to.
    pub(super) heads: Vec<(ShardId, Seq)>,
    /// The version of each stream that it adds to.
    pub(super) versions: Vec<(StreamId, Version)>,
}

impl Needs {
    /// Checks that each event of a step continues those before it, and tells what the first ones need.
    pub(super) fn of(events: &[RecordedEvent], count: ShardCount) -> Result<Self, ImportError> {
        let mut needs = Self::default();
        let mut seqs: HashMap<ShardId, Seq> = HashMap::new();
        let mut versions: HashMap<&StreamId, Version> = HashMap::new();
        for event in events {
            let home = count.shard_of_stream(&event.stream);
            if home != event.shard {
                return Err(gap(event, format!("{} belongs to shard {home}", event.stream)));
            }
            let Some(before) = event.seq.get().checked_sub(1).map(Seq::new) else {
                return Err(gap(event, "the first seq is 1".to_owned()));
            };
            match seqs.insert(event.shard, event.seq) {
                None => needs.heads.push((event.shard, before)),
                Some(last) if last == before => {}
                Some(last) => return Err(gap(event, format!("it comes after seq {last}"))),
            }
            let Some(before) = event.version.get().checked_sub(1).map(Version::new) else {
                return Err(gap(event, "the first version is 1".to_owned()));
            };
            match versions.insert(&event.stream, event.version) {
                None => needs.versions.push((event.stream.clone(), before)),
                Some(last) if last == before => {}
                Some(last) => {
                    let (stream, version) = (&event.stream, event.version);
                    return Err(gap(event, format!("version {version} of {stream} comes after {last}")));
                }
            }
        }
        Ok(needs)
    }
}

/// Says that an event does not continue the log.
pub(super) fn gap(event: &RecordedEvent, reason: String) -> ImportError {
    ImportError::Gap { shard: event.shard, seq: event.seq, reason }
}

/// Tells whether an event belongs to the commit of the one before it in the shard.
pub(crate) fn is_same_commit(before: &RecordedEvent, event: &RecordedEvent) -> bool {
    // A receipt stands with a commit's last event, so nothing follows it.
    before.receipt.is_none()
        && before.stream == event.stream
        && before.command_id == event.command_id
        && before.version.next() == event.version
        && before.seq.next() == event.seq
        && before.epoch == event.epoch
        && before.recorded_at == event.recorded_at
        && before.headers == event.headers
}

/// Puts events together into the commits that they were, in the same order.
pub(super) fn commits_of(events: Vec<RecordedEvent>) -> Vec<Commit> {
    let mut commits: Vec<Commit> = Vec::new();
    let mut before: Option<RecordedEvent> = None;
    for mut event in events {
        let new = NewEvent {
            event_type: event.event_type.clone(),
            schema_version: event.schema_version,
            codec: event.codec,
            payload: std::mem::take(&mut event.payload),
        };
        match commits.last_mut() {
            Some(commit) if before.as_ref().is_some_and(|before| is_same_commit(before, &event)) => {
                commit.events.push(new);
                commit.receipt.clone_from(&event.receipt);
            }
            _ => commits.push(commit_of(&event, new)),
        }
        before = Some(event);
    }
    commits
}

fn commit_of(event: &RecordedEvent, new: NewEvent) -> Commit {
    Commit {
        stream: event.stream.clone(),
        shard: event.shard,
        epoch: event.epoch,
        expected: Version::new(event.version.get() - 1),
        command_id: event.command_id,
        recorded_at: event.recorded_at,
        headers: event.headers.clone(),
        receipt: event.receipt.clone(),
        events: vec![new],
    }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::{Codec, CommandId, Epoch, Timestamp};

    use super::*;

    fn event(seq: u64, id: &str, version: u64) -> RecordedEvent {
        RecordedEvent {
            stream: StreamId::new("note", id),
            version: Version::new(version),
            shard: ShardId::new(0),
            seq: Seq::new(seq),
            epoch: Epoch::new(1),
            event_type: "noted".into(),
            schema_version: 1,
            codec: Codec::Json,
            command_id: CommandId::from_uuid(uuid::Uuid::from_u128(7)),
            recorded_at: Timestamp::from_micros(0),
            headers: None,
            receipt: None,
            payload: b"{}".to_vec(),
        }
    }

    fn one() -> ShardCount {
        ShardCount::new(1).expect("in range")
    }

    #[test]
    fn a_step_needs_what_comes_before_its_first_events() {
        let needs = Needs::of(&[event(4, "a", 3), event(5, "b", 1), event(6, "a", 4)], one()).expect("dense");
        assert_eq!(needs.heads, [(ShardId::new(0), Seq::new(3))]);
        let versions = [("a", 2), ("b", 0)].map(|(id, v)| (StreamId::new("note", id), Version::new(v)));
        assert_eq!(needs.versions, versions);
    }

    #[test]
    fn a_hole_inside_a_step_is_told_with_its_place() {
        let told = |events: &[RecordedEvent]| Needs::of(events, one()).expect_err("a gap").to_string();
        assert_eq!(
            told(&[event(1, "a", 1), event(3, "a", 2)]),
            "seq 3 of shard 0 cannot be imported: it comes after seq 1"
        );
        assert!(told(&[event(1, "a", 1), event(2, "a", 3)]).contains("version 3 of note/a comes after 1"));
        assert!(told(&[event(0, "a", 1)]).contains("the first seq is 1"));
        assert!(told(&[event(1, "a", 0)]).contains("the first version is 1"));
    }

    #[test]
    fn events_become_the_commits_that_they_were() {
        let receipt = Some(vec![1]);
        let last = RecordedEvent { receipt: receipt.clone(), ..event(2, "a", 2) };
        let commits = commits_of(vec![event(1, "a", 1), last, event(3, "a", 3), event(4, "b", 1)]);
        let shape: Vec<_> = commits.iter().map(|one| (one.expected.get(), one.events.len())).collect();
        assert_eq!(shape, [(0, 2), (2, 1), (0, 1)]);
        assert_eq!((commits[0].receipt.clone(), commits[1].receipt.clone()), (receipt, None));
    }
}
