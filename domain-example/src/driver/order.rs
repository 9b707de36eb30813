//! A transfer as its driver needs it, and the ids of the commands that carry it out.

use std::fmt;

use domain_example::Amount;
use domain_example::transfer::{Transfer, TransferId, TransferView};
use orchestrix::{HistoryError, Node};
use orchestrix_core::{Aggregate, CommandId, Metadata, Timestamp, Version};
use uuid::{Builder, Uuid};

/// The event after which the money goes back, by its name in the log.
pub(super) const RETURNING: &str = "transfer.returning";

/// A transfer has at most three events: requested, returning, ended.
const EVENTS_MAX: usize = 16;

/// The commands that carry a transfer out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Takes the money from the account that pays.
    Withdraw,
    /// Brings it to the account that is paid.
    Deposit,
    /// Brings it back.
    Refund,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Withdraw => "withdraw",
            Self::Deposit => "deposit",
            Self::Refund => "refund",
        })
    }
}

/// Makes the id of a step's command from the transfer's id and the moment of the event that calls for the step.
///
/// It is of version 7, so that an account that has forgotten it refuses it instead of running it again. The bits that
/// are random elsewhere are 74 bits of a SHA-1 over transfer and step.
pub(crate) fn step_id(transfer: &TransferId, step: Step, called_for: Timestamp) -> CommandId {
    let name = format!("transfer/{transfer}/{step}");
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
    // Bytes 6 and 8 of the hash are partly overwritten by its own version and variant: take ten others.
    let mut bits = [0_u8; 10];
    bits[..6].copy_from_slice(&hash.as_bytes()[..6]);
    bits[6..].copy_from_slice(&hash.as_bytes()[12..]);
    let millis = u64::try_from(called_for.as_micros() / 1_000).unwrap_or_default();
    CommandId::from_uuid(Builder::from_unix_timestamp_millis(millis, &bits).into_uuid())
}

/// A transfer that was requested.
pub(super) struct Order {
    pub(super) id: TransferId,
    pub(super) view: TransferView,
    pub(super) amount: Amount,
    /// What its steps carry along: they belong to the conversation of the request, and it caused them.
    pub(super) metadata: Metadata,
    requested_at: Timestamp,
    last_at: Timestamp,
}

impl Order {
    /// Reads a transfer from the log; `None` when it was never requested.
    pub(super) async fn load(node: &Node, id: &TransferId) -> Result<Option<Self>, HistoryError> {
        let past = node.of::<Transfer>(id.clone()).history(Version::new(1), EVENTS_MAX).await?;
        let mut state = Transfer::default();
        past.iter().flat_map(|event| &event.events).for_each(|event| state.apply(event));
        let (Some(first), Some(last), Some(view)) = (past.first(), past.last(), state.view().cloned()) else {
            return Ok(None);
        };
        let Ok(amount) = Amount::new(view.amount) else {
            tracing::error!(transfer = %id, amount = view.amount, "a stored transfer has an amount that cannot be");
            return Ok(None);
        };
        let request = *first.recorded.command_id.as_uuid();
        let asked_with = first.recorded.metadata().unwrap_or_default();
        let metadata = Metadata {
            correlation_id: asked_with.correlation_id.or(Some(request)),
            causation_id: Some(request),
            traceparent: asked_with.traceparent,
            headers: Vec::new(),
        };
        let (requested_at, last_at) = (first.recorded.recorded_at, last.recorded.recorded_at);
        Ok(Some(Self { id: id.clone(), view, amount, metadata, requested_at, last_at }))
    }

    /// Returns the id of a step's command. A refund is called for by the event that sends the money back.
    pub(super) fn command_id(&self, step: Step) -> CommandId {
        let called_for = if step == Step::Refund { self.last_at } else { self.requested_at };
        step_id(&self.id, step, called_for)
    }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::AggregateId;

    use super::*;

    fn id(step: Step, transfer: &str) -> CommandId {
        let transfer = TransferId::from_key(transfer).expect("an id");
        step_id(&transfer, step, Timestamp::from_micros(1_700_000_000_123_456))
    }

    #[test]
    fn a_step_has_the_same_id_whenever_it_is_tried() {
        assert_eq!(id(Step::Withdraw, "t-1"), id(Step::Withdraw, "t-1"));
        // Frozen: a new release must find what an old one began.
        assert_eq!(id(Step::Withdraw, "t-1").to_string(), "018bcfe5-687b-7960-a0da-fa7576fc207b");
    }

    #[test]
    fn steps_and_transfers_have_ids_of_their_own() {
        let ids = [id(Step::Withdraw, "t-1"), id(Step::Deposit, "t-1"), id(Step::Withdraw, "t-2")];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
    }

    #[test]
    fn a_step_tells_its_age() {
        let made = id(Step::Refund, "t-1").made_at().expect("version 7");
        assert_eq!(made, Timestamp::from_micros(1_700_000_000_123_000));
    }
}
