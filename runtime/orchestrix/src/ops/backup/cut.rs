//! Where a shard is cut when only the beginning of a log comes back: a pure function of its events in order.

use orchestrix_core::store::RecordedEvent;
use orchestrix_core::{Seq, Timestamp};

use crate::store::is_same_commit;

/// Up to where a shard is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Nothing from the first event on that was decided after this moment.
    pub(super) until: Option<Timestamp>,
    /// Nothing after this seq.
    pub(super) last: Option<Seq>,
}

impl Wanted {
    fn is_wanted(&self, event: &RecordedEvent) -> bool {
        self.until.is_none_or(|until| event.recorded_at <= until)
            && self.last.is_none_or(|last| event.seq <= last)
    }
}

/// Finds the end of what is wanted: always the end of a commit.
#[derive(Debug, Default)]
pub(super) struct Cut {
    wanted: Wanted,
    /// The end of the last commit that is wanted as a whole.
    end: Seq,
    /// The event before, as long as everything was wanted.
    before: Option<RecordedEvent>,
    is_over: bool,
}

impl Cut {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Looks at the next event.
    pub(super) fn see(&mut self, event: &RecordedEvent) {
        if self.is_over {
            return;
        }
        let begins_commit = self.before.as_ref().is_none_or(|before| !is_same_commit(before, event));
        if begins_commit && let Some(before) = &self.before {
            self.end = before.seq;
        }
        if self.wanted.is_wanted(event) {
            self.before = Some(without_payload(event));
        } else {
            self.is_over = true;
        }
    }

    /// Returns the last seq that is wanted.
    pub(super) fn end(self) -> Seq {
        match self.before {
            Some(before) if !self.is_over => before.seq,
            _ => self.end,
        }
    }
}

/// Copies what tells commits apart.
fn without_payload(event: &RecordedEvent) -> RecordedEvent {
    RecordedEvent {
        stream: event.stream.clone(),
        event_type: event.event_type.clone(),
        headers: event.headers.clone(),
        receipt: event.receipt.as_ref().map(|_| Vec::new()),
        payload: Vec::new(),
        ..*event
    }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::{Codec, CommandId, Epoch, ShardId, StreamId, Version};
    use uuid::Uuid;

    use super::*;

    /// The event with this seq, of the command with this number and decided at this moment.
    fn event(seq: u64, command: u128, micros: i64) -> RecordedEvent {
        RecordedEvent {
            stream: StreamId::new("note", "a"),
            version: Version::new(seq),
            shard: ShardId::new(0),
            seq: Seq::new(seq),
            epoch: Epoch::new(1),
            event_type: "noted".into(),
            schema_version: 1,
            codec: Codec::Json,
            command_id: CommandId::from_uuid(Uuid::from_u128(command)),
            recorded_at: Timestamp::from_micros(micros),
            headers: None,
            receipt: None,
            payload: Vec::new(),
        }
    }

    fn end(wanted: Wanted, events: &[RecordedEvent]) -> u64 {
        let mut cut = Cut::new(wanted);
        for event in events {
            cut.see(event);
        }
        cut.end().get()
    }

    fn until(micros: i64) -> Wanted {
        Wanted { until: Some(Timestamp::from_micros(micros)), last: None }
    }

    fn last(seq: u64) -> Wanted {
        Wanted { until: None, last: Some(Seq::new(seq)) }
    }

    #[test]
    fn without_a_wish_everything_is_wanted() {
        assert_eq!(end(Wanted::default(), &[event(1, 1, 5), event(2, 2, 6)]), 2);
        assert_eq!(end(Wanted::default(), &[]), 0);
    }

    #[test]
    fn a_moment_cuts_before_the_first_event_after_it_also_where_clocks_went_back() {
        let events = [event(1, 1, 10), event(2, 2, 30), event(3, 3, 20), event(4, 4, 40)];
        let ends: Vec<u64> = [5, 10, 20, 30, 35, 40].iter().map(|at| end(until(*at), &events)).collect();
        assert_eq!(ends, [0, 1, 1, 3, 3, 4]);
    }

    #[test]
    fn a_seq_inside_of_a_commit_cuts_before_the_commit() {
        let events = [event(1, 1, 1), event(2, 2, 1), event(3, 2, 1), event(4, 2, 1), event(5, 3, 1)];
        let ends: Vec<u64> = (0..=6).map(|seq| end(last(seq), &events)).collect();
        assert_eq!(ends, [0, 1, 1, 1, 4, 5, 5]);
    }
}
