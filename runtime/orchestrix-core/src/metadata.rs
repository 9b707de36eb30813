//! What travels with a command and its events besides their content.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::codec::{DecodeError, EncodeError, json};

/// Where a command came from. Stored with each of its events; empty metadata takes no space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The conversation that the command belongs to; without one, the command's own id stands for it.
    pub correlation_id: Option<Uuid>,
    /// The command or event that led to this command.
    pub causation_id: Option<Uuid>,
    /// The W3C trace context of the caller.
    pub traceparent: Option<Box<str>>,
    /// The application's own headers, in its order.
    pub headers: Vec<(Box<str>, Box<str>)>,
}

impl Metadata {
    /// Tells whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.correlation_id.is_none()
            && self.causation_id.is_none()
            && self.traceparent.is_none()
            && self.headers.is_empty()
    }

    /// Returns the stored form: JSON, or nothing when there is nothing to store.
    ///
    /// # Errors
    /// [`EncodeError`] cannot happen for this type in practice; it is passed on all the same.
    pub fn encode(&self) -> Result<Option<Vec<u8>>, EncodeError> {
        if self.is_empty() { Ok(None) } else { json::encode("metadata", self).map(Some) }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] when the bytes are no metadata.
    pub fn decode(bytes: Option<&[u8]>) -> Result<Self, DecodeError> {
        bytes.map_or_else(|| Ok(Self::default()), |bytes| json::decode("metadata", bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_metadata_takes_no_space() {
        assert_eq!(Metadata::default().encode().expect("encodes"), None);
        assert_eq!(Metadata::decode(None).expect("decodes"), Metadata::default());
    }

    fn any_uuid() -> impl Strategy<Value = Option<Uuid>> {
        any::<Option<u128>>().prop_map(|bits| bits.map(Uuid::from_u128))
    }

    proptest! {
        #[test]
        fn metadata_survives_its_codec(
            correlation_id in any_uuid(),
            causation_id in any_uuid(),
            traceparent in any::<Option<String>>(),
            headers in proptest::collection::vec(any::<(String, String)>(), 0..4),
        ) {
            let metadata = Metadata {
                correlation_id,
                causation_id,
                traceparent: traceparent.map(Into::into),
                headers: headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            };
            let stored = metadata.encode().expect("encodes");
            prop_assert_eq!(stored.is_none(), metadata.is_empty());
            prop_assert_eq!(Metadata::decode(stored.as_deref()).expect("decodes"), metadata);
        }
    }
}
