//! PostgreSQL's binary forms, written straight into a buffer: what the driver's own types would take several times as
//! long for would be counted against the limit.

use sqlx::Arguments as _;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo, Postgres};
use sqlx::types::Type;

/// Microseconds from 1970 to 2000, where the server begins to count.
const EPOCH_US: i64 = 946_684_800_000_000;

/// A time in the server's count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(pub(crate) i64);

impl Moment {
    /// Turns microseconds since 1970 into the server's count.
    pub(crate) fn of_micros(micros: i64) -> Self {
        Self(micros - EPOCH_US)
    }
}

/// A value in the server's binary form.
pub(crate) trait Value {
    /// The number of its type and of the type of its arrays.
    const OIDS: (u32, u32);

    /// Writes its bytes.
    fn put(&self, buffer: &mut Vec<u8>);
}

/// Implements [`Value`] for types whose bytes are an expression.
macro_rules! value {
    ($($type:ty, $oid:literal, $array:literal, |$value:ident| $bytes:expr;)*) => {$(
        impl Value for $type {
            const OIDS: (u32, u32) = ($oid, $array);

            fn put(&self, buffer: &mut Vec<u8>) {
                let $value = self;
                buffer.extend_from_slice($bytes);
            }
        }
    )*};
}

value! {
    i16, 21, 1005, |value| &value.to_be_bytes();
    i32, 23, 1007, |value| &value.to_be_bytes();
    i64, 20, 1016, |value| &value.to_be_bytes();
    u128, 2950, 2951, |value| &value.to_be_bytes();
    Moment, 1184, 1185, |value| &value.0.to_be_bytes();
    &str, 25, 1009, |value| value.as_bytes();
    &[u8], 17, 1001, |value| value;
}

/// Writes a value with its length before it.
pub(crate) fn put_sized(buffer: &mut Vec<u8>, value: &impl Value) {
    let at = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    value.put(buffer);
    let length = (buffer.len() - at - 4) as i32;
    buffer[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Arguments of a statement.
#[derive(Default)]
pub(crate) struct Args(PgArguments);

impl Args {
    /// Adds an array of one dimension.
    pub(crate) fn array<T: Value, I: ExactSizeIterator<Item = T>>(mut self, values: impl Fn() -> I) -> Self {
        self.bind(T::OIDS.1, |buffer| {
            let values = values();
            for number in [1, 0, T::OIDS.0.cast_signed(), values.len() as i32, 1] {
                buffer.extend_from_slice(&number.to_be_bytes());
            }
            values.for_each(|value| put_sized(buffer, &value));
        });
        self
    }

    fn bind(&mut self, oid: u32, write: impl Fn(&mut Vec<u8>)) {
        self.0.add(Raw { oid, write }).expect("the rows of a batch have a binary form");
    }

    /// Returns them in the driver's form.
    pub(crate) fn into_inner(self) -> PgArguments {
        self.0
    }
}

struct Raw<F> {
    oid: u32,
    write: F,
}

impl<F> Type<Postgres> for Raw<F> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(17))
    }
}

impl<F: Fn(&mut Vec<u8>)> Encode<'_, Postgres> for Raw<F> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        (self.write)(buffer);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.oid)))
    }
}
