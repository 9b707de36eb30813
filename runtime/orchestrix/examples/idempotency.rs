//! A retry is harmless: the command's id is remembered with the reply.
//!
//! Run it with `cargo run --package orchestrix --example idempotency`.

mod account;

use account::{Account, Deposit, account_id};
use orchestrix::store::Memory;
use orchestrix::{Consistency, NotAttempted, Orchestrix, SendError};
use orchestrix_core::CommandId;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Orchestrix::builder().store(Memory::new()).aggregate::<Account>().start().await?;
    let account = node.of::<Account>(account_id("ada"));

    // The caller chooses the id, before the first attempt. A browser sends it as `Idempotency-Key`.
    let id = CommandId::fresh();
    let first = account.send(Deposit { amount: 30 }).id(id).receipt().await?;
    assert!(!first.duplicate);

    // The answer was lost, so the caller tries again. Nothing is deposited twice.
    let retry = account.send(Deposit { amount: 30 }).id(id).receipt().await?;
    assert!(retry.duplicate);
    assert_eq!((retry.reply, retry.version), (first.reply, first.version));
    println!("asked twice, deposited once: {} at version {}", retry.reply, retry.version);

    // The memory is part of the aggregate: it survives when the aggregate leaves memory, and a restart.
    node.passivate::<Account>(&account_id("ada")).await;
    assert!(account.send(Deposit { amount: 30 }).id(id).receipt().await?.duplicate);

    // The same id for something else is a mistake of the caller, and is told so.
    let mistake = account.send(Deposit { amount: 31 }).id(id).await;
    assert!(matches!(mistake, Err(SendError::NotAttempted(NotAttempted::IdReused { .. }))));

    assert_eq!(account.read(Consistency::Leased, |account| account.balance).await?, 30);
    node.shutdown().await;
    Ok(())
}
