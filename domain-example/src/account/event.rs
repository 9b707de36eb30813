//! What happens to an account.
//!
//! The fields are plain numbers and texts: they say what was, under the rules of their day. Names and payloads are
//! part of the log for ever; [`super::upcast`] says how a payload may change all the same.

use orchestrix_core::Event;

use super::upcast::v1;

/// A fact about one account.
#[derive(Clone, Debug, PartialEq, Eq, Event)]
pub enum AccountEvent {
    /// The account was opened, with nothing in it.
    #[event("account.opened", version = 2, upcast_from = v1::Opened)]
    Opened {
        /// Whom it belongs to.
        owner: String,
        /// What its money is counted in.
        currency: String,
    },
    /// Money came in.
    #[event("account.deposited")]
    Deposited {
        /// How much, in minor units.
        amount: u64,
    },
    /// Money went out.
    #[event("account.withdrawn")]
    Withdrawn {
        /// How much, in minor units.
        amount: u64,
    },
    /// The account was closed, with nothing in it.
    #[event("account.closed")]
    Closed,
}
