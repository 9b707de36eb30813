//! The reads: each is one statement, so that it sees one moment of the database and is one hand-over to SQLite.

use orchestrix_core::store::{
    Direction, Loaded, QuarantineRecord, ReadError, RecordedEvent, StoreStats, StreamRange,
};
use orchestrix_core::{Checkpoint, Epoch, Incarnation, Seq, ShardId, StreamId, Timestamp, Version};
use sqlx::Row;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};

use super::error::{code, primary_code};
use super::place::{SEQ_MAX, limit, number, position};
use super::rows::{self, Malformed, bind, event_columns, get};

/// What an activation needs, as rows of four kinds in the columns of an event: 0 the snapshot (version, time, bytes),
/// 1 the quarantine (reason, command, time), 2 the stream's version, 3 an event.
///
/// Bound are type, id and the most events; versions are dense, so that many events are a range of versions.
macro_rules! load_text {
    () => {
        concat!(
            "WITH wanted(stream, after) AS (SELECT ",
            "(SELECT stream FROM streams WHERE aggregate_type = ?1 AND id = ?2), ",
            "coalesce((SELECT version FROM snapshots WHERE aggregate_type = ?1 AND id = ?2), 0)) ",
            "SELECT 0, NULL, version, NULL, NULL, NULL, NULL, NULL, taken_at, NULL, NULL, bytes ",
            "FROM snapshots WHERE aggregate_type = ?1 AND id = ?2 ",
            "UNION ALL SELECT 1, NULL, NULL, NULL, reason, NULL, NULL, command_id, since, NULL, NULL, NULL ",
            "FROM quarantine WHERE aggregate_type = ?1 AND id = ?2 ",
            "UNION ALL SELECT 2, NULL, (SELECT max(version) FROM events WHERE stream = wanted.stream), ",
            "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM wanted ",
            "UNION ALL SELECT 3, ",
            event_columns!(),
            " FROM wanted CROSS JOIN events AS e ON e.stream = wanted.stream ",
            "AND e.version > wanted.after AND e.version <= wanted.after + ?3"
        )
    };
}

/// A range of a stream in both directions. Bound are type, id, first and last version, last time, limit.
macro_rules! range_text {
    ($order:literal) => {
        concat!(
            "SELECT ",
            event_columns!(),
            " FROM events AS e WHERE e.stream = (SELECT stream FROM streams WHERE aggregate_type = ?1 AND id = ?2) ",
            "AND e.version >= ?3 AND e.version <= ?4 AND e.recorded_at <= ?5 ORDER BY e.version ",
            $order,
            " LIMIT ?6"
        )
    };
}

/// The statements, where tests can ask SQLite how it would run them.
pub(super) mod text {
    use super::event_columns;

    pub(crate) const LOAD: &str = load_text!();
    pub(crate) const FORWARDS: &str = range_text!("ASC");
    pub(crate) const BACKWARDS: &str = range_text!("DESC");
    pub(crate) const SHARD: &str = concat!(
        "SELECT s.aggregate_type, s.id, ",
        event_columns!(),
        " FROM events AS e CROSS JOIN streams AS s ON s.stream = e.stream ",
        "WHERE e.pos > ? AND e.pos <= ? ORDER BY e.pos LIMIT ?"
    );
    /// The first page of a type's streams.
    pub(crate) const STREAMS: &str = "SELECT s.aggregate_type, s.id, (SELECT max(version) FROM events WHERE stream = s.stream) \
         FROM streams AS s WHERE s.aggregate_type = ?1 ORDER BY s.id LIMIT ?2";
    /// A later page.
    pub(crate) const STREAMS_AFTER: &str = "SELECT s.aggregate_type, s.id, (SELECT max(version) FROM events WHERE stream = s.stream) \
         FROM streams AS s WHERE s.aggregate_type = ?1 AND s.id > ?3 ORDER BY s.id LIMIT ?2";
    pub(crate) const CONFIRM: &str = "SELECT shard, epoch, incarnation FROM shards";
    pub(crate) const CHECKPOINT: &str = "SELECT shard, seq FROM checkpoints WHERE consumer = ?";
    pub(crate) const QUARANTINED: &str = "SELECT aggregate_type, id, reason, command_id, since FROM quarantine \
                                          ORDER BY since, aggregate_type, id LIMIT ?";
    pub(crate) const STATS: &str = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM streams), \
                                    (SELECT count(*) FROM snapshots), (SELECT count(*) FROM quarantine)";
}

/// The connections that read beside the writer.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) pool: SqlitePool,
}

impl Readers {
    async fn rows(
        &self,
        text: &'static str,
        arguments: SqliteArguments,
    ) -> Result<Vec<SqliteRow>, ReadError> {
        sqlx::query_with(text, arguments).fetch_all(&self.pool).await.map_err(read_error)
    }

    pub(super) async fn load(&self, stream: &StreamId, events_max: usize) -> Result<Loaded, ReadError> {
        let mut arguments = named(stream);
        bind(&mut arguments, limit(events_max));
        loaded(stream, &self.rows(text::LOAD, arguments).await?).map_err(corrupt)
    }

