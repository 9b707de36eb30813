//! Amounts and currencies, checked where they enter the bank: in a command.
//!
//! Events and states keep plain numbers and texts. A rule may become stricter one day, and what happened before that
//! day must stay readable.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The largest amount of one command, in minor units.
pub const AMOUNT_MAX: u64 = 1_000_000_000_000_000;

/// The largest balance, in minor units: 2^53 - 1, the largest integer that every reader of JSON keeps exact.
pub const BALANCE_MAX: u64 = (1 << 53) - 1;

const AMOUNT_RULE: &str = "a whole number of minor units from 1 to 1000000000000000";

/// Money to move: a whole number of minor units (cents, for instance) from 1 to 10^15.
///
/// ```
/// use domain_example::Amount;
/// assert_eq!(Amount::new(30)?.minor_units(), 30);
/// assert!(Amount::new(0).is_err());
/// # Ok::<(), domain_example::money::InvalidAmount>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Amount(u64);

/// A number that is no [`Amount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("amount is {0}; give {AMOUNT_RULE}")]
pub struct InvalidAmount(pub u64);

impl Amount {
    /// Checks a number of minor units.
    ///
    /// # Errors
    /// [`InvalidAmount`] when it is 0 or over [`AMOUNT_MAX`].
    pub const fn new(minor_units: u64) -> Result<Self, InvalidAmount> {
        if minor_units == 0 || minor_units > AMOUNT_MAX {
            return Err(InvalidAmount(minor_units));
        }
        Ok(Self(minor_units))
    }

    /// Returns the number of minor units.
    pub const fn minor_units(self) -> u64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(AmountVisitor)
    }
}

/// Reads an amount so that the error for a text, a fraction or a negative number names the rule, too.
struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(AMOUNT_RULE)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Amount, E> {
        Amount::new(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

/// A currency by its ISO 4217 form: three upper-case letters. Whether it exists is not checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(String);

/// A text that is no [`Currency`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("currency is {0:?}; give three upper-case letters such as EUR")]
pub struct InvalidCurrency(pub String);

impl Currency {
    /// Returns the three letters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Currency {
    type Error = InvalidCurrency;

    fn try_from(text: String) -> Result<Self, InvalidCurrency> {
        if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Ok(Self(text));
        }
        Err(InvalidCurrency(text))
    }
}

impl FromStr for Currency {
    type Err = InvalidCurrency;

    fn from_str(text: &str) -> Result<Self, InvalidCurrency> {
        text.to_owned().try_into()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_both_ends_of_its_range() {
        assert!(Amount::new(1).is_ok() && Amount::new(AMOUNT_MAX).is_ok());
        assert_eq!(Amount::new(0), Err(InvalidAmount(0)));
        assert_eq!(Amount::new(AMOUNT_MAX + 1), Err(InvalidAmount(AMOUNT_MAX + 1)));
    }

    #[test]
    fn whatever_is_no_amount_is_refused_with_the_rule() {
        for bad in ["0", "-1", "1.5", "\"30\"", "null", "1000000000000001", "99999999999999999999"] {
            let error = serde_json::from_str::<Amount>(bad).expect_err(bad).to_string();
            assert!(error.contains(AMOUNT_RULE), "{bad}: {error}");
        }
        assert_eq!(serde_json::from_str::<Amount>("30").expect("an amount"), Amount(30));
    }

    #[test]
    fn a_currency_has_three_upper_case_letters() {
        for bad in ["", "eur", "EU", "EURO", "E1R", "ÄÖ"] {
            assert_eq!(bad.parse::<Currency>(), Err(InvalidCurrency(bad.to_owned())));
        }
        let error = serde_json::from_str::<Currency>("\"eur\"").expect_err("lower case").to_string();
        assert!(error.starts_with("currency is \"eur\"; give three upper-case letters"), "{error}");
        assert_eq!("EUR".parse::<Currency>().expect("a currency").as_str(), "EUR");
    }
}
