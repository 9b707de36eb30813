//! Events that were decided elsewhere, stored at the version that they were decided on.
//!
//! That is how an import or a data repair writes. Rules belong into commands.
//! Run it with `cargo run --package orchestrix --example save_events`.

mod account;

use account::{Account, AccountEvent, account_id};
use orchestrix::store::Memory;
use orchestrix::{Consistency, Orchestrix, SaveError};
use orchestrix_core::{Metadata, Version};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Orchestrix::builder().store(Memory::new()).aggregate::<Account>().start().await?;
    let account = node.of::<Account>(account_id("ada"));

    // Two events, stored together or not at all, with a note on where they come from.
    let imported = vec![AccountEvent::Deposited { amount: 100 }, AccountEvent::Withdrawn { amount: 30 }];
    let source =
        Metadata { headers: vec![("source".into(), "ledger of 2019".into())], ..Metadata::default() };
    let saved = account.save(Version::ZERO, imported).metadata(source).await?;
    assert_eq!(saved.version, Version::new(2));

    // Somebody who looked at an older version hears about it, and nothing is stored.
    let (balance, seen) = account.read_versioned(Consistency::Leased, |account| account.balance).await?;
    let correction = || vec![AccountEvent::Deposited { amount: 5 }];
    account.save(seen, correction()).await?;
    let late = account.save(seen, correction()).await;
    assert!(matches!(late, Err(SaveError::Conflict { actual, .. }) if actual == seen.next()));

    let now = account.read(Consistency::Leased, |account| account.balance).await?;
    assert_eq!((balance, now), (70, 75));
    println!("imported {balance}, corrected to {now}");
    node.shutdown().await;
    Ok(())
}
