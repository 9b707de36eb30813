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
