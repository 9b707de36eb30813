//! What may be asked of an account.
//!
//! Each value is checked when it is made, so a handler never meets a bad amount or name. An unknown field is refused:
//! dropping it could change what the caller meant.

use orchestrix_core::prelude::*;

use super::owner::OwnerName;
use super::refusal::AccountRefusal;
use crate::money::{Amount, Currency};

/// The balance after a command, in minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Balance(pub u64);

/// Opens the account. An id that was ever used stays taken, also after the account is closed.
#[derive(Clone, Debug, PartialEq, Eq, Command, Serialize, Deserialize)]
#[command("account.open", reply = Balance, refusal = AccountRefusal)]
#[serde(deny_unknown_fields)]
pub struct OpenAccount {
    /// Whom the account belongs to.
    pub owner: OwnerName,
    /// What its money is counted in; it never changes.
    pub currency: Currency,
}

/// Puts money into the account.
#[derive(Clone, Debug, PartialEq, Eq, Command, Serialize, Deserialize)]
#[command("account.deposit", reply = Balance, refusal = AccountRefusal)]
#[serde(deny_unknown_fields)]
pub struct Deposit {
    /// How much, in minor units.
    pub amount: Amount,
}

/// Takes money out of the account.
#[derive(Clone, Debug, PartialEq, Eq, Command, Serialize, Deserialize)]
#[command("account.withdraw", reply = Balance, refusal = AccountRefusal)]
#[serde(deny_unknown_fields)]
pub struct Withdraw {
    /// How much, in minor units.
    pub amount: Amount,
}

/// Closes the account for good. It must be empty.
#[derive(Clone, Debug, PartialEq, Eq, Command, Serialize, Deserialize)]
#[command("account.close", reply = Balance, refusal = AccountRefusal)]
#[serde(deny_unknown_fields)]
pub struct CloseAccount {}
