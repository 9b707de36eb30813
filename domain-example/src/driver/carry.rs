//! One transfer from wherever it stands to its end.
//!
//! | the transfer is | what happens |
//! |---|---|
//! | pending | unless both accounts exist with one currency, it is refused; else withdraw, deposit, complete |
//! | pending, and the withdrawal is refused | it is refused: nothing has moved |
//! | pending, and the deposit is refused | it becomes returning, then as below |
//! | returning | the money is given back, then it is refused |
//!
//! Why beginning again is safe: that both accounts exist with one currency never changes once it is true, so a run that
//! finds otherwise knows that no earlier run has withdrawn. A withdrawal and a deposit that were done are found by
//! their ids. A deposit that was refused might be accepted another time, so it is not tried again once the transfer is
//! returning.

use std::future::Future;
use std::time::Duration;

use domain_example::account::{Account, AccountId, AccountRefusal, Deposit, Withdraw};
use domain_example::transfer::{
    CompleteTransfer, RefuseTransfer, ReturnMoney, Transfer, TransferId, TransferRefusal, TransferStatus,
};
use orchestrix::{Consistency, HistoryError, NotAttempted, SendError};
use orchestrix_core::store::{Direction, ReadError, StreamRange};
use orchestrix_core::{Command, CommandId, Handle, Metadata, Version};

use super::Driver;
use super::order::{Order, Step};

/// The first and the longest pause before something that failed is tried again; it doubles in between.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// How often one step is tried: a bit under a minute with the pauses above.
const TRIES: u32 = 30;

/// Events read at once in search of a command.
const PAGE_EVENTS: usize = 256;

/// Why a transfer stays where it is for now.
#[derive(Debug, thiserror::Error)]
enum Halt {
    /// The bank stops. The next start goes on.
    #[error("the bank is stopping")]
    Stopping,
    /// It may work later: the next look at the transfer tries again.
    #[error("{0}")]
    Passing(String),
    /// Somebody has to act first.
    #[error("{0}")]
    Lasting(String),
}

impl From<NotAttempted> for Halt {
    fn from(error: NotAttempted) -> Self {
        match error {
            NotAttempted::ShuttingDown => Self::Stopping,
            NotAttempted::Overloaded { .. }
            | NotAttempted::DeadlineExceeded
            | NotAttempted::NotOwner { .. }
            | NotAttempted::Unavailable { .. } => Self::Passing(error.to_string()),
            _ => Self::Lasting(error.to_string()),
        }
    }
}

impl From<ReadError> for Halt {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable { .. } => Self::Passing(error.to_string()),
            _ => Self::Lasting(error.to_string()),
        }
    }
}

impl From<HistoryError> for Halt {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Read(error) => error.into(),
            _ => Self::Lasting(error.to_string()),
        }
    }
}

/// What an account said to a step.
enum Answer {
    Done,
    /// It was not done, and it will not be by itself.
    NotDone(String),
}

impl Driver {
    /// Takes a transfer to its end, or says in the log why not.
    pub(super) async fn carry_out(&self, id: &TransferId) {
        match self.try_to_carry_out(id).await {
            Ok(()) => {}
            Err(Halt::Stopping) => tracing::debug!(transfer = %id, "left pending for the next start"),
            Err(Halt::Passing(reason)) => {
                tracing::warn!(transfer = %id, reason, "left pending; the next look at it goes on");
            }
            Err(Halt::Lasting(reason)) => {
                tracing::error!(transfer = %id, reason, "a transfer is stuck and needs somebody to look at it");
            }
        }
    }

    async fn try_to_carry_out(&self, id: &TransferId) -> Result<(), Halt> {
        let loaded = self.patiently(|| async { Ok(Order::load(&self.inner.node, id).await?) }).await?;
        let Some(order) = loaded else { return Ok(()) };
        match order.view.status {
            TransferStatus::Completed | TransferStatus::Refused => Ok(()),
            TransferStatus::Returning => self.give_back(&order).await,
            TransferStatus::Pending => self.deliver(&order).await,
        }
    }

    async fn deliver(&self, order: &Order) -> Result<(), Halt> {
        let (from, to, amount) = (&order.view.from, &order.view.to, order.amount);
        if let Some(reason) = self.obstacle(from, to).await? {
            return self.record(order, RefuseTransfer { reason }).await;
        }
        if let Answer::NotDone(reason) = self.step(order, Step::Withdraw, from, Withdraw { amount }).await? {
            return self.record(order, RefuseTransfer { reason: format!("{from}: {reason}") }).await;
        }
        match self.step(order, Step::Deposit, to, Deposit { amount }).await? {
            Answer::Done => self.record(order, CompleteTransfer {}).await,
            Answer::NotDone(reason) => {
                self.record(order, ReturnMoney { reason: format!("{to}: {reason}") }).await?;
                // Read again: the refund's id follows from the event that was just stored.
                Box::pin(self.try_to_carry_out(&order.id)).await
            }
        }
    }

    async fn give_back(&self, order: &Order) -> Result<(), Halt> {
        let (from, amount) = (&order.view.from, order.amount);
        match self.step(order, Step::Refund, from, Deposit { amount }).await? {
            Answer::Done => {
                let reason = order.view.reason.clone().unwrap_or_default();
                self.record(order, RefuseTransfer { reason }).await
            }
            Answer::NotDone(reason) => Err(Halt::Lasting(format!(
                "{from} does not take its {} back: {reason}",
                amount.minor_units()
            ))),
        }
    }

