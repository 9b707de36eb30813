//! All that one shard keeps. Plain synchronous code: the caller holds the shard's lock around each call.

use std::collections::HashMap;

use orchestrix_core::store::{
    Claim, Commit, CommitOutcome, Direction, Loaded, QuarantineRecord, RecordedEvent, ShardOwner,
    SnapshotOutcome, SnapshotRecord, SnapshotWrite, StoreStats, StreamRange, Target,
};
use orchestrix_core::{Checkpoint, Epoch, Incarnation, Seq, ShardId, StreamId, Version};

use super::log::{EventRef, Log, Place, StreamNumber};
use super::{Refused, packed};
use crate::hash::IdHash;

/// The largest commit, in bytes: 1 GiB, since lengths are kept in 32 bits, and SQLite takes no more either.
const COMMIT_BYTES_MAX: usize = 1 << 30;

/// Something per stream.
type StreamMap<T> = HashMap<StreamId, T, IdHash>;

/// One shard of the store.
pub(super) struct Shard {
    id: ShardId,
    epoch: Epoch,
    /// `None` until the first claim, and when it was given back.
    owner: Option<Incarnation>,
    /// The run that should own it; `None` when it may stay where it is.
    target: Option<Incarnation>,
    log: Log,
    streams: StreamMap<Stream>,
    snapshots: StreamMap<SnapshotRecord>,
    quarantine: StreamMap<QuarantineRecord>,
    checkpoints: HashMap<String, Seq>,
    /// The import under way.
    importing: Option<String>,
}

/// Where one stream's commits stand in the log.
struct Stream {
    number: StreamNumber,
    version: Version,
    commits: Vec<Place>,
}

impl Shard {
    pub(super) fn new(id: ShardId) -> Self {
        Self {
            id,
            epoch: Epoch::ZERO,
            owner: None,
            target: None,
            log: Log::new(id),
            streams: StreamMap::default(),
            snapshots: StreamMap::default(),
            quarantine: StreamMap::default(),
            checkpoints: HashMap::new(),
            importing: None,
        }
    }

    /// Gives the shard to an owner, under a new epoch.
    pub(super) fn claim(&mut self, owner: Incarnation) -> Result<Claim, Refused> {
        if let Some(import) = &self.importing {
            return Err(Refused::Importing(import.clone()));
        }
        self.epoch = self.epoch.next();
        self.owner = Some(owner);
        self.target = None;
        Ok(Claim { shard: self.id, epoch: self.epoch, head: self.log.head() })
    }

    pub(super) fn owner(&self) -> Option<Incarnation> {
        self.owner
    }

    pub(super) fn ownership(&self) -> ShardOwner {
        let Self { id, epoch, owner, target, .. } = self;
        ShardOwner { shard: *id, owner: *owner, epoch: *epoch, target: *target }
    }

    /// Says where it should go, if owner and epoch are those that the decision was made from; `false` when nothing
    /// changes.
    pub(super) fn set_target(&mut self, wanted: &Target) -> bool {
        let target = Some(wanted.target).filter(|target| self.owner != Some(*target));
        let fits = self.owner == wanted.owner && self.epoch == wanted.epoch && self.target != target;
        if fits {
            self.target = target;
        }
        fits
    }

    /// Takes it from its owner; `false` when that is another one.
    pub(super) fn give_back(&mut self, owner: Incarnation, epoch: Epoch) -> bool {
        let is_held = self.is_held(owner, epoch);
        if is_held {
            self.owner = None;
        }
        is_held
    }

    pub(super) fn head(&self) -> Seq {
        self.log.head()
    }

    pub(super) fn version(&self, stream: &StreamId) -> Version {
        self.streams.get(stream).map_or(Version::ZERO, |stream| stream.version)
    }

    pub(super) fn importing(&self) -> Option<&String> {
        self.importing.as_ref()
    }

    pub(super) fn set_importing(&mut self, name: Option<String>) {
        self.importing = name;
    }

    /// Says what is in the shard, if anything is.
    pub(super) fn contents(&self) -> Option<String> {
        let id = self.id;
        let Self { owner, snapshots, quarantine, checkpoints, .. } = self;
        let besides = [snapshots.len(), quarantine.len(), checkpoints.len()].iter().sum::<usize>();
        match (self.log.head(), owner) {
            (Seq::ZERO, None) if besides == 0 => None,
            (Seq::ZERO, None) => Some(format!("shard {id} has snapshots, checkpoints or quarantines")),
            (Seq::ZERO, Some(owner)) => Some(format!("shard {id} is owned by run {owner}")),
            (head, _) => Some(format!("shard {id} has {head} events")),
        }
    }

    /// Adds a commit as it was recorded elsewhere. The caller has checked that it continues the log.
    pub(super) fn import(&mut self, commit: &Commit) {
        self.epoch = self.epoch.max(commit.epoch);
        self.store(commit);
    }

    /// Tells whether this is the owner, at the current epoch: both must match.
    pub(super) fn is_held(&self, owner: Incarnation, epoch: Epoch) -> bool {
        self.epoch == epoch && self.owner == Some(owner)
    }

    /// Stores a commit, or says why not.
    pub(super) fn append(&mut self, owner: Incarnation, commit: &Commit) -> CommitOutcome {
        if !self.is_held(owner, commit.epoch) {
            return CommitOutcome::Fenced;
        }
        if commit.events.is_empty() {
            return CommitOutcome::Unavailable { reason: "a commit needs at least one event".into() };
        }
        let bytes = packed::size(commit);
        if bytes > COMMIT_BYTES_MAX {
            let reason = format!("a commit of {bytes} bytes is over the limit of {COMMIT_BYTES_MAX}");
            return CommitOutcome::Unavailable { reason: reason.into() };
        }
        self.store(commit)
    }

