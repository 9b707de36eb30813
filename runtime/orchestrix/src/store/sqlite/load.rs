//! Loads: what activations need, for many streams in one statement.

use orchestrix_core::store::{Loaded, ReadError, RecordedEvent, StreamRange};
use orchestrix_core::{StreamId, Version};
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::combine::beyond;
use super::error::{code, primary_code};
use super::pack::unpack_events;
use super::pages;
use super::place::limit;
use super::read::{Failed, version_of};
use super::readers::Readers;
use super::rows::{self, Malformed, bind, get};
use super::statements::load;
use super::tail::{Late, Tail};

/// The most streams that one statement loads.
const STREAMS_MAX: usize = 64;

impl Readers {
    pub(super) async fn load(&self, stream: &StreamId, events_max: usize) -> Result<Loaded, ReadError> {
        let mut loaded = self.load_many(std::slice::from_ref(stream), events_max).await?;
        Ok(loaded.pop().unwrap_or_default())
    }

    pub(super) async fn load_many(
        &self,
        streams: &[StreamId],
        events_max: usize,
    ) -> Result<Vec<Loaded>, ReadError> {
        let mut loaded = Vec::with_capacity(streams.len());
        for part in streams.chunks(STREAMS_MAX) {
            let first_page = events_max.min(pages::EVENTS_MAX);
            let part_loaded = match self.load_part(part, first_page).await {
                // Together they are more than a value of SQLite can hold: without events now, page by page below.
                Err(Failed::Driver(error)) if primary_code(&error) == Some(code::TOOBIG) => {
                    self.load_part(part, 0).await?
                }
                other => other?,
            };
            for (stream, mut one) in part.iter().zip(part_loaded) {
                self.load_rest(stream, &mut one, events_max).await?;
                loaded.push(one);
            }
        }
        Ok(loaded)
    }

    async fn load_part(&self, streams: &[StreamId], events_max: usize) -> Result<Vec<Loaded>, Failed> {
        let arguments = || {
            let mut arguments = SqliteArguments::default();
            bind(&mut arguments, limit(events_max));
            for (place, stream) in streams.iter().enumerate() {
                rows::bind_stream(&mut arguments, place as i64, stream);
            }
            arguments
        };
        let look = |rows: &[SqliteRow], tail: &Tail| {
            rows.iter().map(|row| LatePart::look(row, tail, events_max)).collect::<Result<Vec<_>, _>>()
        };
        let (rows, late) = self.combine(load(streams.len()), arguments, look).await?;
        let mut parts = vec![Part::default(); streams.len()];
        for (row, late) in rows.iter().zip(late) {
            let place = get::<i64>(row, 0)? as usize;
            parts[place] = Part::take(row, &streams[place], late)?;
        }
        let late: Vec<Late> = parts.iter().flat_map(|part| part.late.iter().copied()).collect();
        if late.is_empty() {
            return Ok(parts.into_iter().map(|part| part.loaded).collect());
        }
        let mut events = self.fetch_late(&late).await?.into_iter();
        Ok(parts.into_iter().map(|part| part.complete(&mut events)).collect())
    }

    /// Reads on where the first page of a load ended before the limit and before the end of the stream.
    async fn load_rest(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded,
        events_max: usize,
    ) -> Result<(), ReadError> {
        let after = loaded.snapshot.as_ref().map_or(Version::ZERO, |snapshot| snapshot.version);
        let last = loaded.events.last().map_or(after, |event| event.version);
        let left = events_max - loaded.events.len();
        if left > 0 && last < loaded.version {
            // Up to the version that was read with the rest, so that the answer is one moment's.
            let range = StreamRange { to: Some(loaded.version), ..StreamRange::from(last.next(), left) };
            loaded.events.extend(self.read_stream(stream, range).await?);
        }
        Ok(())
    }
}

/// What the tail knows of one stream of a load.
struct LatePart {
    last_version: Option<i64>,
    late: Vec<Late>,
}

impl LatePart {
    fn look(row: &SqliteRow, tail: &Tail, events_max: usize) -> Result<Self, Malformed> {
        let Some(stream) = get(row, 7)? else { return Ok(Self { last_version: None, late: Vec::new() }) };
        let after = get::<Option<i64>>(row, 1)?.unwrap_or(0);
        let versions = after.saturating_add(1)..=after.saturating_add(limit(events_max));
        Ok(Self { last_version: tail.last_version(stream), late: tail.of_stream(stream, versions) })
    }
}

/// One stream of a load, and which of its events the index did not have.
#[derive(Clone, Debug, Default)]
struct Part {
    loaded: Loaded,
    late: Vec<Late>,
}

impl Part {
    /// Reads a row of [`load`] and adds what the tail knows.
    fn take(row: &SqliteRow, stream: &StreamId, late: LatePart) -> Result<Self, Malformed> {
        let has_snapshot = get::<Option<i64>>(row, 1)?.is_some();
        let is_quarantined = get::<Option<&str>>(row, 4)?.is_some();
        let mut events = unpack_events(get::<Option<&[u8]>>(row, 9)?.unwrap_or(&[]), stream)?;
        events.sort_by_key(|event| event.version);
        let version = version_of(row, 8, late.last_version)?;
        let late = beyond(&events, late.late)?;
        let loaded = Loaded {
            snapshot: has_snapshot.then(|| rows::snapshot(row, 1)).transpose()?,
            quarantine: is_quarantined.then(|| rows::quarantine(row, 4, stream.clone())).transpose()?,
            version: version.unwrap_or(Version::ZERO),
            events,
        };
        Ok(Self { loaded, late })
    }

    /// Takes the late events, which are the newest, from those of all parts.
    fn complete(mut self, events: &mut impl Iterator<Item = RecordedEvent>) -> Loaded {
        self.loaded.events.extend(events.by_ref().take(self.late.len()));
        self.loaded
    }
}
