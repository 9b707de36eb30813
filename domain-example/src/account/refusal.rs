//! Why an account says no.

use serde::{Deserialize, Serialize};

/// An account's refusal of a command. Nothing was stored, and the same command may be accepted another day.
///
/// The list is meant to be matched in full: whoever presents refusals has to decide about a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AccountRefusal {
    /// No such account was ever opened. Handling: open it, or correct the id.
    #[error("the account does not exist")]
    NotFound,
    /// The id is taken, perhaps by a closed account. Handling: choose another id.
    #[error("the account exists already")]
    AlreadyExists,
    /// The account was closed. Handling: use another account.
    #[error("the account is closed")]
    Closed,
    /// The account holds less than was asked for. Handling: ask for less, or deposit first.
    #[error("the balance is {balance}, and {needed} is needed")]
    InsufficientFunds {
        /// What the account holds, in minor units.
        balance: u64,
        /// What was asked for, in minor units.
        needed: u64,
    },
    /// The deposit would lift the balance over its limit. Handling: deposit less.
    #[error("the balance is {balance}, and a deposit of {amount} would lift it over {max}")]
    BalanceTooLarge {
        /// What the account holds, in minor units.
        balance: u64,
        /// What was to be added, in minor units.
        amount: u64,
        /// The largest balance, in minor units.
        max: u64,
    },
    /// An account is closed only when it is empty. Handling: withdraw the rest first.
    #[error("the account still holds {balance}; withdraw it first")]
    NotEmpty {
        /// What the account holds, in minor units.
        balance: u64,
    },
}