    /// Says why the accounts cannot have a transfer between them, if they cannot.
    async fn obstacle(&self, from: &AccountId, to: &AccountId) -> Result<Option<String>, Halt> {
        let mut currencies = Vec::with_capacity(2);
        for id in [from, to] {
            match self.currency(id).await? {
                Some(currency) => currencies.push(currency),
                None => return Ok(Some(format!("{id}: {}", AccountRefusal::NotFound))),
            }
        }
        let differ = currencies[0] != currencies[1];
        Ok(differ.then(|| format!("{from} keeps {} and {to} keeps {}", currencies[0], currencies[1])))
    }

    async fn currency(&self, id: &AccountId) -> Result<Option<String>, Halt> {
        let account = self.inner.node.of::<Account>(id.clone());
        let view = |account: &Account| account.view().map(|view| view.currency);
        self.patiently(|| async { Ok(account.read(Consistency::Leased, view).await?) }).await
    }

    /// Sends a step's command to an account until it is known what came of it.
    async fn step<C>(&self, order: &Order, step: Step, to: &AccountId, command: C) -> Result<Answer, Halt>
    where
        Account: Handle<C>,
        C: Command<Refusal = AccountRefusal> + Clone + Sync,
    {
        let id = order.command_id(step);
        match self.send::<Account, C>(to.clone(), id, &order.metadata, command).await? {
            Sent::Done => Ok(Answer::Done),
            Sent::Refused(refusal) => Ok(Answer::NotDone(refusal.to_string())),
            // The account will never run this id any more, so its log has the last word.
            Sent::Expired if self.was_done(to, id).await? => Ok(Answer::Done),
            Sent::Expired => Ok(Answer::NotDone(format!("the {step} came too late to be certain of it"))),
        }
    }

    /// Records in the transfer how it goes on. The transfer takes each of these twice, so any fresh id will do.
    async fn record<C>(&self, order: &Order, command: C) -> Result<(), Halt>
    where
        Transfer: Handle<C>,
        C: Command<Refusal = TransferRefusal> + Clone + Sync,
    {
        let sent = self.send::<Transfer, C>(order.id.clone(), CommandId::fresh(), &order.metadata, command);
        match sent.await? {
            Sent::Done => Ok(()),
            Sent::Refused(refusal) => Err(Halt::Lasting(refusal.to_string())),
            Sent::Expired => Err(Halt::Passing("the transfer was too busy".to_owned())),
        }
    }

    async fn send<A, C>(
        &self,
        to: A::Id,
        id: CommandId,
        metadata: &Metadata,
        command: C,
    ) -> Result<Sent<C::Refusal>, Halt>
    where
        A: Handle<C>,
        C: Command + Clone + Sync,
    {
        let to = self.inner.node.of::<A>(to);
        self.patiently(|| async {
            let sending = to.send(command.clone()).id(id).metadata(metadata.clone());
            match sending.receipt().await {
                Ok(_) => Ok(Sent::Done),
                Err(SendError::Refused(refusal)) => Ok(Sent::Refused(refusal)),
                Err(SendError::NotAttempted(NotAttempted::IdExpired { .. })) => Ok(Sent::Expired),
                Err(SendError::NotAttempted(error)) => Err(error.into()),
                Err(SendError::Unknown(error)) => Err(Halt::Passing(error.to_string())),
            }
        })
        .await
    }

    /// Tells whether an account's log has a command, looking from its end to its beginning.
    async fn was_done(&self, account: &AccountId, id: CommandId) -> Result<bool, Halt> {
        let stream = self.inner.node.of::<Account>(account.clone()).stream();
        let mut to = None;
        loop {
            let range = StreamRange {
                to,
                direction: Direction::Backwards,
                ..StreamRange::from(Version::new(1), PAGE_EVENTS)
            };
            let store = self.inner.node.store();
            let page = self.patiently(|| async { Ok(store.read_stream(&stream, range).await?) }).await?;
            if page.iter().any(|event| event.command_id == id) {
                return Ok(true);
            }
            match page.last().map(|event| event.version.get()) {
                Some(version) if version > 1 => to = Some(Version::new(version - 1)),
                _ => return Ok(false),
            }
        }
    }

    /// Does something until it succeeds, fails for good, was tried often enough, or the bank stops.
    async fn patiently<T, F>(&self, work: impl Fn() -> F) -> Result<T, Halt>
    where
        F: Future<Output = Result<T, Halt>>,
    {
        let (mut pause, pause_max) = PAUSES;
        for _ in 1..TRIES {
            if self.inner.stop.is_cancelled() {
                return Err(Halt::Stopping);
            }
            match work().await {
                Err(Halt::Passing(reason)) => tracing::debug!(reason, "a step of a transfer is tried again"),
                settled => return settled,
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.inner.stop.cancelled() => return Err(Halt::Stopping),
            }
            pause = (pause * 2).min(pause_max);
        }
        work().await
    }
}

/// What came of a command.
enum Sent<R> {
    Done,
    Refused(R),
    /// The aggregate does not remember so far back.
    Expired,
}
