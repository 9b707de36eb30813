//! The archive: how reads find what is in it, and how events get there and back.
//!
//! The archive has a stream's second event and those after it, up to some version; the log has the first one and the
//! rest, always with the last. So a read of the log tells whether the archive has something that it lacks: what it
//! finds has a hole, or does not reach the end that was asked for. Only then both are read, in one statement, which
//! sees each event in one of the two also while it is moved. Who reads what is in the log pays nothing.

use orchestrix_core::store::{Direction, ReadError, RecordedEvent, StreamRange, WriteError};
use orchestrix_core::{Seq, ShardId, StreamId, Timestamp, Version};
use serde::Serialize;
use uuid::Uuid;

use super::append::{number, shard_number};
use super::arguments::Args;
use super::error::Failed;
use super::rows::{self, get, maybe};
use super::statements::{Statement, event, statement};
use super::{Inner, Postgres};

/// A page of a stream out of one table. Bound is what the store's own statement binds.
macro_rules! part {
    ($table:literal, $order:literal) => {
        concat!(
            "(SELECT ",
            event!(),
            " FROM orchestrix.",
            $table,
            " AS e WHERE e.shard = $1 AND e.stream = $2 AND e.aggregate_type = $3 AND e.aggregate_id = $4 \
             AND e.version >= $5 AND e.version <= $6 AND e.recorded_at <= $7 ORDER BY e.version ",
            $order,
            " LIMIT $8)"
        )
    };
}

/// A page of a stream out of the log and the archive.
macro_rules! whole_range {
    ($order:literal) => {
        concat!(
            "SELECT * FROM (",
            part!("events", $order),
            " UNION ALL ",
            part!("events_archive", $order),
            ") AS e ORDER BY e.version ",
            $order,
            " LIMIT $8"
        )
    };
}

/// A page of a shard out of one table.
macro_rules! shard_part {
    ($table:literal) => {
        concat!(
            "(SELECT ",
            event!(),
            ", e.aggregate_type, e.aggregate_id FROM orchestrix.",
            $table,
            " AS e WHERE e.shard = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3)"
        )
    };
}

const FORWARDS: Statement = statement("read_stream_and_archive", whole_range!("ASC"));
const BACKWARDS: Statement = statement("read_stream_and_archive_backwards", whole_range!("DESC"));

/// A page of a shard out of the log and the archive.
pub(super) const SHARD: Statement = statement(
    "read_shard_and_archive",
    concat!(
        "SELECT * FROM (",
        shard_part!("events"),
        " UNION ALL ",
        shard_part!("events_archive"),
        ") AS e ORDER BY e.seq LIMIT $3"
    ),
);

/// Snapshots of streams whose second event in the log is old and in the snapshot: the first one stays there.
const CANDIDATES: Statement = statement(
    "archive_candidates",
    "SELECT s.aggregate_type, s.aggregate_id, s.version, s.bytes, s.stream, sha256(s.bytes) \
     FROM orchestrix.snapshots AS s CROSS JOIN LATERAL (SELECT e.version, e.recorded_at FROM orchestrix.events AS e \
     WHERE e.stream = s.stream AND e.version > 1 ORDER BY e.version LIMIT 1) AS f \
     WHERE s.stream > $1 AND f.version <= s.version AND f.recorded_at < $2 ORDER BY s.stream LIMIT $3",
);

const ARCHIVE: Statement = statement(
    "archive_slice",
    "SELECT a.slice, a.events FROM orchestrix.archive_slice($1, $2, $3, $4, $5, $6) AS a",
);

const RESTORE: Statement = statement("restore_slice", "SELECT orchestrix.restore_slice($1)");

/// The slices that are in the archive, the newest first.
const SLICES: Statement = statement(
    "archive_slices",
    "SELECT s.slice, s.shard, s.events FROM orchestrix.archive_slices AS s WHERE s.restored_at IS NULL \
     ORDER BY s.slice DESC",
);

/// Compares a slice with its row, and looks for events that are in the log as well.
const VERIFY: Statement = statement(
    "verify_slice",
    "SELECT a.events = s.events AND a.first_seq = s.first_seq AND a.last_seq = s.last_seq AND a.digest = s.digest, \
     a.events, EXISTS (SELECT 1 FROM orchestrix.events_archive AS o JOIN orchestrix.events AS e \
     ON e.shard = o.shard AND e.seq = o.seq WHERE o.slice = s.slice) \
     FROM orchestrix.archive_slices AS s CROSS JOIN LATERAL orchestrix.archived(s.slice) AS a \
     WHERE s.slice = $1 AND s.restored_at IS NULL",
);

