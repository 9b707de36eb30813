//! What an aggregate's events must be able to do, and how stored bytes of any release become today's events.

use crate::codec::{Codec, DecodeError, EncodeError};

/// One schema that a program can read: an event's name in the log and the version of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventSchema {
    /// The name in the log, for instance `account.opened`.
    pub event_type: &'static str,
    /// The version of the payload's schema, from 1.
    pub schema_version: u16,
    /// Whether new events are written in this schema; older ones are only read.
    pub current: bool,
}

/// An event in its stored form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The form of the bytes.
    pub codec: Codec,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Payload {
    /// Makes a payload of JSON, the form for events; `what` is the event's name, for the error.
    ///
    /// # Errors
    /// [`EncodeError`] when the value has no JSON form.
    pub fn json<T: serde::Serialize + ?Sized>(what: &'static str, value: &T) -> Result<Self, EncodeError> {
        crate::codec::json::encode(what, value).map(|bytes| Self { codec: Codec::Json, bytes })
    }

    /// Makes a payload of bincode, for the events that ask for it; `what` is the event's name, for the error.
    ///
    /// # Errors
    /// [`EncodeError`] when the value has no bincode form or is over the codec's limit.
    pub fn bincode<T: serde::Serialize + ?Sized>(what: &'static str, value: &T) -> Result<Self, EncodeError> {
        crate::codec::bincode::encode(what, value).map(|bytes| Self { codec: Codec::Bincode, bytes })
    }
}

/// A stored event on its way to a type: what [`Event::decode`] reads.
#[derive(Clone, Copy, Debug)]
pub struct RawEvent<'a> {
    /// The name in the log.
    pub event_type: &'a str,
    /// The version of the payload's schema.
    pub schema_version: u16,
    /// The form of the bytes.
    pub codec: Codec,
    /// The bytes.
    pub payload: &'a [u8],
}

impl RawEvent<'_> {
    /// Decodes the payload as a value of `T`, in whichever codec it was written.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] when the bytes are not a `T`.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, DecodeError> {
        match self.codec {
            Codec::Json => crate::codec::json::decode(self.event_type, self.payload),
            Codec::Bincode => crate::codec::bincode::decode(self.event_type, self.payload),
        }
    }
}

/// What one stored event means today: usually one event, after upcasting perhaps several or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<E> {
    /// The common case, without an allocation.
    One(E),
    /// An old event that means several events, or none, today.
    Many(Vec<E>),
}

impl<E> Decoded<E> {
    /// Calls `each` with every event, in order.
    pub fn for_each(self, mut each: impl FnMut(E)) {
        match self {
            Self::One(event) => each(event),
            Self::Many(events) => events.into_iter().for_each(each),
        }
    }
}

impl<E> From<Vec<E>> for Decoded<E> {
    fn from(events: Vec<E>) -> Self {
        Self::Many(events)
    }
}

/// The events of one aggregate: usually an enum with `#[derive(Event)]`.
///
/// The derive writes what stands here and nothing else; `docs/guide/aggregate.md` shows it written by hand.
/// Obligations: `decode` reads back what `encode` wrote, in every release that ever wrote it; the names and
/// schema versions never change their meaning.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event type",
    note = "add `#[derive(Event)]` and give each variant its name: `#[event(\"account.opened\")]`"
)]
pub trait Event: Sized + Send + 'static {
    /// Every schema that [`decode`](Event::decode) reads, old and new.
    const SCHEMAS: &'static [EventSchema];

    /// Returns the event's name in the log.
    fn event_type(&self) -> &'static str;

    /// Returns the version of the schema that [`encode`](Event::encode) writes.
    fn schema_version(&self) -> u16;

    /// Turns the event into its stored form.
    ///
    /// # Errors
    /// [`EncodeError`] when a field has no stored form; the command that emitted it fails and stores nothing.
    fn encode(&self) -> Result<Payload, EncodeError>;

    /// Reads a stored event of any release.
    ///
    /// # Errors
    /// [`DecodeError`] names the type, the version or the place; the aggregate is quarantined, its bytes untouched.
    fn decode(raw: RawEvent<'_>) -> Result<Decoded<Self>, DecodeError>;
}

/// Turns an old schema's value into today's events: one, several, or none.
///
/// Implemented on the frozen struct of the old schema, which keeps `Deserialize` and never changes again.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what it means as `{E}` today",
    note = "write `impl Upcast<{E}> for {Self}` and return the events that replace it: one, several, or none"
)]
pub trait Upcast<E> {
    /// Returns the events that stand for this one today.
    fn upcast(self) -> Vec<E>;
}

/// Reports a schema that the program does not know, with those that it knows: the last arm of a `decode`.
pub fn unknown<E: Event>(raw: &RawEvent<'_>) -> DecodeError {
    let known: Vec<u16> = E::SCHEMAS
        .iter()
        .filter(|schema| schema.event_type == raw.event_type)
        .map(|schema| schema.schema_version)
        .collect();
    if known.is_empty() {
        let mut known: Vec<&'static str> = E::SCHEMAS.iter().map(|schema| schema.event_type).collect();
        known.dedup();
        return DecodeError::UnknownType { event_type: raw.event_type.to_owned(), known };
    }
    DecodeError::UnknownVersion {
        event_type: raw.event_type.to_owned(),
        schema_version: raw.schema_version,
        known,
    }
}
