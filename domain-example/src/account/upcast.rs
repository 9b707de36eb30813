//! The payloads of older releases, frozen, and what they mean today.
//!
//! Nothing in here changes once it is released, and nothing is removed: the log still holds these payloads.

/// Schema version 1.
pub mod v1 {
    use orchestrix_core::Upcast;
    use serde::Deserialize;

    use crate::account::AccountEvent;

    /// `account.opened` from the time when the bank kept euros and nothing else.
    #[derive(Debug, Deserialize)]
    pub struct Opened {
        owner: String,
    }

    impl Upcast<AccountEvent> for Opened {
        fn upcast(self) -> Vec<AccountEvent> {
            vec![AccountEvent::Opened { owner: self.owner, currency: "EUR".to_owned() }]
        }
    }
}

/// Payloads of each released schema, copied from a log. A line here is never edited and never removed.
#[cfg(test)]
mod golden {
    use orchestrix_core::codec::Codec;
    use orchestrix_core::{Decoded, Event, RawEvent};

    use crate::account::AccountEvent;

    fn read(event_type: &str, schema_version: u16, payload: &str) -> Vec<AccountEvent> {
        let raw = RawEvent { event_type, schema_version, codec: Codec::Json, payload: payload.as_bytes() };
        match AccountEvent::decode(raw).expect("a released schema is readable") {
            Decoded::One(event) => vec![event],
            Decoded::Many(events) => events,
        }
    }

    fn opened(owner: &str, currency: &str) -> AccountEvent {
        AccountEvent::Opened { owner: owner.to_owned(), currency: currency.to_owned() }
    }

    #[test]
    fn accounts_of_the_first_release_are_in_euros() {
        assert_eq!(read("account.opened", 1, r#"{"owner":"Ada"}"#), [opened("Ada", "EUR")]);
        assert_eq!(
            read("account.opened", 1, r#"{"owner":"Jos\u00e9 \"Pepe\""}"#),
            [opened("José \"Pepe\"", "EUR")]
        );
    }

    #[test]
    fn what_is_written_today_has_these_bytes_and_is_read_from_them() {
        for (event, name, version, bytes) in [
            (opened("Ada", "SEK"), "account.opened", 2, r#"{"owner":"Ada","currency":"SEK"}"#),
            (AccountEvent::Deposited { amount: 70 }, "account.deposited", 1, r#"{"amount":70}"#),
            (AccountEvent::Withdrawn { amount: 30 }, "account.withdrawn", 1, r#"{"amount":30}"#),
            (AccountEvent::Closed, "account.closed", 1, "{}"),
        ] {
            let payload = event.encode().expect("encodes");
            assert_eq!((event.event_type(), event.schema_version()), (name, version));
            assert_eq!((payload.codec, payload.bytes.as_slice()), (Codec::Json, bytes.as_bytes()));
            assert_eq!(read(name, version, bytes), [event]);
        }
    }

    #[test]
    fn every_schema_that_is_read_has_golden_bytes_here() {
        let schemas: Vec<_> =
            AccountEvent::SCHEMAS.iter().map(|s| (s.event_type, s.schema_version)).collect();
        assert_eq!(
            schemas,
            [
                ("account.closed", 1),
                ("account.deposited", 1),
                ("account.opened", 1),
                ("account.opened", 2),
                ("account.withdrawn", 1)
            ]
        );
    }
}
