//! The transfer itself: its state, and its decisions.

use orchestrix_core::prelude::*;

use super::command::{CompleteTransfer, RefuseTransfer, RequestTransfer, ReturnMoney};
use super::{TransferEvent, TransferId, TransferRefusal};
use crate::account::AccountId;

/// The state of one transfer; empty until it is requested.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    // The default is `None`, whatever is inside: a change of the view's shape has to raise `SNAPSHOT_VERSION`.
    order: Option<TransferView>,
}

/// What became of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferStatus {
    /// It is on its way.
    Pending,
    /// The money could not arrive and is on its way back.
    Returning,
    /// The money arrived.
    Completed,
    /// It does not happen.
    Refused,
}

/// What a transfer shows to readers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferView {
    /// The account that pays.
    pub from: AccountId,
    /// The account that is paid.
    pub to: AccountId,
    /// How much, in minor units.
    pub amount: u64,
    /// What became of it.
    pub status: TransferStatus,
    /// Why it is returned or was refused, if so.
    pub reason: Option<String>,
}

impl Aggregate for Transfer {
    const TYPE: AggregateType = aggregate_type!("transfer");
    type Id = TransferId;
    type Event = TransferEvent;

    fn commands(list: &mut impl CommandList<Self>) {
        list.add::<RequestTransfer>().add::<CompleteTransfer>().add::<ReturnMoney>().add::<RefuseTransfer>();
    }

    fn apply(&mut self, event: &TransferEvent) {
        match event {
            TransferEvent::Requested { from, to, amount } => {
                self.order = Some(TransferView {
                    from: from.clone(),
                    to: to.clone(),
                    amount: *amount,
                    status: TransferStatus::Pending,
                    reason: None,
                });
            }
            TransferEvent::Returning { reason } => {
                self.settle(TransferStatus::Returning, Some(reason.clone()));
            }
            TransferEvent::Completed => self.settle(TransferStatus::Completed, None),
            TransferEvent::Refused { reason } => self.settle(TransferStatus::Refused, Some(reason.clone())),
        }
    }
}

impl Transfer {
    /// Returns what the transfer shows, or `None` when it was never requested.
    pub fn view(&self) -> Option<&TransferView> {
        self.order.as_ref()
    }

    fn settle(&mut self, status: TransferStatus, reason: Option<String>) {
        if let Some(order) = &mut self.order {
            order.status = status;
            order.reason = reason;
        }
    }

    fn status(&self) -> Result<TransferStatus, TransferRefusal> {
        self.order.as_ref().map(|order| order.status).ok_or(TransferRefusal::NotFound)
    }
}

impl Handle<RequestTransfer> for Transfer {
    fn handle(&self, command: &RequestTransfer, _: &Context) -> Decision<Self, RequestTransfer> {
        let RequestTransfer { from, to, amount } = command.clone();
        if self.order.is_some() {
            return Err(TransferRefusal::AlreadyExists);
        }
        if from == to {
            return Err(TransferRefusal::SameAccount { account: from });
        }
        emit(TransferEvent::Requested { from, to, amount: amount.minor_units() })
            .reply(TransferStatus::Pending)
    }
}

impl Handle<CompleteTransfer> for Transfer {
    fn handle(&self, _: &CompleteTransfer, _: &Context) -> Decision<Self, CompleteTransfer> {
        match self.status()? {
            TransferStatus::Pending => emit(TransferEvent::Completed).reply(TransferStatus::Completed),
            TransferStatus::Completed => nothing().reply(TransferStatus::Completed),
            TransferStatus::Returning => Err(TransferRefusal::Returning),
            TransferStatus::Refused => Err(TransferRefusal::AlreadyRefused),
        }
    }
}

impl Handle<ReturnMoney> for Transfer {
    fn handle(&self, command: &ReturnMoney, _: &Context) -> Decision<Self, ReturnMoney> {
        let reason = command.reason.clone();
        match self.status()? {
            TransferStatus::Pending => {
                emit(TransferEvent::Returning { reason }).reply(TransferStatus::Returning)
            }
            TransferStatus::Returning => nothing().reply(TransferStatus::Returning),
            TransferStatus::Completed => Err(TransferRefusal::AlreadyCompleted),
            TransferStatus::Refused => Err(TransferRefusal::AlreadyRefused),
        }
    }
}

impl Handle<RefuseTransfer> for Transfer {
    fn handle(&self, command: &RefuseTransfer, _: &Context) -> Decision<Self, RefuseTransfer> {
        let reason = command.reason.clone();
        match self.status()? {
            TransferStatus::Pending | TransferStatus::Returning => {
                emit(TransferEvent::Refused { reason }).reply(TransferStatus::Refused)
            }
            TransferStatus::Refused => nothing().reply(TransferStatus::Refused),
            TransferStatus::Completed => Err(TransferRefusal::AlreadyCompleted),
        }
    }
}
