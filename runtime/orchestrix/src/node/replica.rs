//! A replica of the store for reads of the past. It may lag, and nobody notices but by the time that an answer takes.
//!
//! A log only grows: what a replica has of a stream is what the store has, up to some version. So the past is read from
//! the replica, and what it does not have yet is asked of the store itself, from the next version on. Commands, reads of
//! the present and everything that decides about ownership never look at a replica.

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use orchestrix_core::store::{Direction, ReadError, RecordedEvent, StreamRange};
use orchestrix_core::{EventStore, StreamId};

use crate::telemetry::ReplicaMetrics;

/// How long a replica that failed is left alone.
const REST: Duration = Duration::from_secs(5);

/// A second place to read the past from.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use orchestrix::store::Postgres;
/// use orchestrix::{Orchestrix, Replica};
/// use orchestrix_core::EventStore;
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Postgres::open("postgres://bank@primary/bank")?.connect().await?;
/// let store: Arc<dyn EventStore> = Arc::new(store);
/// let replica = Postgres::open("postgres://bank@replica/bank")?.read_only().connect().await?;
/// let builder = Orchestrix::builder().store(store).replica(Replica::of(replica));
/// # let _ = builder;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Replica {
    store: Arc<OnceLock<Arc<dyn EventStore>>>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("is_open", &self.store.get().is_some()).finish()
    }
}

impl Replica {
    /// Takes a replica that is open. It must be one of the node's own store: another log would be taken for its past.
    pub fn of(store: impl EventStore) -> Self {
        let replica = Self::default();
        replica.store.get_or_init(|| Arc::new(store));
        replica
    }

    /// Takes a replica that is opened in the background: until then, and without one, everything is read from the store
    /// itself. Must be called inside a tokio runtime.
    pub fn opening(open: impl Future<Output = Option<Arc<dyn EventStore>>> + Send + 'static) -> Self {
        let replica = Self::default();
        let slot = Arc::clone(&replica.store);
        tokio::spawn(async move {
            if let Some(store) = open.await {
                slot.get_or_init(|| store);
            }
        });
        replica
    }
}

/// Where the past is read from.
pub(crate) struct Past {
    store: Arc<dyn EventStore>,
    replica: Replica,
    rests_until: Mutex<Option<Instant>>,
    metrics: ReplicaMetrics,
}

impl Past {
    pub(crate) fn new(store: Arc<dyn EventStore>, replica: Option<Replica>, metrics: ReplicaMetrics) -> Self {
        Self { store, replica: replica.unwrap_or_default(), rests_until: Mutex::default(), metrics }
    }

    /// Reads part of a stream, as the store itself would.
    pub(crate) async fn read_stream(
        &self,
        stream: &StreamId,
        range: StreamRange,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut events = self.read_replica(stream, range).await;
        match rest(range, &events) {
            None => self.metrics.whole.increment(1),
            Some(rest) => {
                if !events.is_empty() {
                    self.metrics.topped_up.increment(1);
                }
                events.extend(self.store.read_stream(stream, rest).await?);
            }
        }
        Ok(events)
    }

    /// Closes the replica.
    pub(crate) async fn close(&self) {
        if let Some(replica) = self.replica.store.get() {
            replica.close().await;
        }
    }

    /// Returns what the replica has; nothing when it is of no use now.
    async fn read_replica(&self, stream: &StreamId, range: StreamRange) -> Vec<RecordedEvent> {
        let Some(replica) = self.replica.store.get().filter(|_| self.is_of_use(range)) else {
            return Vec::new();
        };
        match replica.read_stream(stream, range).await {
            Ok(events) => events,
            Err(error) => {
                self.metrics.failed.increment(1);
                tracing::warn!(%error, rest = ?REST, "the replica does not answer; reading from the store itself");
                *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Instant::now() + REST);
                Vec::new()
            }
        }
    }

    /// The end of a stream is the present, so nothing that starts there is asked of a replica.
    fn is_of_use(&self, range: StreamRange) -> bool {
        let rests_until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        range.direction == Direction::Forwards && rests_until.is_none_or(|until| Instant::now() >= until)
    }
}

