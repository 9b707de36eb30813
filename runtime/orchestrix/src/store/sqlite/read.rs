//! The reads: each page is one statement, so that it sees one moment of the database and is one hand-over to SQLite.
//! Reads of streams add what the index does not have yet (see `combine`).

use std::ops::RangeInclusive;

use orchestrix_core::store::{
    Direction, QuarantineRecord, ReadError, RecordedEvent, StoreStats, StreamRange,
};
use orchestrix_core::{Checkpoint, Epoch, Incarnation, Seq, ShardId, StreamId, Timestamp, Version};
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::combine::beyond;
use super::error::{code, primary_code};
use super::pack::{indexed_event, packed_event, packed_stream, unpack_events, unpack_named_events};
use super::pages::Pages;
use super::place::{SEQ_MAX, limit, number, position};
use super::readers::Readers;
use super::rows::{self, Malformed, bind, get};
use super::tail::{Late, Tail};

/// A stream's number and its page, as far as the index knows it. Bound are type, id, first and last version, last time,
/// limit.
macro_rules! range_text {
    ($order:literal) => {
        concat!(
            "SELECT s.stream, (SELECT CAST(group_concat(packed, '') AS BLOB) FROM (SELECT ",
            packed_event!(),
            " AS packed FROM ",
            indexed_event!(),
            " WHERE i.stream = s.stream AND i.version >= ?3 AND i.version <= ?4 AND e.recorded_at <= ?5 ",
            "ORDER BY i.version ",
            $order,
            " LIMIT ?6)) FROM streams AS s WHERE s.aggregate_type = ?1 AND s.id = ?2"
        )
    };
}

/// The statements, where tests can ask SQLite how it would run them.
pub(super) mod text {
    use super::{indexed_event, packed_event, packed_stream};

