//! The reads. Each page is one statement, so that it sees one moment of the database.

use orchestrix_core::store::{Direction, Loaded, QuarantineRecord, RecordedEvent, StoreStats, StreamRange};
use orchestrix_core::{Checkpoint, Epoch, Incarnation, Seq, ShardId, StreamId, Timestamp, Version};
use sqlx::postgres::PgRow;

use super::Inner;
use super::append::{number, shard_number};
use super::archive;
use super::arguments::Args;
use super::error::Failed;
use super::moment::Moment;
use super::rows::{self, EVENT_COLUMNS, Elements, Malformed, get, maybe};
use super::statements::{
    BACKWARDS, CHECKPOINT, CONFIRM, FORWARDS, LOAD, LOAD_MANY, LOOK, QUARANTINED, SHARD, STATS, STREAMS,
    Statement,
};

/// The most events of one page: it bounds what the server builds and what the driver holds at a time.
const PAGE_EVENTS: usize = 2_048;

/// The most streams that one statement loads.
const STREAMS_MAX: usize = 256;

/// The columns of a load before those of its events.
const LOAD_COLUMNS: usize = 7;

impl Inner {
    pub(super) async fn load(&self, stream: &StreamId, events_max: usize) -> Result<Loaded, Failed> {
        let arguments = Args::default()
            .add(shard_number(self.book.shard_count.shard_of_stream(stream)))
            .add(self.book.key(stream))
            .add(&*stream.aggregate_type)
            .add(&*stream.id)
            .add(limit(events_max.min(PAGE_EVENTS)));
        let row = self.pool.run_one(LOAD, arguments).await?;
        let mut loaded = self.loaded_from(&row, stream)?;
        self.load_rest(stream, &mut loaded, events_max).await?;
        Ok(loaded)
    }

    pub(super) async fn load_many(
        &self,
        streams: &[StreamId],
        events_max: usize,
    ) -> Result<Vec<Loaded>, Failed> {
        let mut loaded = Vec::with_capacity(streams.len());
        for part in streams.chunks(STREAMS_MAX) {
            // Together no more than a few pages.
            let first_page = events_max.min((4 * PAGE_EVENTS / part.len()).max(1));
            let part_loaded = self.load_part(part, first_page).await?;
            for (stream, mut one) in part.iter().zip(part_loaded) {
                self.load_rest(stream, &mut one, events_max).await?;
                loaded.push(one);
            }
        }
        Ok(loaded)
    }

    async fn load_part(&self, streams: &[StreamId], events_max: usize) -> Result<Vec<Loaded>, Failed> {
        let (count, shards) = (streams.len(), self.book.shard_count);
        let arguments = Args::default()
            .array(count, || streams.iter().map(|stream| shard_number(shards.shard_of_stream(stream))))
            .array(count, || streams.iter().map(|stream| self.book.key(stream)))
            .array(count, || streams.iter().map(|stream| &*stream.aggregate_type))
            .array(count, || streams.iter().map(|stream| &*stream.id))
            .add(limit(events_max));
        let mut loaded = vec![Loaded::default(); count];
        for row in &self.pool.run(LOAD_MANY, arguments).await? {
            let place = get::<i32>(row, LOAD_COLUMNS + EVENT_COLUMNS)? as usize - 1;
            let stream = streams.get(place).ok_or_else(|| Malformed(format!("a stream at place {place}")))?;
            loaded[place] = self.loaded_from(row, stream)?;
        }
        Ok(loaded)
    }

    fn loaded_from(&self, row: &PgRow, stream: &StreamId) -> Result<Loaded, Failed> {
        let version = maybe(row, 6)?.unwrap_or(Version::ZERO);
        self.book.ledger().learn(self.book.key(stream), version);
        let shard = self.book.shard_count.shard_of_stream(stream);
        Ok(Loaded {
            snapshot: rows::snapshot(row, 0)?,
            quarantine: rows::quarantine(row, 3, stream)?,
            events: events_of_arrays(row, LOAD_COLUMNS, stream, shard)?,
            version,
        })
    }

    /// Reads on where the first page of a load ended before the limit and before the end of the stream.
    async fn load_rest(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded,
        events_max: usize,
    ) -> Result<(), Failed> {
        let after = loaded.snapshot.as_ref().map_or(Version::ZERO, |snapshot| snapshot.version);
        if !archive::follow(after, &loaded.events) {
            // What is missing is in the archive, where the read below looks as well.
            loaded.events.clear();
        }
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
    ) -> Result<Vec<RecordedEvent>, Failed> {
        let mut events: Vec<RecordedEvent> = Vec::new();
        while events.len() < range.limit {
            if let Some(last) = events.last() {
                match range.direction {
                    Direction::Forwards => range.from = last.version.next(),
                    Direction::Backwards => range.to = Some(Version::new(last.version.get() - 1)),
                }
            }
            let wanted = PAGE_EVENTS.min(range.limit - events.len());
            let page = self.read_range(stream, StreamRange { limit: wanted, ..range }).await?;
            let is_last = page.len() < wanted;
            events.extend(page);
            if is_last {
                break;
            }
        }
        Ok(events)
    }

