//! How values become bytes: JSON for what lives for decades, bincode for what can be thrown away.

pub mod bincode;
pub mod json;
pub(crate) mod scratch;

use serde::{Deserialize, Serialize};

use crate::stream::Name;

/// The form of an event's payload. The numbers are part of the log's format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Codec {
    /// JSON text in UTF-8: the default, readable without the program that wrote it.
    #[default]
    Json = 0,
    /// bincode 2 in its standard form: smaller, and readable only by the very same type.
    Bincode = 1,
}

impl Codec {
    /// Returns the number that stands in the log.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Reads the number that stands in the log.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Json),
            1 => Some(Self::Bincode),
            _ => None,
        }
    }
}

/// A value could not be turned into bytes. Nothing was stored.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be encoded: {reason}")]
pub struct EncodeError {
    /// What was to be encoded.
    pub what: Name,
    /// The encoder's own words.
    pub reason: String,
}

/// Stored bytes could not be read back. They stay as they are; the aggregate that needs them is quarantined.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The program knows no event of this type. Handling: run a release that does, or declare it retired.
    #[error("event type {event_type:?} is unknown; known are {known:?}")]
    UnknownType {
        /// The stored name.
        event_type: String,
        /// The names that this program knows.
        known: Vec<&'static str>,
    },
    /// The program knows the type, not this version of its schema. Handling: add an upcaster, or run a newer release.
    #[error("event type {event_type:?} has no schema version {schema_version}; known are {known:?}")]
    UnknownVersion {
        /// The stored name.
        event_type: String,
        /// The stored schema version.
        schema_version: u16,
        /// The versions that this program reads.
        known: Vec<u16>,
    },
    /// The bytes do not fit the type. Handling: find out who wrote them; `inspect` shows them.
    #[error("{what} does not decode: {reason}")]
    Malformed {
        /// What was to be decoded.
        what: String,
        /// The decoder's own words.
        reason: String,
    },
}
