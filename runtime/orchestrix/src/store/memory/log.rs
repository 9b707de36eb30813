//! The log of one shard: commits in the order of their seqs, packed; events are built when they are read.

use std::collections::HashMap;

use orchestrix_core::store::{Commit, RecordedEvent};
use orchestrix_core::stream::Name;
use orchestrix_core::{Seq, ShardId, StreamId, Timestamp, Version};

use super::packed::{self, PackedCommit};

/// How many commits one chunk of a log holds.
const CHUNK: usize = 64;

/// The size of the first block of packed commits, and of the largest that is made for more than one commit. Each is
/// twice as large as the one before: a shard of a few events stays small, and a long log is a few large pieces.
const BLOCK_BYTES_MIN: usize = 4 << 10;
const BLOCK_BYTES_MAX: usize = 256 << 10;

/// The commits of a shard in order. What it holds is never moved, however much comes.
pub(super) struct Log {
    shard: ShardId,
    chunks: Vec<Vec<Entry>>,
    blocks: Vec<Vec<u8>>,
    streams: Vec<StreamId>,
    names: Vec<Name>,
    name_numbers: HashMap<Name, u32>,
    head: Seq,
}

/// The number of a stream in its shard's log.
#[derive(Clone, Copy)]
pub(super) struct StreamNumber(u32);

/// Where a commit stands in its shard's log.
#[derive(Clone, Copy)]
pub(super) struct Place(u32);

/// What must be known of a commit to find it and its events.
#[derive(Clone, Copy)]
struct Entry {
    first_seq: Seq,
    expected: Version,
    events: u32,
    stream: StreamNumber,
    block: u32,
    offset: u32,
}

impl Log {
    pub(super) fn new(shard: ShardId) -> Self {
        Self {
            shard,
            chunks: Vec::new(),
            blocks: Vec::new(),
            streams: Vec::new(),
            names: Vec::new(),
            name_numbers: HashMap::new(),
            head: Seq::ZERO,
        }
    }

    /// Returns the seq of the last event.
    pub(super) fn head(&self) -> Seq {
        self.head
    }

    /// Gives a stream its number, once.
    pub(super) fn add_stream(&mut self, stream: StreamId) -> StreamNumber {
        self.streams.push(stream);
        StreamNumber(count(self.streams.len() - 1))
    }

    /// Adds a commit and returns its place in the log and the seq of its first event.
    pub(super) fn push(&mut self, stream: StreamNumber, commit: &Commit) -> (Place, Seq) {
        let place = Place(count(self.len()));
        let first_seq = self.head.next();
        let (block, offset) = self.pack(commit);
        let events = count(commit.events.len());
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.last_mut().expect("a chunk with room was just made sure of");
        chunk.push(Entry { first_seq, expected: commit.expected, events, stream, block, offset });
        self.head = self.head.plus(u64::from(events));
        (place, first_seq)
    }

    fn pack(&mut self, commit: &Commit) -> (u32, u32) {
        let size = packed::size(commit);
        let has_room = |block: &Vec<u8>| block.capacity() - block.len() >= size;
        if !self.blocks.last().is_some_and(has_room) {
            let next = self.blocks.last().map_or(BLOCK_BYTES_MIN, |last| last.capacity() * 2);
            self.blocks.push(Vec::with_capacity(next.min(BLOCK_BYTES_MAX).max(size)));
        }
        let Self { blocks, names, name_numbers, .. } = self;
        let number = count(blocks.len() - 1);
        let block = blocks.last_mut().expect("a block with room was just made sure of");
        let offset = count(block.len());
        packed::write(block, commit, |event| number_name(names, name_numbers, &event.event_type));
        (number, offset)
    }

    pub(super) fn get(&self, place: Place) -> CommitRef<'_> {
        let entry = self.chunks[place.0 as usize / CHUNK][place.0 as usize % CHUNK];
        CommitRef { log: self, entry }
    }

    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// Returns up to `limit` events after a seq.
    pub(super) fn read(&self, after: Seq, limit: usize) -> Vec<RecordedEvent> {
        let is_seen = |chunk: &Vec<Entry>| chunk.last().is_some_and(|entry| entry.last_seq() <= after);
        let first = self.chunks.partition_point(is_seen);
        let commits =
            self.chunks[first..].iter().flatten().map(|entry| CommitRef { log: self, entry: *entry });
        let events = commits.flat_map(CommitRef::events);
        events.skip_while(|event| event.seq() <= after).take(limit).map(|event| event.record()).collect()
    }
}

/// Returns the number of an event type, a new one for a new name.
fn number_name(names: &mut Vec<Name>, numbers: &mut HashMap<Name, u32>, name: &Name) -> u32 {
    // The one that was used last is usually meant again.
    if let [.., last] = names.as_slice()
        && last == name
    {
        return count(names.len() - 1);
    }
    *numbers.entry(name.clone()).or_insert_with(|| {
        names.push(name.clone());
        count(names.len() - 1)
    })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("four thousand million of anything do not fit in memory")
}

impl Entry {
    fn last_seq(&self) -> Seq {
        Seq::new(self.first_seq.get() + u64::from(self.events) - 1)
    }
}

/// One commit in the log.
#[derive(Clone, Copy)]
pub(super) struct CommitRef<'a> {
    log: &'a Log,
    entry: Entry,
}

impl<'a> CommitRef<'a> {
    /// Returns the version before its first event.
    pub(super) fn expected(&self) -> Version {
        self.entry.expected
    }

    /// Returns the version of its last event.
    pub(super) fn last_version(&self) -> Version {
        self.entry.expected.plus(u64::from(self.entry.events))
    }

    /// Returns its events in order.
    pub(super) fn events(self) -> impl DoubleEndedIterator<Item = EventRef<'a>> {
        let bytes = &self.log.blocks[self.entry.block as usize][self.entry.offset as usize..];
        let commit = PackedCommit::read(bytes);
        (0..self.entry.events).map(move |at| EventRef { log: self.log, entry: self.entry, commit, at })
    }
}

/// One event in the log.
#[derive(Clone, Copy)]
pub(super) struct EventRef<'a> {
    log: &'a Log,
    entry: Entry,
    commit: PackedCommit<'a>,
    at: u32,
}

impl EventRef<'_> {
    fn seq(&self) -> Seq {
        self.entry.first_seq.plus(u64::from(self.at))
    }

    pub(super) fn version(&self) -> Version {
        self.entry.expected.plus(u64::from(self.at) + 1)
    }

    pub(super) fn recorded_at(&self) -> Timestamp {
        self.commit.recorded_at
    }

    /// Copies the event out.
    pub(super) fn record(&self) -> RecordedEvent {
        let event = self.commit.event(self.at as usize);
        let is_last = self.at + 1 == self.entry.events;
        RecordedEvent {
            stream: self.log.streams[self.entry.stream.0 as usize].clone(),
            version: self.version(),
            shard: self.log.shard,
            seq: self.seq(),
            epoch: self.commit.epoch,
            event_type: self.log.names[event.name as usize].clone(),
            schema_version: event.schema_version,
            codec: event.codec,
            command_id: self.commit.command_id,
            recorded_at: self.commit.recorded_at,
            headers: self.commit.headers(),
            receipt: if is_last { self.commit.receipt() } else { None },
            payload: event.payload.to_vec(),
        }
    }
}
