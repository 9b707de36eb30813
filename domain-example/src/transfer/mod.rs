//! A transfer: an order to move money between two accounts, and what became of it.
//!
//! It remembers the order and its outcome, and moves nothing itself: whoever drives it withdraws from one account,
//! deposits into the other and then completes the transfer here (or, when the deposit is refused, records that here
//! first, then gives the money back and refuses the transfer), with command ids made from the transfer's id, so that
//! a step done twice counts once. Both accounts must have one currency; an account's currency never changes, so the
//! driver may compare them at any time before.

pub mod aggregate;
pub mod command;
pub mod event;
pub mod refusal;

pub use aggregate::{Transfer, TransferStatus, TransferView};
pub use command::{CompleteTransfer, RefuseTransfer, RequestTransfer, ReturnMoney};
pub use event::TransferEvent;
pub use refusal::TransferRefusal;

orchestrix_core::aggregate_id!(
    /// Names a transfer: 1 to 128 characters of letters, digits, `-` and `_`.
    pub struct TransferId, "transfer id", crate::check_id
);