    pub(super) async fn read_stream(
        &self,
        stream: &StreamId,
        range: StreamRange,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut arguments = named(stream);
        bind(&mut arguments, number(range.from.get()));
        bind(&mut arguments, range.to.map_or(i64::MAX, |to| number(to.get())));
        bind(&mut arguments, range.until.map_or(i64::MAX, Timestamp::as_micros));
        bind(&mut arguments, limit(range.limit));
        let text = match range.direction {
            Direction::Forwards => text::FORWARDS,
            Direction::Backwards => text::BACKWARDS,
        };
        let rows = self.rows(text, arguments).await?;
        rows.iter().map(|row| rows::event(row, 0, stream.clone())).collect::<Result<_, _>>().map_err(corrupt)
    }

    pub(super) async fn read_shard(
        &self,
        shard: ShardId,
        after: Seq,
        events_max: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, position(shard, after));
        bind(&mut arguments, position(shard, Seq::new(SEQ_MAX)));
        bind(&mut arguments, limit(events_max));
        let rows = self.rows(text::SHARD, arguments).await?;
        let event = |row| rows::event(row, 2, rows::stream(row, 0)?);
        rows.iter().map(event).collect::<Result<_, _>>().map_err(corrupt)
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
        let rows = self.rows(text, arguments).await?;
        let listed = |row| Ok((rows::stream(row, 0)?, rows::version(row, 2)?));
        rows.iter().map(listed).collect::<Result<_, _>>().map_err(corrupt)
    }

    pub(super) async fn confirm(
        &self,
        owner: Incarnation,
        shards: &[(ShardId, Epoch)],
    ) -> Result<Vec<bool>, ReadError> {
        let rows = self.rows(text::CONFIRM, SqliteArguments::default()).await?;
        let state = |row| Ok((get::<i64>(row, 0)?, get::<i64>(row, 1)?, rows::incarnation(row, 2)?));
        let states = rows.iter().map(state).collect::<Result<Vec<_>, _>>().map_err(corrupt)?;
        let is_held = |(shard, epoch): &(ShardId, Epoch)| {
            states.contains(&(i64::from(shard.get()), number(epoch.get()), Some(owner)))
        };
        Ok(shards.iter().map(is_held).collect())
    }

    pub(super) async fn checkpoint(&self, consumer: &str) -> Result<Checkpoint, ReadError> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, consumer);
        let mut checkpoint = Checkpoint::default();
        for row in &self.rows(text::CHECKPOINT, arguments).await? {
            let shard: i64 = get(row, 0).map_err(corrupt)?;
            let seq: i64 = get(row, 1).map_err(corrupt)?;
            checkpoint.advance(ShardId::new(shard as u32), Seq::new(seq.max(0) as u64));
        }
        Ok(checkpoint)
    }

    pub(super) async fn quarantined(&self, records_max: usize) -> Result<Vec<QuarantineRecord>, ReadError> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, limit(records_max));
        let rows = self.rows(text::QUARANTINED, arguments).await?;
        let record = |row| rows::quarantine(row, [2, 3, 4], rows::stream(row, 0)?);
        rows.iter().map(record).collect::<Result<_, _>>().map_err(corrupt)
    }

    /// Counts by walking the narrowest index of each table.
    pub(super) async fn stats(&self, bytes: Option<u64>) -> Result<StoreStats, ReadError> {
        let rows = self.rows(text::STATS, SqliteArguments::default()).await?;
        let row = rows.first().ok_or_else(|| read_error(sqlx::Error::RowNotFound))?;
        let count = |at| row.try_get::<i64, _>(at).map(|count| count as u64).map_err(read_error);
        Ok(StoreStats {
            events: count(0)?,
            streams: count(1)?,
            snapshots: count(2)?,
            quarantined: count(3)?,
            bytes,
        })
    }
}

fn named(stream: &StreamId) -> SqliteArguments {
    let mut arguments = SqliteArguments::default();
    bind(&mut arguments, &*stream.aggregate_type);
    bind(&mut arguments, &*stream.id);
    arguments
}

/// Puts the rows of a load together.
fn loaded(stream: &StreamId, rows: &[SqliteRow]) -> Result<Loaded, Malformed> {
    let mut loaded = Loaded::default();
    for row in rows {
        match get::<i64>(row, 0)? {
            0 => loaded.snapshot = Some(rows::snapshot(row, [2, 8, 11])?),
            1 => loaded.quarantine = Some(rows::quarantine(row, [4, 7, 8], stream.clone())?),
            2 => loaded.version = Version::new(get::<Option<i64>>(row, 2)?.unwrap_or(0).max(0) as u64),
            _ => loaded.events.push(rows::event(row, 1, stream.clone())?),
        }
    }
    // They come by the index and so in order; SQLite does not promise it without a sort.
    if !loaded.events.is_sorted_by_key(|event| event.version) {
        loaded.events.sort_unstable_by_key(|event| event.version);
    }
    Ok(loaded)
}

/// Turns a driver's error into what the caller can act on.
pub(super) fn read_error(error: sqlx::Error) -> ReadError {
    match primary_code(&error) {
        Some(code::CORRUPT | code::NOTADB) => ReadError::Corrupt { reason: error.to_string() },
        _ => ReadError::unavailable(error),
    }
}

fn corrupt(malformed: Malformed) -> ReadError {
    ReadError::Corrupt { reason: malformed.to_string() }
}
