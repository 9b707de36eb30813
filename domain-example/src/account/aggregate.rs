//! The account itself: its state, and its decisions.

use orchestrix_core::prelude::*;

use super::command::{Balance, CloseAccount, Deposit, OpenAccount, Withdraw};
use super::{AccountEvent, AccountId, AccountRefusal};
use crate::money::BALANCE_MAX;

/// The state of one account, as its events made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    status: Option<AccountStatus>,
    owner: String,
    currency: String,
    balance: u64,
}

/// Whether an account may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountStatus {
    /// It takes and gives money.
    Open,
    /// It does neither any more.
    Closed,
}

/// What an account shows to readers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Whom it belongs to.
    pub owner: String,
    /// What its money is counted in.
    pub currency: String,
    /// What it holds, in minor units.
    pub balance: u64,
    /// Whether it may be used.
    pub status: AccountStatus,
}

impl Aggregate for Account {
    const TYPE: AggregateType = aggregate_type!("account");
    type Id = AccountId;
    type Event = AccountEvent;

    fn commands(list: &mut impl CommandList<Self>) {
        list.add::<OpenAccount>().add::<Deposit>().add::<Withdraw>().add::<CloseAccount>();
    }

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { owner, currency } => {
                self.status = Some(AccountStatus::Open);
                self.owner.clone_from(owner);
                self.currency.clone_from(currency);
            }
            // The decisions below rule an overflow out; a log from elsewhere must not stop the replay all the same.
            AccountEvent::Deposited { amount } => self.balance = self.balance.saturating_add(*amount),
            AccountEvent::Withdrawn { amount } => self.balance = self.balance.saturating_sub(*amount),
            AccountEvent::Closed => self.status = Some(AccountStatus::Closed),
        }
    }
}

impl Account {
    /// Returns what the account shows, or `None` when it was never opened.
    pub fn view(&self) -> Option<AccountView> {
        Some(AccountView {
            owner: self.owner.clone(),
            currency: self.currency.clone(),
            balance: self.balance,
            status: self.status?,
        })
    }

    fn require_open(&self) -> Result<(), AccountRefusal> {
        match self.status {
            None => Err(AccountRefusal::NotFound),
            Some(AccountStatus::Closed) => Err(AccountRefusal::Closed),
            Some(AccountStatus::Open) => Ok(()),
        }
    }
}

impl Handle<OpenAccount> for Account {
    fn handle(&self, command: &OpenAccount, _: &Context) -> Decision<Self, OpenAccount> {
        if self.status.is_some() {
            return Err(AccountRefusal::AlreadyExists);
        }
        let (owner, currency) = (command.owner.as_str().to_owned(), command.currency.as_str().to_owned());
        emit(AccountEvent::Opened { owner, currency }).reply(Balance(0))
    }
}

impl Handle<Deposit> for Account {
    fn handle(&self, command: &Deposit, _: &Context) -> Decision<Self, Deposit> {
        self.require_open()?;
        let (balance, amount) = (self.balance, command.amount.minor_units());
        let after = balance
            .checked_add(amount)
            .filter(|after| *after <= BALANCE_MAX)
            .ok_or(AccountRefusal::BalanceTooLarge { balance, amount, max: BALANCE_MAX })?;
        emit(AccountEvent::Deposited { amount }).reply(Balance(after))
    }
}

impl Handle<Withdraw> for Account {
    fn handle(&self, command: &Withdraw, _: &Context) -> Decision<Self, Withdraw> {
        self.require_open()?;
        let (balance, needed) = (self.balance, command.amount.minor_units());
        let left =
            balance.checked_sub(needed).ok_or(AccountRefusal::InsufficientFunds { balance, needed })?;
        emit(AccountEvent::Withdrawn { amount: needed }).reply(Balance(left))
    }
}

impl Handle<CloseAccount> for Account {
    fn handle(&self, _: &CloseAccount, _: &Context) -> Decision<Self, CloseAccount> {
        self.require_open()?;
        if self.balance > 0 {
            return Err(AccountRefusal::NotEmpty { balance: self.balance });
        }
        emit(AccountEvent::Closed).reply(Balance(0))
    }
}
