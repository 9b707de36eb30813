//! The reads: each page is one statement, so that it sees one moment of the database and is one hand-over to SQLite.

use orchestrix_core::store::{
    Direction, Loaded, QuarantineRecord, ReadError, RecordedEvent, StoreStats, StreamRange,
};
use orchestrix_core::{Checkpoint, Epoch, Incarnation, Seq, ShardId, StreamId, Timestamp, Version};
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::error::{code, primary_code};
use super::pack::{packed_event, packed_stream, unpack_events, unpack_named_events};
use super::pages::{self, Pages};
use super::place::{SEQ_MAX, limit, number, position};
use super::readers::Readers;
use super::rows::{self, Malformed, bind, get};
use super::statements::load;

/// The most streams that one statement loads.
const STREAMS_MAX: usize = 64;

/// A page of a stream in both directions. Bound are type, id, first and last version, last time, limit.
macro_rules! range_text {
    ($order:literal) => {
        concat!(
            "SELECT CAST(group_concat(packed, '') AS BLOB) FROM (SELECT ",
            packed_event!(),
            " AS packed FROM events AS e ",
            "WHERE e.stream = (SELECT stream FROM streams WHERE aggregate_type = ?1 AND id = ?2) ",
            "AND e.version >= ?3 AND e.version <= ?4 AND e.recorded_at <= ?5 ORDER BY e.version ",
            $order,
            " LIMIT ?6)"
        )
    };
}

/// The statements, where tests can ask SQLite how it would run them.
pub(super) mod text {
    use super::{packed_event, packed_stream};

    pub(crate) const FORWARDS: &str = range_text!("ASC");
    pub(crate) const BACKWARDS: &str = range_text!("DESC");
    pub(crate) const SHARD: &str = concat!(
        "SELECT CAST(group_concat(packed, '') AS BLOB) FROM (SELECT ",
        packed_stream!(),
        packed_event!(),
        " AS packed FROM events AS e CROSS JOIN streams AS s ON s.stream = e.stream ",
        "WHERE e.pos > ? AND e.pos <= ? ORDER BY e.pos LIMIT ?)"
    );
    /// The first page of a type's streams.
    pub(crate) const STREAMS: &str = "SELECT s.aggregate_type, s.id, (SELECT max(version) FROM events WHERE stream = s.stream) \
         FROM streams AS s WHERE s.aggregate_type = ?1 ORDER BY s.id LIMIT ?2";
    /// A later page.
    pub(crate) const STREAMS_AFTER: &str = "SELECT s.aggregate_type, s.id, (SELECT max(version) FROM events WHERE stream = s.stream) \
         FROM streams AS s WHERE s.aggregate_type = ?1 AND s.id > ?3 ORDER BY s.id LIMIT ?2";
    /// The shards of one owner with their epochs, in one value.
    pub(crate) const CONFIRM: &str =
        "SELECT group_concat(shard || ':' || epoch, ' ') FROM shards WHERE incarnation = ?";
    pub(crate) const CHECKPOINT: &str = "SELECT shard, seq FROM checkpoints WHERE consumer = ?";
    pub(crate) const QUARANTINED: &str = "SELECT aggregate_type, id, reason, command_id, since FROM quarantine \
                                          ORDER BY since, aggregate_type, id LIMIT ?";
    pub(crate) const STATS: &str = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM streams), \
                                    (SELECT count(*) FROM snapshots), (SELECT count(*) FROM quarantine)";
}

