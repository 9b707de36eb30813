//! Why a transfer says no.

use serde::{Deserialize, Serialize};

use crate::account::AccountId;

/// A transfer's refusal of a command. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TransferRefusal {
    /// No such transfer was ever requested. Handling: request it, or correct the id.
    #[error("the transfer does not exist")]
    NotFound,
    /// The id is taken. Handling: choose another id.
    #[error("the transfer exists already")]
    AlreadyExists,
    /// An account cannot pay itself. Handling: correct `from` or `to`.
    #[error("from and to are both {account}; name two accounts")]
    SameAccount {
        /// The account that was named twice.
        account: AccountId,
    },
    /// Its money is on the way back, so it cannot be completed. Handling: request another transfer.
    #[error("the money is on its way back")]
    Returning,
    /// It was refused before, so it cannot be completed. Handling: request another transfer.
    #[error("the transfer was refused already")]
    AlreadyRefused,
    /// It was completed before, so it cannot be refused. Handling: none; the money has arrived.
    #[error("the transfer was completed already")]
    AlreadyCompleted,
}
