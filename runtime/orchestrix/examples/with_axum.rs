//! A node beside an axum server in one `#[tokio::main]`, and how both stop.
//!
//! Run it with `cargo run --package orchestrix --example with_axum`, then
//! `curl -X POST localhost:8001/accounts/ada/deposit/30`, and stop it with Ctrl-C.
//! An argument is the address to listen on.

mod account;

use account::{Account, AccountId, Deposit};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use orchestrix::store::Memory;
use orchestrix::{Node, NotAttempted, Orchestrix, SendError};
use orchestrix_core::AggregateId;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8001".to_owned());
    let node = Orchestrix::builder().store(Memory::new()).aggregate::<Account>().start().await?;

    // A node is cheap to clone, so it is the state of the router.
    let routes = Router::new().route("/accounts/{id}/deposit/{amount}", post(deposit));
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, routes.with_state(node.clone())).with_graceful_shutdown(told_to_stop()).await?;

    // The server has answered its last request. Now the node finishes, takes its snapshots and closes the store.
    node.shutdown().await;
    println!("stopped");
    Ok(())
}

async fn deposit(
    State(node): State<Node>,
    Path((id, amount)): Path<(String, u64)>,
) -> Result<String, (StatusCode, String)> {
    let id = AccountId::from_key(&id).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    match node.of::<Account>(id).send(Deposit { amount }).await {
        Ok(balance) => Ok(format!("{balance}\n")),
        Err(SendError::NotAttempted(why @ NotAttempted::Overloaded { .. })) => {
            Err((StatusCode::TOO_MANY_REQUESTS, why.to_string()))
        }
        Err(SendError::NotAttempted(why)) => Err((StatusCode::SERVICE_UNAVAILABLE, why.to_string())),
        // The caller may send it again with the id that the message names.
        Err(SendError::Unknown(doubt)) => Err((StatusCode::GATEWAY_TIMEOUT, doubt.to_string())),
        Err(SendError::Refused(never)) => match never {},
    }
}

/// Waits for Ctrl-C, or for the signal with which a service manager stops a service.
async fn told_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened for");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
}
