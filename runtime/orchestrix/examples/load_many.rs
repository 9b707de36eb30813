//! Reading many aggregates at once, in the order of their ids.
//!
//! Run it with `cargo run --package orchestrix --example load_many`.

mod account;

use account::{Account, Deposit, account_id};
use orchestrix::Orchestrix;
use orchestrix::store::Memory;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Orchestrix::builder().store(Memory::new()).aggregate::<Account>().start().await?;
    let ids: Vec<_> = (1..=1_000).map(|number| account_id(&format!("customer-{number}"))).collect();

    // The tasks send side by side, so their events share appends.
    let mut deposits = tokio::task::JoinSet::new();
    for (amount, id) in (1..).zip(ids.clone()) {
        let account = node.of::<Account>(id);
        deposits.spawn(async move { account.send(Deposit { amount }).await });
    }
    for deposit in deposits.join_all().await {
        deposit?;
    }

    // Each aggregate answers for itself, up to 256 of them at once. One that fails does not fail the others.
    let balances = node.load_many::<Account, _>(ids, |account| account.balance).await;
    let balances: Vec<u64> = balances.into_iter().collect::<Result<_, _>>()?;
    assert_eq!(balances, (1..=1_000).collect::<Vec<u64>>());
    println!("{} accounts hold {}", balances.len(), balances.iter().sum::<u64>());
    node.shutdown().await;
    Ok(())
}
