//! From snapshot and events to a state.
//!
//! A snapshot that cannot be used is counted and passed over: the events are replayed instead. An event that cannot
//! be understood, or an `apply` that panics, is poison: the aggregate is quarantined, and nobody else notices.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrix_core::store::{Loaded, QuarantineRecord, ReadError, Receipt, RecordedEvent, StreamRange};
use orchestrix_core::{
    Aggregate, DecodeError, EncodeError, Event, EventStore, SnapshotDefect, StreamId, Version,
};

use super::dedup::{Memory, Window};
use super::lifecycle::Ending;
use super::remembered::Remembered;
use super::shared::Shared;
use super::snapshotter;
use crate::telemetry::TypeTelemetry;

/// A state that was rebuilt.
pub(crate) struct Recovered<A> {
    pub(crate) state: A,
    pub(crate) memory: Memory,
    pub(crate) version: Version,
    /// Events replayed after the snapshot.
    pub(crate) replayed: u64,
    pub(crate) replayed_bytes: u64,
    pub(crate) snapshot_bytes: u64,
    pub(crate) took: Duration,
}

/// A state that could not be rebuilt.
pub(crate) struct Unrecovered {
    pub(crate) ending: Ending,
    /// To be stored, when a later release or a retry cannot be expected to help.
    pub(crate) quarantine: Option<Box<QuarantineRecord>>,
}

/// Why events could not be folded into a state.
#[derive(Debug)]
pub(crate) enum FoldError {
    /// A stored event cannot be understood.
    Decode(Version, DecodeError),
    /// The aggregate's code panicked.
    Panicked(Version, Arc<str>),
    /// The versions have a hole or a repetition.
    Hole { expected: Version, found: Version },
}

impl FoldError {
    fn reason(&self) -> Arc<str> {
        match self {
            Self::Decode(version, error) => format!("version {version}: {error}"),
            Self::Panicked(version, words) => format!("apply panicked at version {version}: {words}"),
            Self::Hole { expected, found } => {
                format!("version {expected} is missing; the log goes on with {found}")
            }
        }
        .into()
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Decode(..) => "undecodable",
            Self::Panicked(..) => "panicked",
            Self::Hole { .. } => "other",
        }
    }

    /// Another release may know the event; everything else stays broken until somebody has looked.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Decode(_, DecodeError::UnknownType { .. } | DecodeError::UnknownVersion { .. }))
    }
}

/// Returns what a panic said.
pub(crate) fn panic_words(panic: &(dyn Any + Send)) -> Arc<str> {
    let words = panic.downcast_ref::<&str>().copied();
    words
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
        .into()
}

/// Runs user code and turns its panic into words.
pub(crate) fn guarded<R>(code: impl FnOnce() -> R) -> Result<R, Arc<str>> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| panic_words(&*panic))
}

/// Says that a user's encoder panicked.
pub(crate) fn encoder_panicked(what: &'static str, words: &str) -> EncodeError {
    EncodeError { what: what.into(), reason: format!("the encoder panicked: {words}") }
}

/// Applies events to a state that is at the version before them; `version` moves along.
pub(crate) fn fold<A: Aggregate>(
    state: &mut A,
    version: &mut Version,
    events: &[RecordedEvent],
) -> Result<(), FoldError> {
    for recorded in events {
        if recorded.version != version.next() {
            return Err(FoldError::Hole { expected: version.next(), found: recorded.version });
        }
        let decoded = guarded(|| A::Event::decode(recorded.raw()))
            .map_err(|words| FoldError::Panicked(recorded.version, words))?
            .map_err(|error| FoldError::Decode(recorded.version, error))?;
        guarded(|| decoded.for_each(|event| state.apply(&event)))
            .map_err(|words| FoldError::Panicked(recorded.version, words))?;
        *version = recorded.version;
    }
    Ok(())
}

/// What an aggregate is rebuilt for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To decide: this node owns its shard.
    Decide,
    /// To be looked at once, whoever owns its shard. Nothing is mended in the store.
    Look,
}

/// Rebuilds one aggregate. The number of those that do it at once is bounded by `loads_in_flight_max`.
pub(crate) async fn recover<A: Aggregate>(
    shared: Arc<Shared>,
    stream: StreamId,
    telemetry: Arc<TypeTelemetry>,
    purpose: Purpose,
) -> Result<Recovered<A>, Unrecovered> {
    let _permit = shared.loads.acquire().await;
    let page = shared.settings.load_page_events;
    let started = Instant::now();
    let loaded = shared.store.load(&stream, page).await.map_err(|error| unavailable(&error))?;
    if let Some(quarantine) = loaded.quarantine {
        return Err(Unrecovered { ending: Ending::Quarantined(quarantine.reason.into()), quarantine: None });
    }
    telemetry.loaded(&stream, loaded.events.len() as u64, started.elapsed());
    let replay = Replay { shared: &shared, stream: &stream, telemetry: &telemetry, purpose, started };
    replay.run(loaded, page).await
}

struct Replay<'a> {
    shared: &'a Shared,
    stream: &'a StreamId,
    telemetry: &'a TypeTelemetry,
    purpose: Purpose,
    started: Instant,
}

