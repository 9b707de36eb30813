//! JSON, for events, replies and whatever a person may have to read in ten years.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DecodeError, EncodeError, scratch};
use crate::stream::Name;

/// Turns a value into JSON.
///
/// # Errors
/// [`EncodeError`] when the value has no JSON form, for instance a map whose keys are not texts.
pub fn encode<T: Serialize + ?Sized>(what: impl Into<Name>, value: &T) -> Result<Vec<u8>, EncodeError> {
    scratch::with(|buffer| match serde_json::to_writer(&mut *buffer, value) {
        Ok(()) => Ok(buffer.as_slice().to_vec()),
        Err(error) => Err(EncodeError { what: what.into(), reason: error.to_string() }),
    })
}

/// Reads a value from JSON. Trailing bytes are an error.
///
/// # Errors
/// [`DecodeError::Malformed`] with the place and the reason.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes)
        .map_err(|error| DecodeError::Malformed { what: what.to_owned(), reason: error.to_string() })
}