/// Numbers of slices that the archive has events of and no row for: somebody put them there by hand. Steps from number to
/// number in the index.
const STRAYS: Statement = statement(
    "archive_strays",
    "WITH RECURSIVE seen AS ((SELECT e.slice FROM orchestrix.events_archive AS e ORDER BY e.slice LIMIT 1) UNION ALL \
     SELECT (SELECT e.slice FROM orchestrix.events_archive AS e WHERE e.slice > seen.slice ORDER BY e.slice LIMIT 1) \
     FROM seen WHERE seen.slice IS NOT NULL) \
     SELECT count(*) FROM seen WHERE seen.slice IS NOT NULL AND NOT EXISTS (SELECT 1 FROM orchestrix.archive_slices AS s \
     WHERE s.slice = seen.slice AND s.restored_at IS NULL)",
);

/// Returns the statement that reads a range out of the log and the archive.
pub(super) fn range(direction: Direction) -> Statement {
    match direction {
        Direction::Forwards => FORWARDS,
        Direction::Backwards => BACKWARDS,
    }
}

/// Tells whether a page of the log holds all that a range asks for, so that the archive has nothing to add.
pub(super) fn has_all(range: &StreamRange, events: &[RecordedEvent]) -> bool {
    let first = range.from.max(Version::new(1));
    if range.limit == 0 || range.to.is_some_and(|to| to < first) {
        return true;
    }
    // What a moment cuts off may stand before or after what is in the archive.
    if range.until.is_some() {
        return false;
    }
    let (Some(begin), Some(end)) = (events.first(), events.last()) else {
        // The last event of a stream is in the log: without an end to the range, there is nothing.
        return range.to.is_none();
    };
    let steps = events.len() as u64 - 1;
    let is_full = events.len() >= range.limit;
    match range.direction {
        Direction::Forwards => {
            let is_dense = begin.version == first && end.version == begin.version.plus(steps);
            is_dense && (is_full || range.to.is_none_or(|to| to == end.version))
        }
        Direction::Backwards => {
            let is_dense = begin.version == end.version.plus(steps);
            let begins_there = range.to.is_none_or(|to| to == begin.version);
            is_dense && begins_there && (is_full || end.version == first)
        }
    }
}

/// Tells whether the events of a load follow a version without a hole.
pub(super) fn follow(after: Version, events: &[RecordedEvent]) -> bool {
    let last = events.last().map_or(after, |event| event.version);
    last.get() == after.get() + events.len() as u64
}

/// Tells whether a page of a shard has no hole. An empty one has none: the last event of a shard is always in the log.
pub(super) fn is_dense(after: Seq, events: &[RecordedEvent]) -> bool {
    let last = events.last().map_or(after, |event| event.seq);
    last.get() == after.get() + events.len() as u64
}

/// A stream that may have events for the archive, and the snapshot that would stand for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveCandidate {
    /// The stream.
    pub stream: StreamId,
    /// The version of the snapshot.
    pub version: Version,
    /// The snapshot.
    pub bytes: Vec<u8>,
    /// Names it, so that the server knows it again.
    pub covered: Covered,
}

/// A snapshot that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    key: Uuid,
    version: Version,
    digest: Vec<u8>,
}

/// Events that were moved together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ArchiveSlice {
    /// Its number.
    pub slice: u64,
    /// The shard that they belong to.
    pub shard: ShardId,
    /// How many there are.
    pub events: u64,
}

/// How a slice was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceState {
    /// It is what was put there.
    Sound,
    /// It has been restored in between.
    Gone,
    /// It is not what was put there.
    Different {
        /// How many events there are.
        events: u64,
    },
    /// Some of its events are in the log as well.
    Double,
}