impl Replay<'_> {
    async fn run<A: Aggregate>(&self, loaded: Loaded, page: usize) -> Result<Recovered<A>, Unrecovered> {
        let head = loaded.version;
        let from_snapshot = self.open_snapshot::<A>(&loaded);
        let used_snapshot = from_snapshot.is_some();
        let is_ahead = loaded.snapshot.as_ref().is_some_and(|snapshot| snapshot.version > head);
        if is_ahead && self.purpose == Purpose::Decide {
            self.delete_snapshot().await;
        }
        let first = match from_snapshot {
            Some(recovered) => self.replay(recovered, loaded.events, head, page).await,
            None if loaded.snapshot.is_some() => self.replay(self.empty(), Vec::new(), head, page).await,
            None => self.replay(self.empty(), loaded.events, head, page).await,
        };
        match first {
            Ok(recovered) => Ok(recovered),
            // A whole snapshot with a wrong state in it must change nothing but speed either.
            Err(Failure::Fold(_)) if used_snapshot => {
                self.telemetry.snapshot_defect(self.stream, SnapshotDefect::Undecodable);
                self.replay(self.empty(), Vec::new(), head, page)
                    .await
                    .map_err(|failure| self.give_up(failure))
            }
            Err(failure) => Err(self.give_up(failure)),
        }
    }

    fn empty<A: Aggregate>(&self) -> Recovered<A> {
        Recovered {
            state: A::default(),
            memory: Memory::default(),
            version: Version::ZERO,
            replayed: 0,
            replayed_bytes: 0,
            snapshot_bytes: 0,
            took: self.started.elapsed(),
        }
    }

    fn open_snapshot<A: Aggregate>(&self, loaded: &Loaded) -> Option<Recovered<A>> {
        let Some(record) = &loaded.snapshot else {
            self.telemetry.activated(loaded.version > Version::ZERO);
            return None;
        };
        let opened = if record.version > loaded.version {
            Err(SnapshotDefect::AheadOfStream)
        } else {
            guarded(|| snapshotter::open::<A>(self.stream, record))
                .unwrap_or(Err(SnapshotDefect::Undecodable))
        };
        match opened {
            Ok((state, memory)) => {
                self.telemetry.snapshot_loaded(self.stream, record.version, record.bytes.len());
                let snapshot_bytes = record.bytes.len() as u64;
                Some(Recovered { state, memory, version: record.version, snapshot_bytes, ..self.empty() })
            }
            Err(defect) => {
                self.telemetry.activated(true);
                self.telemetry.snapshot_defect(self.stream, defect);
                None
            }
        }
    }

    /// Deletes a snapshot that is ahead of its stream, as a restored log may leave one behind. Once the stream had
    /// grown past it, nothing could tell any more that it holds another history.
    async fn delete_snapshot(&self) {
        if let Err(error) = self.shared.store.delete_snapshot(self.stream).await {
            tracing::warn!(stream = %self.stream, %error, "a snapshot ahead of its stream could not be deleted");
        }
    }

    /// Applies the events at hand, then reads on page by page until the stream's version is reached.
    async fn replay<A: Aggregate>(
        &self,
        mut recovered: Recovered<A>,
        mut events: Vec<RecordedEvent>,
        head: Version,
        page: usize,
    ) -> Result<Recovered<A>, Failure> {
        loop {
            fold(&mut recovered.state, &mut recovered.version, &events).map_err(Failure::Fold)?;
            recovered.replayed += events.len() as u64;
            for event in events {
                recovered.replayed_bytes += event.payload.len() as u64;
                remember(&mut recovered.memory, event, self.shared.window());
            }
            if recovered.version >= head {
                break;
            }
            let (reading, range) = (Instant::now(), StreamRange::from(recovered.version.next(), page));
            events = self.shared.store.read_stream(self.stream, range).await.map_err(Failure::Read)?;
            self.telemetry.loaded(self.stream, events.len() as u64, reading.elapsed());
            if events.is_empty() {
                let (expected, found) = (recovered.version.next(), head);
                return Err(Failure::Fold(FoldError::Hole { expected, found }));
            }
        }
        recovered.took = self.started.elapsed();
        self.telemetry.replayed(self.stream, recovered.replayed, recovered.took);
        Ok(recovered)
    }

    fn give_up(&self, failure: Failure) -> Unrecovered {
        let error = match failure {
            Failure::Read(error) => return unavailable(&error),
            Failure::Fold(error) => error,
        };
        let reason = error.reason();
        self.telemetry.aggregate_error(self.stream, error.kind(), &reason, None);
        let record = QuarantineRecord {
            stream: self.stream.clone(),
            reason: reason.to_string(),
            command_id: None,
            since: self.shared.clock.now(),
        };
        self.telemetry.quarantined();
        let quarantine = (!error.may_pass()).then(|| Box::new(record));
        Unrecovered { ending: Ending::Quarantined(reason), quarantine }
    }
}

/// Remembers the command whose last event this is; other events carry no receipt.
pub(crate) fn remember(memory: &mut Memory, event: RecordedEvent, window: Window) {
    if let Some(receipt) = event.receipt.as_deref().and_then(Receipt::decode) {
        let (id, version, at) = (event.command_id, event.version, event.recorded_at);
        let command =
            Remembered { id, fingerprint: receipt.fingerprint, version, at, reply: receipt.reply.into() };
        memory.remember(command, window);
    }
}

enum Failure {
    Read(ReadError),
    Fold(FoldError),
}

fn unavailable(error: &ReadError) -> Unrecovered {
    Unrecovered { ending: Ending::Unavailable(error.to_string().into()), quarantine: None }
}

/// How often a quarantine is written before the node gives up and keeps it in memory only.
const QUARANTINE_ATTEMPTS: u32 = 5;

/// Stores a quarantine. A store that stays away does not hold the aggregate up: the next load finds the poison again.
pub(crate) async fn write_quarantine(store: Arc<dyn EventStore>, record: Box<QuarantineRecord>) {
    tracing::error!(stream = %record.stream, reason = %record.reason, "the aggregate is quarantined");
    for attempt in 1..=QUARANTINE_ATTEMPTS {
        match store.quarantine((*record).clone()).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, attempt, "the quarantine could not be stored"),
        }
        tokio::time::sleep(Duration::from_millis(20) * attempt).await;
    }
}