/// Why a read has no answer.
#[derive(Debug)]
pub(super) enum Failed {
    Driver(sqlx::Error),
    Malformed(Malformed),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Malformed> for Failed {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Failed> for ReadError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Driver(error) => read_error(error),
            Failed::Malformed(malformed) => Self::Corrupt { reason: malformed.to_string() },
        }
    }
}

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
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, limit(events_max));
        for (place, stream) in streams.iter().enumerate() {
            rows::bind_stream(&mut arguments, place as i64, stream);
        }
        let mut loaded = vec![Loaded::default(); streams.len()];
        for row in &self.fetch(load(streams.len()), arguments).await? {
            let place = get::<i64>(row, 0)? as usize;
            loaded[place] = loaded_from(row, &streams[place])?;
        }
        Ok(loaded)
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

    pub(super) async fn read_stream(
        &self,
        stream: &StreamId,
        mut range: StreamRange,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut pages = Pages::new(range.limit);
        while let Some(wanted) = pages.wanted() {
            if let Some(last) = pages.last() {
                match range.direction {
                    Direction::Forwards => range.from = last.version.next(),
                    Direction::Backwards => range.to = Some(Version::new(last.version.get() - 1)),
                }
            }
            let page = self.read_range(stream, StreamRange { limit: wanted, ..range }).await;
            pages.add(wanted, page)?;
        }
        Ok(pages.into_events())
    }

    async fn read_range(&self, stream: &StreamId, range: StreamRange) -> Result<Vec<RecordedEvent>, Failed> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, &*stream.aggregate_type);
        bind(&mut arguments, &*stream.id);
        bind(&mut arguments, number(range.from.get()));
        bind(&mut arguments, range.to.map_or(i64::MAX, |to| number(to.get())));
        bind(&mut arguments, range.until.map_or(i64::MAX, Timestamp::as_micros));
        bind(&mut arguments, limit(range.limit));
        let text = match range.direction {
            Direction::Forwards => text::FORWARDS,
            Direction::Backwards => text::BACKWARDS,
        };
        let rows = self.fetch(text, arguments).await?;
        let mut events = unpack_events(packed(&rows, 0)?, stream)?;
        // They come in the order of the inner query; SQLite promises that for the inner query alone.
        match range.direction {
            Direction::Forwards => events.sort_by_key(|event| event.version),
            Direction::Backwards => events.sort_by_key(|event| std::cmp::Reverse(event.version)),
        }
        Ok(events)
    }

    pub(super) async fn read_shard(
        &self,
        shard: ShardId,
        after: Seq,
        events_max: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut pages = Pages::new(events_max);
        while let Some(wanted) = pages.wanted() {
            let after = pages.last().map_or(after, |last| last.seq);
            let page = self.read_shard_page(shard, after, wanted).await;
            pages.add(wanted, page)?;
        }
        Ok(pages.into_events())
    }

    async fn read_shard_page(
        &self,
        shard: ShardId,
        after: Seq,
        wanted: usize,
    ) -> Result<Vec<RecordedEvent>, Failed> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, position(shard, after));
        bind(&mut arguments, position(shard, Seq::new(SEQ_MAX)));
        bind(&mut arguments, limit(wanted));
        let rows = self.fetch(text::SHARD, arguments).await?;
        let mut events = unpack_named_events(packed(&rows, 0)?)?;
        events.sort_by_key(|event| event.seq);
        Ok(events)
    }

    pub(super) async fn list_streams(
        &self,
        aggregate_type: &str,
        after_id: Option<&str>,
        streams_max: usize,
    ) -> Result<Vec<(StreamId, Version)>, ReadError> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, aggregate_type);
        bind(&mut arguments, limit(streams_max));
        bind(&mut arguments, after_id);
        let text = if after_id.is_some() { text::STREAMS_AFTER } else { text::STREAMS };
        let rows = self.fetch(text, arguments).await.map_err(read_error)?;
        let listed = |row| Ok((rows::stream(row, 0)?, rows::version(row, 2)?));
        Ok(rows.iter().map(listed).collect::<Result<_, _>>().map_err(Failed::Malformed)?)
    }

    pub(super) async fn confirm(
        &self,
        owner: Incarnation,
        shards: &[(ShardId, Epoch)],
    ) -> Result<Vec<bool>, ReadError> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, &owner.as_uuid().as_bytes()[..]);
        let rows = self.fetch(text::CONFIRM, arguments).await.map_err(read_error)?;
        let held: Option<String> = get(&rows[0], 0).map_err(Failed::Malformed)?;
        let held: std::collections::HashSet<&str> = held.as_deref().unwrap_or("").split(' ').collect();
        Ok(shards.iter().map(|(shard, epoch)| held.contains(&*format!("{shard}:{epoch}"))).collect())
    }

    pub(super) async fn checkpoint(&self, consumer: &str) -> Result<Checkpoint, ReadError> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, consumer);
        let mut checkpoint = Checkpoint::default();
        for row in &self.fetch(text::CHECKPOINT, arguments).await.map_err(read_error)? {
            let shard: i64 = get(row, 0).map_err(Failed::Malformed)?;
            let seq: i64 = get(row, 1).map_err(Failed::Malformed)?;
            checkpoint.advance(ShardId::new(shard as u32), Seq::new(seq.max(0) as u64));
        }
        Ok(checkpoint)
    }

    pub(super) async fn quarantined(&self, records_max: usize) -> Result<Vec<QuarantineRecord>, ReadError> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, limit(records_max));
        let rows = self.fetch(text::QUARANTINED, arguments).await.map_err(read_error)?;
        let record = |row| rows::quarantine(row, 2, rows::stream(row, 0)?);
        Ok(rows.iter().map(record).collect::<Result<_, _>>().map_err(Failed::Malformed)?)
    }

    /// Counts by walking the narrowest index of each table.
    pub(super) async fn stats(&self, bytes: Option<u64>) -> Result<StoreStats, ReadError> {
        let rows = self.fetch(text::STATS, SqliteArguments::default()).await.map_err(read_error)?;
        let count = |at| get::<i64>(&rows[0], at).map(|count| count as u64).map_err(Failed::Malformed);
        Ok(StoreStats {
            events: count(0)?,
            streams: count(1)?,
            snapshots: count(2)?,
            quarantined: count(3)?,
            bytes,
        })
    }
}

/// Returns the packed events of an answer; no events are NULL.
fn packed(rows: &[SqliteRow], column: usize) -> Result<&[u8], Malformed> {
    let row = rows.first().ok_or_else(|| Malformed("an aggregate query gave no row".to_owned()))?;
    Ok(get::<Option<&[u8]>>(row, column)?.unwrap_or(&[]))
}

/// Reads a row of [`load`].
fn loaded_from(row: &SqliteRow, stream: &StreamId) -> Result<Loaded, Malformed> {
    let has_snapshot = get::<Option<i64>>(row, 1)?.is_some();
    let is_quarantined = get::<Option<&str>>(row, 4)?.is_some();
    let mut events = unpack_events(get::<Option<&[u8]>>(row, 8)?.unwrap_or(&[]), stream)?;
    events.sort_by_key(|event| event.version);
    Ok(Loaded {
        snapshot: has_snapshot.then(|| rows::snapshot(row, 1)).transpose()?,
        quarantine: is_quarantined.then(|| rows::quarantine(row, 4, stream.clone())).transpose()?,
        version: get::<Option<i64>>(row, 7)?
            .map_or(Version::ZERO, |version| Version::new(version.max(0) as u64)),
        events,
    })
}

/// Turns a driver's error into what the caller can act on.
pub(super) fn read_error(error: sqlx::Error) -> ReadError {
    match primary_code(&error) {
        Some(code::CORRUPT | code::NOTADB) => ReadError::Corrupt { reason: error.to_string() },
        _ => ReadError::unavailable(error),
    }
}
