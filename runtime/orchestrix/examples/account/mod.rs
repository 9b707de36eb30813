//! The aggregate that the examples share: an account that takes deposits and does not go below zero.
#![allow(dead_code, unreachable_pub, reason = "each example uses its own part")]

use orchestrix_core::prelude::*;

aggregate_id!(
    /// Names an account.
    pub struct AccountId, "account id"
);

/// Makes an id from a text that is known to be good.
pub fn account_id(key: &str) -> AccountId {
    AccountId::from_key(key).expect("a short text without control characters")
}

/// What has happened to an account.
#[derive(Clone, Debug, PartialEq, Event)]
pub enum AccountEvent {
    /// Money came in.
    #[event("account.deposited")]
    Deposited { amount: u64 },
    /// Money went out.
    #[event("account.withdrawn")]
    Withdrawn { amount: u64 },
}

/// What the next decision needs to know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    pub balance: u64,
}

impl Aggregate for Account {
    const TYPE: AggregateType = aggregate_type!("account");
    type Id = AccountId;
    type Event = AccountEvent;

    fn commands(list: &mut impl CommandList<Self>) {
        list.add::<Deposit>().add::<Withdraw>();
    }

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { amount } => self.balance += amount,
            AccountEvent::Withdrawn { amount } => self.balance -= amount,
        }
    }
}

/// Pays money in; answers with the new balance.
#[derive(Clone, Debug, Serialize, Deserialize, Command)]
#[command("account.deposit", reply = u64)]
pub struct Deposit {
    pub amount: u64,
}

impl Handle<Deposit> for Account {
    fn handle(&self, command: &Deposit, _: &Context) -> Decision<Self, Deposit> {
        emit(AccountEvent::Deposited { amount: command.amount }).reply(self.balance + command.amount)
    }
}

/// Pays money out; answers with the new balance.
#[derive(Clone, Debug, Serialize, Deserialize, Command)]
#[command("account.withdraw", reply = u64, refusal = InsufficientFunds)]
pub struct Withdraw {
    pub amount: u64,
}

/// The account does not hold enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("the account holds no more than {balance}")]
pub struct InsufficientFunds {
    pub balance: u64,
}

impl Handle<Withdraw> for Account {
    fn handle(&self, command: &Withdraw, _: &Context) -> Decision<Self, Withdraw> {
        let balance = self.balance;
        let left = balance.checked_sub(command.amount).ok_or(InsufficientFunds { balance })?;
        emit(AccountEvent::Withdrawn { amount: command.amount }).reply(left)
    }
}
