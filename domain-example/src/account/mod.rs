//! An account: it belongs to an owner, keeps money of one currency, and never owes any.
//!
//! [`command`] says what may be asked, [`aggregate`] decides, [`event`] says what happened, [`refusal`] why something
//! did not. [`upcast`] keeps the events of older releases readable.

pub mod aggregate;
pub mod command;
pub mod event;
pub mod owner;
pub mod refusal;
pub mod upcast;

pub use aggregate::{Account, AccountStatus, AccountView};
pub use command::{Balance, CloseAccount, Deposit, OpenAccount, Withdraw};
pub use event::AccountEvent;
pub use owner::{InvalidOwnerName, OwnerName};
pub use refusal::AccountRefusal;

orchestrix_core::aggregate_id!(
    /// Names an account: 1 to 128 characters of letters, digits, `-` and `_`.
    pub struct AccountId, "account id", crate::check_id
);