    pub(crate) const FORWARDS: &str = range_text!("ASC");
    pub(crate) const BACKWARDS: &str = range_text!("DESC");
    pub(crate) const SHARD: &str = concat!(
        "SELECT CAST(group_concat(packed, '') AS BLOB) FROM (SELECT ",
        packed_stream!(),
        packed_event!(),
        " AS packed FROM events AS e CROSS JOIN streams AS s ON s.stream = e.stream ",
        "WHERE e.pos > ? AND e.pos <= ? ORDER BY e.pos LIMIT ?)"
    );
    /// The first page of a type's streams, with their versions in the index.
    pub(crate) const STREAMS: &str = "SELECT s.aggregate_type, s.id, s.stream, \
         (SELECT max(version) FROM stream_index WHERE stream = s.stream) \
         FROM streams AS s WHERE s.aggregate_type = ?1 ORDER BY s.id LIMIT ?2";
    /// A later page.
    pub(crate) const STREAMS_AFTER: &str = "SELECT s.aggregate_type, s.id, s.stream, \
         (SELECT max(version) FROM stream_index WHERE stream = s.stream) \
         FROM streams AS s WHERE s.aggregate_type = ?1 AND s.id > ?3 ORDER BY s.id LIMIT ?2";
    /// The shards of one owner with their epochs, in one value.
    pub(crate) const CONFIRM: &str =
        "SELECT group_concat(shard || ':' || epoch, ' ') FROM shards WHERE incarnation = ?";
    pub(crate) const CHECKPOINT: &str = "SELECT shard, seq FROM checkpoints WHERE consumer = ?";
    pub(crate) const QUARANTINED: &str = "SELECT aggregate_type, id, reason, command_id, since FROM quarantine \
                                          ORDER BY since, aggregate_type, id LIMIT ?";
    /// Seqs are dense, so that the last one of a shard is the number of its events. 2^40 lies between two shards.
    pub(crate) const STATS: &str = "SELECT (SELECT coalesce(sum((SELECT max(pos) FROM events \
                                    WHERE pos >= shards.shard * 1099511627776 \
                                    AND pos < (shards.shard + 1) * 1099511627776) & 1099511627775), 0) FROM shards), \
                                    (SELECT count(*) FROM streams), \
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
        let (from, to) = (number(range.from.get()), range.to.map_or(i64::MAX, |to| number(to.get())));
        let arguments = || {
            let mut arguments = SqliteArguments::default();
            bind(&mut arguments, &*stream.aggregate_type);
            bind(&mut arguments, &*stream.id);
            bind(&mut arguments, from);
            bind(&mut arguments, to);
            bind(&mut arguments, range.until.map_or(i64::MAX, Timestamp::as_micros));
            bind(&mut arguments, limit(range.limit));
            arguments
        };
        let text = match range.direction {
            Direction::Forwards => text::FORWARDS,
            Direction::Backwards => text::BACKWARDS,
        };
        let look = |rows: &[SqliteRow], tail: &Tail| {
            let number = rows.first().map(|row| get(row, 0)).transpose()?;
            Ok(number.map(|number| tail.of_stream(number, RangeInclusive::new(from, to))))
        };
        let (rows, late) = self.combine(text, arguments, look).await?;
        let Some(late) = late else { return Ok(Vec::new()) };
        // They come in the order of the inner query; SQLite promises that for the inner query alone.
        let mut events = unpack_events(packed(&rows, 1)?, stream)?;
        events.sort_by_key(|event| event.version);
        let late = beyond(&events, late)?;
        self.add_late(events, late, range).await
    }

    /// Adds to a page what the tail knows, and brings it in its order.
    async fn add_late(
        &self,
        mut events: Vec<RecordedEvent>,
        mut late: Vec<Late>,
        range: StreamRange,
    ) -> Result<Vec<RecordedEvent>, Failed> {
        // Late events are the newest of the stream: the last ones of a page forwards, the first ones backwards.
        let mut left = match range.direction {
            Direction::Forwards => range.limit - events.len(),
            Direction::Backwards => {
                late.reverse();
                range.limit
            }
        };
        while left > 0 && !late.is_empty() {
            let part: Vec<Late> = late.drain(..left.min(late.len())).collect();
            let mut found = self.fetch_late(&part).await?;
            found.retain(|event| range.until.is_none_or(|until| event.recorded_at <= until));
            left -= found.len();
            events.append(&mut found);
        }
        match range.direction {
            Direction::Forwards => events.sort_by_key(|event| event.version),
            Direction::Backwards => events.sort_by_key(|event| std::cmp::Reverse(event.version)),
        }
        events.truncate(range.limit);
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
        // Not beyond what the tail has taken in: who has seen an event here finds it in its stream as well.
        let last = if self.follows { Seq::new(SEQ_MAX) } else { self.tail().head(shard) };
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, position(shard, after));
        bind(&mut arguments, position(shard, last));
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
        let mut listed = Vec::new();
        let mut after_id = after_id.map(str::to_owned);
        while listed.len() < streams_max {
            let wanted = streams_max - listed.len();
            let page = self.list_page(aggregate_type, after_id.as_deref(), wanted).await?;
            let is_last = page.len() < wanted;
            after_id = page.last().map(|(stream, _)| stream.id.to_string());
            // A stream without events was stored and not yet answered: it does not exist before that.
            listed.extend(page.into_iter().filter_map(|(stream, version)| Some((stream, version?))));
            if is_last {
                break;
            }
        }
        Ok(listed)
    }

    async fn list_page(
        &self,
        aggregate_type: &str,
        after_id: Option<&str>,
        streams_max: usize,
    ) -> Result<Vec<(StreamId, Option<Version>)>, Failed> {
        let arguments = || {
            let mut arguments = SqliteArguments::default();
            bind(&mut arguments, aggregate_type);
            bind(&mut arguments, limit(streams_max));
            bind(&mut arguments, after_id);
            arguments
        };
        let text = if after_id.is_some() { text::STREAMS_AFTER } else { text::STREAMS };
        let look = |rows: &[SqliteRow], tail: &Tail| {
            rows.iter().map(|row| Ok(tail.last_version(get(row, 2)?))).collect::<Result<Vec<_>, _>>()
        };
        let (rows, late) = self.combine(text, arguments, look).await?;
        let listed = |(row, late)| Ok((rows::stream(row, 0)?, version_of(row, 3, late)?));
        Ok(rows.iter().zip(late).map(listed).collect::<Result<_, Malformed>>()?)
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

    /// Counts events by the ends of their shards, and the others by walking the narrowest index of each table.
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
pub(super) fn packed(rows: &[SqliteRow], column: usize) -> Result<&[u8], Malformed> {
    let row = rows.first().ok_or_else(|| Malformed("an aggregate query gave no row".to_owned()))?;
    Ok(get::<Option<&[u8]>>(row, column)?.unwrap_or(&[]))
}

/// Reads the version of a stream: the one in the index, unless the tail knows a later one.
pub(super) fn version_of(
    row: &SqliteRow,
    at: usize,
    late: Option<i64>,
) -> Result<Option<Version>, Malformed> {
    let version = get::<Option<i64>>(row, at)?.max(late);
    let known = |version: i64| {
        u64::try_from(version).map(Version::new).map_err(|_| Malformed(format!("a version is {version}")))
    };
    version.map(known).transpose()
}

/// Turns a driver's error into what the caller can act on.
pub(super) fn read_error(error: sqlx::Error) -> ReadError {
    match primary_code(&error) {
        Some(code::CORRUPT | code::NOTADB) => ReadError::Corrupt { reason: error.to_string() },
        _ => ReadError::unavailable(error),
    }
}
