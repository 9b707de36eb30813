//! Values from the server, in its binary form.

use std::sync::Arc;

use orchestrix_core::store::{QuarantineRecord, RecordedEvent, SnapshotRecord};
use orchestrix_core::{Codec, CommandId, Epoch, Incarnation, Seq, ShardId, StreamId, Timestamp, Version};
use sqlx::postgres::PgRow;
use sqlx::{Row as _, ValueRef as _};
use uuid::Uuid;

use super::moment::Moment;

/// A row holds what no writer of this store put there, or not what the statement asks for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

fn malformed(what: &str) -> Malformed {
    Malformed(format!("the server answered with a malformed {what}"))
}

/// Reads values out of their bytes.
pub(super) trait Value<'r>: Sized {
    /// Reads one; `None` when the bytes are not of this type.
    fn read(bytes: &'r [u8]) -> Option<Self>;
}

/// Implements [`Value`] for numbers.
macro_rules! number {
    ($($type:ty),*) => {$(
        impl Value<'_> for $type {
            fn read(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(<$type>::from_be_bytes)
            }
        }
    )*};
}

number!(i16, i32, i64);

impl<'r> Value<'r> for &'r [u8] {
    fn read(bytes: &'r [u8]) -> Option<Self> {
        Some(bytes)
    }
}

impl<'r> Value<'r> for &'r str {
    fn read(bytes: &'r [u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok()
    }
}

impl Value<'_> for bool {
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first().map(|byte| *byte != 0)
    }
}

impl Value<'_> for Uuid {
    fn read(bytes: &[u8]) -> Option<Self> {
        Self::from_slice(bytes).ok()
    }
}

impl Value<'_> for Moment {
    fn read(bytes: &[u8]) -> Option<Self> {
        i64::read(bytes).map(Self)
    }
}

impl Value<'_> for Timestamp {
    fn read(bytes: &[u8]) -> Option<Self> {
        Moment::read(bytes).map(Moment::timestamp)
    }
}

impl Value<'_> for Version {
    fn read(bytes: &[u8]) -> Option<Self> {
        u64::try_from(i64::read(bytes)?).ok().map(Self::new)
    }
}

impl Value<'_> for Seq {
    fn read(bytes: &[u8]) -> Option<Self> {
        u64::try_from(i64::read(bytes)?).ok().map(Self::new)
    }
}

impl Value<'_> for Epoch {
    fn read(bytes: &[u8]) -> Option<Self> {
        u64::try_from(i64::read(bytes)?).ok().map(Self::new)
    }
}

impl Value<'_> for ShardId {
    fn read(bytes: &[u8]) -> Option<Self> {
        u32::try_from(i32::read(bytes)?).ok().map(Self::new)
    }
}

impl Value<'_> for Incarnation {
    fn read(bytes: &[u8]) -> Option<Self> {
        Uuid::read(bytes).map(Self::from_uuid)
    }
}

/// Reads a column that may be NULL.
pub(super) fn maybe<'r, T: Value<'r>>(row: &'r PgRow, at: usize) -> Result<Option<T>, Malformed> {
    let value = row.try_get_raw(at).map_err(|error| Malformed(error.to_string()))?;
    if value.is_null() {
        return Ok(None);
    }
    let bytes = value.as_bytes().map_err(|error| Malformed(error.to_string()))?;
    T::read(bytes).map(Some).ok_or_else(|| malformed("value"))
}

/// Reads a column that is never NULL.
pub(super) fn get<'r, T: Value<'r>>(row: &'r PgRow, at: usize) -> Result<T, Malformed> {
    maybe(row, at)?.ok_or_else(|| Malformed(format!("column {at} of an answer is NULL")))
}

/// Reads a stream from two columns: type, id.
pub(super) fn stream(row: &PgRow, base: usize) -> Result<StreamId, Malformed> {
    Ok(StreamId::new(get::<&str>(row, base)?.to_owned(), get::<&str>(row, base + 1)?))
}

/// Reads a snapshot from three columns, version, time, bytes; NULL stands for none.
pub(super) fn snapshot(row: &PgRow, base: usize) -> Result<Option<SnapshotRecord>, Malformed> {
    let Some(version) = maybe(row, base)? else { return Ok(None) };
    let (taken_at, bytes) = (get(row, base + 1)?, get::<&[u8]>(row, base + 2)?.to_vec());
    Ok(Some(SnapshotRecord { version, taken_at, bytes }))
}

/// Reads a quarantine from three columns, reason, command, time; NULL stands for none.
pub(super) fn quarantine(
    row: &PgRow,
    base: usize,
    stream: &StreamId,
) -> Result<Option<QuarantineRecord>, Malformed> {
    let Some(reason) = maybe::<&str>(row, base)? else { return Ok(None) };
    let command_id = maybe::<Uuid>(row, base + 1)?.map(CommandId::from_uuid);
    let (stream, reason) = (stream.clone(), reason.to_owned());
    Ok(Some(QuarantineRecord { stream, reason, command_id, since: get(row, base + 2)? }))
}

