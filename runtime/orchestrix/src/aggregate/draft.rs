//! What a command decided, in its stored form: between the decision and the state.

use std::sync::Arc;

use orchestrix_core::store::{NewEvent, Receipt};
use orchestrix_core::{CommandId, Context, EncodeError, Event, Name, Timestamp};
use serde::Serialize;

use super::recovery::{encoder_panicked, guarded};

/// Events that were decided and encoded, not yet applied.
pub(crate) struct Draft<E> {
    pub(crate) events: Vec<E>,
    pub(super) stored: Vec<NewEvent>,
    pub(super) headers: Option<Arc<[u8]>>,
    pub(super) receipt: Vec<u8>,
    pub(super) fingerprint: u64,
    pub(super) command_id: CommandId,
    pub(super) at: Timestamp,
}

impl<E: Event> Draft<E> {
    /// Encodes what a command decided, with its reply. An encoder that panics is one that fails.
    pub(crate) fn new<R: Serialize>(
        context: &Context,
        events: Vec<E>,
        fingerprint: u64,
        reply: &R,
    ) -> Result<Self, EncodeError> {
        let encoded = guarded(|| Ok((Receipt::encode_reply(fingerprint, reply)?, Self::store(&events)?)));
        let (receipt, stored) =
            encoded.unwrap_or_else(|words| Err(encoder_panicked("the decision", &words)))?;
        let headers = context.metadata.encode()?.map(Arc::from);
        Ok(Self {
            events,
            stored,
            headers,
            receipt,
            fingerprint,
            command_id: context.command_id,
            at: context.now,
        })
    }

    fn store(events: &[E]) -> Result<Vec<NewEvent>, EncodeError> {
        let mut stored = Vec::with_capacity(events.len());
        for event in events {
            let payload = event.encode()?;
            stored.push(NewEvent {
                event_type: Name::Borrowed(event.event_type()),
                schema_version: event.schema_version(),
                codec: payload.codec,
                payload: payload.bytes,
            });
        }
        Ok(stored)
    }

    /// Returns the size of what is stored.
    pub(super) fn payload_bytes(&self) -> u64 {
        self.stored.iter().map(|event| event.payload.len() as u64).sum()
    }
}
