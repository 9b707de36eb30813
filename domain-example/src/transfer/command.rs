//! What may be asked of a transfer.

use orchestrix_core::prelude::*;

use super::aggregate::TransferStatus;
use super::refusal::TransferRefusal;
use crate::account::AccountId;
use crate::money::Amount;

/// Orders a transfer. It is pending until it is completed or refused.
#[derive(Clone, Debug, PartialEq, Eq, Command, Serialize, Deserialize)]
#[command("transfer.request", reply = TransferStatus, refusal = TransferRefusal)]
#[serde(deny_unknown_fields)]
pub struct RequestTransfer {
    /// The account that pays.
    pub from: AccountId,
    /// The account that is paid.
    pub to: AccountId,
    /// How much, in minor units.
    pub amount: Amount,
}

/// Records that the money arrived. Doing so twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Command, Serialize, Deserialize)]
#[command("transfer.complete", reply = TransferStatus, refusal = TransferRefusal)]
#[serde(deny_unknown_fields)]
pub struct CompleteTransfer {}

/// Records that the money cannot arrive and goes back. From here on nobody may try to deliver it: a refusal that is asked
/// for a second time might turn out otherwise, and the money would arrive twice. Doing so twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Command, Serialize, Deserialize)]
#[command("transfer.return", reply = TransferStatus, refusal = TransferRefusal)]
#[serde(deny_unknown_fields)]
pub struct ReturnMoney {
    /// Why, for the person who ordered it.
    pub reason: String,
}

/// Records that the transfer does not happen, and that no money is on its way any more. Doing so twice changes nothing,
/// and the first reason stays.
#[derive(Clone, Debug, PartialEq, Eq, Command, Serialize, Deserialize)]
#[command("transfer.refuse", reply = TransferStatus, refusal = TransferRefusal)]
#[serde(deny_unknown_fields)]
pub struct RefuseTransfer {
    /// Why, for the person who ordered it.
    pub reason: String,
}