/// How many columns [`event`] reads.
pub(super) const EVENT_COLUMNS: usize = 11;

/// Reads an event from its columns in the order of [`EVENT`](super::statements).
pub(super) fn event<'r>(
    stream: StreamId,
    shard: ShardId,
    column: impl FnMut(usize) -> Result<Option<&'r [u8]>, Malformed>,
) -> Result<RecordedEvent, Malformed> {
    let mut columns = Columns(column);
    let codec: i16 = columns.get(5)?;
    let codec = u8::try_from(codec).ok().and_then(Codec::from_u8);
    Ok(RecordedEvent {
        stream,
        shard,
        seq: columns.get(0)?,
        version: columns.get(1)?,
        epoch: columns.get(2)?,
        recorded_at: columns.get(3)?,
        schema_version: u16::try_from(columns.get::<i32>(4)?).map_err(|_| malformed("schema version"))?,
        codec: codec.ok_or_else(|| malformed("codec"))?,
        command_id: CommandId::from_uuid(columns.get(6)?),
        event_type: columns.get::<&str>(7)?.to_owned().into(),
        headers: columns.maybe::<&[u8]>(8)?.map(Arc::from),
        receipt: columns.maybe::<&[u8]>(9)?.map(<[u8]>::to_vec),
        payload: columns.get::<&[u8]>(10)?.to_vec(),
    })
}

/// Reads an event from a row whose columns of events begin at `base`.
pub(super) fn event_of_row(
    row: &PgRow,
    base: usize,
    stream: StreamId,
    shard: ShardId,
) -> Result<RecordedEvent, Malformed> {
    event(stream, shard, |column| maybe(row, base + column))
}

struct Columns<F>(F);

impl<'r, F: FnMut(usize) -> Result<Option<&'r [u8]>, Malformed>> Columns<F> {
    fn maybe<T: Value<'r>>(&mut self, column: usize) -> Result<Option<T>, Malformed> {
        let Some(bytes) = (self.0)(column)? else { return Ok(None) };
        T::read(bytes).map(Some).ok_or_else(|| Malformed(format!("column {column} of an event is malformed")))
    }

    fn get<T: Value<'r>>(&mut self, column: usize) -> Result<T, Malformed> {
        self.maybe(column)?.ok_or_else(|| Malformed(format!("column {column} of an event is NULL")))
    }
}

/// Walks over the elements of an array.
pub(super) struct Elements<'r> {
    left: usize,
    rest: &'r [u8],
}

impl<'r> Elements<'r> {
    /// Begins to read an array of one dimension; NULL is one without elements.
    pub(super) fn of(bytes: Option<&'r [u8]>) -> Result<Self, Malformed> {
        let Some(bytes) = bytes else { return Ok(Self { left: 0, rest: &[] }) };
        let number = |at: usize| bytes.get(at..at + 4).and_then(i32::read).ok_or_else(|| malformed("array"));
        match number(0)? {
            0 => Ok(Self { left: 0, rest: &[] }),
            1 => Ok(Self { left: number(12)?.max(0) as usize, rest: &bytes[20..] }),
            _ => Err(malformed("array")),
        }
    }

    /// Returns how many elements are left.
    pub(super) fn len(&self) -> usize {
        self.left
    }

    /// Returns the next element, which may be NULL.
    pub(super) fn next(&mut self) -> Result<Option<&'r [u8]>, Malformed> {
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or_else(|| malformed("array"))?;
        self.left = self.left.saturating_sub(1);
        self.rest = rest;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else { return Ok(None) };
        let (value, rest) = rest.split_at_checked(length).ok_or_else(|| malformed("array"))?;
        self.rest = rest;
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_read_element_by_element() {
        let bytes = [
            0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 21, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 7, 255, 255, 255, 255,
        ];
        let mut elements = Elements::of(Some(&bytes)).expect("an array");
        assert_eq!(elements.len(), 2);
        assert_eq!(elements.next().expect("the first"), Some(&[0, 7][..]));
        assert_eq!(elements.next().expect("the second"), None);
        assert!(elements.next().is_err(), "there is no third");
        assert_eq!(Elements::of(None).expect("NULL").len(), 0);
        assert!(Elements::of(Some(&bytes[..10])).is_err());
    }

    #[test]
    fn what_is_below_zero_is_no_version() {
        assert_eq!(Version::read(&(-1_i64).to_be_bytes()), None);
        assert_eq!(Version::read(&7_i64.to_be_bytes()), Some(Version::new(7)));
        assert_eq!(Version::read(&7_i32.to_be_bytes()), None);
    }
}
