//! What goes into a store and what comes out of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::codec::{Codec, DecodeError, EncodeError, scratch};
use crate::command::CommandId;
use crate::event::RawEvent;
use crate::metadata::Metadata;
use crate::shard::{ShardCount, ShardId};
use crate::stream::{Name, StreamId};
use crate::version::{Epoch, Incarnation, Seq, Version};

/// What a store is and what it can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreInfo {
    /// The store's name as in `EVENT_STORE_TYPE`.
    pub name: &'static str,
    /// How many shards its log has.
    pub shard_count: ShardCount,
    /// Whether a committed event survives a power cut. Only the in-memory store says no.
    pub durable: bool,
    /// How many appends it can usefully carry at once.
    pub lanes: usize,
    /// The most events that one append should carry.
    pub batch_events_max: usize,
    /// Whether several processes may share it, so that runs of nodes have to join and to renew their leases.
    pub leases: bool,
}

/// One event on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The name in the log.
    pub event_type: Name,
    /// The version of the payload's schema.
    pub schema_version: u16,
    /// The form of the payload.
    pub codec: Codec,
    /// The payload.
    pub payload: Vec<u8>,
}

/// The events of one command, stored together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The stream that they are appended to.
    pub stream: StreamId,
    /// The stream's shard.
    pub shard: ShardId,
    /// The epoch under which the writer owns the shard.
    pub epoch: Epoch,
    /// The stream's version before this commit; the first event gets the next one.
    pub expected: Version,
    /// The command that led to them.
    pub command_id: CommandId,
    /// When the decision was made.
    pub recorded_at: Timestamp,
    /// The metadata in its stored form.
    pub headers: Option<Arc<[u8]>>,
    /// The command's fingerprint and reply in their stored form; kept with the last event.
    pub receipt: Option<Vec<u8>>,
    /// At least one event.
    pub events: Vec<NewEvent>,
}

impl Commit {
    /// Returns the version of the last event.
    pub fn last_version(&self) -> Version {
        self.expected.plus(self.events.len() as u64)
    }

    /// Returns a measure of its size: the payload bytes and a fixed allowance per event.
    pub fn weight_bytes(&self) -> usize {
        let own =
            self.receipt.as_ref().map_or(0, Vec::len) + self.headers.as_ref().map_or(0, |bytes| bytes.len());
        self.events.iter().map(|event| event.payload.len() + 128).sum::<usize>() + own
    }
}

/// Commits to append in one go, by one run of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The run of the node that owns the shards.
    pub owner: Incarnation,
    /// The commits, in the order in which those of one stream must take effect.
    pub commits: Vec<Commit>,
}

/// What became of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is durable.
    Committed {
        /// The seq of its first event.
        first_seq: Seq,
    },
    /// The stream is not at the version expected. Not stored, and never will be.
    Conflict {
        /// The stream's version, where the store knows it.
        actual: Option<Version>,
    },
    /// The writer does not own the shard any more. Not stored, and never will be.
    Fenced,
    /// The store could not take it. Not stored, and never will be.
    Unavailable {
        /// What the store or its driver said.
        reason: Arc<str>,
    },
    /// Nobody knows. A claim of the shard, followed by a read, tells.
    Unknown {
        /// What the store or its driver said.
        reason: Arc<str>,
    },
}

impl CommitOutcome {
    /// Tells whether the commit is durable.
    pub fn is_committed(&self) -> bool {
        matches!(self, Self::Committed { .. })
    }
}

/// Ownership of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// The shard.
    pub shard: ShardId,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The shard's last seq at the time of the claim.
    pub head: Seq,
}

/// One event as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// The stream.
    pub stream: StreamId,
    /// The place in the stream.
    pub version: Version,
    /// The shard.
    pub shard: ShardId,
    /// The place in the shard.
    pub seq: Seq,
    /// The epoch under which it was written.
    pub epoch: Epoch,
    /// The name in the log.
    pub event_type: Name,
    /// The version of the payload's schema.
    pub schema_version: u16,
    /// The form of the payload.
    pub codec: Codec,
    /// The command that led to it.
    pub command_id: CommandId,
    /// When the decision was made.
    pub recorded_at: Timestamp,
    /// The metadata in its stored form.
    pub headers: Option<Arc<[u8]>>,
    /// On a command's last event: its fingerprint and reply.
    pub receipt: Option<Vec<u8>>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl RecordedEvent {
    /// Returns what [`Event::decode`](crate::Event::decode) reads.
    pub fn raw(&self) -> RawEvent<'_> {
        RawEvent {
            event_type: &self.event_type,
            schema_version: self.schema_version,
            codec: self.codec,
            payload: &self.payload,
        }
    }

    /// Reads its metadata.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] when the stored bytes are no metadata.
    pub fn metadata(&self) -> Result<Metadata, DecodeError> {
        Metadata::decode(self.headers.as_deref())
    }
}

