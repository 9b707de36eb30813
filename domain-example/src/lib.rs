//! A bank, as the domain of an application on Orchestrix looks: rules, and nothing that runs them.
//!
//! There is no I/O here, no clock and no async code, so every rule is tested by values alone. It depends on
//! `orchestrix-core` and serde; the store, the network and the HTTP interface belong to the binary `bank`.
//! Read in this order:
//!
//! 1. [`money`]: amounts and currencies, checked where they enter;
//! 2. [`account`]: the aggregate with its commands, its events and its refusals;
//! 3. [`transfer`]: an order to move money, and what became of it.

pub mod account;
pub mod money;
pub mod transfer;

pub use account::{Account, AccountId};
pub use money::{Amount, Currency};
pub use transfer::{Transfer, TransferId};

/// The rule that the ids of the bank keep: 1 to 128 characters of letters, digits, `-` and `_`.
///
/// It never gets stricter, since the ids of the past stay in the log.
fn check_id(id: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if id.len() <= 128 && id.chars().all(allowed) {
        return Ok(());
    }
    Err("must have 1 to 128 characters of letters, digits, '-' and '_'".to_owned())
}

/// The pages of the guide whose examples need a domain: they are compiled and run with this crate's tests.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../README.md")]
    struct ReadMe;

    #[doc = include_str!("../../docs/guide/aggregate.md")]
    struct WritingAnAggregate;

    #[doc = include_str!("../../docs/guide/evolving-events.md")]
    struct EvolvingEvents;

    #[doc = include_str!("../../docs/guide/embedding.md")]
    struct EmbeddingANode;

    #[doc = include_str!("../../docs/guide/testing.md")]
    struct Testing;
}
