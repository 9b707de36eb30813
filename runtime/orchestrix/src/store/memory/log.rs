//! The log of one shard: commits in the order of their seqs, moved in whole; events are built when they are read.

use orchestrix_core::store::{Commit, RecordedEvent};
use orchestrix_core::{Seq, Version};

/// The commits of a shard in order.
#[derive(Default)]
pub(super) struct Log {
    entries: Vec<Entry>,
    head: Seq,
}

impl Log {
    /// Returns the seq of the last event.
    pub(super) fn head(&self) -> Seq {
        self.head
    }

    /// Adds a commit and returns its place in the log and the seq of its first event.
    pub(super) fn push(&mut self, commit: Commit) -> (Place, Seq) {
        let place =
            u32::try_from(self.entries.len()).expect("four thousand million commits do not fit in memory");
        let first_seq = self.head.next();
        self.head = self.head.plus(commit.events.len() as u64);
        self.entries.push(Entry { first_seq, commit });
        (Place(place), first_seq)
    }

    pub(super) fn get(&self, place: Place) -> &Entry {
        &self.entries[place.0 as usize]
    }

    /// Returns up to `limit` events after a seq.
    pub(super) fn read(&self, after: Seq, limit: usize) -> Vec<RecordedEvent> {
        let first = self.entries.partition_point(|entry| entry.last_seq() <= after);
        let events = self.entries[first..].iter().flat_map(Entry::events);
        events.skip_while(|event| event.seq() <= after).take(limit).map(|event| event.record()).collect()
    }
}

/// Where a commit stands in its shard's log.
#[derive(Clone, Copy)]
pub(super) struct Place(u32);

/// One commit in the log.
pub(super) struct Entry {
    first_seq: Seq,
    commit: Commit,
}

impl Entry {
    fn last_seq(&self) -> Seq {
        Seq::new(self.first_seq.get() + self.commit.events.len() as u64 - 1)
    }

    /// Returns the version before its first event.
    pub(super) fn expected(&self) -> Version {
        self.commit.expected
    }

    /// Returns the version of its last event.
    pub(super) fn last_version(&self) -> Version {
        self.commit.last_version()
    }

    /// Returns its events in order.
    pub(super) fn events(&self) -> impl DoubleEndedIterator<Item = EventRef<'_>> {
        (0..self.commit.events.len()).map(|at| EventRef { entry: self, at })
    }
}

/// One event in the log.
#[derive(Clone, Copy)]
pub(super) struct EventRef<'a> {
    entry: &'a Entry,
    at: usize,
}

impl EventRef<'_> {
    fn seq(&self) -> Seq {
        self.entry.first_seq.plus(self.at as u64)
    }

    pub(super) fn version(&self) -> Version {
        self.entry.commit.expected.plus(self.at as u64 + 1)
    }

    pub(super) fn commit(&self) -> &Commit {
        &self.entry.commit
    }

    /// Copies the event out.
    pub(super) fn record(&self) -> RecordedEvent {
        let commit = &self.entry.commit;
        let event = &commit.events[self.at];
        let is_last = self.at + 1 == commit.events.len();
        RecordedEvent {
            stream: commit.stream.clone(),
            version: self.version(),
            shard: commit.shard,
            seq: self.seq(),
            epoch: commit.epoch,
            event_type: event.event_type.clone(),
            schema_version: event.schema_version,
            codec: event.codec,
            command_id: commit.command_id,
            recorded_at: commit.recorded_at,
            headers: commit.headers.clone(),
            receipt: commit.receipt.as_ref().filter(|_| is_last).cloned(),
            payload: event.payload.clone(),
        }
    }
}
