//! The rules of the bank, told as given / when / then. No store, no runtime, no clock.

mod account;
mod model;
mod transfer;

use domain_example::{AccountId, Amount};
use orchestrix_core::AggregateId as _;

fn amount(minor_units: u64) -> Amount {
    Amount::new(minor_units).expect("the test gives an amount")
}

fn account_id(id: &str) -> AccountId {
    AccountId::from_key(id).expect("the test gives an id")
}
