//! The log of one shard: commits in the order of their seqs, moved in whole; events are built when they are read.

use orchestrix_core::store::{Commit, RecordedEvent};
use orchestrix_core::{Seq, Version};

/// How many commits one chunk of a log holds.
const CHUNK: usize = 64;

/// The commits of a shard in order, in chunks: a log that grows moves nothing that it holds already.
#[derive(Default)]
pub(super) struct Log {
    chunks: Vec<Vec<Entry>>,
    head: Seq,
}

impl Log {
    /// Returns the seq of the last event.
    pub(super) fn head(&self) -> Seq {
        self.head
    }

    /// Adds a commit and returns its place in the log and the seq of its first event.
    pub(super) fn push(&mut self, commit: Commit) -> (Place, Seq) {
        let place = u32::try_from(self.len()).expect("four thousand million commits do not fit in memory");
        let first_seq = self.head.next();
        self.head = self.head.plus(commit.events.len() as u64);
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.last_mut().expect("a chunk with room was just made sure of");
        chunk.push(Entry { first_seq, commit });
        (Place(place), first_seq)
    }

    pub(super) fn get(&self, place: Place) -> &Entry {
        &self.chunks[place.0 as usize / CHUNK][place.0 as usize % CHUNK]
    }

    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// Returns up to `limit` events after a seq.
    pub(super) fn read(&self, after: Seq, limit: usize) -> Vec<RecordedEvent> {
        let is_seen = |chunk: &Vec<Entry>| chunk.last().is_some_and(|entry| entry.last_seq() <= after);
        let first = self.chunks.partition_point(is_seen);
        let events = self.chunks[first..].iter().flatten().flat_map(Entry::events);
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
