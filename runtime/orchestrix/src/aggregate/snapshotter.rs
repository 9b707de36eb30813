//! Saves snapshots off the command path, several in one write.

use std::sync::Arc;

use orchestrix_core::codec::bincode;
use orchestrix_core::snapshot::{schema_fingerprint, seal_value};
use orchestrix_core::store::{SnapshotOutcome, SnapshotRecord, SnapshotWrite};
use orchestrix_core::{
    Aggregate, EncodeError, EventStore, ShardId, SnapshotDefect, StreamId, Timestamp, Version,
};
use tokio::sync::{mpsc, oneshot};

use super::dedup::Memory;
use super::recovery::{encoder_panicked, guarded};
use crate::telemetry::Telemetry;
use crate::writer::Ownership;

/// The snapshots that wait at most; a snapshot over that is dropped, and taken again later.
pub(crate) const QUEUE_MAX: usize = 1_024;

/// The snapshots that one write carries at most.
const WRITE_MAX: usize = 64;

/// A state that was encoded and waits to be saved.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) stream: StreamId,
    pub(crate) shard: ShardId,
    pub(crate) version: Version,
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: Timestamp,
}

/// What waits for the task that saves.
#[derive(Debug)]
pub(crate) enum ToSave {
    /// A snapshot.
    Snapshot(Taken),
    /// Somebody who wants to hear when everything before this has been saved, or could not be.
    Word(oneshot::Sender<()>),
}

/// Encodes a state with its memory of commands, and with its place: the bytes of one aggregate must not pass for
/// those of another.
pub(crate) fn take<A: Aggregate>(
    stream: &StreamId,
    shard: ShardId,
    version: Version,
    state: &A,
    memory: &Memory,
    at: Timestamp,
) -> Result<Taken, EncodeError> {
    let sealed = guarded(|| {
        seal_value(schema_fingerprint::<A>(), A::TYPE.as_str(), &(&*stream.id, version, state, memory))
    });
    let bytes = sealed.unwrap_or_else(|words| Err(encoder_panicked(A::TYPE.as_str(), &words)))?;
    Ok(Taken { stream: stream.clone(), shard, version, bytes, at })
}

/// Reads what [`take`] encoded.
pub(crate) fn open<A: Aggregate>(
    stream: &StreamId,
    record: &SnapshotRecord,
) -> Result<(A, Memory), SnapshotDefect> {
    let body = orchestrix_core::snapshot::open(schema_fingerprint::<A>(), &record.bytes)?;
    let decoded: Result<(Box<str>, Version, A, Memory), _> = bincode::decode(A::TYPE.as_str(), body);
    let (id, version, state, memory) = decoded.map_err(|_| SnapshotDefect::Undecodable)?;
    if *id != *stream.id || version != record.version {
        return Err(SnapshotDefect::OtherPlace);
    }
    Ok((state, memory))
}

/// Checks as much of a snapshot as can be checked without the type of its state: its bytes, and whose it is.
pub(crate) fn check(stream: &StreamId, version: Version, bytes: &[u8]) -> Result<(), SnapshotDefect> {
    let body = orchestrix_core::snapshot::open_any(bytes)?;
    let front: Result<(Box<str>, Version), _> = bincode::decode_front(&stream.aggregate_type, body);
    let (id, own) = front.map_err(|_| SnapshotDefect::Undecodable)?;
    if *id == *stream.id && own == version { Ok(()) } else { Err(SnapshotDefect::OtherPlace) }
}

/// The task that saves.
pub(crate) struct Snapshotter {
    pub(crate) queue: mpsc::Receiver<ToSave>,
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) telemetry: Arc<Telemetry>,
}

impl Snapshotter {
    /// Runs until it is stopped or every sender is gone; what waits then is saved first.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut round = Vec::with_capacity(WRITE_MAX);
        loop {
            let received = tokio::select! {
                biased;
                received = self.queue.recv_many(&mut round, WRITE_MAX) => received,
                _ = &mut stop => {
                    self.queue.close();
                    self.queue.recv_many(&mut round, WRITE_MAX).await
                }
            };
            if received == 0 {
                return;
            }
            self.save(std::mem::take(&mut round)).await;
            if self.queue.is_closed() {
                // A receiver that has fired must not be polled again: what is left is taken without it.
                while self.queue.recv_many(&mut round, WRITE_MAX).await > 0 {
                    self.save(std::mem::take(&mut round)).await;
                }
                return;
            }
        }
    }

    /// Saves what has come, and gives word to those who came behind it.
    async fn save(&self, round: Vec<ToSave>) {
        let (mut snapshots, mut words) = (Vec::with_capacity(round.len()), Vec::new());
        for one in round {
            match one {
                ToSave::Snapshot(taken) => snapshots.push(taken),
                ToSave::Word(word) => words.push(word),
            }
        }
        if !snapshots.is_empty() {
            self.write_all(snapshots).await;
        }
        for word in words {
            // Whoever asked may have stopped waiting.
            let _ = word.send(());
        }
    }

    async fn write_all(&self, round: Vec<Taken>) {
        let about: Vec<_> =
            round.iter().map(|taken| (taken.stream.clone(), taken.version, taken.bytes.len())).collect();
        let writes = round.into_iter().map(|taken| self.write(taken)).collect();
        match self.store.save_snapshots(self.ownership.owner(), writes).await {
            Ok(outcomes) => {
                for ((stream, version, bytes), outcome) in about.iter().zip(outcomes) {
                    if outcome == SnapshotOutcome::Saved {
                        self.telemetry.snapshot_saved(stream, *version, *bytes);
                    }
                }
            }
            Err(error) => {
                self.telemetry.error("snapshot");
                tracing::warn!(%error, snapshots = about.len(), "snapshots were not saved; they will be taken again");
            }
        }
    }

    fn write(&self, taken: Taken) -> SnapshotWrite {
        SnapshotWrite {
            epoch: self.ownership.epoch(taken.shard),
            stream: taken.stream,
            shard: taken.shard,
            record: SnapshotRecord { version: taken.version, taken_at: taken.at, bytes: taken.bytes },
        }
    }
}
