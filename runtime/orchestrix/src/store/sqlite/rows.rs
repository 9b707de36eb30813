//! Values to rows and back: what is bound when events are stored, and what is read when they come out.

use orchestrix_core::store::{Commit, NewEvent, QuarantineRecord, SnapshotRecord};
use orchestrix_core::{CommandId, Incarnation, StreamId, Timestamp, Version};
use sqlx::encode::Encode;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::types::Type;
use sqlx::{Arguments, Decode, Row};
use uuid::Uuid;

use super::place::number;
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

/// A row holds what no writer of this store put there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

impl From<sqlx::Error> for Malformed {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

/// Reads a snapshot from three columns: version, time, bytes.
pub(super) fn snapshot(row: &SqliteRow, base: usize) -> Result<SnapshotRecord, Malformed> {
    Ok(SnapshotRecord {
        version: version(row, base)?,
        taken_at: Timestamp::from_micros(get(row, base + 1)?),
        bytes: get(row, base + 2)?,
    })
}

/// Reads a quarantine from three columns: reason, command, time.
pub(super) fn quarantine(
    row: &SqliteRow,
    base: usize,
    stream: StreamId,
) -> Result<QuarantineRecord, Malformed> {
    let command_id: Option<&[u8]> = get(row, base + 1)?;
    Ok(QuarantineRecord {
        stream,
        reason: get(row, base)?,
        command_id: command_id.map(uuid).transpose()?.map(CommandId::from_uuid),
        since: Timestamp::from_micros(get(row, base + 2)?),
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
