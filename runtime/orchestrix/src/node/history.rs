//! An aggregate's past: its events, and its state as it was at a version or a time.
//!
//! The past is read straight from the store, or from a replica and the store. What a caller was told is durable, so it
//! is there.

use std::time::Instant;

use orchestrix_core::store::{Direction, RecordedEvent, StreamRange};
use orchestrix_core::{Aggregate, Decoded, Event, StreamId, Timestamp, Version};

use super::AggregateRef;
use crate::aggregate::{FoldError, fold, guarded, open_snapshot};
use crate::error::HistoryError;

/// One event of an aggregate's past.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEvent<E> {
    /// As it is stored, with version, time, command and shard.
    pub recorded: RecordedEvent,
    /// What it means today: one event, several or none.
    pub events: Vec<E>,
}

/// A state of the past.
#[derive(Clone, Debug)]
pub struct PastState<A> {
    /// The state.
    pub state: A,
    /// Its version; 0 when the aggregate had no events yet.
    pub version: Version,
}

impl<A: Aggregate> AggregateRef<A> {
    /// Returns stored events from a version on, up to `limit`, in order.
    ///
    /// # Errors
    /// [`HistoryError::Read`] when the store does not answer, [`HistoryError::Decode`] when an event cannot be
    /// understood.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    pub async fn history(
        &self,
        from: Version,
        limit: usize,
    ) -> Result<Vec<HistoryEvent<A::Event>>, HistoryError> {
        let stream = self.stream();
        let recorded =
            self.running().shared.past.read_stream(&stream, StreamRange::from(from, limit)).await?;
        recorded.into_iter().map(|recorded| decode::<A>(&stream, recorded)).collect()
    }

    /// Rebuilds the state as it was at a version, from the newest snapshot that is not later.
    ///
    /// # Errors
    /// [`HistoryError::FutureVersion`] when the aggregate has not reached it; else as [`history`](Self::history).
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    pub async fn load_at_version(&self, version: Version) -> Result<PastState<A>, HistoryError> {
        let past = self.replay(Some(version), None).await?;
        if past.version < version {
            return Err(HistoryError::FutureVersion {
                stream: self.stream(),
                wanted: version,
                actual: past.version,
            });
        }
        Ok(past)
    }

    /// Rebuilds the state as it was at a time: with all events recorded at or before it.
    ///
    /// # Errors
    /// As [`history`](Self::history).
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    pub async fn load_at_time(&self, time: Timestamp) -> Result<PastState<A>, HistoryError> {
        self.replay(None, Some(time)).await
    }

    /// Replays page by page, so that memory stays bounded.
    async fn replay(
        &self,
        to: Option<Version>,
        until: Option<Timestamp>,
    ) -> Result<PastState<A>, HistoryError> {
        let shared = &self.running().shared;
        let (stream, started, limit) = (self.stream(), Instant::now(), shared.settings.load_page_events);
        let mut past = self.start(&stream, to, until).await?;
        let mut replayed = 0;
        loop {
            let range =
                StreamRange { from: past.version.next(), to, until, direction: Direction::Forwards, limit };
            let events = shared.past.read_stream(&stream, range).await?;
            fold(&mut past.state, &mut past.version, &events).map_err(|error| failed(&stream, error))?;
            replayed += events.len() as u64;
            if events.len() < limit {
                break;
            }
        }
        if let Some(type_index) = self.running().type_index(std::any::TypeId::of::<A>()) {
            shared.telemetry.of(type_index).replayed(&stream, replayed, started.elapsed());
        }
        Ok(past)
    }

    /// Starts from the snapshot if it is early enough, else from nothing.
    async fn start(
        &self,
        stream: &StreamId,
        to: Option<Version>,
        until: Option<Timestamp>,
    ) -> Result<PastState<A>, HistoryError> {
        let loaded = self.running().shared.store.load(stream, 0).await?;
        let early = loaded.snapshot.filter(|snapshot| {
            let by_version = to.is_none_or(|to| snapshot.version <= to);
            // It was taken after its last event was recorded, so its own time bounds that event's.
            let by_time = until.is_none_or(|until| snapshot.taken_at <= until);
            by_version && by_time && snapshot.version <= loaded.version
        });
        let usable = early.and_then(|snapshot| {
            let opened = guarded(|| open_snapshot::<A>(stream, &snapshot)).ok()?.ok()?;
            Some(PastState { state: opened.0, version: snapshot.version })
        });
        Ok(usable.unwrap_or_else(|| PastState { state: A::default(), version: Version::ZERO }))
    }
}

fn decode<A: Aggregate>(
    stream: &StreamId,
    recorded: RecordedEvent,
) -> Result<HistoryEvent<A::Event>, HistoryError> {
    let events = match A::Event::decode(recorded.raw()) {
        Ok(Decoded::One(event)) => vec![event],
        Ok(Decoded::Many(events)) => events,
        Err(source) => {
            return Err(HistoryError::Decode { stream: stream.clone(), version: recorded.version, source });
        }
    };
    Ok(HistoryEvent { recorded, events })
}

/// Tells what is wrong with an aggregate's past.
pub(crate) fn failed(stream: &StreamId, error: FoldError) -> HistoryError {
    let stream = stream.clone();
    match error {
        FoldError::Decode(version, source) => HistoryError::Decode { stream, version, source },
        FoldError::Panicked(version, message) => {
            HistoryError::Panicked { stream, version, message: message.to_string() }
        }
        FoldError::Hole { expected, .. } => HistoryError::Missing { stream, version: expected },
    }
}
