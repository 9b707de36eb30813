//! The rules of the bank. No store, no runtime, no clock.

mod model;

use domain_example::Amount;

fn amount(minor_units: u64) -> Amount {
    Amount::new(minor_units).expect("the test gives an amount")
}
