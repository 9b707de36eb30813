//! What happens to a transfer.

use orchestrix_core::Event;

use crate::account::AccountId;

/// A fact about one transfer.
#[derive(Clone, Debug, PartialEq, Eq, Event)]
pub enum TransferEvent {
    /// It was ordered.
    #[event("transfer.requested")]
    Requested {
        /// The account that pays.
        from: AccountId,
        /// The account that is paid.
        to: AccountId,
        /// How much, in minor units.
        amount: u64,
    },
    /// The money cannot arrive, so what was withdrawn goes back.
    #[event("transfer.returning")]
    Returning {
        /// Why, for the person who ordered it.
        reason: String,
    },
    /// The money arrived.
    #[event("transfer.completed")]
    Completed,
    /// It does not happen.
    #[event("transfer.refused")]
    Refused {
        /// Why, for the person who ordered it.
        reason: String,
    },
}

/// Payloads of each released schema, copied from a log. A line here is never edited and never removed.
#[cfg(test)]
mod golden {
    use orchestrix_core::{AggregateId, Decoded, Event, RawEvent};

    use super::*;

    #[test]
    fn what_is_written_today_has_these_bytes_and_is_read_from_them() {
        let account = |id| AccountId::from_key(id).expect("an id");
        let requested = TransferEvent::Requested { from: account("a-1"), to: account("b_2"), amount: 5 };
        let returning = TransferEvent::Returning { reason: "closed".to_owned() };
        let refused = TransferEvent::Refused { reason: "no funds".to_owned() };
        for (event, name, bytes) in [
            (requested, "transfer.requested", r#"{"from":"a-1","to":"b_2","amount":5}"#),
            (returning, "transfer.returning", r#"{"reason":"closed"}"#),
            (TransferEvent::Completed, "transfer.completed", "{}"),
            (refused, "transfer.refused", r#"{"reason":"no funds"}"#),
        ] {
            let payload = event.encode().expect("encodes");
            assert_eq!((event.event_type(), event.schema_version()), (name, 1));
            assert_eq!(String::from_utf8_lossy(&payload.bytes), bytes);
            let (codec, payload) = (payload.codec, bytes.as_bytes());
            let raw = RawEvent { event_type: name, schema_version: 1, codec, payload };
            assert_eq!(TransferEvent::decode(raw).expect("decodes"), Decoded::One(event));
        }
    }
}