/// Returns what must still be asked of the store after the replica has answered.
fn rest(range: StreamRange, events: &[RecordedEvent]) -> Option<StreamRange> {
    let Some(last) = events.last() else { return Some(range) };
    let is_whole = events.len() >= range.limit || range.to.is_some_and(|to| last.version >= to);
    let limit = range.limit.saturating_sub(events.len());
    (!is_whole).then(|| StreamRange { from: last.version.next(), limit, ..range })
}

#[cfg(test)]
mod tests {
    use orchestrix_core::store::{Batch, Commit, NewEvent};
    use orchestrix_core::{Codec, CommandId, Epoch, Incarnation, ShardCount, Timestamp, Version};
    use orchestrix_testkit::{Faulty, Operation};

    use super::*;
    use crate::store::Memory;
    use crate::telemetry::Metrics;

    fn stream() -> StreamId {
        StreamId::new("note", "one")
    }

    /// A log with one stream of so many events.
    async fn log(events: u64) -> Memory {
        let store = Memory::with_shards(ShardCount::new(1).expect("in range"));
        let (shard, owner) = (store.info().shard_count.shard_of_stream(&stream()), Incarnation::fresh());
        store.claim(&[shard], owner).await.expect("claims");
        for version in 0..events {
            let event = NewEvent {
                event_type: "note.taken".into(),
                schema_version: 1,
                codec: Codec::Json,
                payload: version.to_string().into_bytes(),
            };
            let commit = Commit {
                stream: stream(),
                shard,
                epoch: Epoch::new(1),
                expected: Version::new(version),
                command_id: CommandId::fresh(),
                recorded_at: Timestamp::from_micros(version as i64),
                headers: None,
                receipt: None,
                events: vec![event],
            };
            assert!(store.append(Batch { owner, commits: vec![commit] }).await[0].is_committed());
        }
        store
    }

    fn past(store: Memory, replica: Replica) -> Past {
        Past::new(Arc::new(store), Some(replica), Metrics::disabled().for_replica())
    }

    fn ranges() -> Vec<StreamRange> {
        let all = StreamRange::from(Version::new(1), usize::MAX);
        let up_to = |to| StreamRange { to: Some(Version::new(to)), ..all };
        let until = |at| StreamRange { until: Some(Timestamp::from_micros(at)), ..all };
        let back = StreamRange { direction: Direction::Backwards, limit: 3, ..all };
        let mut ranges = vec![all, up_to(3), up_to(6), up_to(99), until(2), until(7), back];
        ranges.extend((1..=11).map(|from| StreamRange { from: Version::new(from), limit: 3, ..all }));
        ranges
    }

    #[tokio::test]
    async fn a_replica_that_lags_changes_no_answer() {
        let store = log(10).await;
        for has in 0..=10 {
            let past = past(store.clone(), Replica::of(log(has).await));
            for range in ranges() {
                let versions = |events: Vec<RecordedEvent>| {
                    events.into_iter().map(|event| (event.version, event.payload)).collect::<Vec<_>>()
                };
                let wanted = versions(store.read_stream(&stream(), range).await.expect("reads"));
                let found = versions(past.read_stream(&stream(), range).await.expect("reads"));
                assert_eq!(found, wanted, "a replica with {has} events, {range:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_the_replica_has_is_not_asked_of_the_store() {
        let past = past(log(10).await, Replica::of(log(6).await));
        past.store.close().await;
        let up_to = |to| StreamRange { to: Some(Version::new(to)), ..StreamRange::from(Version::new(1), 99) };
        let found = past.read_stream(&stream(), up_to(6)).await.expect("the replica has it");
        assert_eq!(found.len(), 6);
        past.read_stream(&stream(), up_to(7)).await.expect_err("the store would be needed");
    }

    #[tokio::test]
    async fn a_replica_that_fails_is_left_alone_for_a_while() {
        let (replica, faults) = Faulty::new(Arc::new(log(6).await));
        let opened: Arc<dyn EventStore> = replica;
        let replica = Replica::default();
        replica.store.get_or_init(|| opened);
        let past = past(log(10).await, replica);
        faults.fail(Operation::Read, u64::MAX);
        for _ in 0..3 {
            let range = StreamRange::from(Version::new(1), 99);
            assert_eq!(past.read_stream(&stream(), range).await.expect("the store answers").len(), 10);
        }
        assert_eq!(faults.faults_hit().calls_failed, 1, "it was asked once");
    }
}
