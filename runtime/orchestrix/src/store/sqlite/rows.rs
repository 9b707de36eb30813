//! Values to rows and back: what is bound when events are stored, and what is read when they come out.

use std::sync::Arc;

use orchestrix_core::store::{Commit, NewEvent, QuarantineRecord, RecordedEvent, SnapshotRecord};
use orchestrix_core::{Codec, CommandId, Epoch, Incarnation, StreamId, Timestamp, Version};
use sqlx::encode::Encode;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::types::Type;
use sqlx::{Arguments, Decode, Row};
use uuid::Uuid;

use super::place::{number, shard_and_seq};
use super::plan::Placed;

/// Binds one value.
pub(super) fn bind<'q, T: Encode<'q, Sqlite> + Type<Sqlite>>(arguments: &mut SqliteArguments, value: T) {
    arguments.add(value).expect("numbers, texts and bytes can always be bound");
}

/// Binds the row of a stream.
pub(super) fn bind_stream(arguments: &mut SqliteArguments, stream_number: i64, stream: &StreamId) {
    bind(arguments, stream_number);
    bind(arguments, &*stream.aggregate_type);
    bind(arguments, &*stream.id);
}

/// Binds the row of the event at a place in its commit.
pub(super) fn bind_event(arguments: &mut SqliteArguments, placed: &Placed, commit: &Commit, at: usize) {
    let event: &NewEvent = &commit.events[at];
    let is_last = at + 1 == commit.events.len();
    bind(arguments, placed.position + at as i64);
    bind(arguments, placed.stream);
    bind(arguments, number(commit.expected.get() + at as u64 + 1));
    bind(arguments, number(commit.epoch.get()));
    bind(arguments, &*event.event_type);
    bind(arguments, i64::from(event.schema_version));
    bind(arguments, i64::from(event.codec.as_u8()));
    bind(arguments, &commit.command_id.as_uuid().as_bytes()[..]);
    bind(arguments, commit.recorded_at.as_micros());
    bind(arguments, commit.headers.as_deref());
    bind(arguments, commit.receipt.as_deref().filter(|_| is_last));
    bind(arguments, &*event.payload);
}

/// The columns that [`event`] reads, in its order; the tables are joined by the caller.
macro_rules! event_columns {
    () => {
        "e.pos, e.version, e.epoch, e.event_type, e.schema_version, e.codec, e.command_id, e.recorded_at, \
         e.headers, e.receipt, e.payload"
    };
}
pub(super) use event_columns;

/// A row holds what no writer of this store put there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

impl From<sqlx::Error> for Malformed {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

/// Reads an event whose columns begin at `base`.
pub(super) fn event(row: &SqliteRow, base: usize, stream: StreamId) -> Result<RecordedEvent, Malformed> {
    let (shard, seq) = shard_and_seq(get(row, base)?);
    let codec_number: i64 = get(row, base + 5)?;
    let codec = u8::try_from(codec_number).ok().and_then(Codec::from_u8);
    let codec =
        codec.ok_or_else(|| Malformed(format!("seq {seq} of shard {shard} has codec {codec_number}")))?;
    let schema_version: i64 = get(row, base + 4)?;
    let schema_version = u16::try_from(schema_version)
        .map_err(|_| Malformed(format!("seq {seq} of shard {shard} has schema version {schema_version}")))?;
    Ok(RecordedEvent {
        stream,
        version: version(row, base + 1)?,
        shard,
        seq,
        epoch: Epoch::new(get::<i64>(row, base + 2)?.max(0) as u64),
        event_type: get::<String>(row, base + 3)?.into(),
        schema_version,
        codec,
        command_id: CommandId::from_uuid(uuid(get(row, base + 6)?)?),
        recorded_at: Timestamp::from_micros(get(row, base + 7)?),
        headers: get::<Option<&[u8]>>(row, base + 8)?.map(Arc::from),
        receipt: get(row, base + 9)?,
        payload: get(row, base + 10)?,
    })
}

/// Reads a snapshot from three columns: version, time, bytes.
pub(super) fn snapshot(row: &SqliteRow, columns: [usize; 3]) -> Result<SnapshotRecord, Malformed> {
    let [version_at, taken_at, bytes] = columns;
    Ok(SnapshotRecord {
        version: version(row, version_at)?,
        taken_at: Timestamp::from_micros(get(row, taken_at)?),
        bytes: get(row, bytes)?,
    })
}

/// Reads a quarantine from three columns: reason, command, time.
pub(super) fn quarantine(
    row: &SqliteRow,
    columns: [usize; 3],
    stream: StreamId,
) -> Result<QuarantineRecord, Malformed> {
    let [reason, command_id, since] = columns;
    let command_id: Option<&[u8]> = get(row, command_id)?;
    Ok(QuarantineRecord {
        stream,
        reason: get(row, reason)?,
        command_id: command_id.map(uuid).transpose()?.map(CommandId::from_uuid),
        since: Timestamp::from_micros(get(row, since)?),
    })
}

/// Reads a stream from two columns: type, id.
pub(super) fn stream(row: &SqliteRow, base: usize) -> Result<StreamId, Malformed> {
    Ok(StreamId::new(get::<String>(row, base)?, get::<&str>(row, base + 1)?))
}

/// Reads a version; one below zero cannot be.
pub(super) fn version(row: &SqliteRow, at: usize) -> Result<Version, Malformed> {
    let stored: i64 = get(row, at)?;
    u64::try_from(stored).map(Version::new).map_err(|_| Malformed(format!("a version is {stored}")))
}

/// Reads the run of a node that owns a shard.
pub(super) fn incarnation(row: &SqliteRow, at: usize) -> Result<Option<Incarnation>, Malformed> {
    let bytes: Option<&[u8]> = get(row, at)?;
    Ok(bytes.map(uuid).transpose()?.map(Incarnation::from_uuid))
}

fn uuid(bytes: &[u8]) -> Result<Uuid, Malformed> {
    Uuid::from_slice(bytes).map_err(|error| Malformed(format!("an id is no UUID: {error}")))
}

/// Reads one column.
pub(super) fn get<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(
    row: &'r SqliteRow,
    at: usize,
) -> Result<T, Malformed> {
    Ok(row.try_get(at)?)
}
