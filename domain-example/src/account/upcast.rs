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