    async fn read_range(&self, stream: &StreamId, range: StreamRange) -> Result<Vec<RecordedEvent>, Failed> {
        let shard = self.book.shard_count.shard_of_stream(stream);
        let until = range.until.unwrap_or(Timestamp::from_micros(i64::MAX));
        let arguments = Args::default()
            .add(shard_number(shard))
            .add(self.book.key(stream))
            .add(&*stream.aggregate_type)
            .add(&*stream.id)
            .add(number(range.from.get()))
            .add(range.to.map_or(i64::MAX, |to| number(to.get())))
            .add(Moment::nearest(until))
            .add(limit(range.limit));
        let statement = match range.direction {
            Direction::Forwards => FORWARDS,
            Direction::Backwards => BACKWARDS,
        };
        let rows = self.pool.run(statement, arguments.clone()).await?;
        let event = |row| rows::event_of_row(row, 0, stream.clone(), shard);
        let events = rows.iter().map(event).collect::<Result<Vec<_>, _>>()?;
        if archive::has_all(&range, &events) {
            return Ok(events);
        }
        let rows = self.pool.run(archive::range(range.direction), arguments).await?;
        Ok(rows.iter().map(event).collect::<Result<_, _>>()?)
    }

    pub(super) async fn read_shard(
        &self,
        shard: ShardId,
        after: Seq,
        events_max: usize,
    ) -> Result<Vec<RecordedEvent>, Failed> {
        let mut events: Vec<RecordedEvent> = Vec::new();
        let mut statement = SHARD;
        while events.len() < events_max {
            let after = events.last().map_or(after, |last| last.seq);
            let wanted = PAGE_EVENTS.min(events_max - events.len());
            let mut page = self.read_shard_page(statement, shard, after, wanted).await?;
            if statement == SHARD && !archive::is_dense(after, &page) {
                // Where one event is in the archive the next ones may be too.
                statement = archive::SHARD;
                page = self.read_shard_page(statement, shard, after, wanted).await?;
            }
            let is_last = page.len() < wanted;
            events.extend(page);
            if is_last {
                break;
            }
        }
        Ok(events)
    }

    async fn read_shard_page(
        &self,
        statement: Statement,
        shard: ShardId,
        after: Seq,
        wanted: usize,
    ) -> Result<Vec<RecordedEvent>, Failed> {
        let arguments = Args::default().add(shard_number(shard)).add(number(after.get())).add(limit(wanted));
        let rows = self.pool.run(statement, arguments).await?;
        let event = |row| rows::event_of_row(row, 0, rows::stream(row, EVENT_COLUMNS)?, shard);
        Ok(rows.iter().map(event).collect::<Result<_, _>>()?)
    }

    pub(super) async fn list_streams(
        &self,
        aggregate_type: &str,
        after_id: Option<&str>,
        streams_max: usize,
    ) -> Result<Vec<(StreamId, Version)>, Failed> {
        let arguments =
            Args::default().add(aggregate_type).add(after_id.unwrap_or("")).add(limit(streams_max));
        let rows = self.pool.run(STREAMS, arguments).await?;
        let listed = |row| Ok::<_, Malformed>((rows::stream(row, 0)?, get(row, 2)?));
        Ok(rows.iter().map(listed).collect::<Result<_, _>>()?)
    }

    pub(super) async fn confirm(
        &self,
        owner: Incarnation,
        shards: &[(ShardId, Epoch)],
    ) -> Result<Vec<bool>, Failed> {
        let asked = || shards.iter().map(|(shard, _)| shard_number(*shard));
        let arguments = Args::default().add(owner).array(shards.len(), asked);
        let mut held: Vec<(ShardId, Epoch)> = Vec::with_capacity(shards.len());
        for row in &self.pool.run(CONFIRM, arguments).await? {
            held.push((get(row, 0)?, get(row, 1)?));
        }
        let held: std::collections::HashSet<_> = held.into_iter().collect();
        Ok(shards.iter().map(|claim| held.contains(claim)).collect())
    }

    pub(super) async fn checkpoint(&self, consumer: &str) -> Result<Checkpoint, Failed> {
        let mut checkpoint = Checkpoint::default();
        for row in &self.pool.run(CHECKPOINT, Args::default().add(consumer)).await? {
            checkpoint.advance(get(row, 0)?, get(row, 1)?);
        }
        Ok(checkpoint)
    }

    pub(super) async fn quarantined(&self, records_max: usize) -> Result<Vec<QuarantineRecord>, Failed> {
        let mut records = Vec::new();
        for row in &self.pool.run(QUARANTINED, Args::default().add(limit(records_max))).await? {
            records.extend(rows::quarantine(row, 2, &rows::stream(row, 0)?)?);
        }
        Ok(records)
    }

    /// Reads one row, for stores that may not write.
    pub(super) async fn look(&self) -> Result<(), Failed> {
        self.pool.run(LOOK, Args::default()).await.map(|_| ())
    }

    pub(super) async fn stats(&self) -> Result<StoreStats, Failed> {
        let row = self.pool.run_one(STATS, Args::default()).await?;
        let count = |at| get::<i64>(&row, at).map(|count| count.max(0) as u64);
        Ok(StoreStats {
            events: count(0)?,
            streams: count(1)?,
            snapshots: count(2)?,
            quarantined: count(3)?,
            bytes: Some(count(4)?),
        })
    }
}

/// Reads events that came as one array for each column.
fn events_of_arrays(
    row: &PgRow,
    base: usize,
    stream: &StreamId,
    shard: ShardId,
) -> Result<Vec<RecordedEvent>, Malformed> {
    let mut columns = Vec::with_capacity(EVENT_COLUMNS);
    for at in base..base + EVENT_COLUMNS {
        columns.push(Elements::of(maybe(row, at)?)?);
    }
    let count = columns[0].len();
    let mut events = Vec::with_capacity(count);
    for _ in 0..count {
        // Each column is walked once for each event, in whatever order the event asks for them.
        events.push(rows::event(stream.clone(), shard, |column| columns[column].next())?);
    }
    Ok(events)
}

/// Turns a limit into what the server takes.
fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
