//! The application's aggregates behind one interface, so that commands can be written once.

use std::marker::PhantomData;

use orchestrix_core::store::{BoxFuture, SnapshotRecord};
use orchestrix_core::{Aggregate, AggregateId, EventStore, ShardId, StreamId, Timestamp, Version};
use serde_json::Value;

use super::error::CliError;
use super::replay::{Until, replay};
use crate::aggregate::{Window, guarded, open_snapshot, take_snapshot};
use crate::error::HistoryError;

/// A state for people.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) version: Version,
    pub(super) state: Value,
}

/// What a comparison of a stored snapshot with a replay found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// There is no snapshot.
    None,
    /// It is the same.
    Same,
    /// It is of no use, or tells something else than the events; with the reason.
    Different(String),
}

/// One kind of aggregate.
pub(super) trait Kind: Send + Sync {
    /// Its name in the log.
    fn name(&self) -> &'static str;

    /// Checks an id by the application's own rule.
    fn check_id(&self, id: &str) -> Result<(), String>;

    /// Rebuilds a state and shows it as JSON.
    fn show<'a>(
        &'a self,
        store: &'a dyn EventStore,
        stream: &'a StreamId,
        until: Until,
    ) -> BoxFuture<'a, Result<Shown, CliError>>;

    /// Rebuilds a state from its events alone and encodes its snapshot; `None` when it has no events.
    fn snapshot<'a>(
        &'a self,
        store: &'a dyn EventStore,
        stream: &'a StreamId,
        window: Window,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Option<SnapshotRecord>, CliError>>;

    /// Compares the stored snapshot with the events.
    fn compare<'a>(
        &'a self,
        store: &'a dyn EventStore,
        stream: &'a StreamId,
        window: Window,
    ) -> BoxFuture<'a, Result<Compared, CliError>>;
}

/// The kinds that an application registered.
#[derive(Default)]
pub(super) struct Types {
    kinds: Vec<Box<dyn Kind>>,
}

impl Types {
    pub(super) fn add<A: Aggregate>(&mut self) {
        self.kinds.push(Box::new(Of::<A>(PhantomData)));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &dyn Kind> {
        self.kinds.iter().map(AsRef::as_ref)
    }

    /// Finds a kind by its name, or says which there are.
    pub(super) fn find(&self, name: &str) -> Result<&dyn Kind, CliError> {
        self.all().find(|kind| kind.name() == name).ok_or_else(|| {
            let known: Vec<_> = self.all().map(Kind::name).collect();
            CliError::Usage(format!(
                "no type of aggregate is called {name:?}; there are: {}",
                known.join(", ")
            ))
        })
    }
}

struct Of<A>(PhantomData<fn() -> A>);

impl<A: Aggregate> Kind for Of<A> {
    fn name(&self) -> &'static str {
        A::TYPE.as_str()
    }

    fn check_id(&self, id: &str) -> Result<(), String> {
        A::Id::from_key(id).map(|_| ()).map_err(|error| error.to_string())
    }

    fn show<'a>(
        &'a self,
        store: &'a dyn EventStore,
        stream: &'a StreamId,
        until: Until,
    ) -> BoxFuture<'a, Result<Shown, CliError>> {
        Box::pin(async move {
            let replayed = replay::<A>(store, stream, until, None).await?;
            let state = serde_json::to_value(&replayed.state)
                .map_err(|error| CliError::Found(format!("{stream} has no JSON form: {error}")))?;
            Ok(Shown { version: replayed.version, state })
        })
    }

    fn snapshot<'a>(
        &'a self,
        store: &'a dyn EventStore,
        stream: &'a StreamId,
        window: Window,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<Option<SnapshotRecord>, CliError>> {
        Box::pin(async move {
            let replayed = replay::<A>(store, stream, Until::Now, Some(window)).await?;
            if replayed.version == Version::ZERO {
                return Ok(None);
            }
            // The place does not matter to the bytes; whoever saves them knows it.
            let place = ShardId::new(0);
            let taken = take_snapshot(stream, place, replayed.version, &replayed.state, &replayed.memory, at)
                .map_err(|error| CliError::Found(format!("{stream}: {error}")))?;
            Ok(Some(SnapshotRecord { version: replayed.version, taken_at: at, bytes: taken.bytes }))
        })
    }

    fn compare<'a>(
        &'a self,
        store: &'a dyn EventStore,
        stream: &'a StreamId,
        window: Window,
    ) -> BoxFuture<'a, Result<Compared, CliError>> {
        Box::pin(async move {
            let loaded = store.load(stream, 0).await?;
            let Some(record) = loaded.snapshot else { return Ok(Compared::None) };
            if record.version > loaded.version {
                let reason =
                    format!("it is of version {}, the stream is at {}", record.version, loaded.version);
                return Ok(Compared::Different(reason));
            }
            let state = match guarded(|| open_snapshot::<A>(stream, &record)) {
                Ok(Ok((state, _))) => state,
                Ok(Err(defect)) => return Ok(Compared::Different(defect.to_string())),
                Err(panic) => return Ok(Compared::Different(format!("reading it panicked: {panic}"))),
            };
            let replayed = replay::<A>(store, stream, Until::Version(record.version), Some(window)).await?;
            Ok(same_state(&state, &replayed.state))
        })
    }
}

/// Compares as JSON: the bytes of a map may differ although its content does not.
fn same_state<A: Aggregate>(stored: &A, replayed: &A) -> Compared {
    match (serde_json::to_value(stored), serde_json::to_value(replayed)) {
        (Ok(stored), Ok(replayed)) if stored == replayed => Compared::Same,
        (Ok(stored), Ok(replayed)) => {
            Compared::Different(format!("it says {stored}, the events say {replayed}"))
        }
        (Err(error), _) | (_, Err(error)) => {
            Compared::Different(format!("the state has no JSON form: {error}"))
        }
    }
}

/// Turns what went wrong with one aggregate into words, and lets a store that does not answer end the command.
pub(super) fn of_one<T>(done: Result<T, CliError>) -> Result<Result<T, String>, CliError> {
    match done {
        Ok(value) => Ok(Ok(value)),
        Err(error @ (CliError::Read(_) | CliError::History(HistoryError::Read(_)))) => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}