    fn store(&mut self, commit: &Commit) -> CommitOutcome {
        // A known stream, the common case, costs one lookup and no copy of its id.
        if let Some(stream) = self.streams.get_mut(&commit.stream) {
            if commit.expected != stream.version {
                return CommitOutcome::Conflict { actual: Some(stream.version) };
            }
            stream.version = commit.last_version();
            let (place, first_seq) = self.log.push(stream.number, commit);
            stream.commits.push(place);
            return CommitOutcome::Committed { first_seq };
        }
        if commit.expected != Version::ZERO {
            return CommitOutcome::Conflict { actual: Some(Version::ZERO) };
        }
        let number = self.log.add_stream(commit.stream.clone());
        let (place, first_seq) = self.log.push(number, commit);
        let stream = Stream { number, version: commit.last_version(), commits: vec![place] };
        self.streams.insert(commit.stream.clone(), stream);
        CommitOutcome::Committed { first_seq }
    }

    /// Reads what an activation needs.
    pub(super) fn load(&self, stream: &StreamId, events_max: usize) -> Loaded {
        let snapshot = self.snapshots.get(stream).cloned();
        let from = snapshot.as_ref().map_or(Version::ZERO, |snapshot| snapshot.version).next();
        Loaded {
            snapshot,
            events: self.read_stream(stream, &StreamRange::from(from, events_max)),
            version: self.streams.get(stream).map_or(Version::ZERO, |stream| stream.version),
            quarantine: self.quarantine.get(stream).cloned(),
        }
    }

    /// Reads part of a stream.
    pub(super) fn read_stream(&self, stream: &StreamId, range: &StreamRange) -> Vec<RecordedEvent> {
        let Some(stream) = self.streams.get(stream) else { return Vec::new() };
        let mut commits = stream.commits.as_slice();
        if let Some(to) = range.to {
            commits = &commits[..commits.partition_point(|place| self.log.get(*place).expected() < to)];
        }
        let first = commits.partition_point(|place| self.log.get(*place).last_version() < range.from);
        let events = commits[first..].iter().flat_map(|place| self.log.get(*place).events());
        match range.direction {
            Direction::Forwards => cut(events, range),
            Direction::Backwards => cut(events.rev(), range),
        }
    }

    /// Reads up to `limit` events of the shard after a seq.
    pub(super) fn read(&self, after: Seq, limit: usize) -> Vec<RecordedEvent> {
        self.log.read(after, limit)
    }

    /// Returns the streams of a type with an id after this one, in no order.
    pub(super) fn streams_after(
        &self,
        aggregate_type: &str,
        after_id: Option<&str>,
    ) -> impl Iterator<Item = (StreamId, Version)> {
        self.streams
            .iter()
            .filter(move |(id, _)| id.aggregate_type == aggregate_type)
            .filter(move |(id, _)| after_id.is_none_or(|after| *id.id > *after))
            .map(|(id, stream)| (id.clone(), stream.version))
    }

    pub(super) fn save_snapshot(&mut self, owner: Incarnation, write: SnapshotWrite) -> SnapshotOutcome {
        if !self.is_held(owner, write.epoch) {
            return SnapshotOutcome::Fenced;
        }
        if self.snapshots.get(&write.stream).is_some_and(|stored| stored.version > write.record.version) {
            return SnapshotOutcome::Superseded;
        }
        self.snapshots.insert(write.stream, write.record);
        SnapshotOutcome::Saved
    }

    pub(super) fn delete_snapshot(&mut self, stream: &StreamId) {
        self.snapshots.remove(stream);
    }

    /// Adds what a consumer has seen of this shard.
    pub(super) fn add_checkpoint(&self, consumer: &str, checkpoint: &mut Checkpoint) {
        if let Some(seq) = self.checkpoints.get(consumer) {
            checkpoint.advance(self.id, *seq);
        }
    }

    pub(super) fn save_checkpoint(
        &mut self,
        consumer: &str,
        owner: Incarnation,
        epoch: Epoch,
        seq: Seq,
    ) -> bool {
        if !self.is_held(owner, epoch) {
            return false;
        }
        match self.checkpoints.get_mut(consumer) {
            Some(stored) => *stored = seq.max(*stored),
            None => drop(self.checkpoints.insert(consumer.to_owned(), seq)),
        }
        true
    }

    pub(super) fn quarantine(&mut self, record: QuarantineRecord) {
        self.quarantine.insert(record.stream.clone(), record);
    }

    pub(super) fn release(&mut self, stream: &StreamId) -> bool {
        self.quarantine.remove(stream).is_some()
    }

    pub(super) fn quarantined(&self) -> impl Iterator<Item = &QuarantineRecord> {
        self.quarantine.values()
    }

    pub(super) fn add_stats(&self, stats: &mut StoreStats) {
        stats.events += self.log.head().get();
        stats.streams += self.streams.len() as u64;
        stats.snapshots += self.snapshots.len() as u64;
        stats.quarantined += self.quarantine.len() as u64;
    }
}

/// Copies out the events that a range asks for, from commits that overlap it, in the order wanted.
fn cut<'a>(events: impl Iterator<Item = EventRef<'a>>, range: &StreamRange) -> Vec<RecordedEvent> {
    events
        .filter(|event| event.version() >= range.from)
        .filter(|event| range.to.is_none_or(|to| event.version() <= to))
        .filter(|event| range.until.is_none_or(|until| event.recorded_at() <= until))
        .take(range.limit)
        .map(|event| event.record())
        .collect()
}