/// What a command's last event keeps, so that a retry gets the first reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Tells two bodies under one command id apart.
    pub fingerprint: u64,
    /// The reply as JSON.
    pub reply: Vec<u8>,
}

impl Receipt {
    /// Returns the stored form: eight bytes of fingerprint, little end first, then the reply.
    pub fn encode(&self) -> Vec<u8> {
        [&self.fingerprint.to_le_bytes()[..], &self.reply].concat()
    }

    /// Returns the stored form of a fingerprint and a reply that is still a value.
    ///
    /// # Errors
    /// [`EncodeError`] when the reply has no JSON form.
    pub fn encode_reply<R: Serialize>(fingerprint: u64, reply: &R) -> Result<Vec<u8>, EncodeError> {
        scratch::with(|buffer| {
            buffer.extend_from_slice(&fingerprint.to_le_bytes());
            match serde_json::to_writer(&mut *buffer, reply) {
                Ok(()) => Ok(buffer.as_slice().to_vec()),
                Err(error) => Err(EncodeError { what: Name::Borrowed("reply"), reason: error.to_string() }),
            }
        })
    }

    /// Returns the reply's part of the stored form.
    pub fn reply_bytes(stored: &[u8]) -> &[u8] {
        stored.get(8..).unwrap_or_default()
    }

    /// Reads the stored form; `None` when it is too short to be one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (fingerprint, reply) = bytes.split_first_chunk::<8>()?;
        Some(Self { fingerprint: u64::from_le_bytes(*fingerprint), reply: reply.to_vec() })
    }
}

/// The order of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the first to the last.
    #[default]
    Forwards,
    /// From the last to the first.
    Backwards,
}

/// Which part of a stream to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRange {
    /// The first version wanted, included.
    pub from: Version,
    /// The last version wanted, included; `None` is the end of the stream.
    pub to: Option<Version>,
    /// Only events recorded at or before this moment.
    pub until: Option<Timestamp>,
    /// The order of the answer; a limit cuts at its end.
    pub direction: Direction,
    /// The most events to return.
    pub limit: usize,
}

impl StreamRange {
    /// Everything from a version on, up to `limit` events.
    pub const fn from(version: Version, limit: usize) -> Self {
        Self { from: version, to: None, until: None, direction: Direction::Forwards, limit }
    }
}

/// A snapshot as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// The version of the state in it.
    pub version: Version,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// Header and body, see [`crate::snapshot`].
    pub bytes: Vec<u8>,
}

/// A snapshot on its way into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotWrite {
    /// Whose state it is.
    pub stream: StreamId,
    /// The stream's shard.
    pub shard: ShardId,
    /// The epoch under which the writer owns the shard.
    pub epoch: Epoch,
    /// What to store.
    pub record: SnapshotRecord,
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// It is stored.
    Saved,
    /// One of a higher version is stored already; that one stays.
    Superseded,
    /// The writer does not own the shard any more; nothing was stored.
    Fenced,
}

/// What an activation starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The newest snapshot, whatever state it is in.
    pub snapshot: Option<SnapshotRecord>,
    /// The first events after the snapshot, or of the stream when there is none, in order.
    pub events: Vec<RecordedEvent>,
    /// The stream's version; [`Version::ZERO`] when it has no events.
    pub version: Version,
    /// Set when the aggregate is quarantined.
    pub quarantine: Option<QuarantineRecord>,
}

/// Why an aggregate takes no commands until somebody has looked at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// The aggregate.
    pub stream: StreamId,
    /// What happened, for the person who looks.
    pub reason: String,
    /// The command that was being handled, if it was one.
    pub command_id: Option<CommandId>,
    /// When it was quarantined.
    pub since: Timestamp,
}

/// What is stored, by count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStats {
    /// Events in the log.
    pub events: u64,
    /// Streams with at least one event.
    pub streams: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Quarantined aggregates.
    pub quarantined: u64,
    /// Bytes that the store takes, where it can tell.
    pub bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_receipt_survives_its_codec(fingerprint in any::<u64>(), reply in any::<Vec<u8>>()) {
            let receipt = Receipt { fingerprint, reply };
            prop_assert_eq!(Receipt::decode(&receipt.encode()), Some(receipt));
        }
    }

    #[test]
    fn a_receipt_has_eight_bytes_of_fingerprint_before_the_reply() {
        let receipt = Receipt { fingerprint: 0x0102, reply: b"{}".to_vec() };
        assert_eq!(receipt.encode(), *b"\x02\x01\0\0\0\0\0\0{}");
        assert_eq!(Receipt::decode(b"short"), None);
        let stored = Receipt::encode_reply(7, &[1, 2]).expect("encodes");
        assert_eq!(Receipt::decode(&stored), Some(Receipt { fingerprint: 7, reply: b"[1,2]".to_vec() }));
        assert_eq!(Receipt::reply_bytes(&stored), b"[1,2]");
    }
}
