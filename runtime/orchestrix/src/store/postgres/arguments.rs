//! Values to the server, in its binary form: written straight into the buffer of the statement's arguments.
//!
//! An append carries fifteen arrays. Bound element by element through the driver's own types they took 2-3 µs of
//! client an event; written here they take a tenth of that. The form of arrays is that of `array_recv` in PostgreSQL's
//! `arrayfuncs.c`: dimensions, whether there may be nulls, the type of the elements, length and lower bound, and then
//! each element with its length before it.

use orchestrix_core::{CommandId, Incarnation, Timestamp};
use sqlx::Arguments as _;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo, Postgres};
use sqlx::types::Type;
use uuid::Uuid;

use super::key::StreamKey;
use super::moment::Moment;

/// The server's numbers for its types, which never change (`pg_type.dat`).
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
    pub(super) const UUID: u32 = 2950;
    pub(super) const BYTEA_ARRAY: u32 = 1001;
    pub(super) const INT2_ARRAY: u32 = 1005;
    pub(super) const INT4_ARRAY: u32 = 1007;
    pub(super) const TEXT_ARRAY: u32 = 1009;
    pub(super) const INT8_ARRAY: u32 = 1016;
    pub(super) const BOOL_ARRAY: u32 = 1000;
    pub(super) const TIMESTAMPTZ_ARRAY: u32 = 1185;
    pub(super) const UUID_ARRAY: u32 = 2951;
}

/// A value of one of the server's types.
pub(super) trait Element {
    /// The type.
    const OID: u32;
    /// The type of its arrays.
    const ARRAY_OID: u32;
    /// Whether one of them may be NULL.
    const NULLABLE: bool = false;

    /// Writes its bytes; `false` for NULL.
    fn put(&self, buffer: &mut Vec<u8>) -> bool;
}

/// Implements [`Element`] for types whose bytes are an expression.
macro_rules! element {
    ($($type:ty, $oid:ident, $array:ident, |$value:ident| $bytes:expr;)*) => {$(
        impl Element for $type {
            const OID: u32 = oid::$oid;
            const ARRAY_OID: u32 = oid::$array;

            fn put(&self, buffer: &mut Vec<u8>) -> bool {
                let $value = self;
                buffer.extend_from_slice($bytes);
                true
            }
        }
    )*};
}

element! {
    bool, BOOL, BOOL_ARRAY, |value| &[u8::from(*value)];
    i16, INT2, INT2_ARRAY, |value| &value.to_be_bytes();
    i32, INT4, INT4_ARRAY, |value| &value.to_be_bytes();
    i64, INT8, INT8_ARRAY, |value| &value.to_be_bytes();
    &str, TEXT, TEXT_ARRAY, |value| value.as_bytes();
    &[u8], BYTEA, BYTEA_ARRAY, |value| value;
    Moment, TIMESTAMPTZ, TIMESTAMPTZ_ARRAY, |value| &value.0.to_be_bytes();
    Incarnation, UUID, UUID_ARRAY, |value| value.as_uuid().as_bytes();
    CommandId, UUID, UUID_ARRAY, |value| value.as_uuid().as_bytes();
    Uuid, UUID, UUID_ARRAY, |value| value.as_bytes();
    StreamKey, UUID, UUID_ARRAY, |value| &value.0.to_be_bytes();
}

impl Element for Timestamp {
    const OID: u32 = oid::TIMESTAMPTZ;
    const ARRAY_OID: u32 = oid::TIMESTAMPTZ_ARRAY;

    /// Writes the nearest moment that the server knows.
    fn put(&self, buffer: &mut Vec<u8>) -> bool {
        Moment::nearest(*self).put(buffer)
    }
}

impl<T: Element> Element for Option<T> {
    const OID: u32 = T::OID;
    const ARRAY_OID: u32 = T::ARRAY_OID;
    const NULLABLE: bool = true;

    fn put(&self, buffer: &mut Vec<u8>) -> bool {
        self.as_ref().is_some_and(|value| value.put(buffer))
    }
}

/// The arguments of one statement.
#[derive(Clone, Default)]
pub(super) struct Args(PgArguments);

impl Args {
    /// Makes room for so many arguments of so many bytes in all.
    pub(super) fn with_capacity(arguments: usize, bytes: usize) -> Self {
        let mut own = PgArguments::default();
        own.reserve(arguments, bytes);
        Self(own)
    }

    /// Adds one value.
    pub(super) fn add<T: Element>(mut self, value: T) -> Self {
        self.bind(T::OID, |buffer| if value.put(buffer) { IsNull::No } else { IsNull::Yes });
        self
    }

    /// Adds an array of so many values.
    pub(super) fn array<T: Element, I: Iterator<Item = T>>(
        mut self,
        count: usize,
        values: impl Fn() -> I,
    ) -> Self {
        self.bind(T::ARRAY_OID, |buffer| {
            put_array(buffer, count, values());
            IsNull::No
        });
        self
    }

    /// Adds an array of the values of a slice.
    pub(super) fn slice<T: Element + Copy>(self, values: &[T]) -> Self {
        self.array(values.len(), || values.iter().copied())
    }

    fn bind(&mut self, type_oid: u32, write: impl Fn(&mut Vec<u8>) -> IsNull) {
        let added = self.0.add(Raw { type_oid, write });
        added.expect("what is written here always has a binary form below the limit of an append");
    }

    /// Returns them in the driver's form.
    pub(super) fn into_inner(self) -> PgArguments {
        self.0
    }
}

fn put_array<T: Element>(buffer: &mut Vec<u8>, count: usize, values: impl Iterator<Item = T>) {
    let mut number = |number: i32| buffer.extend_from_slice(&number.to_be_bytes());
    number(i32::from(count > 0));
    number(i32::from(T::NULLABLE));
    number(T::OID.cast_signed());
    if count == 0 {
        return;
    }
    number(i32::try_from(count).expect("an append has fewer than 2^31 events"));
    number(1);
    for value in values {
        let at = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        let length = if value.put(buffer) { (buffer.len() - at - 4) as i32 } else { -1 };
        buffer[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Bytes that are written when the driver asks for them.
struct Raw<F> {
    type_oid: u32,
    write: F,
}

impl<F> Type<Postgres> for Raw<F> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(oid::BYTEA))
    }
}

impl<F: Fn(&mut Vec<u8>) -> IsNull> Encode<'_, Postgres> for Raw<F> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok((self.write)(buffer))
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.type_oid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array<T: Element>(values: Vec<T>) -> Vec<u8> {
        let mut buffer = Vec::new();
        put_array(&mut buffer, values.len(), values.into_iter());
        buffer
    }

    #[test]
    fn an_array_has_the_servers_binary_form() {
        assert_eq!(array::<i16>(vec![]), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 21]);
        let two =
            [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 21, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 7, 0, 0, 0, 2, 1, 0];
        assert_eq!(array::<i16>(vec![7, 256]), two);
    }

    #[test]
    fn a_null_has_the_length_minus_one() {
        let bytes = array(vec![Some("ab"), None, Some("")]);
        assert_eq!(bytes[4..8], [0, 0, 0, 1], "there may be nulls");
        assert_eq!(bytes[20..], [0, 0, 0, 2, b'a', b'b', 255, 255, 255, 255, 0, 0, 0, 0]);
    }
}