/// The archive. A store on PostgreSQL alone has one.
impl Postgres {
    /// Lists streams that may have events older than this for the archive, in the order of their keys, after a
    /// candidate of the page before.
    ///
    /// # Errors
    /// [`ReadError`] when the server does not answer.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn archive_candidates(
        &self,
        after: Option<&Covered>,
        older_than: Timestamp,
        limit: usize,
    ) -> Result<Vec<ArchiveCandidate>, ReadError> {
        let after = after.map_or(Uuid::nil(), |covered| covered.key);
        self.carry(move |inner| async move { Ok(inner.candidates(after, older_than, limit).await?) }).await
    }

    /// Moves up to `events_max` events of a shard into the archive: those that are older than this, in these snapshots,
    /// seen by every consumer, and not the last of their streams. `None` when there are none.
    ///
    /// # Errors
    /// [`WriteError`] when the server does not answer or does not allow it. The slice was moved or not; it may be
    /// repeated.
    ///
    /// # Cancel safety
    /// May be dropped at any point: the slice is moved or not.
    pub async fn archive_slice(
        &self,
        shard: ShardId,
        older_than: Timestamp,
        events_max: u32,
        covered: Vec<Covered>,
    ) -> Result<Option<ArchiveSlice>, WriteError> {
        let moved = self.change(move |inner| async move {
            Ok::<_, WriteError>(inner.archive_slice(shard, older_than, events_max, &covered).await?)
        });
        moved.await
    }

    /// Lists the slices of the archive, the newest first.
    ///
    /// # Errors
    /// [`ReadError`] when the server does not answer.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn archive_slices(&self) -> Result<Vec<ArchiveSlice>, ReadError> {
        self.carry(|inner| async move { Ok(inner.slices().await?) }).await
    }

    /// Compares a slice with what was put there.
    ///
    /// # Errors
    /// [`ReadError`] when the server does not answer.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn verify_slice(&self, slice: u64) -> Result<SliceState, ReadError> {
        self.carry(move |inner| async move { Ok(inner.verify_slice(slice).await?) }).await
    }

    /// Counts slices that the archive has events of and does not know.
    ///
    /// # Errors
    /// [`ReadError`] when the server does not answer.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn archive_strays(&self) -> Result<u64, ReadError> {
        let counted = self.carry(|inner| async move {
            let row = inner.pool.run_one(STRAYS, Args::default()).await?;
            Ok::<_, ReadError>(get::<i64>(&row, 0).map_err(Failed::from)?.max(0) as u64)
        });
        counted.await
    }

    /// Moves a slice back into the log; the newest of a shard comes first. Returns how many events came back.
    ///
    /// # Errors
    /// [`WriteError`] when the server does not answer or refuses: there are newer slices of the shard, or the slice is
    /// not what was put there.
    ///
    /// # Cancel safety
    /// May be dropped at any point: the slice is moved or not.
    pub async fn restore_slice(&self, slice: u64) -> Result<u64, WriteError> {
        let moved = self.change(move |inner| async move {
            let row = inner.pool.run_one(RESTORE, Args::default().add(number(slice))).await?;
            Ok::<_, WriteError>(get::<i64>(&row, 0).map_err(Failed::from)?.max(0) as u64)
        });
        moved.await
    }
}

impl Inner {
    async fn candidates(
        &self,
        after: Uuid,
        older_than: Timestamp,
        limit: usize,
    ) -> Result<Vec<ArchiveCandidate>, Failed> {
        let arguments =
            Args::default().add(after).add(older_than).add(i64::try_from(limit).unwrap_or(i64::MAX));
        let mut candidates = Vec::new();
        for row in &self.pool.run(CANDIDATES, arguments).await? {
            let (version, bytes): (Version, &[u8]) = (get(row, 2)?, get(row, 3)?);
            let digest = get::<&[u8]>(row, 5)?.to_vec();
            candidates.push(ArchiveCandidate {
                stream: rows::stream(row, 0)?,
                version,
                bytes: bytes.to_vec(),
                covered: Covered { key: get(row, 4)?, version, digest },
            });
        }
        Ok(candidates)
    }

    async fn archive_slice(
        &self,
        shard: ShardId,
        older_than: Timestamp,
        events_max: u32,
        covered: &[Covered],
    ) -> Result<Option<ArchiveSlice>, Failed> {
        self.check_shards(&[shard])?;
        let count = covered.len();
        let arguments = Args::default()
            .add(shard_number(shard))
            .add(older_than)
            .add(i32::try_from(events_max).unwrap_or(i32::MAX))
            .array(count, || covered.iter().map(|one| one.key))
            .array(count, || covered.iter().map(|one| number(one.version.get())))
            .array(count, || covered.iter().map(|one| &*one.digest));
        let rows = self.pool.run(ARCHIVE, arguments).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let number = |at| get::<i64>(row, at).map(|number| number.max(0) as u64);
        Ok(Some(ArchiveSlice { slice: number(0)?, shard, events: number(1)? }))
    }

