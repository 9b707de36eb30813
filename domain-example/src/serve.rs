//! The life of the service: start, serve, stop.
//!
//! A stop goes from the outside in, and each part waits for the one before it: not ready any more, then no new
//! connections, then requests under way, then transfers under way, then the node, which gives its shards to the other
//! nodes of its cluster. Until then it answers them, and they answer for it afterwards. A second signal ends the process
//! at once, which loses nothing that was answered.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use domain_example::{Account, Transfer};
use orchestrix::config::Config;
use orchestrix::{Node, Orchestrix, Settings};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::files;
use crate::http::server::{self, ConnectionLimits};
use crate::http::starting::Door;
use crate::http::{self, Bank};

/// What a shell reports for a process that a signal ended, here for the second one.
const INTERRUPTED: i32 = 130;

/// Serves until a signal comes. Logs and metrics are set up already.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let limits = connection_limits();
    let listener = listen(config.http_addr).await?;
    let address = listener.local_addr()?;
    let (leaving, stop) = (CancellationToken::new(), CancellationToken::new());
    let signals = tokio::spawn(cancel_on_signal(Signals::new()?, leaving.clone()));
    tokio::spawn(stop_after_notice(leaving.clone(), stop.clone(), config.shutdown_notice));
    // The door is there before the bank: whoever comes while it starts hears so.
    let door = Door::default();
    let work = server::serve(listener, door.router(), limits, stop.clone());
    // A server that ends for any other reason ends the service, too.
    let guard = stop.clone().drop_guard();
    let serving = tokio::spawn(async move {
        let _guard = guard;
        work.await;
    });
    let node = tokio::select! {
        started = start(&config) => started.context("the event store could not be opened")?,
        () = leaving.cancelled() => {
            tracing::info!("stopped before the event store was open");
            return Ok(());
        }
    };
    let bank = Bank::new(node.clone(), leaving, stop.clone());
    bank.driver.resume();
    door.open(http::router(bank.clone()));
    let store = node.store().info();
    tracing::info!(
        store = store.name,
        durable = store.durable,
        "the bank is open at http://{address}/openapi.json"
    );
    stop.cancelled().await;
    tracing::info!("stopping: finishing what is under way; a second signal ends the process at once");
    let patience = config.settings.shutdown_timeout / 2;
    let ended = tokio::time::timeout(patience, async {
        let result = serving.await;
        bank.driver.finish().await;
        result
    });
    match ended.await {
        Ok(result) => result.context("the HTTP server failed")?,
        Err(_) => {
            tracing::warn!(?patience, "requests were still under way when the time for a stop was over");
        }
    }
    node.shutdown().await;
    signals.abort();
    tracing::info!("stopped");
    Ok(())
}

fn connection_limits() -> ConnectionLimits {
    let limits = ConnectionLimits::default();
    let connections_max = limits.connections_max.min(files::raise_limit());
    if connections_max < limits.connections_max {
        tracing::warn!(
            connections_max,
            "the limit of open files is low; raise `ulimit -Hn` for more connections"
        );
    }
    ConnectionLimits { connections_max, ..limits }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; set HTTP_ADDR to a free address, for instance 127.0.0.1:8001")
    })
}

async fn start(config: &Config) -> anyhow::Result<Node> {
    let store = config.open_store().await?;
    // The other half is for requests and transfers, so that both together keep to the setting.
    let shutdown_timeout = config.settings.shutdown_timeout / 2;
    let application_version = env!("CARGO_PKG_VERSION").to_owned();
    let settings = Settings { shutdown_timeout, application_version, ..config.settings.clone() };
    let mut builder = Orchestrix::builder().store(store).settings(settings);
    if let Some(replica) = config.replica()? {
        builder = builder.replica(replica);
    }
    if let Some(cluster) = config.cluster.clone() {
        builder = builder.cluster(cluster);
    }
    Ok(builder.aggregate::<Account>().aggregate::<Transfer>().start().await?)
}

/// Goes on serving for a while after the first signal, so that whoever asks `/ready` can send requests elsewhere.
async fn stop_after_notice(leaving: CancellationToken, stop: CancellationToken, notice: Duration) {
    leaving.cancelled().await;
    if !notice.is_zero() {
        tracing::info!(
            ?notice,
            "not ready any more; requests are served until those who send them have noticed"
        );
        tokio::time::sleep(notice).await;
    }
    stop.cancel();
}

/// Cancels `leaving` at the first signal to stop, and ends the process at the second.
async fn cancel_on_signal(mut signals: Signals, leaving: CancellationToken) {
    signals.next().await;
    leaving.cancel();
    signals.next().await;
    tracing::warn!("ended by a second signal");
    std::process::exit(INTERRUPTED);
}

/// The signals that ask the process to stop.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ctrl-C, where there are no signals.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
