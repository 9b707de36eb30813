//! bincode 2, for snapshots, frames and the events that ask for it.
//!
//! Every call has a limit: without one, a corrupt length makes the decoder allocate until the process aborts.

use ::bincode::config::{self, Configuration, Fixint, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use super::{DecodeError, EncodeError, scratch};
use crate::stream::Name;

/// The largest value that is read or written, in bytes: 64 MiB, far above any state that is worth a snapshot.
pub const BYTES_MAX: usize = 64 << 20;

type Standard = Configuration<LittleEndian, Varint, Limit<BYTES_MAX>>;

fn standard() -> Standard {
    config::standard().with_limit::<BYTES_MAX>()
}

/// Turns a value into bincode.
///
/// # Errors
/// [`EncodeError`] when the value is over [`BYTES_MAX`] or has no length up front.
pub fn encode<T: Serialize + ?Sized>(what: impl Into<Name>, value: &T) -> Result<Vec<u8>, EncodeError> {
    scratch::with(|buffer| encode_onto(buffer, what, value).map(|()| buffer.as_slice().to_vec()))
}

/// Writes a value as bincode at the end of a buffer.
pub(crate) fn encode_onto<T: Serialize + ?Sized>(
    buffer: &mut Vec<u8>,
    what: impl Into<Name>,
    value: &T,
) -> Result<(), EncodeError> {
    ::bincode::serde::encode_into_writer(value, Appender(buffer), standard())
        .map_err(|error| EncodeError { what: what.into(), reason: error.to_string() })
}

/// Reads a value from bincode. Bytes left over are an error: they mean another type wrote them.
///
/// # Errors
/// [`DecodeError::Malformed`] with the reason.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, DecodeError> {
    let malformed = |reason: String| DecodeError::Malformed { what: what.to_owned(), reason };
    let (value, read) = ::bincode::serde::decode_from_slice(bytes, standard())
        .map_err(|error| malformed(error.to_string()))?;
    if read == bytes.len() {
        Ok(value)
    } else {
        Err(malformed(format!("{} bytes are left over", bytes.len() - read)))
    }
}

/// Reads a value from the front of bincode, whatever comes after it.
///
/// # Errors
/// [`DecodeError::Malformed`] with the reason.
pub fn decode_front<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, DecodeError> {
    let read = ::bincode::serde::decode_from_slice(bytes, standard());
    let (value, _) =
        read.map_err(|error| DecodeError::Malformed { what: what.to_owned(), reason: error.to_string() })?;
    Ok(value)
}

/// Returns how many bytes a value takes in bincode: a cheap measure of a state's weight.
pub fn size_of<T: Serialize + ?Sized>(value: &T) -> usize {
    let mut counter = Counter(0);
    // A value that cannot be encoded has no snapshot either; what was counted so far is a fair weight for it.
    let _ = ::bincode::serde::encode_into_writer(value, &mut counter, standard());
    counter.0
}

/// Returns a 64-bit fingerprint of a value's bytes, to tell two bodies of one command apart.
///
/// # Errors
/// [`EncodeError`] when the value has no bincode form.
pub fn fingerprint<T: Serialize + ?Sized>(what: &'static str, value: &T) -> Result<u64, EncodeError> {
    let config = config::standard().with_fixed_int_encoding();
    let _: Configuration<LittleEndian, Fixint> = config;
    scratch::with(|buffer| {
        buffer.extend_from_slice(what.as_bytes());
        match ::bincode::serde::encode_into_writer(value, Appender(buffer), config) {
            Ok(()) => Ok(xxh3_64(buffer)),
            Err(error) => Err(EncodeError { what: Name::Borrowed(what), reason: error.to_string() }),
        }
    })
}

struct Counter(usize);

impl ::bincode::enc::write::Writer for &mut Counter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ::bincode::error::EncodeError> {
        self.0 += bytes.len();
        Ok(())
    }
}

struct Appender<'a>(&'a mut Vec<u8>);

impl ::bincode::enc::write::Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ::bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corrupt_length_is_an_error_not_an_abort() {
        let mut bytes = encode("text", "hello").expect("encodes");
        bytes[0] = 253;
        bytes.extend([0xff; 8]);
        assert!(decode::<String>("text", &bytes).is_err());
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let bytes = encode("pair", &(1_u8, 2_u8)).expect("encodes");
        assert!(decode::<u8>("number", &bytes).is_err());
    }

    #[test]
    fn size_and_bytes_agree() {
        let value = (7_u64, "seven", vec![1_u8, 2, 3]);
        assert_eq!(size_of(&value), encode("value", &value).expect("encodes").len());
    }

    #[test]
    fn fingerprints_tell_bodies_and_names_apart() {
        let print = |what, value: u64| fingerprint(what, &value).expect("encodes");
        assert_eq!(print("deposit", 1), print("deposit", 1));
        assert_ne!(print("deposit", 1), print("deposit", 2));
        assert_ne!(print("deposit", 1), print("withdraw", 1));
    }
}
