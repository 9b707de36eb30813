//! The past of an aggregate: its events, and its state at a version or at a time.
//!
//! Run it with `cargo run --package orchestrix --example time_travel`.

mod account;

use account::{Account, AccountEvent, Deposit, Withdraw, account_id};
use orchestrix::store::Memory;
use orchestrix::{HistoryError, Orchestrix};
use orchestrix_core::Version;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Orchestrix::builder().store(Memory::new()).aggregate::<Account>().start().await?;
    let account = node.of::<Account>(account_id("ada"));
    account.send(Deposit { amount: 100 }).await?;
    account.send(Withdraw { amount: 30 }).await?;
    account.send(Deposit { amount: 5 }).await?;

    // What happened, from the first version on, ten events at most.
    let history = account.history(Version::new(1), 10).await?;
    for event in &history {
        let recorded = &event.recorded;
        println!("{} {} {}", recorded.version, recorded.recorded_at, recorded.event_type);
    }
    assert_eq!(history[1].events, [AccountEvent::Withdrawn { amount: 30 }]);

    // The state as it was after the second event.
    let past = account.load_at_version(Version::new(2)).await?;
    assert_eq!((past.state.balance, past.version), (70, Version::new(2)));

    // The state as it was at a moment: with all that was recorded by then.
    let moment = history[2].recorded.recorded_at;
    assert_eq!(account.load_at_time(moment).await?.state.balance, 75);

    // A version that does not exist yet is an error that says how far the aggregate has come.
    let future = account.load_at_version(Version::new(4)).await;
    assert!(matches!(future, Err(HistoryError::FutureVersion { actual, .. }) if actual == Version::new(3)));
    node.shutdown().await;
    Ok(())
}