    async fn slices(&self) -> Result<Vec<ArchiveSlice>, Failed> {
        let mut slices = Vec::new();
        for row in &self.pool.run(SLICES, Args::default()).await? {
            let number = |at| get::<i64>(row, at).map(|number| number.max(0) as u64);
            slices.push(ArchiveSlice { slice: number(0)?, shard: get(row, 1)?, events: number(2)? });
        }
        Ok(slices)
    }

    async fn verify_slice(&self, slice: u64) -> Result<SliceState, Failed> {
        let rows = self.pool.run(VERIFY, Args::default().add(number(slice))).await?;
        let Some(row) = rows.first() else { return Ok(SliceState::Gone) };
        let events = get::<i64>(row, 1)?.max(0) as u64;
        // Without events there are no ends to compare, and the comparison answers NULL.
        Ok(match (maybe::<bool>(row, 0)?, get(row, 2)?) {
            (Some(true), false) => SliceState::Sound,
            (Some(true), true) => SliceState::Double,
            _ => SliceState::Different { events },
        })
    }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::{Codec, CommandId, Epoch};

    use super::*;

    fn events(numbers: &[u64]) -> Vec<RecordedEvent> {
        let event = |number: &u64| RecordedEvent {
            stream: StreamId::new("note", "a"),
            version: Version::new(*number),
            shard: ShardId::new(0),
            seq: Seq::new(*number),
            epoch: Epoch::new(1),
            event_type: "noted".into(),
            schema_version: 1,
            codec: Codec::Json,
            command_id: CommandId::from_uuid(Uuid::nil()),
            recorded_at: Timestamp::from_micros(0),
            headers: None,
            receipt: None,
            payload: Vec::new(),
        };
        numbers.iter().map(event).collect()
    }

    fn page(direction: Direction, from: u64, to: Option<u64>) -> StreamRange {
        StreamRange { to: to.map(Version::new), direction, ..StreamRange::from(Version::new(from), 3) }
    }

    #[test]
    fn a_page_forwards_is_whole_when_it_has_no_hole_and_reaches_what_was_asked_for() {
        let asked =
            |from, to, numbers: &[u64]| has_all(&page(Direction::Forwards, from, to), &events(numbers));
        assert!(
            asked(1, None, &[1, 2])
                && asked(0, None, &[1])
                && asked(4, None, &[4, 5, 6])
                && asked(9, None, &[])
        );
        assert!(asked(2, Some(3), &[2, 3]) && asked(2, Some(9), &[2, 3, 4]) && asked(1, Some(0), &[]));
        assert!(!asked(1, None, &[1, 9]) && !asked(2, None, &[9]) && !asked(1, Some(5), &[1]));
        assert!(!asked(2, Some(5), &[]), "the end that was asked for may be in the archive");
        let until =
            StreamRange { until: Some(Timestamp::from_micros(0)), ..page(Direction::Forwards, 1, None) };
        assert!(!has_all(&until, &events(&[1, 2, 3])));
    }

    #[test]
    fn a_page_backwards_is_whole_when_it_has_no_hole_from_its_end_on() {
        let asked =
            |from, to, numbers: &[u64]| has_all(&page(Direction::Backwards, from, to), &events(numbers));
        assert!(asked(2, None, &[9, 8, 7]) && asked(2, None, &[3, 2]) && asked(2, Some(3), &[3, 2]));
        assert!(!asked(2, None, &[9, 8]) && !asked(1, None, &[9, 8, 1]) && !asked(1, Some(5), &[1]));
        assert!(!asked(2, Some(5), &[]) && asked(9, None, &[]));
    }

    #[test]
    fn a_hole_in_a_shard_is_seen_wherever_it_is() {
        let dense = |after, numbers: &[u64]| is_dense(Seq::new(after), &events(numbers));
        assert!(dense(0, &[1, 2, 3]) && dense(7, &[8]) && dense(7, &[]));
        assert!(!dense(0, &[2, 3]) && !dense(0, &[1, 3]));
    }
}
